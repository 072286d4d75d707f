"""Table 1 of the paper: accuracy of RACER's votes beside fair baselines, on the same test parts.

    python experiments/accuracy_table.py                      # the embedded simulated pool
    python experiments/accuracy_table.py --data FOLDER        # RouterBench: answers and dollar
    costs python experiments/accuracy_table.py --data TABLE --pools 'all; small=model,model,model'

Each split calibrates on one part, chooses alpha, weighting and temperature on its validation part,
and answers its test part. Where only correctness is known, as in RouterDC's files, nothing can be
voted on: an answer that two wrong models give is a vote for it, and who agrees with whom is not
recorded. There it shows what a perfect judge of the called models' answers would reach: the
coverage of the set, exactly, over all splits.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import numpy as np

from racer_jax.core.nonconformity import tie_break
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.montecarlo.exact import pool_law
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.orders.coverage_gain import static_order
from racer_jax.plotting import votes as vote_plots
from racer_jax.reporting.tables import left_table
from racer_jax.studies.benchmarks import ROUTERS, SCORES, Benchmark
from racer_jax.studies.paper_data import study_data
from racer_jax.studies.runner import Drawer, Progress, Report, run_experiment
from racer_jax.studies.strategies import (
    BEST_SINGLE,
    ORACLE,
    PICKED_SINGLE,
    STATIC_TOP,
    Difference,
    Votes,
    difference,
    dollars,
    full_name,
    points,
    saved,
    single_name,
)
from racer_jax.studies.vote_strategies import VoteConfig
from racer_jax.studies.vote_study import num_repeats, vote_study

# The alphas at which the coverage of sets is shown; results.csv has all.
SHOWN = ("0.05", "0.1", "0.2", "0.3", "0.4")
GAINS = tuple(
    f"{gain}{what}"
    for gain in ("gain", "gain_picked", "gain_full")
    for what in ("", "_error", "_split_error")
)
COLUMNS = (
    *("benchmark", "way", "kind", "alpha", "accuracy", "std"),
    *GAINS,
    *("calls", "calls_saved", "dollars", "dollars_saved", "covered"),
)


@dataclass(frozen=True)
class Config(VoteConfig):
    """Options of the table."""

    output: Annotated[Path, "folder of the results"] = Path("results/accuracy_table")


class Row(NamedTuple):
    """One way of answering with one pool of models.

    Attributes:
      benchmark: Name of the benchmark and the pool.
      way: Name of the way.
      kind: What it is.
      accuracy: Mean test accuracy over splits.
      std: Its standard deviation over splits.
      gain: Accuracy over the best single model, known with hindsight, paired.
      gain_picked: Accuracy over the single model that is best on each split's validation part,
        which a user can have.
      gain_full: Accuracy over the full ensemble with a vote tuned on the same validation parts, of
        the same router.
      calls: Mean number of models called.
      calls_saved: Share of the calls of the full ensemble that are saved.
      dollars: Mean dollars for a thousand queries; None where not known.
      dollars_saved: Share of the dollars of the full ensemble that are saved; None where not known.
    """

    benchmark: str
    way: str
    kind: str
    accuracy: float
    std: float
    gain: Difference
    gain_picked: Difference
    gain_full: Difference
    calls: float
    calls_saved: float
    dollars: float | None
    dollars_saved: float | None


class Coverage(NamedTuple):
    """What can be said of one score where answers are not known, arrays by alpha `[a]`.

    Exact means over all splits.

    Attributes:
      benchmark: Name of the benchmark.
      label: Router and score, or the baseline.
      first: Accuracy of the model it puts first: that of routing.
      size: Mean number of models called.
      covered: Share of queries that a called model answers rightly.
    """

    benchmark: str
    label: str
    first: float
    size: np.ndarray
    covered: np.ndarray


class Result(NamedTuple):
    """The table.

    Attributes:
      alphas: Risk levels as written.
      rows: One for each pool and way of answering.
      coverage: One for each benchmark without answers, router and score.
      bounds: By benchmark without answers, the accuracy of each single model and of all models
        under a perfect judge.
      notes: By benchmark, how it was made.
    """

    alphas: tuple[str, ...]
    rows: list[Row]
    coverage: list[Coverage]
    bounds: dict[str, dict[str, float]]
    notes: dict[str, tuple[str, ...]]


def run(
    key: jax.Array, benchmarks: list[Benchmark], config: Config, progress: Progress = lambda _: None
) -> Result:
    """Answers every benchmark in every way; reads and writes nothing."""
    vote_key, tie_key = jax.random.split(key)
    return tabulate(tie_key, vote_study(vote_key, benchmarks, config, progress), benchmarks, config)


def tabulate(
    key: jax.Array, studies: list[Votes], benchmarks: list[Benchmark], config: Config
) -> Result:
    """The table of votes that were counted, and the coverage of the benchmarks that have none."""
    alphas = parse_alphas(config.alphas)
    rows = [row for votes in studies for row in rows_of(votes)]
    notes = {votes.name: votes.notes for votes in studies}
    # the first repeat stays
    silent = {b.name: b for b in reversed(benchmarks) if b.test.answers is None}
    coverage, bounds = [], {}
    for number, (name, benchmark) in enumerate(
        sorted(silent.items(), key=lambda item: benchmarks.index(item[1]))
    ):
        coverage += coverage_of(jax.random.fold_in(key, number), benchmark, alphas, config)
        correct = benchmark.test.correct
        bounds[name] = dict(zip(benchmark.test.models, correct.mean(axis=0).tolist(), strict=True))
        bounds[name][ORACLE] = float(correct.any(axis=1).mean())
        notes[name] = (
            *benchmark.notes,
            "only correctness is known, not what was answered: no vote can be counted",
        )
    return Result(alphas, rows, coverage, bounds, notes)


def order_of(votes: Votes) -> list[str]:
    """The ways as a reader looks for them: single models, each router's own, what bounds them."""
    singles = sorted(
        (single_name(m) for m in votes.models), key=lambda name: -votes.strategies[name].mean
    )
    of_router = []
    for router in votes.routers:
        names = [
            name
            for name in votes.strategies
            if name == router or name.startswith((f"{router} ", f"{router}:"))
        ]
        names = [name for name in names if votes.strategies[name].kind != "fixed alpha"]
        # The router and its fixed numbers of models first, then RACER.
        of_router += sorted(names, key=lambda name: " + " in name)
    static = [STATIC_TOP] if STATIC_TOP in votes.strategies else []
    return [*singles, PICKED_SINGLE, *static, *of_router, ORACLE]


