"""A wide CSV, one row for each query and one column for each model: a spreadsheet of your own.

Columns: `query_id`, `query` (the text) or both; `group` if there are any; every other column is a
model, its fields 0/1 or True/False, or scores with a label rule. `<model>|answer`, `<model>|cost`
(dollars) and `<model>|tokens` may stand beside a model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import Missing, built, check_missing, settle_missing
from racer_jax.data.formats._text import (
    Chunk,
    CsvFile,
    column_of_floats,
    column_of_labels,
    ignored_columns,
    open_csv,
)
from racer_jax.data.labels import GIVEN, LabelRule
from racer_jax.data.table import RoutingTable

_QUERY = ("query_id", "query", "group")
_BESIDE = ("answer", "cost", "tokens")


def read_wide_csv(
    path: str | Path,
    *,
    models: Sequence[str] | None = None,
    label_rule: str | None = None,
    key: jax.Array | None = None,
    missing: Missing = "error",
    delimiter: str = ",",
) -> RoutingTable:
    """Reads a wide CSV.

    Args:
      path: The file, UTF-8, with a header.
      models: The columns that are models; when None, all but `query_id`, `query`, `group` and those
        with a `|`.
      label_rule: When given, the models' columns hold scores and this rule makes the labels.
      key: A typed PRNG key, for the rule `one attempt` alone.
      missing: What to do with empty fields: refuse them (`error`), leave out their queries with a
        note (`drop`) or keep them marked (`keep`).
      delimiter: What separates the fields.

    Returns:
      The table.

    Raises:
      DataError: If the file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    check_missing(missing)
    path = Path(path)
    rule = None if label_rule is None else LabelRule.parse(label_rule)
    with open_csv(path, delimiter) as file:
        if "query_id" not in file.header and "query" not in file.header:
            raise DataError("must be a column, or 'query' must", path=path, field="query_id")
        names = (
            [name for name in file.header if name not in _QUERY and "|" not in name]
            if models is None
            else list(models)
        )
        if not names:
            raise DataError(
                f"must hold a column for each model, got columns {list(file.header)}", path=path
            )
        file.require(*names)
        if "" in names:
            raise DataError("must have a name for every column, got one without", path=path, line=1)
        parts = {name for name in file.header if "|" in name and name not in names}
        known = {f"{name}|{part}" for name in names for part in _BESIDE}
        file.check_end(safe=names if rule is None else [])
        ignored = [
            name for name in file.header if name not in (*_QUERY, *names) and name not in known
        ]
        columns = read_columns(file, names, known & parts, labels=rule is None)
    texts, n, m = columns.get("query"), len(next(iter(columns.values()))), len(names)
    ids = columns["query_id" if "query_id" in columns else "query"]
    check_ids(path, "query_id" if "query_id" in columns else "query", ids)
    values = np.column_stack([columns[name] for name in names])
    if rule is None:
        correct, absent, graded = values == 1, values == -1, None
    else:
        graded, absent = values, np.isnan(values)
        correct = rule.apply(np.where(absent, 0.0, values), key) & ~absent
    fields: dict[str, Any] = {}
    for part, default in (("answer", None), ("cost", np.nan), ("tokens", np.nan)):
        if any(f"{name}|{part}" in columns for name in names):
            matrix = np.full((n, m), default, dtype=object if default is None else np.float64)
            for j, name in enumerate(names):
                if f"{name}|{part}" in columns:
                    matrix[:, j] = columns[f"{name}|{part}"]
            fields["answers" if part == "answer" else part] = matrix
    table = built(
        path,
        ids=ids,
        texts=texts or [""] * n,
        models=names,
        correct=correct,
        group=columns.get("group"),
        graded=graded,
        label_rule=GIVEN if rule is None else rule.name,
        missing=absent,
        notes=ignored_columns(ignored),
        **fields,
    )
    return settle_missing(table, missing, path)


def read_columns(
    file: CsvFile, models: Sequence[str], beside: set[str], labels: bool
) -> dict[str, Any]:
    """All the columns of a wide file: strings of the query, labels or scores of the models, what stands beside them."""
    columns: dict[str, list[Any]] = {}
    for chunk in file.chunks():
        for name in file.header:
            if name in models:
                part = (
                    column_of_labels(file, chunk, name)
                    if labels
                    else column_of_floats(file, chunk, name)
                )
                columns.setdefault(name, []).append(part)
            elif name in _QUERY:
                columns.setdefault(name, []).extend(chunk.columns[name])
            elif name in beside:
                columns.setdefault(name, []).extend(_beside(file, chunk, name))
    return {
        name: np.concatenate(part) if name in models else part for name, part in columns.items()
    }


def _beside(file: CsvFile, chunk: Chunk, name: str) -> list[Any]:
    if name.endswith("|answer"):
        return [text or None for text in chunk.columns[name]]
    values = column_of_floats(file, chunk, name, low=0.0)
    if name.endswith("|tokens") and (bad := np.isfinite(values) & (values % 1 != 0)).any():
        i = int(np.flatnonzero(bad)[0])
        raise file.error(f"must be a whole number, got {values[i]:g}", chunk.first_row + i, name)
    return list(values)


def check_ids(path: Path, field: str, ids: Sequence[str]) -> None:
    """Refuses empty and repeated names of queries, with the row."""
    seen: dict[str, int] = {}
    for row, name in enumerate(ids, start=1):
        if not name:
            raise DataError("must not be empty", path=path, row=row, field=field)
        if (first := seen.setdefault(name, row)) != row:
            raise DataError(
                f"must be unique, got {name[:60]!r} in row {first} already",
                path=path,
                row=row,
                field=field,
            )
