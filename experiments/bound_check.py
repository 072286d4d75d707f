"""Checks RACER's risk bounds over thousands of random calibration/test splits and a hundred alphas.

    python experiments/bound_check.py                          # the embedded simulated pool
    python experiments/bound_check.py --data FOLDER            # RouterDC's files: hashed n-grams and a k-NN router
    python experiments/bound_check.py --scores FILE.npz        # scores [n, m] and correct [n, m] of any router

Each pool is split at random again and again. Every split calibrates a threshold for every alpha and measures the test
part. The mean test risk must lie within the paper's bounds and on the exact law, up to Monte Carlo error; the exit
status is 1 where it does not.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from matplotlib.figure import Figure
from scipy.special import ndtri
from tqdm import tqdm

import racer_jax as racer
from racer_jax import guarantees, plotting, reporting
from racer_jax.calibration import exact_alphas
from racer_jax.exact import SplitLaw, pool_law
from racer_jax.nonconformity import NullMode
from racer_jax.pools import ScoredPool, matrix_pools, routerdc_pools, simulated_pools
from racer_jax.steps import Pool, pool_steps
from racer_jax.trials import split_masks, stream_trials

SCORES = {"gap": racer.gap, "inverse_probability": racer.inverse_probability}
LABELS = {"gap": "RACER-G", "inverse_probability": "RACER-P"}
# The paper's risk levels are shown, and a few more; results.csv holds every level.
SHOWN = ("0.01", "0.05", "0.1", "0.15", "0.2", "0.3", "0.4", "0.5", "0.7", "0.9")
MOST_FAILED = 10
HISTOGRAM_ALPHA = "0.1"
NUM_BROKEN_SPLITS = 100

Progress = Callable[[int], object]


def parse_alphas(text: str) -> tuple[str, ...]:
    """`0.05,0.1` or `first:last:step`, as exact decimals.

    >>> parse_alphas("0.1:0.3:0.1")
    ('0.1', '0.2', '0.3')
    """
    try:
        if ":" in text:
            first, last, step = (Decimal(part) for part in text.split(":"))
            if not (step > 0 and first <= last):
                raise ValueError
            levels = [first + i * step for i in range(int((last - first) / step) + 1)]
        else:
            levels = [Decimal(part) for part in text.split(",")]
    except (InvalidOperation, ValueError):
        raise ValueError(f"alphas must be like 0.05,0.1 or 0.01:0.99:0.01, got {text!r}") from None
    names = tuple(f"{level.normalize():f}" for level in levels)
    exact_alphas(names)
    if len(set(names)) < len(names):
        raise ValueError(f"alphas must differ from each other, got {text!r}")
    return names


@dataclass(frozen=True)
class Config:
    """Options of the check."""

    data: Annotated[Path | None, "folder of RouterDC's JSON files; the simulated pool when not given"] = None
    scores: Annotated[Path | None, "saved matrix: an .npz file with scores [n, m] and correct [n, m]"] = None
    alphas: Annotated[str, "risk levels, listed or first:last:step"] = "0.01:0.99:0.01"
    splits: Annotated[int, "number of random splits"] = 10_000
    calibration: Annotated[float, "share of each pool that calibrates"] = 0.5
    seed: Annotated[int, "seed of the simulated pool, the tie-break and the splits"] = 0
    nonconformity: Annotated[Literal["both", "gap", "inverse_probability"], "nonconformity score"] = "both"
    null: Annotated[NullMode, "null mode"] = "paper"
    tie_break: Annotated[bool, "break ties exactly, which the lower bound and the law need"] = True
    label_rule: Annotated[str | None, "when a graded score counts as right, e.g. 'score > 0.5' (--data)"] = None
    quality: Annotated[Literal["weak", "fair", "strong"], "router of the simulated pool"] = "fair"
    neighbors: Annotated[int, "neighbours of the k-NN router (--data)"] = 100
    significance: Annotated[float, "chance of a false alarm in the whole run, all cells together"] = 0.001
    broken: Annotated[bool, "break exchangeability (test scores from a stale router): it must FAIL"] = False
    output: Annotated[Path, "folder of the results"] = Path("results/bound_check")
    cache: Annotated[Path | None, "folder that keeps compiled code between runs"] = None

    def __post_init__(self) -> None:
        parse_alphas(self.alphas)
        if self.data is not None and self.scores is not None:
            raise ValueError("data and scores exclude each other; got both")
        if self.splits < 2:
            raise ValueError(f"splits must be at least 2, got {self.splits}")
        for name in ("calibration", "significance"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)}")


class Cell(NamedTuple):
    """Everything about one pool and score, arrays by alpha `[a]`.

    Attributes:
      pool: Name of the pool.
      nonconformity: Name of the score.
      num_calibration: Calibration queries of a split.
      num_test: Test queries of a split.
      num_splits: Number of splits.
      alpha: Risk levels.
      risk: Mean test risk over the splits.
      risk_std: Its standard deviation over the splits.
      risk_error: Standard error of `risk`.
      lower: The paper's lower bound (Theorem 4.5).
      upper: The paper's upper bound (Theorem 4.3).
      sharp: The sharp law floor(alpha (n + 1)) / (n + 1).
      exact: Exact mean risk over all splits of this pool, with its ties and null mode.
      exact_std: Exact standard deviation of the test risk.
      z: (risk - exact) / risk_error.
      size: Mean number of models called.
      exact_size: Its exact mean over all splits.
      abstention: Share of test queries without a model called.
      avoidable_miss: Share that some model could answer while none that can was called.
      verdict: `PASS`, `FAIL`, or `infeasible`: the null mode `never` puts this alpha below the share of queries nobody
        can answer.
      note: What an infeasible alpha would take.
      histogram: Test risk at alpha = .10 over splits, None where this alpha is not among the levels.
    """

    pool: str
    nonconformity: str
    num_calibration: int
    num_test: int
    num_splits: int
    alpha: np.ndarray
    risk: np.ndarray
    risk_std: np.ndarray
    risk_error: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    sharp: np.ndarray
    exact: np.ndarray
    exact_std: np.ndarray
    z: np.ndarray
    size: np.ndarray
    exact_size: np.ndarray
    abstention: np.ndarray
    avoidable_miss: np.ndarray
    verdict: list[str]
    note: list[str]
    histogram: plotting.RiskHistogram | None


class Result(NamedTuple):
    """The whole check.

    Attributes:
      alphas: Risk levels as written.
      cells: One for each pool and score.
      notes: By pool, how it was made.
      z_limit: |z| beyond which a cell counts as violated.
      num_tests: Number of comparisons the significance is shared among.
      seconds: Wall time of loading, of the splits (compilation included) and of the exact laws.
    """

    alphas: tuple[str, ...]
    cells: list[Cell]
    notes: dict[str, str]
    z_limit: float
    num_tests: int
    seconds: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether no cell failed."""
        return not any("FAIL" in cell.verdict for cell in self.cells)


