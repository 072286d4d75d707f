"""The report of a cascade alone: one HTML page with a slider over alpha, as that of a racer."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from racer_jax._files import written_whole
from racer_jax.core.risk_levels import Level, parse_alphas
from racer_jax.data.table import RoutingTable
from racer_jax.racer.report import STOP_LEVELS, page_html, require_plotly, sequential_data
from racer_jax.reporting.files import environment
from racer_jax.serving.cascade import Cascade

TITLE = "One model after another"


def cascade_report_data(
    cascade: Cascade,
    table: RoutingTable,
    alphas: Sequence[Level] | str | None = None,
    title: str = TITLE,
) -> dict[str, Any]:
    """All that the report of a cascade shows, as plain values.

    Use this when you make a page of your own from the same figures.

    Args:
      cascade: The cascade; without a calibration there is one level to show, decided votes alone.
      table: Queries with the answer of every model; without labels for the loss `differs`.
      alphas: Levels of the slider beside its own, as a sequence or as text (`0.01,0.02` or
        first:last:step); None for those from 0.002 to 0.3 that the calibration rows are enough for.
      title: The heading.

    Returns:
      A dictionary: `sequential`, from `sequential_data`; `cascade`, how it was made; `notes`,
      `title` and `environment`.

    Raises:
      NotCalibratedError: If levels are asked for and it has no calibration.
      ValueError: If the table has no answers or rows, or is of other models; if an alpha is out of
        range, or the calibration rows are too few for it.
    """
    levels: Sequence[Level] = STOP_LEVELS
    if alphas is not None:
        levels = parse_alphas(alphas) if isinstance(alphas, str) else alphas
        for alpha in levels:
            cascade.at(alpha)  # says what is wrong with it
    calibration, policy = cascade.calibration, cascade.policy
    sequential = sequential_data(cascade, table, levels)
    promise: dict[str, Any] = {"alpha": None, "num_queries": 0, "date": None}
    if calibration is None:
        sequential["levels"][0]["guarantee"] = cascade.guarantee()
    else:
        promise["alpha"], promise["date"] = calibration.alpha, calibration.date
        promise["num_queries"] = len(calibration.value)
    return {
        "title": title,
        "sequential": sequential,
        "cascade": {
            **promise,
            "loss": cascade.loss,
            "form": cascade.form,
            "label_rule": cascade.label_rule,
            "weights": policy.weights.tolist(),
            "mean_cost": None if policy.mean_cost is None else policy.mean_cost.tolist(),
        },
        "notes": list(table.notes),
        "environment": environment(),
    }


def write_cascade_report(
    cascade: Cascade,
    table: RoutingTable,
    path: str | os.PathLike[str],
    alphas: Sequence[Level] | str | None = None,
    *,
    title: str = TITLE,
) -> dict[str, Any]:
    """Replays a cascade on logged queries and writes the report, whole or not at all.

    Calls, dollars and accuracy against alpha, how often it stops after one, two, three calls, and
    why.

    Use this when other people shall see what a cascade does; `write_report(cascade=)` shows it
    beside the sets of a racer, and `Cascade.evaluate` returns the numbers for a program.

    Args:
      cascade: The cascade.
      table: Queries with the answer of every model, if possible without those of training and
        calibration; `Cascade.unseen` selects them.
      path: The HTML file to write; its folder must exist.
      alphas: Levels of the slider beside its own; see `cascade_report_data`.
      title: The heading.

    Returns:
      What the page shows.

    Raises:
      ModuleNotFoundError: If Plotly is not installed.
      NotCalibratedError: If levels are asked for and it has no calibration.
      OSError: If the file cannot be written.
      ValueError: If the table has no answers or rows, or is of other models; if an alpha is out of
        range, or the calibration rows are too few for it.
    """
    require_plotly()  # what is missing is said before the work is done
    data = cascade_report_data(cascade, table, alphas, title)
    page = page_html("cascade", data)
    with written_whole(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return data
