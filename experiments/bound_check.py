"""Checks RACER's risk bounds over thousands of random calibration/test splits and a hundred alphas.

    python experiments/bound_check.py                          # the embedded simulated pool
    python experiments/bound_check.py --data TABLE             # anything that `load` reads
    python experiments/bound_check.py --data TABLE --scores FILE.csv     # your router's scores
    python experiments/bound_check.py --nonconformity J,static           # orders of the models
    python experiments/bound_check.py --loss regret            # the calibrated stop of a chain

`--data` trains a k-NN router over hashed n-grams on a part of the questions (RouterDC's files bring
theirs); an `.npz` of scores [n, m] and correct [n, m] needs no table.

Each pool is split at random again and again. Every split calibrates a threshold for every alpha and
measures the test part. The mean test risk must lie within the paper's bounds and on the exact law,
up to Monte Carlo error; the exit status is 1 where it does not.
"""

import gc
import math
import os
import sys
import time

START = time.perf_counter()  # before the imports, which are part of what a user waits for
gc.disable()  # what is imported stays: to look through it again and again takes a tenth of the time

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any, Literal

import jax

from racer_jax.core.nonconformity import NONCONFORMITIES, NullMode
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.core.threefry import folded, halves, seeded
from racer_jax.data.typed_options import typed_options
from racer_jax.montecarlo.bound_check import BoundCheck, BoundSpec, check_bounds_broken
from racer_jax.montecarlo.common_size import PlanSize, plan_size
from racer_jax.montecarlo.measured_splits import Progress
from racer_jax.studies import runtime
from racer_jax.studies.bound_report import Result, report
from racer_jax.studies.bound_runs import check_any
from racer_jax.studies.checked_pools import (
    STOP_LOSSES,
    AnyPool,
    StopPool,
    of_pool,
    score_names,
    scored,
)
from racer_jax.studies.runner import run_experiment
from racer_jax.studies.scored_pools import simulated_pools

gc.freeze()
gc.enable()

# A broken run shows itself at once, and goes through the plain functions, a split at a time.
MOST_BROKEN_SPLITS = 100