def load_pools(config: Config, key: jax.Array) -> list[ScoredPool]:
    """The pools that the options ask for."""
    if config.scores is not None:
        return matrix_pools(config.scores)
    if config.data is not None:
        return routerdc_pools(config.data, label_rule=config.label_rule, num_neighbors=config.neighbors)
    return simulated_pools(key, config.quality)


# --- the check -------------------------------------------------------------------------------------------------------


def calibration_size(config: Config, pool: ScoredPool) -> int:
    """Number of calibration queries of a split.

    Raises:
      ValueError: If the pool is too small for this share.
    """
    num = len(pool.correct)
    num_calibration = round(num * config.calibration)
    if not 1 <= num_calibration < num:
        raise ValueError(
            f"pool {pool.name!r} of {num} queries is too small: {num_calibration} would calibrate and "
            f"{num - num_calibration} test, and each part needs at least one"
        )
    return num_calibration


class Measured(NamedTuple):
    """What the splits of one pool and score gave, by alpha.

    Attributes:
      num_splits: Number of splits.
      mean: Metric -> mean over splits `[a]`.
      risk_std: Standard deviation of the test risk over splits `[a]`.
      edges: Edges of the bins of the test risk `[a, h + 1]`.
      share: Share of the splits in each bin `[a, h]`.
    """

    num_splits: int
    mean: Mapping[str, np.ndarray]
    risk_std: np.ndarray
    edges: np.ndarray
    share: np.ndarray


