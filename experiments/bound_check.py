"""Checks RACER's risk bounds over thousands of random calibration/test splits and a hundred alphas.

    python experiments/bound_check.py                          # the embedded simulated pool
    python experiments/bound_check.py --data FOLDER            # RouterDC's files: hashed n-grams
    and a k-NN router python experiments/bound_check.py --scores FILE.npz        # scores [n, m] and
    correct [n, m] of any router

Each pool is split at random again and again. Every split calibrates a threshold for every alpha and
measures the test part. The mean test risk must lie within the paper's bounds and on the exact law,
up to Monte Carlo error; the exit status is 1 where it does not.
"""

import os
import sys
import time

START = time.perf_counter()  # before the imports, which are part of what a user waits for

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from scipy.special import ndtri
from tqdm import tqdm

from racer_jax import reporting
from racer_jax.core.nonconformity import NullMode
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.montecarlo.bound_check import (
    HISTOGRAM_ALPHA,
    BoundCheck,
    BoundSpec,
    check_bounds,
    check_bounds_broken,
    check_bounds_exactly,
)
from racer_jax.montecarlo.measured_splits import Progress
from racer_jax.plotting import risk as plotting
from racer_jax.studies import runtime
from racer_jax.studies.scored_pools import ScoredPool, matrix_pools, routerdc_pools, simulated_pools

# The paper's nonconformity scores, in the order of their tables.
LABELS = {"gap": "RACER-G", "inverse_probability": "RACER-P"}
# The paper's risk levels are shown, and a few more; results.csv holds every level.
SHOWN = ("0.01", "0.05", "0.1", "0.15", "0.2", "0.3", "0.4", "0.5", "0.7", "0.9")
MOST_FAILED = 10
# A broken run shows itself at once, and goes through the plain functions, a split at a time.
MOST_BROKEN_SPLITS = 100


@dataclass(frozen=True)
class Config:
    """Options of the check."""

    data: Annotated[
        Path | None, "folder of RouterDC's JSON files; the simulated pool when not given"
    ] = None
    scores: Annotated[
        Path | None, "saved matrix: an .npz file with scores [n, m] and correct [n, m]"
    ] = None
    alphas: Annotated[str, "risk levels, listed or first:last:step"] = "0.01:0.99:0.01"
    splits: Annotated[int, "number of random splits"] = 10_000
    calibration: Annotated[float, "share of each pool that calibrates"] = 0.5
    validation: Annotated[
        float, "share set aside in each split, for choices that must not see the test part"
    ] = 0.0
    seed: Annotated[int, "seed of the simulated pool, the tie-break and the splits"] = 0
    nonconformity: Annotated[
        Literal["both", "gap", "inverse_probability"], "nonconformity score"
    ] = "both"
    null: Annotated[NullMode, "null mode"] = "paper"
    tie_break: Annotated[bool, "break ties exactly, which the lower bound and the law need"] = True
    label_rule: Annotated[
        str | None, "when a graded score counts as right, e.g. 'score > 0.5' (--data)"
    ] = None
    quality: Annotated[Literal["weak", "fair", "strong"], "router of the simulated pool"] = "fair"
    neighbors: Annotated[int, "neighbours of the k-NN router (--data)"] = 100
    significance: Annotated[
        float, "chance of a false alarm in the whole run, all cells together"
    ] = 0.001
    broken: Annotated[
        bool, "break exchangeability (test scores from a stale router): it must FAIL"
    ] = False
    exact: Annotated[bool, "the exact laws alone, without random splits"] = False
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

    def __post_init__(self) -> None:
        _ = self.levels  # read here, so that a wrong one is an error of usage
        if self.data is not None and self.scores is not None:
            raise ValueError("data and scores exclude each other; got both")
        if self.splits < 2:
            raise ValueError(f"splits must be at least 2, got {self.splits}")
        if self.exact and (self.broken or self.validation):
            raise ValueError(
                "exact laws are of exchangeable splits in two parts; got broken or validation as "
                "well"
            )
        if self.processes < 0:
            raise ValueError(f"processes must be at least 0, got {self.processes}")
        for name in ("calibration", "significance"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)}")
        if not 0 <= self.validation < 1 - self.calibration:
            parts = f"{self.calibration} + {self.validation}"
            raise ValueError(f"calibration + validation must leave a test part, got {parts}")


