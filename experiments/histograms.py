"""Figures 2 and 5 of the paper: test risk and set size over splits at alpha = .10, with their law.

    python experiments/histograms.py                     # the embedded simulated pool
    python experiments/histograms.py --data FOLDER       # RouterDC's files

The law of the test risk over random splits is exact. That of the size is exact in its mixture over
the threshold, with normal components.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import numpy as np

from racer_jax import reporting
from racer_jax.core.nonconformity import NullMode, tie_break
from racer_jax.core.risk_levels import exact_alpha
from racer_jax.montecarlo.exact import SplitLaw, pool_law
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials
from racer_jax.plotting import studies as study_plots
from racer_jax.studies.benchmarks import ROUTERS, SCORES, Benchmark, StudyConfig
from racer_jax.studies.paper_data import cells, num_cells, study_data
from racer_jax.studies.runner import Progress, Report, run_experiment, side_by_side

METRICS = ("risk", "size")


@dataclass(frozen=True)
class Config(StudyConfig):
    """Options of the figure."""

    alpha: Annotated[str, "the risk level"] = "0.1"
    splits: Annotated[int, "number of random splits"] = 10_000
    bins: Annotated[int, "bins of a histogram"] = 40
    null: Annotated[NullMode, "null mode"] = "paper"
    output: Annotated[Path, "folder of the results"] = Path("results/histograms")

    def __post_init__(self) -> None:
        super().__post_init__()
        exact_alpha(self.alpha)
        for name in ("splits", "bins"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be at least 2, got {getattr(self, name)}")


class Row(NamedTuple):
    """One metric of one router and score on one benchmark.

    Attributes:
      benchmark: Name of the benchmark.
      router: Name of the router.
      score: Name of the score.
      metric: `risk` or `size`.
      mean: Mean over splits.
      std: Standard deviation over splits.
      law_mean: Exact mean over all splits.
      law_std: Exact standard deviation over all splits.
      distance: Largest difference between the distribution over splits and the law at the edges of
        the bins.
      spread: The histogram.
    """

    benchmark: str
    router: str
    score: str
    metric: str
    mean: float
    std: float
    law_mean: float
    law_std: float
    distance: float
    spread: study_plots.Spread


class Result(NamedTuple):
    """The figure in numbers.

    Attributes:
      rows: One for each benchmark, router, score and metric.
      notes: By benchmark, how it was made.
    """

    rows: list[Row]
    notes: dict[str, tuple[str, ...]]


def run(
    key: jax.Array, benchmarks: list[Benchmark], config: Config, progress: Progress = lambda _: None
) -> Result:
    """Splits every benchmark under every router and score; reads and writes nothing.

    The part that the other studies validate on is tested on here, so that the law of all splits is
    the law of these.
    """

    def cell(item: tuple[int, Benchmark, str, str]) -> list[Row]:
        number, benchmark, router, score = item
        tie_key, trial_key = jax.random.split(jax.random.fold_in(key, number))
        correct, (num_calibration, _) = benchmark.test.correct, benchmark.part_sizes
        nonconformity = SCORES[score](benchmark.scores[router], config.null)
        pool = pool_steps(nonconformity, correct, tie_break(tie_key, nonconformity.shape))
        trials = split_trials(
            trial_key,
            pool,
            num_calibration=num_calibration,
            alpha=config.alpha,
            num_trials=config.splits,
        )
        law = pool_law(pool, num_calibration=num_calibration, alpha=config.alpha)
        rows = []
        for metric in METRICS:
            values = np.asarray(getattr(trials, metric)[:, 0], np.float64)
            spread = spread_of(metric, values, law, len(correct) - num_calibration, config.bins)
            rows.append(
                Row(
                    benchmark=benchmark.name,
                    router=ROUTERS[router],
                    score=score,
                    metric=metric,
                    mean=spread.mean,
                    std=float(values.std(ddof=1)),
                    law_mean=float(getattr(law, f"{metric}_mean")[0]),
                    law_std=float(getattr(law, f"{metric}_std")[0]),
                    distance=float(np.abs(np.cumsum(spread.share) - np.cumsum(spread.law)).max()),
                    spread=spread,
                )
            )
        progress(1)
        return rows

    rows = [row for rows in side_by_side(cell, cells(benchmarks)) for row in rows]
    return Result(rows, {benchmark.name: benchmark.notes for benchmark in benchmarks})


def spread_of(
    metric: str, values: np.ndarray, law: SplitLaw, num_test: int, bins: int
) -> study_plots.Spread:
    """Shares of the splits in bins, and what the law gives them."""
    edges = bin_edges(values, num_test, bins)
    if metric == "risk":
        exact_share = np.histogram(law.risk_support[0], edges, weights=law.risk_probability[0])[0]
    else:
        exact_share = np.diff([law.mixture[metric].cdf(edge)[0] for edge in edges])
    return study_plots.Spread(
        edges, np.histogram(values, edges)[0] / len(values), exact_share, float(values.mean())
    )


def bin_edges(values: np.ndarray, unit: int, bins: int) -> np.ndarray:
    """Edges of about so many bins, each of equally many multiples of 1 / unit, none on an edge."""
    low, high = np.floor(values.min() * unit) - 1, np.ceil(values.max() * unit) + 1
    width = max(1.0, np.ceil((high - low) / bins))
    return (low - 0.5 + width * np.arange(int(np.ceil((high - low) / width)) + 2)) / unit


def report(config: Config, result: Result) -> Report:
    """Means and spreads beside those of the law."""
    names = list(dict.fromkeys(row.benchmark for row in result.rows))
    parts = []
    for name in names:
        lines = [
            [
                row.metric,
                f"{row.router} + {row.score}",
                f"{row.mean:.4f}",
                f"{row.law_mean:.4f}",
                f"{row.std:.4f}",
                f"{row.law_std:.4f}",
                f"{row.distance:.4f}",
            ]
            for metric in METRICS
            for row in result.rows
            if row.benchmark == name and row.metric == metric
        ]
        header = ["metric", "router and score", "mean", "law", "std", "law", "distance"]
        notes = "".join(f"\n  {note}" for note in result.notes[name])
        parts.append(f"{name}, alpha = {config.alpha}, {config.splits:,} splits{notes}\n"
                     f"{reporting.text_table(header, lines)}")  # fmt: skip
    parts.append(
        "distance: between the shares of splits and of the law, cumulated over the bins; "
        f"{config.splits:,} draws from "
        f"the law itself would exceed {1.95 / np.sqrt(config.splits):.4f} once in a thousand. The "
        "law of the risk is "
        "exact; that of the size has exact mean and deviation, but normal components: off where "
        "most sets are full."
    )
    panels: dict[str, dict[str, dict[str, dict[str, study_plots.Spread]]]] = {}
    for row in result.rows:
        by_metric = panels.setdefault(row.benchmark, {}).setdefault(row.router, {})
        by_metric.setdefault(row.metric, {})[row.score] = row.spread
    subtitle = (
        f"{config.splits:,} random splits, encoder '{config.encoder}', null mode '{config.null}'"
    )
    figure = partial(study_plots.spread_figure, float(config.alpha), panels, subtitle)
    fields = (
        "benchmark",
        "router",
        "score",
        "metric",
        "mean",
        "law_mean",
        "std",
        "law_std",
        "distance",
    )
    csv_rows = [{field: getattr(row, field) for field in fields} for row in result.rows]
    return Report("\n\n".join(parts), csv_rows, {"histograms": figure})


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the options, splits, prints and writes what it found; returns the exit status."""
    return run_experiment(
        Config,
        "Test risk and set size over splits at one alpha.",
        run,
        report,
        num_cells,
        arguments,
        load=study_data,
    )


if __name__ == "__main__":
    sys.exit(main())