def fresh_splits(
    key: jax.Array, pool: Pool, num_calibration: int, alphas: tuple[str, ...], num_splits: int, progress: Progress
) -> Measured:
    """Exchangeable splits, as the guarantee asks for."""
    summaries = stream_trials(
        key, pool, num_calibration=num_calibration, alpha=alphas, num_trials=num_splits, bins=64, progress=progress
    )
    risk = summaries["risk"]
    means = {name: summary.mean for name, summary in summaries.items()}
    return Measured(num_splits, means, risk.std, risk.edges, risk.histogram / num_splits)


@partial(jax.jit, static_argnames="alphas")
def stale_trials(
    masks: jax.Array,
    nonconformity: jax.Array,
    stale: jax.Array,
    correct: jax.Array,
    ties: jax.Array | None,
    alphas: tuple[str, ...],
) -> dict[str, jax.Array]:
    """Splits whose test scores come from another router than the calibration scores: metrics `[s, a]`.

    Plain use of the public functions, one split at a time: calibrate on the mask, predict on the rest.
    """
    critical = racer.critical_scores(nonconformity, correct, ties)

    def one_split(mask: jax.Array) -> dict[str, jax.Array]:
        sets = racer.prediction_sets(stale, racer.calibrate(critical, alphas, mask=mask), ties)
        metrics = {
            "risk": racer.misrouted(sets, correct),
            "size": racer.set_size(sets),
            "abstention": racer.abstains(sets),
            "avoidable_miss": racer.avoidably_missed(sets, correct),
        }
        return {name: jnp.where(mask, 0, values).sum(-1) / (~mask).sum() for name, values in metrics.items()}

    return lax.map(one_split, masks)


def stale_splits(
    key: jax.Array,
    nonconformity: jax.Array,
    correct: np.ndarray,
    ties: jax.Array | None,
    num_calibration: int,
    alphas: tuple[str, ...],
    num_splits: int,
) -> Measured:
    """Splits whose exchangeability is broken: each test query is routed by the scores of some other query."""
    rows_key, split_key = jax.random.split(key)
    stale = nonconformity[jax.random.permutation(rows_key, len(correct))]
    masks = split_masks(split_key, jnp.arange(num_splits), num_calibration=num_calibration, num_queries=len(correct))
    trials = stale_trials(masks, nonconformity, stale, jnp.asarray(correct), ties, alphas)
    values = {name: np.asarray(value, np.float64) for name, value in trials.items()}
    binned = [np.histogram(column, bins=32) for column in values["risk"].T]
    return Measured(
        num_splits,
        {name: value.mean(0) for name, value in values.items()},
        values["risk"].std(0, ddof=1),
        np.stack([edges for _, edges in binned]),
        np.stack([counts for counts, _ in binned]) / num_splits,
    )


def verdicts(cell: Cell, z_limit: float, null: str, lower_holds: bool) -> list[str]:
    """PASS or FAIL by alpha: beyond `z_limit` standard errors above the upper bound, below the lower, or off the law.

    `lower_holds`: the lower bound asks for critical scores without ties or infinite values.
    """
    margin = z_limit * cell.risk_error + 1e-12
    infeasible = (cell.exact > cell.upper + 1e-12) & (null == "never")
    failed = (cell.risk > cell.upper + margin) | (np.abs(cell.risk - cell.exact) > margin)
    if lower_holds:
        failed |= cell.risk < cell.lower - margin
    return ["infeasible" if i else "FAIL" if f else "PASS" for i, f in zip(infeasible, failed, strict=True)]


