"""Figure 8 of the paper: set size against alpha, with baselines that the paper leaves out.

    python experiments/set_size.py                     # the embedded simulated pool
    python experiments/set_size.py --data FOLDER       # RouterDC's files
    python experiments/set_size.py --data FOLDER --null free

Nothing is sampled: sizes are exact means over all calibration/test splits. Baselines: the static
order, a greedy cover of the training rows that does not look at the query, thresholded and
calibrated like any score; and the oracle, which calls one right model on just as many queries as
alpha demands. The avoidable-miss rate stands beside the size, because a null model that covers
unanswerable queries lowers the risk without answering a query.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.core.nonconformity import NullMode, tie_break
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.montecarlo.exact import pool_law
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.orders.coverage_gain import static_order
from racer_jax.plotting import studies as study_plots
from racer_jax.reporting.tables import left_table
from racer_jax.studies.benchmarks import PAPER_ALPHAS, ROUTERS, SCORES, Benchmark, StudyConfig
from racer_jax.studies.paper_data import study_data
from racer_jax.studies.runner import Progress, Report, run_experiment

STATIC, ORACLE = "static order", "oracle"


@dataclass(frozen=True)
class Config(StudyConfig):
    """Options of the figure."""

    alphas: Annotated[str, "risk levels, listed or first:last:step"] = "0.01:0.5:0.01"
    null: Annotated[NullMode, "null mode"] = "paper"
    output: Annotated[Path, "folder of the results"] = Path("results/set_size")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_alphas(self.alphas)


class Row(NamedTuple):
    """One score on one benchmark, arrays by alpha `[a]`.

    Attributes:
      benchmark: Name of the benchmark.
      label: Router and score, or the baseline.
      num_models: M.
      risk: Exact mean test risk.
      size: Exact mean number of models called.
      avoidable_miss: Exact mean share that some model could answer while none that can was called.
    """

    benchmark: str
    label: str
    num_models: int
    risk: np.ndarray
    size: np.ndarray
    avoidable_miss: np.ndarray


class Result(NamedTuple):
    """The figure in numbers.

    Attributes:
      alphas: Risk levels as written.
      rows: One for each benchmark and score.
      notes: By benchmark, how it was made.
    """

    alphas: tuple[str, ...]
    rows: list[Row]
    notes: dict[str, tuple[str, ...]]


def num_curves(config: Config, benchmarks: list[Benchmark]) -> int:
    return len(benchmarks) * (len(config.router_names) * len(SCORES) + 1)


def oracle(name: str, correct: np.ndarray, null: str, alphas: tuple[str, ...]) -> Row:
    """One right model called wherever it must be.

    Misses go to the queries that would need a call.
    """
    alpha = np.array([float(a) for a in alphas])
    unanswerable = float((~correct.any(axis=1)).mean())
    budget = alpha if null != "never" else np.maximum(alpha - unanswerable, 0.0)
    size = np.maximum(1 - unanswerable - budget, 0.0)
    num_misses = 1 - unanswerable - size
    risk = num_misses + (unanswerable if null == "never" else 0.0)
    return Row(name, ORACLE, correct.shape[1], risk, size, num_misses)


def run(
    key: jax.Array, benchmarks: list[Benchmark], config: Config, progress: Progress = lambda _: None
) -> Result:
    """Exact sizes of every router, score and baseline; reads and writes nothing."""
    alphas = parse_alphas(config.alphas)
    rows, notes, number = [], {}, 0
    for benchmark in benchmarks:
        correct = benchmark.test.correct
        num_calibration, _ = benchmark.part_sizes
        notes[benchmark.name] = benchmark.notes
        static = jnp.broadcast_to(
            static_order(benchmark.train.correct, config.null)[None],
            (len(correct), correct.shape[1] + 1),
        )
        pools = {
            f"{ROUTERS[router]} + {score}": nonconformity_of(scores, config.null)
            for router, scores in benchmark.scores.items()
            for score, nonconformity_of in SCORES.items()
        }
        for label, nonconformity in (pools | {STATIC: static}).items():
            ties = tie_break(jax.random.fold_in(key, number), nonconformity.shape)
            law = pool_law(
                pool_steps(nonconformity, correct, ties),
                num_calibration=num_calibration,
                alpha=alphas,
            )
            rows.append(
                Row(
                    benchmark.name,
                    label,
                    correct.shape[1],
                    law.risk_mean,
                    law.size_mean,
                    law.avoidable_miss_mean,
                )
            )
            number += 1
            progress(1)
        rows.append(oracle(benchmark.name, correct, config.null, alphas))
    return Result(alphas, rows, notes)


def report(config: Config, result: Result) -> Report:
    """Sizes at the paper's risk levels, the avoidable-miss rate in brackets."""
    columns = [i for i, a in enumerate(result.alphas) if a in parse_alphas(PAPER_ALPHAS)]
    columns = columns or list(range(len(result.alphas)))
    names = list(dict.fromkeys(row.benchmark for row in result.rows))
    parts = []
    for name in names:
        lines = [
            [
                row.label,
                *(f"{row.size[i]:.2f} ({100 * row.avoidable_miss[i]:.1f}%)" for i in columns),
            ]
            for row in result.rows
            if row.benchmark == name
        ]
        table = left_table(
            ["models called (avoidable misses)", *(result.alphas[i] for i in columns)], lines
        )
        notes = "".join(f"\n  {note}" for note in result.notes[name])
        parts.append(f"{name}, null mode '{config.null}'{notes}\n{table}")
    alpha = np.array([float(a) for a in result.alphas])

    def lines_of(name: str, baseline: bool) -> dict[str, study_plots.SizeLine]:
        return {
            row.label: study_plots.SizeLine(row.size, row.avoidable_miss)
            for row in result.rows
            if row.benchmark == name and (row.label in (STATIC, ORACLE)) == baseline
        }

    figure = partial(
        study_plots.sizes_figure,
        alpha,
        {name: lines_of(name, False) for name in names},
        {name: lines_of(name, True) for name in names},
        result.rows[0].num_models,
        f"exact means over all splits, encoder '{config.encoder}', null mode '{config.null}'",
    )
    csv_rows = [
        {
            "benchmark": row.benchmark,
            "label": row.label,
            "null": config.null,
            "alpha": alpha_,
            **{
                field: float(getattr(row, field)[i]) for field in ("risk", "size", "avoidable_miss")
            },
        }
        for row in result.rows
        for i, alpha_ in enumerate(result.alphas)
    ]
    return Report("\n\n".join(parts), csv_rows, {"size": figure})


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the options, computes the sizes, prints and writes them; returns the exit status."""
    return run_experiment(
        Config,
        "Set size against alpha, with the static order and the oracle.",
        run,
        report,
        num_curves,
        arguments,
        load=study_data,
    )


if __name__ == "__main__":
    sys.exit(main())
