"""How long do the same splits and alphas take: NumPy, JAX, a C program, and this package?

    python benchmarks/bound_check.py [--workload W1|W2] [--rounds 5] [--form avx2] [--page]

W1: 8,000 queries, 10,000 splits, 99 alphas. W2: 100,000 queries, 1,000 splits, 20 alphas. Half of
them calibrate; 7 models and the null model; risk, size and abstention of every split and alpha. All
agree before anything is timed: deterministic ones count for count on the same splits, those with a
generator of their own with the exact law. Rounds are interleaved and the median counts. Slow
variants run on fewer splits and are extrapolated, which the table says. `--page` puts the table of
W1 into docs/benchmarks.md. `--form` compiles the C program for less than the processor has; XLA is
held back by `XLA_FLAGS=--xla_cpu_max_isa=AVX2`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
from baselines import SPLITS, BestNumpy, Problem, naive_jax, naive_numpy, workload
from harness import ROOT, Counted, report, seconds
from reference_c import Reference, build
from timing import interleaved

from racer_jax import reference, reporting
from racer_jax.montecarlo import plain_splits, trial_runs
from racer_jax.montecarlo.exact import SplitLaw, pool_law
from racer_jax.montecarlo.replay import split_masks
from racer_jax.montecarlo.step_functions import Pool, pool_steps
from racer_jax.montecarlo.trials import Trials, split_trials, stream_trials
from racer_jax.studies import runtime

METRICS = ("risk", "size", "abstention")
PAGE = Path(ROOT) / "docs/benchmarks.md"
MARKS = ("<!-- bound_check benchmark -->", "<!-- end of benchmark -->")
OURS = "`racer_jax.montecarlo.trials.split_trials`"
KERNEL = f"{OURS}, by XLA"
BEST = "best NumPy"


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    workload: Annotated[Literal["W1", "W2"], "which pool, splits and alphas"] = "W1"
    rounds: Annotated[int, "interleaved rounds"] = 5
    form: Annotated[
        Literal["best", "avx2", "avx2-slow-pdep"], "what the C program is compiled for"
    ] = "best"
    page: Annotated[bool, "put the table of W1 into docs/benchmarks.md"] = False


class Variant(NamedTuple):
    """One way to do it: a call, its share of all the work, and what the reader should know."""

    run: Callable[[], Any]
    share: float
    note: str


def trials(
    task: Problem, pool: Pool, num_trials: int, seed: int = 0, num_devices: int | None = None
) -> Trials:
    return split_trials(
        jax.random.key(seed),
        pool,
        num_calibration=task.num_calibration,
        alpha=task.alphas,
        num_trials=num_trials,
        devices=jax.devices()[:num_devices],
    )


def by_xla(*args: Any, **options: Any) -> Trials:
    """`trials` as it runs where there is no C compiler."""
    program, trial_runs.plain_program = trial_runs.plain_program, lambda *_: None
    try:
        return trials(*args, **options)
    finally:
        trial_runs.plain_program = program


def values(done: Trials) -> np.ndarray:
    return np.stack([np.asarray(getattr(done, name)) for name in METRICS])


def on_the_law(name: str, sample: np.ndarray, law: SplitLaw) -> None:
    """Raises unless the means `[3, s, a]` of a sample are those of all splits."""
    for metric, value in zip(METRICS, sample, strict=True):
        error = np.maximum(getattr(law, f"{metric}_std"), 1e-12) / np.sqrt(len(value))
        z = np.abs(value.mean(axis=0, dtype=np.float64) - getattr(law, f"{metric}_mean")) / error
        if z.max() > 6:
            raise ValueError(f"{name}: {metric} is off the exact law, |z| = {z.max():.1f}")


def check_agreement(task: Problem, pool: Pool, best: BestNumpy, c: Reference | None) -> None:
    """Raises unless all give the same numbers."""
    few, num, size = 6, task.num_calibration, pool.num_queries
    ours = values(trials(task, pool, few, seed=5))
    np.testing.assert_array_equal(values(by_xla(task, pool, few, seed=5)), ours)
    masks = np.asarray(
        split_masks(jax.random.key(5), np.arange(few), num_calibration=num, num_queries=size)
    )
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal(np.rint(ours[:, i] * (size - num)), best.counts(mask)[1:])
    by_query = np.zeros(size, bool)
    by_query[pool.order] = masks[0]
    for a in (0, len(task.alphas) // 2) if size <= 10_000 else ():
        plain = reference.split_metrics(task.nonconformity, task.correct, by_query, task.alphas[a])
        np.testing.assert_allclose(ours[:, 0, a], [plain[name] for name in METRICS], rtol=1e-6)
    law = pool_law(pool, num_calibration=num, alpha=task.alphas)
    on_the_law(OURS, values(trials(task, pool, 500, seed=6)), law)
    on_the_law(BEST, best.run(np.random.default_rng(1), 100), law)
    on_the_law("naive NumPy", naive_numpy(task, np.random.default_rng(2), 3), law)
    if size <= 10_000:
        arrays = (task.nonconformity, task.correct, task.ranks)
        on_the_law(
            "naive JAX",
            np.asarray(naive_jax(jax.random.key(3), *arrays, num, 20)).transpose(0, 2, 1),
            law,
        )
    if c is not None:
        on_the_law(c.name, c.run(7, 500, 1), law)


def variants(
    name: str, task: Problem, pool: Pool, best: BestNumpy, c: Reference | None
) -> dict[str, Variant]:
    """All ways to do it, the slow ones first."""
    num_splits, rng = SPLITS[name], np.random.default_rng(0)
    devices = len(jax.devices())
    variants = {
        "naive NumPy": Variant(
            lambda: naive_numpy(task, rng, 1), 1 / num_splits, "1 split a round *"
        )
    }
    if name == "W1":
        mask = np.arange(pool.num_queries) < task.num_calibration
        arrays = jax.device_put((task.nonconformity, task.correct, task.ranks))
        variants["plain NumPy (`racer_jax.reference`)"] = Variant(
            lambda: reference.split_metrics(
                task.nonconformity, task.correct, mask, task.alphas[50]
            ),
            1 / num_splits / len(task.alphas),
            "1 split x 1 alpha a round *",
        )
        variants["naive JAX: permutation and sort under `vmap`"] = Variant(
            lambda: naive_jax(jax.random.key(0), *arrays, task.num_calibration, 20),
            20 / num_splits,
            "20 splits *",
        )
    few = num_splits // 50
    variants[BEST] = Variant(
        lambda: best.run(rng, few), few / num_splits, f"pool sorted before; {few} splits a round *"
    )
    note = "pool sorted before; all splits"
    if devices > 1:
        variants[f"{OURS}, 1 device"] = Variant(
            lambda: trials(task, pool, num_splits, num_devices=1), 1, note
        )
    if jax.default_backend() == "cpu" and plain_splits.program_in_use().startswith("plain splits"):
        variants[KERNEL] = Variant(
            lambda: by_xla(task, pool, num_splits), 1, f"{note}, {devices} devices"
        )
    variants[OURS] = Variant(
        lambda: trials(task, pool, num_splits),
        1,
        f"{note}, {devices} devices",
    )
    variants["`racer_jax.montecarlo.trials.stream_trials`"] = Variant(
        lambda: stream_trials(
            jax.random.key(0),
            pool,
            num_calibration=task.num_calibration,
            alpha=task.alphas,
            num_trials=10 * num_splits,
        ),
        10,
        "summaries alone; ten times as many splits *",
    )
    variants["`racer_jax.montecarlo.exact.pool_law`"] = Variant(
        lambda: pool_law(pool, num_calibration=task.num_calibration, alpha=task.alphas),
        1,
        "exact law: no splits at all",
    )
    variants["`racer_jax.montecarlo.step_functions.pool_steps`"] = Variant(
        lambda: pool_steps(task.nonconformity, task.correct), 1, "sorting the pool, once"
    )
    if c is not None:
        for threads in sorted({1, os.cpu_count() or 1}):
            variants[f"{c.name}, {threads} thread{'s' * (threads > 1)}"] = Variant(
                lambda threads=threads: c.run(0, num_splits, threads),
                1,
                "what is attainable; all splits",
            )
    return variants


def main() -> None:
    config = reporting.parse_config(Config, "Times the bound check against NumPy, JAX and C.")
    if (options := plain_splits.compiler_options()) is not None and config.form != "best":
        narrow = [x for x in options if "avx512" not in x and x != "-mprefer-vector-width=512"]
        if config.form == "avx2-slow-pdep":
            narrow.remove("-DFAST_PDEP")
        plain_splits.compiler_options = lambda: tuple(narrow)
    runtime.use_all_cores()
    task = workload(config.workload)
    pool = pool_steps(task.nonconformity, task.correct).only(*METRICS)
    best, c = BestNumpy(task, pool), build(pool, task)
    check_agreement(task, pool, best, c)
    ways = variants(config.workload, task, pool, best, c)
    slow = {key: way.run for key, way in ways.items() if "naive" in key or "plain" in key}
    measured = interleaved(slow, min(config.rounds, 2))
    measured |= interleaved(
        {key: way.run for key, way in ways.items() if key not in slow}, config.rounds
    )
    timings = {key: measured[key].times(1 / way.share) for key, way in ways.items()}
    ours = timings[OURS]
    header = ["variant", "wall", "CPU", "first call, above a warm one", "times ours", "how"]
    rows = [
        [
            key,
            seconds(timings[key].wall),
            seconds(timings[key].cpu),
            seconds(max(measured[key].first - measured[key].wall, 0.0)),
            f"{timings[key].wall / ours.wall:,.3g}",
            way.note,
        ]
        for key, way in ways.items()
    ]
    size, models = task.correct.shape
    title = (
        f"{size:,} queries, {models} models, {SPLITS[config.workload]:,} splits, "
        f"{len(task.alphas)} alphas; median of "
        f"{config.rounds} interleaved rounds, warm (* extrapolated);"
    )
    results = {
        "workload": config.workload,
        "timings": timings,
        "first": {key: t.first for key, t in measured.items()},
    }
    table = report(f"bound_check_{config.workload}", title, header, rows, results)
    if config.page and config.workload == "W1":
        text = PAGE.read_text(encoding="utf-8")
        before, rest = text.split(MARKS[0])
        PAGE.write_text(
            f"{before}{MARKS[0]}\n{table}{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