def check_pool(
    key: jax.Array,
    pool: ScoredPool,
    name: str,
    config: Config,
    alphas: tuple[str, ...],
    z_limit: float,
    progress: Progress,
    seconds: dict[str, float],
) -> Cell:
    """Splits one pool again and again under one score and compares with what is promised."""
    num_calibration = calibration_size(config, pool)
    num_test = len(pool.correct) - num_calibration
    tie_key, split_key = jax.random.split(key)
    nonconformity = SCORES[name](pool.scores, config.null)
    ties = racer.tie_break(tie_key, nonconformity.shape) if config.tie_break else None
    steps = pool_steps(nonconformity, pool.correct, ties)

    start = time.perf_counter()
    law = pool_law(steps, num_calibration=num_calibration, alpha=alphas)
    middle = time.perf_counter()
    if config.broken:
        num_splits = min(config.splits, NUM_BROKEN_SPLITS)
        measured = stale_splits(split_key, nonconformity, pool.correct, ties, num_calibration, alphas, num_splits)
        progress(config.splits)
    else:
        measured = fresh_splits(split_key, steps, num_calibration, alphas, config.splits, progress)
    seconds["exact laws"] += middle - start
    seconds["splits"] += time.perf_counter() - middle

    bounds = guarantees.risk_bounds(alphas, num_calibration)
    risk = measured.mean["risk"]
    error = measured.risk_std / np.sqrt(measured.num_splits)
    distance = risk - law.risk_mean
    distance[np.abs(distance) < 1e-12] = 0.0
    cell = Cell(
        pool=pool.name,
        nonconformity=name,
        num_calibration=num_calibration,
        num_test=num_test,
        num_splits=measured.num_splits,
        alpha=np.array([float(a) for a in alphas]),
        risk=risk,
        risk_std=measured.risk_std,
        risk_error=error,
        lower=bounds.lower,
        upper=bounds.upper,
        sharp=guarantees.sharp_risk(alphas, num_calibration),
        exact=law.risk_mean,
        exact_std=law.risk_std,
        z=standardised(distance, error),
        size=measured.mean["size"],
        exact_size=law.size_mean,
        abstention=measured.mean["abstention"],
        avoidable_miss=measured.mean["avoidable_miss"],
        verdict=[],
        note=[infeasible_note(a, num_calibration) for a in alphas],
        histogram=None,
    )
    lower_holds = bool(np.allclose(cell.exact, cell.sharp, atol=1e-9))
    return cell._replace(
        verdict=verdicts(cell, z_limit, config.null, lower_holds), histogram=histogram(alphas, measured, law)
    )


def standardised(distance: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Distance in standard errors; 0 where there is no distance, infinite where there is one and no error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / error)


def infeasible_note(alpha: str, num_calibration: int) -> str:
    """What it would take to make an alpha feasible; empty where it is."""
    needed = guarantees.smallest_calibration_size(alpha)
    return f"threshold +inf: needs n >= {needed}" if needed > num_calibration else ""


def histogram(alphas: tuple[str, ...], measured: Measured, law: SplitLaw) -> plotting.RiskHistogram | None:
    """Test risk over splits at alpha = .10 and the exact law in the same bins, trimmed to where either is."""
    if HISTOGRAM_ALPHA not in alphas:
        return None
    row = alphas.index(HISTOGRAM_ALPHA)
    edges, share = measured.edges[row], measured.share[row]
    # A value on an edge belongs to the bin below it, in the law as in the histogram of the splits.
    bins = np.clip(np.searchsorted(edges, law.risk_support[row] - 1e-12) - 1, 0, len(share) - 1)
    expected = np.bincount(bins, law.risk_probability[row], len(share))
    used = np.flatnonzero((share > 0) | (expected > 1e-6))
    kept = slice(used[0], used[-1] + 1)
    return plotting.RiskHistogram(
        edges[kept.start : kept.stop + 1], share[kept], expected[kept], float(measured.mean["risk"][row])
    )