@dataclass(frozen=True)
class Config:
    """Options of the check."""

    data: Annotated[
        Path | None,
        "RouterDC's folder, or any file or folder that load reads; the simulated pool when not "
        "given",
    ] = None
    scores: Annotated[
        Path | None,
        "scores of your router: an .npz file with scores and correct [n, m]; or .npz, .npy or .csv "
        "with scores alone, the labels being those of --data",
    ] = None
    loss: Annotated[
        Literal["miss", "grade", "shortfall", "regret", "differs", "wrong"],
        "what is bounded: a miss; 1 - the best grade called, or its shortfall from the best of the "
        "pool (graded data); or what a calibrated stop may incur (data with answers)",
    ] = "miss"
    alphas: Annotated[str, "risk levels, listed or first:last:step"] = "0.01:0.99:0.01"
    splits: Annotated[int, "number of random splits"] = 10_000
    calibration: Annotated[float, "share of each pool that calibrates"] = 0.5
    validation: Annotated[
        float, "share set aside in each split, for choices that must not see the test part"
    ] = 0.0
    seed: Annotated[int, "seed of the simulated pool, the tie-break and the splits"] = 0
    nonconformity: Annotated[
        str,
        "nonconformity scores, listed: gap, inverse_probability (both: these two), J, static, "
        "J_learned, or module:function, a function of scores and null mode",
    ] = "both"
    null: Annotated[NullMode, "null mode"] = "paper"
    tie_break: Annotated[bool, "break ties exactly, which the lower bound and the law need"] = True
    label_rule: Annotated[
        str | None, "when a graded score counts as right, e.g. 'score > 0.5' (--data)"
    ] = None
    missing: Annotated[
        Literal["error", "drop"], "what becomes of queries that lack a model's result (--data)"
    ] = "error"
    reading: Annotated[
        str,
        "further options of the reader as one word, such as '--format wide_csv --models a,b' "
        "(--data)",
    ] = ""
    train: Annotated[
        float, "share of the questions that router, orders or policy learn on (--data in one part)"
    ] = 0.4
    quality: Annotated[Literal["weak", "fair", "strong"], "router of the simulated pool"] = "fair"
    neighbors: Annotated[int, "neighbours of the k-NN router (--data)"] = 100
    significance: Annotated[
        float, "chance of a false alarm in the whole run, all cells together"
    ] = 0.001
    broken: Annotated[
        bool, "break exchangeability (test scores from a stale router): it must FAIL"
    ] = False
    exact: Annotated[
        bool,
        "the exact laws alone, without random splits; of graded losses, which have none, the means "
        "over all splits of a small pool",
    ] = False
    processes: Annotated[
        int, "processes on this machine; 0: those of the cluster (Slurm, Cloud TPU)"
    ] = 1
    output: Annotated[Path, "folder of the results"] = Path("results/bound_check")
    cache: Annotated[
        Path | None, "folder that keeps compiled code from run to run; by default the user's cache"
    ] = None

    @cached_property
    def levels(self) -> tuple[str, ...]:
        """The risk levels as exact decimals."""
        return parse_alphas(self.alphas)

    @cached_property
    def reader_options(self) -> dict[str, Any]:
        """The options of the reader that have no option of their own here."""
        options = typed_options(self.reading)
        for name in sorted(options.keys() & {"label_rule", "missing"}):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} is an option of its own, not of --reading")
        if options and self.data is None:
            raise ValueError("reading is for --data")
        return options

    def __post_init__(self) -> None:
        _ = self.levels, self.reader_options  # read here: a wrong one is an error of usage
        for name in score_names(self.nonconformity):
            if self.scores is not None and name not in NONCONFORMITIES:
                raise ValueError(f"{name} is learned from texts: give --data without --scores")
        if self.scores is not None and self.loss in STOP_LOSSES:
            raise ValueError(f"loss {self.loss!r} is of a chain of calls and takes no scores")
        if self.loss != "miss" and (self.broken or self.validation):
            raise ValueError(f"broken and validation are for the loss 'miss', got {self.loss!r}")
        if self.splits < 2:
            raise ValueError(f"splits must be at least 2, got {self.splits}")
        if self.exact and (self.broken or self.validation):
            raise ValueError(
                "exact laws are of exchangeable splits in two parts; got broken or validation as "
                "well"
            )
        if self.processes < 0:
            raise ValueError(f"processes must be at least 0, got {self.processes}")
        for name in ("calibration", "significance", "train"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)}")
        if not 0 <= self.validation < 1 - self.calibration:
            parts = f"{self.calibration} + {self.validation}"
            raise ValueError(f"calibration + validation must leave a test part, got {parts}")


def load_pools(config: Config, key: jax.Array) -> list[AnyPool]:
    """The pools that the options ask for."""
    names = scores_of(config)
    usual = config.loss == "miss" and set(names) <= set(NONCONFORMITIES)
    if config.data is None and config.scores is None and usual:
        return [*simulated_pools(key, config.quality)]
    # What only these need takes time to import.
    from racer_jax.studies.bound_pools import (
        read_table,
        scored_pools,
        stop_pools,
        table_pools,
    )

    data, more = config.data, config.reader_options
    table = None
    if data is not None and (more or config.scores is not None):
        table = read_table(data, config.label_rule, config.missing, **more)
    if config.scores is not None:
        return [*scored_pools(config.scores, table)]
    source = data if table is None else table
    if config.loss in STOP_LOSSES:
        return [*stop_pools(key, source, config.loss, config.train, config.missing)]
    return [
        *table_pools(
            key,
            source,
            names,
            config.null,
            label_rule=config.label_rule,
            missing=config.missing,
            num_neighbors=config.neighbors,
            share=config.train,
        )
    ]


