"""What a check of the bounds shows: tables, the verdict, rows of a CSV file, figures."""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from racer_jax import reporting
from racer_jax.core.nonconformity import NONCONFORMITY_LABELS
from racer_jax.montecarlo.bound_check import HISTOGRAM_ALPHA, BoundCheck
from racer_jax.studies.checked_pools import STOP_LOSSES

if TYPE_CHECKING:
    from racer_jax.studies.runner import Drawer, Report

# The paper's risk levels are shown, and a few more; results.csv holds every level.
SHOWN = ("0.01", "0.05", "0.1", "0.15", "0.2", "0.3", "0.4", "0.5", "0.7", "0.9")
MOST_FAILED = 10
_ORDER_LABELS = {"J": "RACER-J", "J_learned": "J learned"}


class Result(NamedTuple):
    """The whole check.

    Use this when you read what the bound check gave.

    Attributes:
      alphas: Risk levels as written.
      checks: One for each pool and score.
      notes: By pool, how it was made.
      z_limit: |z| beyond which a cell counts as violated.
      num_tests: Number of comparisons the significance is shared among.
      num_models: Models of the first pool.
      seconds: What the check took.
    """

    alphas: tuple[str, ...]
    checks: list[BoundCheck]
    notes: dict[str, str]
    z_limit: float
    num_tests: int
    num_models: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether no cell failed."""
        return not any("FAIL" in cell.verdict for cell in self.checks)


def label(name: str) -> str:
    """What tables and figures call a score or the loss of a stop.

    Use this when a table or figure names a pool.
    """
    if name in STOP_LOSSES:
        return f"stop: {name}"
    return NONCONFORMITY_LABELS.get(name, _ORDER_LABELS.get(name, name))


def table(result: Result, cell: BoundCheck) -> str:
    """One pool and score as text: the paper's risk levels, and the worst of those that failed.

    Use this when a report prints the cells of a check.
    """
    is_stop = cell.nonconformity in STOP_LOSSES
    size_name, loss_name = ("calls", "incurred") if is_stop else ("size", "avoidable")
    header = [
        "alpha",
        "risk",
        "± s.e.",
        "lower",
        "upper",
        "sharp law",
        "exact",
        "z",
        size_name,
        "abstain",
        loss_name,
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
            known(cell.sharp[i], ".5f"),
            known(cell.exact[i], ".5f"),
            known(cell.z[i], "+.2f"),
            f"{cell.size[i]:.3f}",
            f"{cell.abstention[i]:.4f}",
            known(cell.avoidable_miss[i], ".4f"),
            "  ".join(filter(None, (cell.verdict[i], cell.note[i]))),
        ]
        for i in levels
    ]
    splits = f"{cell.num_splits:,} splits" if cell.num_splits else "all splits, exactly"
    parts = f"{cell.num_calibration} calibration and {cell.num_test} test queries"
    title = f"{cell.pool}, {label(cell.nonconformity)}: {splits}, {parts}"
    more = f"\n... and {hidden} more levels that FAIL, in results.csv" if hidden else ""
    return f"{title}\n{reporting.text_table(header, rows)}{more}"


def known(value: float, form: str) -> str:
    """A number as a table shows it; a dash where there is none.

    Use this when a number may be missing.
    """
    return "-" if np.isnan(value) else format(value, form)


def report(config: Any, result: Result) -> "Report":
    """The tables, the verdict, and how the figures are drawn.

    Use this when a command has checked the bounds.
    """
    from racer_jax.studies.runner import Report

    parts = [table(result, cell) + "\n" for cell in result.checks]
    parts += [f"{name}: {note}" for name, note in result.notes.items() if note]
    text = "\n".join([*parts, summary(config, result)])
    return Report(text, csv_rows(result), figures(config, result), result.passed)


def csv_rows(result: Result) -> list[dict[str, Any]]:
    """A row for each pool, score and alpha. Use this when results go into a file."""
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


def figures(config: Any, result: Result) -> "dict[str, Drawer]":
    """How each figure is drawn, by file name. Use this when a report draws the checks."""
    from racer_jax.plotting import risk as plotting  # Matplotlib takes long to import

    alpha = np.array([float(a) for a in result.alphas])
    by_pool: dict[str, dict[str, BoundCheck]] = {}
    for cell in result.checks:
        by_pool.setdefault(cell.pool, {})[label(cell.nonconformity)] = cell
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
    drawers: dict[str, Drawer] = {
        "risk": partial(plotting.risk_figure, risk, subtitle, failed),
        "size": partial(plotting.size_figure, size, result.num_models, subtitle, failed),
    }
    if first.histogram is not None:
        histograms = {
            pool: {
                label: cell.histogram for label, cell in cells.items() if cell.histogram is not None
            }
            for pool, cells in by_pool.items()
        }
        level = float(HISTOGRAM_ALPHA)
        drawers["histogram"] = partial(
            plotting.histogram_figure, histograms, level, subtitle, failed
        )
    return drawers


def summary(config: Any, result: Result) -> str:
    """The last lines: the verdict, and how long the check took.

    Use this when a report prints the outcome of a check.
    """
    num_cells = len(result.checks) * len(result.alphas)
    verdicts = [verdict for cell in result.checks for verdict in cell.verdict]
    failed, skipped = verdicts.count("FAIL"), verdicts.count("infeasible")
    worst = max(float(np.nan_to_num(np.abs(cell.z)).max()) for cell in result.checks)
    splits = sum(cell.num_splits for cell in result.checks)
    verdict = (
        f"{'PASS' if result.passed else 'FAIL'}: {num_cells - failed - skipped} of {num_cells} "
        f"cells within the bounds and on the law, {failed} beyond"
    )
    if skipped:
        verdict += f", {skipped} infeasible"
    checking = result.seconds
    if config.exact:
        return f"{verdict}\nThe exact laws of all splits, not sampled, in {checking:.1f} s."
    return (
        f"{verdict}\n"
        f"A cell fails beyond {result.z_limit:.2f} standard errors: a chance of "
        f"{config.significance:g} for one false "
        f"alarm in all {result.num_tests:,} comparisons. Largest |z| = {worst:.2f}.\n"
        f"{splits:,} splits x {len(result.alphas)} alphas, checked in {checking:.1f} s, "
        "compilation included: "
        f"{splits * len(result.alphas) / checking:,.0f} calibrations a second."
    )
