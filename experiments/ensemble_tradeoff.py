"""Figures 3 and 7 of the paper: accuracy gained over the full ensemble against calls saved.

    python experiments/ensemble_tradeoff.py                   # the embedded simulated pool
    python experiments/ensemble_tradeoff.py --data FOLDER     # RouterBench, or any routing table
    with answers

The full ensemble tunes its vote on the same validation parts, and breaks ties by the same router.
Beside RACER stand the fixed numbers of models that need no calibration, and the best single model.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import jax

from racer_jax.plotting import votes as vote_plots
from racer_jax.reporting.tables import left_table
from racer_jax.studies.benchmarks import Benchmark
from racer_jax.studies.paper_data import study_data
from racer_jax.studies.runner import Drawer, Progress, Report, run_experiment
from racer_jax.studies.strategies import (
    BEST_SINGLE,
    STATIC_TOP,
    Difference,
    Votes,
    difference,
    full_name,
    points,
    racer_name,
    saved,
    top_name,
)
from racer_jax.studies.vote_strategies import TOP_K, VoteConfig
from racer_jax.studies.vote_study import counted_votes, num_repeats


@dataclass(frozen=True)
class Config(VoteConfig):
    """Options of the figure."""

    output: Annotated[Path, "folder of the results"] = Path("results/ensemble_tradeoff")


class Row(NamedTuple):
    """One way of answering against the full ensemble of the same router.

    Attributes:
      benchmark: Name of the benchmark and the pool.
      way: Name of the way.
      alpha: The alpha if it is fixed, `chosen` if chosen on validation; empty where there is none.
      calls_saved: Share of model calls saved.
      gain: Accuracy over the full ensemble, paired.
      accuracy: Mean test accuracy.
      full_accuracy: That of the full ensemble.
    """

    benchmark: str
    way: str
    alpha: str
    calls_saved: float
    gain: Difference
    accuracy: float
    full_accuracy: float


class Result(NamedTuple):
    """The figure in numbers.

    Attributes:
      rows: One for each benchmark, way and alpha.
      notes: By benchmark, how it was made.
    """

    rows: list[Row]
    notes: dict[str, tuple[str, ...]]


def run(
    key: jax.Array, benchmarks: list[Benchmark], config: Config, progress: Progress = lambda _: None
) -> Result:
    """Answers every benchmark in every way; reads and writes nothing.

    Raises:
      ValueError: If no benchmark has answers.
    """
    return trades(counted_votes(key, benchmarks, config, progress))


def trades(studies: list[Votes]) -> Result:
    """Every way of the votes that were counted against its full ensemble."""
    rows = []
    for votes in studies:

        def row(name: str, way: str, alpha: str, router: str, votes: Votes = votes) -> Row:
            one, full = votes.strategies[way], votes.strategies[full_name(router)]
            return Row(
                votes.name,
                name,
                alpha,
                saved(one, full),
                difference(one, full),
                one.mean,
                full.mean,
            )

        first = votes.routers[0]
        rows.append(row(BEST_SINGLE, BEST_SINGLE, "", first))
        if STATIC_TOP in votes.strategies:
            rows.append(row(STATIC_TOP, STATIC_TOP, "", first))
        for router in votes.routers:
            names = [top_name(router, k) for k in TOP_K if top_name(router, k) in votes.strategies]
            rows += [row(name, name, "", router) for name in names]
        for label in votes.choices:
            router, _, score = label.partition(" + ")
            rows.append(row(label, label, "chosen", router))
            rows += [
                row(label, racer_name(router, score, alpha), alpha, router)
                for alpha in votes.alphas
            ]
    return Result(rows, {votes.name: votes.notes for votes in studies})


def report(config: Config, result: Result) -> Report:
    """Gains and savings of what each split chose; results.csv has every fixed alpha."""
    names = list(dict.fromkeys(row.benchmark for row in result.rows))
    parts = []
    for name in names:
        lines = [
            [
                row.way,
                f"{100 * row.calls_saved:.1f}%",
                points(row.gain),
                f"{100 * row.accuracy:.1f}",
                f"{100 * row.full_accuracy:.1f}",
            ]
            for row in result.rows
            if row.benchmark == name and row.alpha in ("", "chosen")
        ]
        header = [
            "way of answering",
            "calls saved",
            "gain over all models, tuned",
            "accuracy %",
            "all models %",
        ]
        notes = "".join(f"\n  {note}" for note in result.notes[name])
        parts.append(f"{name}{notes}\n{left_table(header, lines)}")
    at_choice = [row for row in result.rows if row.alpha == "chosen"]
    better, savings = (
        sum(row.gain.mean > 0 for row in at_choice),
        [100 * row.calls_saved for row in at_choice],
    )
    parts.append(
        f"RACER is right more often than the tuned full ensemble in {better} of {len(at_choice)} "
        "settings, and saves "
        f"{min(savings):.0f}% to {max(savings):.0f}% of its calls."
    )
    return Report("\n\n".join(parts), csv_rows(result), {"tradeoff": figure(config, result)})


def figure(config: Config, result: Result) -> Drawer:
    """How gain is drawn against savings, a line for the fixed alphas of each score.

    Accuracies beside those of the full ensemble.
    """
    points_: dict[str, dict[str, vote_plots.Trade]] = {}
    curves: dict[str, dict[str, list[vote_plots.Trade]]] = {}
    accuracies: dict[str, dict[str, tuple[float, float]]] = {}
    for row in result.rows:
        point = vote_plots.Trade(row.calls_saved, row.gain.mean, row.gain.error)
        if row.alpha not in ("", "chosen"):
            curves.setdefault(row.benchmark, {}).setdefault(row.way, []).append(point)
            continue
        points_.setdefault(row.benchmark, {})[row.way] = point
        if row.alpha == "chosen":
            accuracies.setdefault(row.benchmark, {})[row.way] = row.accuracy, row.full_accuracy
    subtitle = f"{config.repeats} x {config.splits:,} random splits, encoder '{config.encoder}'"
    return partial(vote_plots.tradeoff_figure, points_, curves, accuracies, subtitle)


def csv_rows(result: Result) -> list[dict[str, object]]:
    """A row for each way and alpha."""
    lines: list[dict[str, object]] = []
    for row in result.rows:
        flat = row._asdict()
        gain = flat.pop("gain")
        lines.append(
            flat
            | {"gain": gain.mean, "gain_error": gain.error, "gain_split_error": gain.split_error}
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the options, answers, prints and writes what it found; returns the exit status."""
    return run_experiment(
        Config,
        "Accuracy gained over the full ensemble against calls saved.",
        run,
        report,
        num_repeats,
        arguments,
        load=study_data,
    )


if __name__ == "__main__":
    sys.exit(main())
