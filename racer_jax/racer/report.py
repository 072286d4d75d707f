"""The report: one HTML page with a slider over alpha, which needs no network and no server.

That of a cascade alone (`racer_jax.serving.cascade_report`) is made of the same parts.

Everything it shows is one block of JSON in the page: `Racer.evaluate` at every level, and what the
racer promises and warns of at each. The page's script only picks, formats and draws; it is the same
for every report.

Why Plotly, inline: the slider redraws charts from that block in the browser, which Plotly does from
plain arrays. Vega (Altair) would want the slider inside its own specification, beside a second copy
of the data, and its runtime compiles code from strings, which the page forbids. The price is a page
of 5 MB, nearly all of it Plotly.

Why it is safe to open and to mail: its Content-Security-Policy allows the page's own two scripts,
by their hashes, and no request whatever. Names of models and groups are data: escaped in the JSON,
set as text, never as markup.
"""

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from jax.typing import ArrayLike

from racer_jax._distribution import install_command
from racer_jax._files import written_whole
from racer_jax.core.risk_levels import Level, exact_alpha, level_name
from racer_jax.data.table import RoutingTable
from racer_jax.racer.errors import NotCalibratedError
from racer_jax.racer.evaluation import TEMPERATURES
from racer_jax.racer.racer import Racer
from racer_jax.racer.results import Evaluation
from racer_jax.reporting.files import as_plain, environment
from racer_jax.routers.scores import Scores

TITLE = "Routing report"
# Levels of stopping early: from well below what is used to where one call is enough.
STOP_LEVELS = ("0.002", "0.005", "0.01", "0.015", "0.02", "0.03", "0.05", "0.1", "0.2", "0.3")


def sequential_data(
    cascade: Any, table: RoutingTable, alphas: Sequence[Level] = STOP_LEVELS
) -> dict[str, Any]:
    """What a report shows of calling one model after another, as plain values.

    Use this when the report shows a cascade beside sets.

    Args:
      cascade: A `racer_jax.serving.Cascade`; one without a calibration stops where the vote is
        decided, and that is all there is to show.
      table: Labelled queries with the answers of every model.
      alphas: Levels; those for which its calibration rows are too few are left out, and its own is
        added.

    Returns:
      A dictionary: `order` of the calls, `reference` (a model, or None for the full vote), `own`,
      the place of its own level, `num_seen`, the rows it was trained or calibrated on, and
      `levels`, each a `PathEvaluation` with its `value` as a number and its `guarantee`; the first,
      of value 0, stops on decided votes alone.
    """
    by_value: dict[Any, Any] = {}
    if cascade.calibration is not None:
        for alpha in (*alphas, cascade.calibration.alpha):
            with suppress(ValueError):  # too few rows for this level
                by_value[exact_alpha(alpha)] = cascade.at(alpha)
    values = sorted(by_value)
    stops = [by_value[value] for value in values]
    names = [level_name(at.calibration.alpha) for at in stops]
    promises = [
        "It stops where no answer to come can change the vote.",
        *(s.guarantee() for s in stops),
    ]
    levels = [
        {**as_plain(done), "value": float(value), "guarantee": words}
        for done, value, words in zip(
            cascade.evaluate(table, names), [0, *values], promises, strict=True
        )
    ]
    for level in levels:  # dollars that were not logged
        if not isinstance(level["dollars"], float):
            level["dollars"] = None
    policy = cascade.policy
    place = 0
    if cascade.calibration is not None:
        place = 1 + values.index(exact_alpha(cascade.calibration.alpha))
    return {
        "own": place,
        "order": list(policy.calls),
        "reference": policy.calls[-1] if policy.reference == "best" else None,
        "num_seen": len(table) - len(cascade.unseen(table)),
        "levels": levels,
    }


