"""Table 2 of the paper: mean test risk by benchmark, router, score and alpha, beside its law.

    python experiments/risk_table.py                     # the embedded simulated pool
    python experiments/risk_table.py --data FOLDER       # RouterDC's files
    python experiments/risk_table.py --data TABLE        # any routing table

Each split calibrates on half of a benchmark and tests on 40% of it, as in the paper. The
expectation is known exactly: floor(alpha (n + 1)) / (n + 1), for every router and score. A cell
fails beyond the limit that leaves a chance of `significance` for one false alarm in the whole
table.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import numpy as np
from scipy.special import ndtri

from racer_jax.core.nonconformity import NullMode, tie_break
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.montecarlo.exact import pool_law
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import stream_trials
from racer_jax.plotting import studies as study_plots
from racer_jax.reporting.tables import left_table
from racer_jax.risk_control import bounds as guarantees
from racer_jax.studies.benchmarks import PAPER_ALPHAS, ROUTERS, SCORES, Benchmark, StudyConfig
from racer_jax.studies.paper_data import cells, num_cells, study_data
from racer_jax.studies.runner import Progress, Report, run_experiment, side_by_side


@dataclass(frozen=True)
class Config(StudyConfig):
    """Options of the table."""

    alphas: Annotated[str, "risk levels, listed or first:last:step"] = PAPER_ALPHAS
    splits: Annotated[int, "number of random splits"] = 10_000
    null: Annotated[NullMode, "null mode"] = "paper"
    significance: Annotated[float, "chance of a false alarm in the whole table"] = 0.001
    output: Annotated[Path, "folder of the results"] = Path("results/risk_table")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_alphas(self.alphas)
        if self.splits < 2:
            raise ValueError(f"splits must be at least 2, got {self.splits}")
        if not 0 < self.significance < 1:
            raise ValueError(f"significance must be in (0, 1), got {self.significance}")


class Row(NamedTuple):
    """One router and score on one benchmark, arrays by alpha `[a]`.

    Attributes:
      benchmark: Name of the benchmark.
      label: Router and score.
      num_calibration: Calibration queries of a split.
      num_test: Test queries of a split.
      risk: Mean test risk over the splits.
      error: Its standard error.
      law: Exact mean over all splits of these queries.
      sharp: floor(alpha (n + 1)) / (n + 1), which the law is unless the null mode makes ties.
      z: (risk - law) / error.
      size: Mean number of models called.
      avoidable_miss: Share that some model could answer while none that can was called.
    """

    benchmark: str
    label: str
    num_calibration: int
    num_test: int
    risk: np.ndarray
    error: np.ndarray
    law: np.ndarray
    sharp: np.ndarray
    z: np.ndarray
    size: np.ndarray
    avoidable_miss: np.ndarray


class Result(NamedTuple):
    """The table.

    Attributes:
      alphas: Risk levels as written.
      rows: One for each benchmark, router and score.
      notes: By benchmark, how it was made.
    """

    alphas: tuple[str, ...]
    rows: list[Row]
    notes: dict[str, tuple[str, ...]]


def run(
    key: jax.Array, benchmarks: list[Benchmark], config: Config, progress: Progress = lambda _: None
) -> Result:
    """Splits every benchmark under every router and score; reads and writes nothing."""
    alphas = parse_alphas(config.alphas)

    def cell(item: tuple[int, Benchmark, str, str]) -> Row:
        number, benchmark, router, score = item
        tie_key, trial_key = jax.random.split(jax.random.fold_in(key, number))
        num_calibration, num_validation = benchmark.part_sizes
        correct = benchmark.test.correct
        nonconformity = SCORES[score](benchmark.scores[router], config.null)
        pool = pool_steps(nonconformity, correct, tie_break(tie_key, nonconformity.shape))
        trials = stream_trials(
            trial_key,
            pool,
            num_calibration=num_calibration,
            num_validation=num_validation,
            alpha=alphas,
            num_trials=config.splits,
        )
        law = pool_law(pool, num_calibration=num_calibration, alpha=alphas).risk_mean
        error = trials["risk"].std / np.sqrt(config.splits)
        distance = np.where(
            np.abs(trials["risk"].mean - law) < 1e-12, 0.0, trials["risk"].mean - law
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(distance == 0, 0.0, distance / error)
        progress(1)
        return Row(
            benchmark=benchmark.name,
            label=f"{ROUTERS[router]} + {score}",
            num_calibration=num_calibration,
            num_test=len(correct) - num_calibration - num_validation,
            risk=trials["risk"].mean,
            error=error,
            law=law,
            sharp=guarantees.sharp_risk(alphas, num_calibration),
            z=z,
            size=trials["size"].mean,
            avoidable_miss=trials["avoidable_miss"].mean,
        )

    rows = side_by_side(cell, cells(benchmarks))
    return Result(alphas, rows, {benchmark.name: benchmark.notes for benchmark in benchmarks})


def report(config: Config, result: Result) -> Report:
    """The paper's table, a line of the law above each benchmark, and the verdict."""
    z = np.abs(np.stack([row.z for row in result.rows]))
    limit = float(-ndtri(config.significance / (2 * z.size)))
    parts = []
    names = list(dict.fromkeys(row.benchmark for row in result.rows))
    for name in names:
        rows = [row for row in result.rows if row.benchmark == name]
        first = rows[0]
        lines = [["law", *(f"{x:.4f}" for x in first.law), ""]]
        lines += [
            [row.label, *(f"{x:.4f}" for x in row.risk), f"{np.abs(row.z).max():.2f}"]
            for row in rows
        ]
        lines.append(
            [
                "± s.e., at most",
                *(f"{x:.4f}" for x in np.max([row.error for row in rows], axis=0)),
                "",
            ]
        )
        title = (
            f"{name}: {first.num_calibration} calibration, {first.num_test} test queries, "
            f"{config.splits:,} splits"
        )
        table = left_table(["mean test risk", *result.alphas, "max |z|"], lines)
        notes = "".join(f"\n  {note}" for note in result.notes[name])
        parts.append(f"{title}{notes}\n{table}")
    num_failures, beyond = int((z > limit).sum()), int((z > 3).sum())
    parts.append(
        f"{'FAIL' if num_failures else 'PASS'}: {z.size - num_failures} of {z.size} cells on "
        f"the law (within {limit:.2f} standard errors, a chance of "
        f"{config.significance:g} for one false alarm in all). Largest |z| = {z.max():.2f}; "
        f"{beyond} beyond 3, where chance alone would put {z.size * 0.0027:.1f}."
    )
    alpha = np.array([float(a) for a in result.alphas])
    panels = {
        name: {
            row.label: study_plots.RiskLine(row.risk, row.error, row.law)
            for row in result.rows
            if row.benchmark == name
        }
        for name in names
    }
    subtitle = (
        f"{config.splits:,} random splits, encoder '{config.encoder}', null mode '{config.null}'"
    )
    csv_rows = [
        {
            "benchmark": row.benchmark,
            "label": row.label,
            "num_calibration": row.num_calibration,
            "num_test": row.num_test,
            "alpha": alpha_,
            **{
                field: float(getattr(row, field)[i])
                for field in ("risk", "error", "law", "sharp", "z", "size", "avoidable_miss")
            },
        }
        for row in result.rows
        for i, alpha_ in enumerate(result.alphas)
    ]
    figures = {"risk": partial(study_plots.risk_law_figure, alpha, panels, subtitle, num_failures)}
    return Report("\n\n".join(parts), csv_rows, figures, not num_failures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the options, makes the table, prints and writes it; returns the exit status."""
    return run_experiment(
        Config,
        "Mean test risk for every benchmark, router, score and alpha.",
        run,
        report,
        num_cells,
        arguments,
        load=study_data,
    )


if __name__ == "__main__":
    sys.exit(main())