def run(
    key: jax.Array, pools: Sequence[AnyPool], config: Config, progress: Progress = lambda _: None
) -> Result:
    """Checks every pool under every score; reads and writes nothing.

    Args:
      key: A typed PRNG key.
      pools: What to check.
      config: The options.
      progress: Called with the number of splits done since the last call.

    Returns:
      The `Result`.
    """
    begin, alphas, names = time.perf_counter(), config.levels, scores_of(config)
    # Upper bound, lower bound and the law (from either side): four comparisons a cell share the
    # significance.
    num_tests = 4 * len(pools) * len(names) * len(alphas)
    z_limit = -NormalDist().inv_cdf(config.significance / num_tests)

    size = common_size(pools, config)

    def check_pool(number: int) -> list[BoundCheck]:
        pool, pool_key = pools[number], folded(key, number)
        spec = BoundSpec(
            num_calibration=round(of_pool(pool)[2] * config.calibration),
            alphas=alphas,
            z_limit=z_limit,
            null=config.null,
            tie_break=config.tie_break,
            size=size,
        )
        return [
            checked(config, folded(pool_key, i), pool, name, spec, progress)
            for i, name in enumerate(names)
        ]

    # What the host does for one pool and what the devices do for another run side by side.
    # Processes must keep one order of calls.
    workers = (os.cpu_count() or 1) if jax.process_count() == 1 else 1
    with ThreadPoolExecutor(workers) as side_by_side:
        checks = [
            check for checks in side_by_side.map(check_pool, range(len(pools))) for check in checks
        ]
    notes = dict(of_pool(pool)[:2] for pool in pools)
    seconds = time.perf_counter() - begin
    return Result(alphas, checks, notes, z_limit, num_tests, of_pool(pools[0])[3], seconds)


def common_size(pools: Sequence[AnyPool], config: Config) -> PlanSize | None:
    """Compiling takes longer than all splits: pools of one number of models share one program."""
    if any(isinstance(pool, StopPool) for pool in pools):
        return None
    shapes = [scored(pool).correct.shape for pool in pools]
    num_models = {shape[1] for shape in shapes}
    parts = [(num, round(num * config.calibration)) for num, _ in shapes]
    return plan_size(parts, max(num_models)) if len(num_models) == 1 else None


def checked(
    config: Config,
    key: jax.Array,
    pool: AnyPool,
    score: str,
    spec: BoundSpec,
    progress: Progress,
) -> BoundCheck:
    """One pool and score, in the way that the options ask for."""
    num_splits = splits_of(config)
    if config.broken:
        check = check_bounds_broken(key, scored(pool), score, num_splits=num_splits, **spec)
        progress(num_splits)
        return check
    if config.exact and config.loss in ("grade", "shortfall"):
        check_enumerable(of_pool(pool)[2], spec["num_calibration"])
    num_validation = round(of_pool(pool)[2] * config.validation)
    return check_any(key, pool, score, config.loss, num_splits, progress, spec, num_validation)


def check_enumerable(num_queries: int, num_calibration: int) -> None:
    """Refuses a pool with more splits than can be gone through one by one."""
    from racer_jax.montecarlo.loss_splits import MOST_SPLITS  # what only this needs

    number = math.comb(num_queries, num_calibration)
    if number > MOST_SPLITS:
        raise ValueError(
            f"--exact goes through all splits of a graded loss, at most {MOST_SPLITS:,}; "
            f"{num_queries:,} queries of which {num_calibration:,} calibrate have "
            f"10^{len(str(number)) - 1}: leave out --exact, or let --calibration be so close to 1 "
            "that one or two queries test"
        )


def splits_of(config: Config) -> int:
    """The number of splits of each pool and score; 0 for the exact laws alone."""
    if config.exact:
        return 0
    return min(config.splits, MOST_BROKEN_SPLITS) if config.broken else config.splits


def scores_of(config: Config) -> list[str]:
    """The nonconformity scores that the options ask for."""
    if config.loss in STOP_LOSSES:
        return [config.loss]
    return list(score_names(config.nonconformity))


def load(config: Config) -> tuple[jax.Array, list[AnyPool]]:
    """The key of the splits, and the pools that the options ask for.

    Devices, the cache of compiled code and the other processes come first.
    """
    runtime.use_compilation_cache(config.cache)
    if config.processes == 1:
        runtime.use_all_cores()
    runtime.join(cluster=config.processes == 0)
    pool_key, check_key = halves(seeded(config.seed))
    return check_key, load_pools(config, pool_key)


def main(arguments: list[str] | None = None) -> int:
    """Reads the options, runs the check, prints and writes what it found.

    Returns:
      The exit status.
    """
    return run_experiment(
        Config,
        "Checks RACER's risk bounds over random splits.",
        run,
        report,
        lambda config, pools: splits_of(config) * len(pools) * len(scores_of(config)),
        arguments,
        load=load,
        unit="split",
        begin=START,
        script=__file__,
    )


if __name__ == "__main__":
    sys.exit(main())