def run(config: Config, pools: list[ScoredPool], key: jax.Array, progress: Progress = lambda _: None) -> Result:
    """Checks every pool under every score; reads and writes nothing.

    Args:
      config: The options.
      pools: What to check.
      key: A typed PRNG key.
      progress: Called with the number of splits done since the last call.

    Returns:
      The `Result`.
    """
    alphas = parse_alphas(config.alphas)
    names = scores_of(config)
    # Upper bound, lower bound and the law (from either side): four comparisons a cell share the significance.
    num_tests = 4 * len(pools) * len(names) * len(alphas)
    z_limit = float(-ndtri(config.significance / num_tests))
    seconds = {"splits": 0.0, "exact laws": 0.0}
    cells = [
        check_pool(jax.random.fold_in(key, i), pool, name, config, alphas, z_limit, progress, seconds)
        for i, (pool, name) in enumerate((pool, name) for pool in pools for name in names)
    ]
    return Result(alphas, cells, {pool.name: pool.note for pool in pools}, z_limit, num_tests, seconds)


def scores_of(config: Config) -> list[str]:
    """The nonconformity scores that the options ask for."""
    return list(SCORES) if config.nonconformity == "both" else [config.nonconformity]


# --- what a reader sees ----------------------------------------------------------------------------------------------


def table(result: Result, cell: Cell) -> str:
    """One pool and score as text: the paper's risk levels, and the worst of those that failed."""
    header = ["alpha", "risk", "± s.e.", "lower", "upper", "sharp law", "z", "size", "abstain", "avoidable", ""]
    failed = [i for i, verdict in enumerate(cell.verdict) if verdict == "FAIL"]
    shown = {i for i, alpha in enumerate(result.alphas) if alpha in SHOWN}
    out_of_reach = [i for i, note in enumerate(cell.note) if note][-1:]
    worst = sorted(failed, key=lambda i: -abs(cell.z[i]))[:MOST_FAILED]
    out_of_reach = [i for i, note in enumerate(cell.note) if note][-1:]
    levels = sorted(shown.union(worst, out_of_reach)) or list(range(len(result.alphas)))
    hidden = len(set(failed) - set(levels))
    rows = [
        [
            result.alphas[i],
            f"{cell.risk[i]:.5f}",
            f"{cell.risk_error[i]:.5f}",
            f"{cell.lower[i]:.5f}",
            f"{cell.upper[i]:.5f}",
            f"{cell.sharp[i]:.5f}",
            f"{cell.z[i]:+.2f}",
            f"{cell.size[i]:.3f}",
            f"{cell.abstention[i]:.4f}",
            f"{cell.avoidable_miss[i]:.4f}",
            "  ".join(filter(None, (cell.verdict[i], cell.note[i]))),
        ]
        for i in levels
    ]
    title = (
        f"{cell.pool}, {LABELS[cell.nonconformity]}: {cell.num_splits:,} splits, "
        f"{cell.num_calibration} calibration and {cell.num_test} test queries"
    )
    more = f"\n... and {hidden} more levels that FAIL, in results.csv" if hidden else ""
    return f"{title}\n{reporting.text_table(header, rows)}{more}"


def csv_rows(result: Result) -> list[dict[str, Any]]:
    """A row for each pool, score and alpha."""
    columns = [name for name, value in result.cells[0]._asdict().items() if isinstance(value, np.ndarray)]
    return [
        {
            "pool": cell.pool,
            "nonconformity": cell.nonconformity,
            "num_calibration": cell.num_calibration,
            "num_test": cell.num_test,
            "num_splits": cell.num_splits,
            "alpha": alpha,
            **{name: float(getattr(cell, name)[i]) for name in columns if name != "alpha"},
            "verdict": cell.verdict[i],
            "note": cell.note[i],
        }
        for cell in result.cells
        for i, alpha in enumerate(result.alphas)
    ]