def rows_of(votes: Votes) -> list[Row]:
    """A row for each way of answering."""
    rows, best, single = [], votes.strategies[BEST_SINGLE], votes.strategies[PICKED_SINGLE]
    for name in order_of(votes):
        way = votes.strategies[name]
        router = next(
            (router for router in votes.routers if name.startswith(router)), votes.routers[0]
        )
        full = votes.strategies[full_name(router)]
        cost, everything = dollars(way), dollars(full)
        rows.append(
            Row(
                votes.name,
                name,
                way.kind,
                way.mean,
                float(way.accuracy.std(ddof=1)),
                difference(way, best),
                difference(way, single),
                difference(way, full),
                float(way.calls.mean()),
                saved(way, full),
                cost,
                None if cost is None or not everything else 1 - cost / everything,
            )
        )
    return rows


def coverage_of(
    key: jax.Array, benchmark: Benchmark, alphas: tuple[str, ...], config: Config
) -> list[Coverage]:
    """Sizes and coverage of every score, and of the static order, which ignores the query."""
    correct, (num_calibration, _) = benchmark.test.correct, benchmark.part_sizes
    ties = tie_break(key, (len(correct), correct.shape[1] + 1))
    order = static_order(benchmark.train.correct, config.null)
    pools = {
        f"{ROUTERS[router]} + {score}": nonconformity_of(benchmark.scores[router], config.null)
        for router in benchmark.scores
        for score, nonconformity_of in SCORES.items()
    }
    pools["static order"] = np.broadcast_to(np.asarray(order), (len(correct), len(order)))
    cells = []
    for label, nonconformity in pools.items():
        law = pool_law(
            pool_steps(nonconformity, correct, ties), num_calibration=num_calibration, alpha=alphas
        )
        first = np.lexsort((np.asarray(ties)[:, :-1], np.asarray(nonconformity)[:, :-1]), axis=-1)[
            :, 0
        ]
        accuracy = float(correct[np.arange(len(correct)), first].mean())
        coverage = float(correct.any(axis=1).mean()) - law.avoidable_miss_mean
        cells.append(Coverage(benchmark.name, label, accuracy, law.size_mean, coverage))
    return cells


# --- tables and figures ---------------------------------------------------------------------------


def vote_table(rows: list[Row]) -> str:
    """One pool as text."""
    has_prices = any(row.dollars is not None for row in rows)
    header = [
        "accuracy %",
        "sd",
        "over best single",
        "over single picked",
        "over all, tuned",
        "calls",
        "saved",
    ]
    header += ["$/1000", "$ saved"] if has_prices else []
    lines = []
    for row in rows:
        bound = row.way == ORACLE or "oracle" in row.way
        calls = ["", ""]
        if row.way != ORACLE:
            calls = [f"{row.calls:.2f}", f"{100 * row.calls_saved:.0f}%"]
        cells = [
            f"{100 * row.accuracy:.1f}",
            f"{100 * row.std:.1f}",
            points(row.gain),
            points(row.gain_picked),
            points(row.gain_full),
            *calls,
        ]
        if has_prices:
            cells += (
                ["", ""]
                if row.dollars is None
                else [f"{row.dollars:.3f}", f"{100 * (row.dollars_saved or 0):.0f}%"]
            )
        lines.append([row.way + (" (a bound)" if bound else ""), *cells])
    return left_table(["way of answering", *header], lines)


