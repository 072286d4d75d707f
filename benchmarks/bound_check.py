"""How long do the same splits and alphas take: plain NumPy, the fastest honest NumPy, naive JAX, and this package?

    python benchmarks/bound_check.py [--readme]

8,000 queries, 7 models and the null model, 4,000 calibration queries, 99 alphas; threshold, risk, size and abstention
of every split and alpha. Slow variants run on fewer splits and are extrapolated, which the table says. All agree on the
same splits before anything is timed; rounds are interleaved, and the median round counts. `--readme` puts the table
into the README.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import racer_jax as racer
from racer_jax import reference, reporting, runtime
from racer_jax.steps import pool_steps
from racer_jax.trials import split_masks, split_trials

ALPHAS = tuple(f"{percent / 100:g}" for percent in range(1, 100))
README = Path(__file__).parents[1] / "README.md"
MARKS = ("<!-- bound_check benchmark -->", "<!-- end of benchmark -->")


@dataclass(frozen=True)
class Config:
    """Options of the benchmark."""

    queries: Annotated[int, "number of queries, half of which calibrate"] = 8_000
    models: Annotated[int, "number of models"] = 7
    splits: Annotated[int, "number of splits the times are given for"] = 10_000
    rounds: Annotated[int, "interleaved rounds"] = 5
    readme: Annotated[bool, "put the table into the README"] = False
    output: Annotated[Path, "folder of the results"] = Path("results/benchmarks/bound_check")


class Problem(NamedTuple):
    """A pool of queries without ties."""

    nonconformity: np.ndarray
    correct: np.ndarray
    num_calibration: int


def problem(config: Config) -> Problem:
    """Nonconformity without ties, and models that are right the more often the lower theirs is."""
    rng = np.random.default_rng(0)
    shape = (config.queries, config.models + 1)
    size = shape[0] * shape[1]
    nonconformity = (rng.permutation(size).reshape(shape) / size).astype(np.float32)
    if len(np.unique(nonconformity)) < size:
        raise ValueError(f"float32 has too few numbers for {size} entries without ties")
    correct = rng.random((config.queries, config.models)) > nonconformity[:, :-1]
    return Problem(nonconformity, correct, config.queries // 2)


# --- the variants: each returns risk, size and abstention [s, a] -----------------------------------------------------


def plain_numpy(p: Problem, masks: np.ndarray, alphas: tuple[str, ...]) -> np.ndarray:
    """The reference: one query, one split, one alpha at a time."""
    cells = [[reference.split_metrics(p.nonconformity, p.correct, mask, a) for a in alphas] for mask in masks]
    return np.array([[[c[name] for c in row] for row in cells] for name in ("risk", "size", "abstention")])


class Sorted(NamedTuple):
    """The pool in rank space: what the fastest NumPy works out once."""

    order: np.ndarray
    called: np.ndarray
    called_upto: np.ndarray
    first_called: np.ndarray
    first_upto: np.ndarray
    rank: np.ndarray


def sort_pool(p: Problem) -> Sorted:
    """Sorts queries by critical score, and the entries of all models by the position they act from."""
    truth = np.concatenate([p.correct, ~p.correct.any(1, keepdims=True)], 1)
    critical = np.where(truth, p.nonconformity, np.inf).min(1)
    order = np.argsort(critical, kind="stable")
    first = np.searchsorted(critical[order], p.nonconformity[order, :-1])
    places = np.arange(len(order))
    entries = np.argsort(first.ravel(), kind="stable")
    earliest = first.min(1)
    by_earliest = np.argsort(earliest, kind="stable")
    rank = p.num_calibration - racer.miss_budget(ALPHAS, p.num_calibration)
    return Sorted(
        order,
        (entries // first.shape[1]).astype(np.int32),
        np.searchsorted(first.ravel()[entries], places, side="right"),
        by_earliest.astype(np.int32),
        np.searchsorted(earliest[by_earliest], places, side="right"),
        rank,
    )


def fast_numpy(p: Problem, s: Sorted, masks: np.ndarray) -> np.ndarray:
    """Every alpha of a split from two prefix sums; masks are by position in the sorted pool."""
    num_test = len(p.correct) - p.num_calibration
    results = np.empty((3, len(masks), len(ALPHAS)))
    for i, mask in enumerate(masks):
        position = np.flatnonzero(mask)[s.rank - 1]
        test = ~mask
        results[0, i] = len(mask) - 1 - position - (p.num_calibration - s.rank)
        results[1, i] = np.cumsum(test[s.called], dtype=np.int32)[s.called_upto[position] - 1]
        calling = np.cumsum(test[s.first_called], dtype=np.int32)[s.first_upto[position] - 1]
        results[2, i] = num_test - calling
    return results / num_test


def draw_numpy(rng: np.random.Generator, p: Problem, num: int) -> np.ndarray:
    """Random splits as NumPy draws them."""
    masks = np.zeros((num, len(p.correct)), bool)
    for mask in masks:
        mask[rng.permutation(len(mask))[: p.num_calibration]] = True
    return masks


@partial(jax.jit, static_argnames="num_calibration")
def naive_jax_splits(
    nonconformity: jax.Array, correct: jax.Array, rank: jax.Array, rows: jax.Array, num_calibration: int
) -> jax.Array:
    """What one writes first: for each split sort, threshold, compare every entry with every threshold."""
    truth = jnp.concatenate([correct, ~correct.any(1, keepdims=True)], 1)
    critical = jnp.where(truth, nonconformity, jnp.inf).min(1)

    def one(rows: jax.Array) -> jax.Array:
        threshold = jnp.sort(critical[rows[:num_calibration]])[rank - 1]
        test = rows[num_calibration:]
        inside = nonconformity[test] <= threshold[:, None, None]
        missed = ~(inside & truth[test]).any(-1)
        size = inside[..., :-1].sum(-1)
        return jnp.stack([missed.mean(-1), size.mean(-1), (size == 0).mean(-1)])

    return jnp.moveaxis(jax.vmap(one)(rows), 0, 1)


@partial(jax.jit, static_argnames=("num", "num_splits"))
def permutations(key: jax.Array, num: int, num_splits: int) -> jax.Array:
    """Random splits as JAX draws them."""
    return jax.vmap(lambda k: jax.random.permutation(k, num))(jax.random.split(key, num_splits))


def ours(p: Problem, key: jax.Array, num_splits: int) -> np.ndarray:
    """This package, sorting of the pool included."""
    pool = pool_steps(p.nonconformity, p.correct)
    trials = split_trials(key, pool, num_calibration=p.num_calibration, alpha=ALPHAS, num_trials=num_splits)
    return np.stack(jax.block_until_ready((trials.risk, trials.size, trials.abstention)))


# --- agreement and timing --------------------------------------------------------------------------------------------


def check_agreement(p: Problem, s: Sorted, key: jax.Array) -> None:
    """Raises unless all variants give the same numbers on the same splits."""
    num_splits, num = 6, len(p.correct)
    pool = pool_steps(p.nonconformity, p.correct)
    positions = np.asarray(split_masks(key, jnp.arange(num_splits), num_calibration=p.num_calibration, num_queries=num))
    order = np.asarray(pool.order)
    np.testing.assert_array_equal(order, s.order)
    masks = np.zeros_like(positions)
    masks[:, order] = positions
    expected = ours(p, key, num_splits)
    np.testing.assert_allclose(fast_numpy(p, s, positions), expected, rtol=1e-6, atol=1e-6)
    rows = np.argsort(~masks, axis=1, kind="stable")
    naive = naive_jax_splits(p.nonconformity, p.correct, jnp.asarray(s.rank), rows, p.num_calibration)
    np.testing.assert_allclose(naive, expected, rtol=1e-5, atol=1e-5)
    few = (0, 9, 49)
    plain = plain_numpy(p, masks[:1], tuple(ALPHAS[i] for i in few))
    np.testing.assert_allclose(plain[:, 0], expected[:, 0][:, few], rtol=1e-6, atol=1e-6)


class Variant(NamedTuple):
    """One way to do it."""

    name: str
    run: Callable[[int], object]
    share: float
    note: str


class Timing(NamedTuple):
    """What a variant took, extrapolated to all splits; seconds."""

    name: str
    wall: float
    cpu: float
    first: float
    note: str


def measure(variants: list[Variant], rounds: int) -> list[Timing]:
    """Interleaved rounds after a first call that compiles; medians."""
    first, walls, cpus = {}, {v.name: [] for v in variants}, {v.name: [] for v in variants}
    for variant in variants:
        start = time.perf_counter()
        variant.run(-1)
        first[variant.name] = time.perf_counter() - start
    for i in range(rounds):
        for variant in variants:
            start, cpu = time.perf_counter(), time.process_time()
            variant.run(i)
            walls[variant.name].append((time.perf_counter() - start) / variant.share)
            cpus[variant.name].append((time.process_time() - cpu) / variant.share)
    return [
        Timing(
            v.name,
            median(walls[v.name]),
            median(cpus[v.name]),
            max(0.0, first[v.name] - median(walls[v.name]) * v.share),
            v.note,
        )
        for v in variants
    ]


def seconds(value: float) -> str:
    """Three digits, whatever the size."""
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def main() -> None:
    config = reporting.parse_config(Config, "Times the bound check against NumPy and naive JAX.")
    runtime.use_all_cores()
    p = problem(config)
    s = sort_pool(p)
    key = jax.random.key(0)
    check_agreement(p, s, key)
    few, naive, plain_alphas = 200, 20, 3
    rank = jnp.asarray(s.rank)
    nonconformity, correct = jnp.asarray(p.nonconformity), jnp.asarray(p.correct)

    def run_plain(i: int) -> object:
        masks = draw_numpy(np.random.default_rng(i + 1), p, 1)
        return plain_numpy(p, masks, ALPHAS[i % 50 : i % 50 + plain_alphas])

    def run_fast(i: int) -> object:
        return fast_numpy(p, sort_pool(p), draw_numpy(np.random.default_rng(i + 1), p, few))

    def run_naive(i: int) -> object:
        rows = permutations(jax.random.fold_in(key, i + 1), config.queries, naive)
        return jax.block_until_ready(naive_jax_splits(nonconformity, correct, rank, rows, p.num_calibration))

    def run_ours(i: int) -> object:
        return ours(p, jax.random.fold_in(key, i + 1), config.splits)

    variants = [
        Variant(
            "plain NumPy (`racer_jax.reference`)",
            run_plain,
            plain_alphas / len(ALPHAS) / config.splits,
            f"extrapolated from 1 split x {plain_alphas} alphas a round",
        ),
        Variant(
            "naive JAX: permutation and sort under `vmap`",
            run_naive,
            naive / config.splits,
            f"extrapolated from {naive} splits a round",
        ),
        Variant(
            "fastest NumPy: pool sorted once, prefix sums",
            run_fast,
            few / config.splits,
            f"extrapolated from {few} splits a round",
        ),
        Variant("`racer_jax.trials.split_trials`", run_ours, 1.0, "all splits, sorting of the pool included"),
    ]
    timings = measure(variants, config.rounds)
    best = timings[-1].wall
    header = ["variant", "wall", "CPU", "first call, above a warm one", "times ours", "how"]
    rows = [
        [t.name, seconds(t.wall), seconds(t.cpu), seconds(t.first), f"{t.wall / best:,.1f}", t.note] for t in timings
    ]
    print(reporting.text_table(header, rows))
    environment = reporting.environment()
    title = (
        f"{config.queries:,} queries, {config.models} models, {config.splits:,} splits, {len(ALPHAS)} alphas; "
        f"median of {config.rounds} interleaved rounds, warm; {environment['machine']}, jax {environment['jax']}."
    )
    print(title)

    def write(folder: Path) -> None:
        results = {"config": config, "environment": environment, "timings": timings}
        reporting.write_json(folder / "results.json", results)

    folder = reporting.finish(write, config.output)
    print(f"Written: {folder / 'results.json'}")
    if config.readme:
        text = README.read_text(encoding="utf-8")
        before, rest = text.split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        table = reporting.markdown_table(header, rows)
        README.write_text(f"{before}{MARKS[0]}\n{title}\n\n{table}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