def report_data(
    racer: Racer,
    evaluation: Evaluation,
    title: str = TITLE,
    sequential: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All that a report shows, as plain values.

    Use this when you make a page of your own from the same figures.

    Args:
      racer: The calibrated racer.
      evaluation: What `racer.evaluate` measured.
      title: The heading.
      sequential: What `sequential_data` gave, to show beside sets.

    Returns:
      A dictionary: `evaluation` is `evaluation.to_dict()`; `levels` has for each of its alphas the
      `value` as a number, the `guarantee` in words and the `warnings`; `calibration` and
      `environment` say how it was made.

    Raises:
      NotCalibratedError: If the racer has no calibration.
    """
    calibration = racer.calibration
    if calibration is None:
        raise NotCalibratedError("a report")
    levels = []
    for alpha in evaluation.alphas:
        at = racer.at(alpha)
        levels.append(
            {
                "value": float(exact_alpha(alpha)),
                "guarantee": at.guarantee(),
                "warnings": list(at.warnings()),
            }
        )
    return {
        "title": title,
        "evaluation": evaluation.to_dict(),
        "levels": levels,
        "calibration": {
            "num_queries": int(calibration.num_queries.sum()),
            "groups": None if calibration.groups is None else list(calibration.groups),
            "delta": calibration.delta,
            "label_rule": calibration.label_rule,
            "date": calibration.date,
        },
        "sequential": sequential,
        "environment": environment(),
    }


def report_html(data: Mapping[str, Any]) -> str:
    """The page.

    Use this when you need the page as text; `write_report` writes a file.

    Args:
      data: What `report_data` gave.

    Returns:
      HTML that stands alone.

    Raises:
      ModuleNotFoundError: If Plotly is not installed.
    """
    return page_html("report", data)


def page_html(name: str, data: Mapping[str, Any]) -> str:
    """A page from its templates, what all pages share, and its data.

    Use this when you add a kind of page; `report_html` makes the one of a racer.

    Args:
      name: Of the templates, `NAME.html` and `NAME.js`.
      data: All that it shows, as plain values, with its `title`.

    Raises:
      ModuleNotFoundError: If Plotly is not installed.
    """
    plotly = require_plotly()
    templates = files("racer_jax.racer") / "templates"

    def text_of(file: str) -> str:
        return (templates / file).read_text(encoding="utf-8")

    # One function, so that no name of the page is seen from outside.
    script = f'"use strict";\n(() => {{\n{text_of("page.js")}{text_of(f"{name}.js")}}})();\n'
    return Template(text_of(f"{name}.html")).substitute(
        title=html.escape(data["title"]),
        policy=(
            f"default-src 'none'; script-src {_hash(plotly)} {_hash(script)}; "
            "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
        ),
        style=text_of("report.css"),
        data=embedded_json(data),
        plotly=plotly,
        script=script,
    )


def write_report(
    racer: Racer,
    table: RoutingTable,
    path: str | os.PathLike[str],
    alphas: Sequence[Level] | str | None = None,
    *,
    scores: Scores | ArrayLike | None = None,
    temperatures: Sequence[float] = TEMPERATURES,
    title: str = TITLE,
    cascade: Any = None,
) -> Evaluation:
    """Evaluates a racer on labelled queries and writes the report, whole or not at all.

    Use this when other people shall see what a racer does, on a page with figures; `Racer.evaluate`
    returns the same numbers for a program.

    Args:
      racer: The calibrated racer.
      table: Labelled queries, if possible without those of training and calibration;
        `Racer.unseen` selects them.
      path: The HTML file to write; its folder must exist.
      alphas: Levels of the slider beside the racer's own, as in `Racer.evaluate`.
      scores: Scores of the queries, with, and only with, a racer made by `from_scores`.
      temperatures: Temperatures of the weighted votes, where the table has answers.
      title: The heading.
      cascade: A `racer_jax.serving.Cascade` of the same models, to show beside sets where the table
        has answers.

    Returns:
      The evaluation that the page shows.

    Raises:
      ModuleNotFoundError: If Plotly is not installed.
      NotCalibratedError: If the racer has no calibration.
      OSError: If the file cannot be written.
      TypeError: If an argument is of the wrong kind.
      ValueError: If the table is of another pool, lacks results or rows, or an alpha is out of
        range.
    """
    require_plotly()  # what is missing is said before the work is done
    evaluation = racer.evaluate(table, alphas, scores=scores, temperatures=temperatures)
    sequential = None
    if cascade is not None:
        rows = table.aligned(cascade.models)
        sequential = sequential_data(cascade, rows)
    page = report_html(report_data(racer, evaluation, title, sequential))
    with written_whole(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return evaluation


def embedded_json(value: Any) -> str:
    r"""JSON that can stand inside a script element.

    No character in it can end the element or open a comment.

    Use this when a page holds its data.

    >>> embedded_json({"model": "</script><b>"})
    '{"model":"\\u003c/script\\u003e\\u003cb\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def require_plotly() -> str:
    """The source of Plotly.

    Use this when a page is to be made, before what it shows is computed.

    Raises:
      ModuleNotFoundError: If Plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"a report needs plotly: {install_command('report')}") from error
    return str(get_plotlyjs())


def _hash(script: str) -> str:
    """A script as a source of a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
