"""LLMRouter's routing data: JSON lines, one for each (query, model).

Fields: `task_name, query, ground_truth, metric, model_name, response, performance, token_num` and
others that are not read (github.com/ulab-uiuc/LLMRouter). A list of the same objects in one JSON
file is read as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from racer_jax.data.answers import text
from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import (
    GRADED,
    Missing,
    Rules,
    built,
    check_missing,
    check_rule,
    grid,
    labels_by_rule,
    object_matrix,
    repeated,
    settle_missing,
)
from racer_jax.data.formats._content import normal_answer
from racer_jax.data.formats._json import check_text, json_lines, shown, too_deep
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax


def read_llmrouter(
    path: str | Path,
    *,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    answer: Callable[[str], str | None] = text,
    missing: Missing = "error",
) -> RoutingTable:
    """Reads routing data of LLMRouter.

    Rows are joined by task, query, right answer and, where there is one, `embedding_id`, which
    distinguishes two questions of the same text.

    Use this when LLMRouter made the routing data of your models.

    Args:
      path: The file.
      label_rule: When given, makes the labels from graded performances, for all rows or by
        `task_name`; when None these must be 0 or 1.
      key: A typed PRNG key, for the rule `one attempt` alone.
      answer: Finds the answer in a response (see `racer_jax.data.answers`); by default the whole
        text.
      missing: What to do with pairs that have no row, or whose performance is NaN or null: `error`,
        `drop` their queries with a note, or `keep` them.

    Returns:
      The table; `group` is `task_name`, and a query's id is
      `<task>/<number in order of appearance>`.

    Raises:
      DataError: If the file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    check_missing(missing)
    path = Path(path)
    check_rule(label_rule)
    queries: dict[tuple[str, ...], int] = {}
    models: dict[str, int] = {}
    rows: list[tuple[int, int, float, float]] = []
    lines: list[tuple[int, int]] = []
    answers: list[str | None] = []
    has_answers = has_tokens = False
    for row, line, record in json_lines(path):
        where: dict[str, Any] = {"path": path, "row": row, "line": line or None}
        for field in ("task_name", "query", "model_name"):
            check_text(record.get(field), field, empty=False, **where)
        identity = (
            record["task_name"],
            record["query"],
            _as_key(record.get("ground_truth"), where),
            _as_key(record.get("embedding_id"), where),
        )
        performance = _performance(record, where)
        if label_rule is None and not (performance in (0, 1) or math.isnan(performance)):
            problem = f"must be 0 or 1, got {performance:g}"
            raise DataError(problem, field="performance", remedy=GRADED, **where)
        tokens = math.nan
        if record.get("token_num") is not None:
            tokens, has_tokens = _number(record["token_num"], "token_num", where), True
            if tokens < 0 or tokens % 1:
                raise DataError(
                    f"must be a whole number of at least 0, got {tokens:g}",
                    field="token_num",
                    **where,
                )
        response = record.get("response")
        if response is not None:
            check_text(response, "response", **where)
        has_answers |= response is not None
        answers.append(normal_answer(response, answer))
        number = queries.setdefault(identity, len(queries))
        rows.append(
            (number, models.setdefault(record["model_name"], len(models)), performance, tokens)
        )
        lines.append((row, line))
    if not rows:
        raise DataError("must hold at least one record", path=path)
    results = np.array(rows)
    query, model = results[:, 0].astype(np.int64), results[:, 1].astype(np.int64)
    names = list(models)
    if (twice := repeated(query * len(names) + model)) is not None:
        (first, _), (row, line) = lines[twice[0]], lines[twice[1]]
        name = names[model[twice[1]]]
        problem = f"must be given once for model {name!r}, got it in row {first} already"
        raise DataError(problem, path=path, row=row, line=line or None, field="query")
    place = grid(query, model, (len(queries), len(names)), path)
    scores = place.fill(results[:, 2], np.nan)
    groups = [identity[0] for identity in queries]
    labels = labels_by_rule(path, scores, groups, label_rule, key)
    token_matrix = place.fill(results[:, 3], np.nan) if has_tokens else None
    table = built(
        path,
        ids=[f"{identity[0]}/{number}" for number, identity in enumerate(queries, start=1)],
        texts=[identity[1] for identity in queries],
        models=names,
        correct=labels.correct,
        group=groups,
        graded=labels.graded,
        answers=object_matrix(place, answers) if has_answers else None,
        tokens=token_matrix,
        label_rule=labels.rule,
        missing=labels.missing,
    )
    return settle_missing(table, missing, path)


def _as_key(value: Any, where: dict[str, Any]) -> str:
    """A JSON value as a key: equal values give equal texts."""
    try:
        return f"{type(value).__name__}:{value}"
    except RecursionError:
        raise too_deep(**where) from None


def _performance(record: Any, where: dict[str, Any]) -> float:
    """What a model achieved; NaN where the record says NaN or null: nobody knows it."""
    value = record.get("performance")
    unknown = value is None and "performance" in record
    if unknown or (isinstance(value, float) and math.isnan(value)):
        return math.nan
    return _number(value, "performance", where)


def _number(value: Any, field: str, where: dict[str, Any]) -> float:
    """A finite number of a record; booleans count as 0 and 1."""
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DataError(f"must be a number, got {shown(value)}", field=field, **where)
    return number