def figures(config: Config, result: Result, num_models: int) -> dict[str, Figure]:
    """The pictures by file name."""
    alpha = np.array([float(a) for a in result.alphas])
    by_pool: dict[str, dict[str, Cell]] = {}
    for cell in result.cells:
        by_pool.setdefault(cell.pool, {})[LABELS[cell.nonconformity]] = cell
    first = result.cells[0]
    subtitle = f"{first.num_splits:,} random splits, {len(alpha)} risk levels, null mode '{config.null}'"
    risk = {
        pool: {
            label: plotting.RiskCurve(alpha, cell.risk, 3 * cell.risk_error, cell.lower, cell.upper, cell.exact)
            for label, cell in cells.items()
        }
        for pool, cells in by_pool.items()
    }
    size = {
        pool: {label: plotting.SizeCurve(alpha, cell.size) for label, cell in cells.items()}
        for pool, cells in by_pool.items()
    }
    pictures = {
        "risk.png": plotting.risk_figure(risk, subtitle),
        "size.png": plotting.size_figure(size, num_models, subtitle),
    }
    if first.histogram is not None:
        histograms = {
            pool: {label: cell.histogram for label, cell in cells.items() if cell.histogram is not None}
            for pool, cells in by_pool.items()
        }
        pictures["histogram.png"] = plotting.histogram_figure(histograms, float(HISTOGRAM_ALPHA), subtitle)
    return pictures


def summary(config: Config, result: Result, seconds: float) -> str:
    """The last lines: the verdict, and how long what took."""
    num_cells = len(result.cells) * len(result.alphas)
    verdicts = [verdict for cell in result.cells for verdict in cell.verdict]
    failed, skipped = verdicts.count("FAIL"), verdicts.count("infeasible")
    worst = max(float(np.abs(cell.z).max()) for cell in result.cells)
    splits = sum(cell.num_splits for cell in result.cells)
    rate = splits * len(result.alphas) / result.seconds["splits"]
    lines = [
        f"{'PASS' if result.passed else 'FAIL'}: {num_cells - failed - skipped} of {num_cells} cells within the bounds "
        f"and on the law, {failed} beyond" + (f", {skipped} infeasible" if skipped else ""),
        f"A cell fails beyond {result.z_limit:.2f} standard errors: a chance of {config.significance:g} for one false "
        f"alarm in all {result.num_tests:,} comparisons. Largest |z| = {worst:.2f}.",
        f"{splits:,} splits x {len(result.alphas)} alphas in {result.seconds['splits']:.1f} s, compilation included "
        f"({rate:,.0f} calibrations a second); exact laws {result.seconds['exact laws']:.2f} s; "
        f"in all {seconds:.1f} s, figures and files included.",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Reads the options, runs the check, prints and writes what it found; returns the exit status."""
    start = time.perf_counter()
    config = reporting.parse_config(
        Config, "Checks RACER's risk bounds over random calibration/test splits.", arguments
    )
    if config.cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(config.cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    pool_key, check_key = jax.random.split(jax.random.key(config.seed))
    try:
        pools = load_pools(config, pool_key)
        total = config.splits * len(pools) * len(scores_of(config))
        with tqdm(total=total, unit="split", unit_scale=True, disable=None) as bar:
            result = run(config, pools, check_key, bar.update)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for cell in result.cells:
        print(table(result, cell), end="\n\n")
    for name, note in result.notes.items():
        if note:
            print(f"{name}: {note}")

    def write(folder: Path) -> None:
        reporting.write_json(
            folder / "results.json", {"config": config, "environment": reporting.environment(), **result._asdict()}
        )
        reporting.write_csv(folder / "results.csv", csv_rows(result))
        for name, figure in figures(config, result, pools[0].correct.shape[1]).items():
            reporting.write_figure(folder / name, figure)

    folder = reporting.finish(write, config.output)
    print(summary(config, result, time.perf_counter() - start))
    print(f"Written: {', '.join(str(path) for path in sorted(folder.iterdir()))}")
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