def coverage_table(config: Config, result: Result, name: str) -> str:
    """One benchmark without answers as text."""
    columns = [i for i, alpha in enumerate(result.alphas) if alpha in SHOWN] or list(
        range(len(result.alphas))
    )
    lines = [
        [
            cell.label,
            f"{100 * cell.first:.1f}",
            *(f"{100 * cell.covered[i]:.1f} ({cell.size[i]:.2f})" for i in columns),
        ]
        for cell in result.coverage
        if cell.benchmark == name
    ]
    bounds = result.bounds[name]
    best = max((model for model in bounds if model != ORACLE), key=lambda model: bounds[model])
    header = ["coverage % (calls)", "routing %", *(f"alpha {result.alphas[i]}" for i in columns)]
    return (
        f"best single model: {best}, {100 * bounds[best]:.1f}%; some model is right: "
        f"{100 * bounds[ORACLE]:.1f}%\n"
        f"{left_table(header, lines)}"
    )


def report(config: Config, result: Result) -> Report:
    """Tables, one for each benchmark and pool."""
    parts = []
    names = list(dict.fromkeys(row.benchmark for row in result.rows))
    for name in names:
        notes = "".join(f"\n  {note}" for note in result.notes[name])
        parts.append(
            f"{name}{notes}\n{vote_table([row for row in result.rows if row.benchmark == name])}"
        )
    if names:
        parts.append(
            "±: standard error over questions of the paired difference. sd: over splits. Best "
            "single: with hindsight; "
            "picked: on validation, as a user would. RACER chooses alpha and vote "
            f"on validation: the smallest set within {config.tolerance:g} standard errors of the "
            "best, or the best. "
            "Pooled vote: the calibration part helped to choose the vote, which no threshold "
            "depends on."
        )
    for name in result.bounds:
        notes = "".join(f"\n  {note}" for note in result.notes[name])
        parts.append(f"{name}{notes}\n{coverage_table(config, result, name)}")
    if result.bounds:
        parts.append(
            "Coverage: a called model is right. It bounds what any vote, judge or reader of the "
            "answers can do."
        )
    figures: dict[str, Drawer] = {}
    if names:
        panels = {
            name: {
                row.way: vote_plots.Bar(row.accuracy, row.std, row.kind)
                for row in result.rows
                if row.benchmark == name and (row.kind != "bound" or row.way == ORACLE)
            }
            for name in names  # bounds of each router's sets are in the table alone
        }
        subtitle = f"{config.repeats} x {config.splits:,} random splits, encoder '{config.encoder}'"
        figures["accuracy"] = partial(vote_plots.accuracy_figure, panels, subtitle)
    if result.bounds:
        figures["coverage"] = coverage_figure(config, result)
    return Report("\n\n".join(parts), csv_rows(result), figures)


def coverage_figure(config: Config, result: Result) -> Drawer:
    """How coverage is drawn against calls, one line a score."""
    panels = {
        name: {
            cell.label: vote_plots.CoverageLine(cell.size, cell.covered)
            for cell in result.coverage
            if cell.benchmark == name
        }
        for name in result.bounds
    }
    singles = {
        name: max(v for m, v in bound.items() if m != ORACLE)
        for name, bound in result.bounds.items()
    }
    subtitle = f"exact means over all splits, encoder '{config.encoder}'"
    return partial(vote_plots.coverage_figure, panels, singles, subtitle)


def csv_rows(result: Result) -> list[dict[str, object]]:
    """A row for each way; where answers are not known, for each score and alpha."""
    lines: list[dict[str, object]] = []
    blank = dict.fromkeys(COLUMNS)
    for row in result.rows:
        flat = {
            name: value
            for name, value in row._asdict().items()
            if not isinstance(value, Difference)
        }
        for name, value in (
            ("gain", row.gain),
            ("gain_picked", row.gain_picked),
            ("gain_full", row.gain_full),
        ):
            flat |= {
                name: value.mean,
                f"{name}_error": value.error,
                f"{name}_split_error": value.split_error,
            }
        lines.append(blank | flat)
    for cell in result.coverage:
        for i, alpha in enumerate(result.alphas):
            flat = {
                "benchmark": cell.benchmark,
                "way": cell.label,
                "kind": "coverage",
                "alpha": alpha,
            }
            numbers = {
                "accuracy": cell.first,
                "calls": float(cell.size[i]),
                "covered": float(cell.covered[i]),
            }
            lines.append(blank | flat | numbers)
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the options, answers, prints and writes what it found; returns the exit status."""
    return run_experiment(
        Config,
        "Accuracy of every way of answering.",
        run,
        report,
        num_repeats,
        arguments,
        load=study_data,
    )


if __name__ == "__main__":
    sys.exit(main())
