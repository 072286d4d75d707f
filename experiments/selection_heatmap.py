"""Figure 6 of the paper: which alpha and which vote each split chooses on its validation part.

    python experiments/selection_heatmap.py                   # the embedded simulated pool
    python experiments/selection_heatmap.py --data FOLDER     # RouterBench, or any routing table
    with answers python experiments/selection_heatmap.py --tolerance 0     # the best on validation,
    as the paper chooses

Temperatures of one weighting count together. Within one standard error of the best the smallest set
is chosen, so that noise of a small validation part does not call models for nothing.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import numpy as np

from racer_jax.plotting import votes as vote_plots
from racer_jax.reporting.tables import left_table
from racer_jax.studies.benchmarks import Benchmark
from racer_jax.studies.paper_data import study_data
from racer_jax.studies.runner import Progress, Report, run_experiment
from racer_jax.studies.strategies import Votes
from racer_jax.studies.vote_strategies import VoteConfig
from racer_jax.studies.vote_study import counted_votes, num_repeats


@dataclass(frozen=True)
class Config(VoteConfig):
    """Options of the figure."""

    output: Annotated[Path, "folder of the results"] = Path("results/selection_heatmap")


class Row(NamedTuple):
    """What one router and score chose on one benchmark.

    Attributes:
      benchmark: Name of the benchmark and the pool.
      label: Router and score.
      share: Share of the splits by alpha and weighting, `[a, w]`.
    """

    benchmark: str
    label: str
    share: np.ndarray


class Result(NamedTuple):
    """The figure in numbers.

    Attributes:
      alphas: Risk levels as written.
      weightings: By benchmark, names of the votes.
      rows: One for each benchmark, router and score.
      notes: By benchmark, how it was made.
    """

    alphas: tuple[str, ...]
    weightings: dict[str, tuple[str, ...]]
    rows: list[Row]
    notes: dict[str, tuple[str, ...]]


def run(
    key: jax.Array, benchmarks: list[Benchmark], config: Config, progress: Progress = lambda _: None
) -> Result:
    """Lets every split choose; reads and writes nothing.

    Raises:
      ValueError: If no benchmark has answers.
    """
    return choices(counted_votes(key, benchmarks, config, progress))


def choices(studies: list[Votes]) -> Result:
    """What the splits chose in votes that were counted."""
    rows = [
        Row(votes.name, label, share) for votes in studies for label, share in votes.choices.items()
    ]
    weightings = {votes.name: votes.weightings for votes in studies}
    return Result(
        studies[0].alphas, weightings, rows, {votes.name: votes.notes for votes in studies}
    )


def report(config: Config, result: Result) -> Report:
    """Shares by alpha and by vote."""
    parts, panels = [], {}
    for name, weightings in result.weightings.items():
        rows = [row for row in result.rows if row.benchmark == name]
        lines = [
            [
                row.label,
                *(
                    f"{100 * share:.0f}"
                    for share in (*row.share.sum(axis=1), *row.share.sum(axis=0))
                ),
            ]
            for row in rows
        ]
        header = ["% of splits that chose", *(f"a {alpha}" for alpha in result.alphas), *weightings]
        notes = "".join(f"\n  {note}" for note in result.notes[name])
        parts.append(f"{name}{notes}\n{left_table(header, lines)}")
        panels[name] = {row.label: vote_plots.Choices(weightings, row.share) for row in rows}
    errors = "standard error" if config.tolerance == 1 else "standard errors"
    subtitle = (
        f"{config.repeats} x {config.splits:,} random splits, encoder '{config.encoder}'\n"
        f"smallest set within {config.tolerance:g} {errors} of the best"
    )
    csv_rows = [
        {
            "benchmark": row.benchmark,
            "label": row.label,
            "alpha": alpha,
            "weighting": weighting,
            "share": share,
        }
        for row in result.rows
        for alpha, shares in zip(result.alphas, row.share.tolist(), strict=True)
        for weighting, share in zip(result.weightings[row.benchmark], shares, strict=True)
    ]
    figure = partial(vote_plots.heatmap_figure, result.alphas, panels, subtitle)
    return Report("\n\n".join(parts), csv_rows, {"heatmap": figure})


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the options, lets the splits choose, prints and writes what it found.

    Returns the exit status.
    """
    return run_experiment(
        Config,
        "The alpha and the vote that splits choose on validation.",
        run,
        report,
        num_repeats,
        arguments,
        load=study_data,
    )


if __name__ == "__main__":
    sys.exit(main())