class Result(NamedTuple):
    """The whole check.

    Attributes:
      alphas: Risk levels as written.
      checks: One for each pool and score.
      notes: By pool, how it was made.
      z_limit: |z| beyond which a cell counts as violated.
      num_tests: Number of comparisons the significance is shared among.
    """

    alphas: tuple[str, ...]
    checks: list[BoundCheck]
    notes: dict[str, str]
    z_limit: float
    num_tests: int

    @property
    def passed(self) -> bool:
        """Whether no cell failed."""
        return not any("FAIL" in cell.verdict for cell in self.checks)


def load_pools(config: Config, key: jax.Array) -> list[ScoredPool]:
    """The pools that the options ask for."""
    if config.scores is not None:
        return matrix_pools(config.scores)
    if config.data is not None:
        return routerdc_pools(
            config.data, label_rule=config.label_rule, num_neighbors=config.neighbors
        )
    return simulated_pools(key, config.quality)


def run(
    key: jax.Array, pools: list[ScoredPool], config: Config, progress: Progress = lambda _: None
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
    alphas, names = config.levels, scores_of(config)
    # Upper bound, lower bound and the law (from either side): four comparisons a cell share the
    # significance.
    num_tests = 4 * len(pools) * len(names) * len(alphas)
    z_limit = float(-ndtri(config.significance / num_tests))

    def check_pool(number: int) -> list[BoundCheck]:
        pool, pool_key = pools[number], jax.random.fold_in(key, number)
        spec = BoundSpec(
            num_calibration=round(len(pool.correct) * config.calibration),
            alphas=alphas,
            z_limit=z_limit,
            null=config.null,
            tie_break=config.tie_break,
        )
        return [
            checked(config, jax.random.fold_in(pool_key, i), pool, name, spec, progress)
            for i, name in enumerate(names)
        ]

    # Each size of pool compiles anew, on one core: side by side they use all. Processes must keep
    # one order of calls.
    workers = (os.cpu_count() or 1) if jax.process_count() == 1 else 1
    with ThreadPoolExecutor(workers) as side_by_side:
        checks = [
            check for checks in side_by_side.map(check_pool, range(len(pools))) for check in checks
        ]
    return Result(alphas, checks, {pool.name: pool.note for pool in pools}, z_limit, num_tests)


def checked(
    config: Config,
    key: jax.Array,
    pool: ScoredPool,
    score: str,
    spec: BoundSpec,
    progress: Progress,
) -> BoundCheck:
    """One pool and score, in the way that the options ask for."""
    if config.exact:
        return check_bounds_exactly(key, pool, score, **spec)
    num_splits = splits_of(config)
    if config.broken:
        check = check_bounds_broken(key, pool, score, num_splits=num_splits, **spec)
        progress(num_splits)
        return check
    num_validation = round(len(pool.correct) * config.validation)
    return check_bounds(
        key,
        pool,
        score,
        num_splits=num_splits,
        num_validation=num_validation,
        progress=progress,
        **spec,
    )


def splits_of(config: Config) -> int:
    """The number of splits of each pool and score; 0 for the exact laws alone."""
    if config.exact:
        return 0
    return min(config.splits, MOST_BROKEN_SPLITS) if config.broken else config.splits


def scores_of(config: Config) -> list[str]:
    """The nonconformity scores that the options ask for."""
    return list(LABELS) if config.nonconformity == "both" else [config.nonconformity]


# --- tables and figures ---------------------------------------------------------------------------


def table(result: Result, cell: BoundCheck) -> str:
    """One pool and score as text: the paper's risk levels, and the worst of those that failed."""
    header = [
        "alpha",
        "risk",
        "± s.e.",
        "lower",
        "upper",
        "sharp law",
        "exact",
        "z",
        "size",
        "abstain",
        "avoidable",
        "",
    ]
    failed = [i for i, verdict in enumerate(cell.verdict) if verdict == "FAIL"]
    shown = {i for i, alpha in enumerate(result.alphas) if alpha in SHOWN}
    out_of_reach = [i for i, note in enumerate(cell.note) if note][-1:]
    worst = sorted(failed, key=lambda i: -abs(cell.z[i]))[:MOST_FAILED]
    levels = sorted(shown.union(worst, out_of_reach)) or list(range(len(result.alphas)))
    hidden = len(set(failed) - set(levels))
    rows = [
        [
            result.alphas[i],
            f"{cell.risk[i]:.5f}",
            f"{cell.risk_error[i]:.5f}",
            f"{cell.lower[i]:.5f}" if cell.lower_applies[i] else "-",
            f"{cell.upper[i]:.5f}",
            f"{cell.sharp[i]:.5f}",
            f"{cell.exact[i]:.5f}",
            f"{cell.z[i]:+.2f}",
            f"{cell.size[i]:.3f}",
            f"{cell.abstention[i]:.4f}",
            f"{cell.avoidable_miss[i]:.4f}",
            "  ".join(filter(None, (cell.verdict[i], cell.note[i]))),
        ]
        for i in levels
    ]
    splits = f"{cell.num_splits:,} splits" if cell.num_splits else "all splits, exactly"
    parts = f"{cell.num_calibration} calibration and {cell.num_test} test queries"
    title = f"{cell.pool}, {LABELS[cell.nonconformity]}: {splits}, {parts}"
    more = f"\n... and {hidden} more levels that FAIL, in results.csv" if hidden else ""
    return f"{title}\n{reporting.text_table(header, rows)}{more}"


def csv_rows(result: Result) -> list[dict[str, Any]]:
    """A row for each pool, score and alpha."""
    columns = [
        name for name, value in result.checks[0]._asdict().items() if isinstance(value, np.ndarray)
    ]
    return [
        {
            "pool": cell.pool,
            "nonconformity": cell.nonconformity,
            "num_calibration": cell.num_calibration,
            "num_test": cell.num_test,
            "num_splits": cell.num_splits,
            "alpha": alpha,
            **{name: getattr(cell, name)[i].item() for name in columns if name != "alpha"},
            "verdict": cell.verdict[i],
            "note": cell.note[i],
        }
        for cell in result.checks
        for i, alpha in enumerate(result.alphas)
    ]


def figures(config: Config, result: Result, num_models: int) -> dict[str, Figure]:
    """The pictures by file name."""
    alpha = np.array([float(a) for a in result.alphas])
    by_pool: dict[str, dict[str, BoundCheck]] = {}
    for cell in result.checks:
        by_pool.setdefault(cell.pool, {})[LABELS[cell.nonconformity]] = cell
    first = result.checks[0]
    splits = f"{first.num_splits:,} random splits" if first.num_splits else "all splits, exactly"
    subtitle = f"{splits}, {len(alpha)} risk levels, null mode '{config.null}'"
    risk = {
        pool: {
            label: plotting.RiskCurve(
                alpha, cell.risk, 3 * cell.risk_error, cell.lower, cell.upper, cell.exact
            )
            for label, cell in cells.items()
        }
        for pool, cells in by_pool.items()
    }
    size = {
        pool: {label: plotting.SizeCurve(alpha, cell.size) for label, cell in cells.items()}
        for pool, cells in by_pool.items()
    }
    failed = sum(cell.verdict.count("FAIL") for cell in result.checks)
    pictures = {
        "risk.png": plotting.risk_figure(risk, subtitle, failed),
        "size.png": plotting.size_figure(size, num_models, subtitle),
    }
    if first.histogram is not None:
        histograms = {
            pool: {
                label: cell.histogram for label, cell in cells.items() if cell.histogram is not None
            }
            for pool, cells in by_pool.items()
        }
        pictures["histogram.png"] = plotting.histogram_figure(
            histograms, float(HISTOGRAM_ALPHA), subtitle
        )
    return pictures


def summary(config: Config, result: Result, checking: float, overall: float) -> str:
    """The last lines: the verdict, and how long what took."""
    num_cells = len(result.checks) * len(result.alphas)
    verdicts = [verdict for cell in result.checks for verdict in cell.verdict]
    failed, skipped = verdicts.count("FAIL"), verdicts.count("infeasible")
    worst = max(float(np.abs(cell.z).max()) for cell in result.checks)
    splits = sum(cell.num_splits for cell in result.checks)
    verdict = (
        f"{'PASS' if result.passed else 'FAIL'}: {num_cells - failed - skipped} of {num_cells} "
        f"cells within the bounds and on the law, {failed} beyond"
    )
    if skipped:
        verdict += f", {skipped} infeasible"
    overall_line = f"In all {overall:.1f} s, from the import to the last file."
    if config.exact:
        return (
            f"{verdict}\nThe exact laws of all splits, not sampled, in {checking:.1f} s. "
            f"{overall_line}"
        )
    return (
        f"{verdict}\n"
        f"A cell fails beyond {result.z_limit:.2f} standard errors: a chance of "
        f"{config.significance:g} for one false "
        f"alarm in all {result.num_tests:,} comparisons. Largest |z| = {worst:.2f}.\n"
        f"{splits:,} splits x {len(result.alphas)} alphas, checked in {checking:.1f} s, "
        "compilation included: "
        f"{splits * len(result.alphas) / checking:,.0f} calibrations a second. {overall_line}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Reads the options, runs the check, prints and writes what it found.

    Returns:
      The exit status.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    config = reporting.parse_config(
        Config, "Checks RACER's risk bounds over random splits.", arguments
    )
    if config.processes > 1 and not runtime.launched():
        return runtime.launch(__file__, arguments, config.processes)
    runtime.use_compilation_cache(config.cache)
    if config.processes == 1:
        runtime.use_all_cores()
    runtime.join(cluster=config.processes == 0)
    pool_key, check_key = jax.random.split(jax.random.key(config.seed))
    try:
        pools = load_pools(config, pool_key)
        checking = time.perf_counter()
        total = splits_of(config) * len(pools) * len(scores_of(config))
        quiet = None if runtime.speaks() and total else True  # None: off where there is no terminal
        with tqdm(total=total, unit="split", unit_scale=True, disable=quiet) as bar:
            result = run(check_key, pools, config, bar.update)
        checking = time.perf_counter() - checking
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if runtime.speaks():
        report(config, result, pools[0].correct.shape[1], checking)
    return 0 if result.passed else 1


def report(config: Config, result: Result, num_models: int, checking: float) -> None:
    """Prints the tables and the verdict; writes the files and the pictures."""
    for cell in result.checks:
        print(table(result, cell), end="\n\n")
    for name, note in result.notes.items():
        if note:
            print(f"{name}: {note}")

    def write(folder: Path) -> None:
        reporting.write_json(
            folder / "results.json",
            {"config": config, "environment": reporting.environment(), **result._asdict()},
        )
        reporting.write_csv(folder / "results.csv", csv_rows(result))
        for name, figure in figures(config, result, num_models).items():
            reporting.write_figure(folder / name, figure)

    folder = reporting.finish(write, config.output)
    print(summary(config, result, checking, time.perf_counter() - START))
    print(f"Written: {', '.join(str(path) for path in sorted(folder.iterdir()))}")


if __name__ == "__main__":
    sys.exit(main())
