"""A wide CSV, one row for each query and one column for each model: a spreadsheet of your own.

Columns: `query_id`, `query` (the text) or both; `group` if there are any; every other column is a
model, its fields 0/1 or True/False, or scores with a label rule. `<model>|answer`, `<model>|cost`
(dollars) and `<model>|tokens` may stand beside a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from racer_jax.data.checks import may_repeat
from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import (
    Missing,
    Rules,
    built,
    check_missing,
    check_rule,
    labels_by_rule,
    settle_missing,
)
from racer_jax.data.formats._fields import column_of_floats, column_of_labels
from racer_jax.data.formats._growing import Growing
from racer_jax.data.formats._rows import Chunk, Rows, listed
from racer_jax.data.formats._tables import open_rows
from racer_jax.data.formats._texts import Texts, side_by_side
from racer_jax.data.formats._totals import about_total, is_total, numbers_rows
from racer_jax.data.formats._wide_columns import (
    BESIDE,
    QUERY,
    check_last,
    few,
    model_columns,
    no_model,
    without_numbering,
)
from racer_jax.data.formats.long_csv import check_identity
from racer_jax.data.labels import GIVEN
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax


def read_wide_csv(
    path: str | Path,
    *,
    models: Sequence[str] | None = None,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    missing: Missing = "error",
    delimiter: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> RoutingTable:
    """Reads a wide CSV, or JSON lines of the same rows.

    Use this when your own data have one row for each query and one column for each model, as in a
    spreadsheet; `read_long_csv` reads one row for each query and model.

    Args:
      path: The file, UTF-8, with a header.
      models: The columns that are models; when None, all but `query_id`, `query`, `group` and those
        with a `|`.
      label_rule: When given, the models' columns hold scores and this rule makes the labels; one
        for all rows, or one by group.
      key: A typed PRNG key, for the rule `one attempt` alone.
      missing: What to do with empty fields: refuse them (`error`), leave out their queries with a
        note (`drop`) or keep them marked (`keep`).
      delimiter: What separates the fields; a comma, semicolon or tab. When None it is found in
        the header.
      columns: Columns that have another name in the file, such as `{"query": "prompt"}`.

    Returns:
      The table, a query a row.

    Raises:
      DataError: If the file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    check_missing(missing)
    check_rule(label_rule)
    path = Path(path)
    with open_rows(path, delimiter, names=QUERY, columns=columns) as rows:
        return table_of_wide_rows(
            rows, models=models, label_rule=label_rule, key=key, missing=missing
        )


def table_of_wide_rows(
    file: Rows,
    *,
    models: Sequence[str] | None = None,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    missing: Missing = "error",
) -> RoutingTable:
    """The table of rows with a column for each model, from wherever they come.

    Use this when wide rows come from a CSV, lines of JSON or a data frame.

    Args:
      file: The rows.
      models: See `read_wide_csv`.
      label_rule: See `read_wide_csv`.
      key: See `read_wide_csv`.
      missing: See `read_wide_csv`.

    Returns:
      The table, a query a row.

    Raises:
      DataError: See `read_wide_csv`.
    """
    path = file.path
    check_identity(file)
    if models is None:
        names = model_columns(path, file.header, file.accept)
    else:
        names = list(models)
        file.require(*names)
    if not names:
        raise DataError(
            f"must hold a column for each model, got columns {listed(file.header)}", path=path
        )
    if len(set(names)) < len(names):
        raise DataError("must name each model once", path=path, field="models")
    columns_read = {*names, *QUERY, *(f"{name}|{part}" for name in names for part in BESIDE)}
    file.check_end(safe=names if label_rule is None else [])
    other_columns = [name for name in file.header if name not in columns_read]
    fields_of = read_columns(file, frozenset(names), columns_read, labels=label_rule is None)
    texts, n = fields_of.get("query"), len(next(iter(fields_of.values())))
    identity = "query_id" if "query_id" in fields_of else "query"
    ids = fields_of[identity]
    check_last(path, fields_of)
    check_ids(path, identity, ids)
    values = side_by_side([fields_of.pop(name) for name in names], n)
    if models is None and label_rule is not None:
        names, values = without_numbering(names, values, file.accept)
    fields: dict[str, Any] = {}
    group = fields_of.get("group")
    if label_rule is None:
        fields |= {"correct": values == 1, "missing": values == -1, "label_rule": GIVEN}
    else:
        labels = labels_by_rule(path, values, group, label_rule, key)
        fields |= {"correct": labels.correct, "missing": labels.missing, "label_rule": labels.rule}
        fields["graded"] = values
    for part in BESIDE:
        if any(f"{name}|{part}" in fields_of for name in names):
            columns = [fields_of.pop(f"{name}|{part}", None) for name in names]
            fields["answers" if part == "answer" else part] = side_by_side(columns, n)
    del fields_of, values
    table = built(
        path,
        ids=ids,
        texts=texts or ("",) * n,
        models=names,
        group=group,
        notes=file.notes(other_columns),
        **fields,
    )
    return settle_missing(table, missing, path)


def read_columns(
    file: Rows, models: frozenset[str], columns_read: set[str], labels: bool
) -> dict[str, Any]:
    """The columns of a wide file: strings of the query, labels or scores of models, the rest.

    Use this when the columns of a wide file are read.
    """
    columns: dict[str, Any] = {}
    alike: dict[str, str] = {}
    for chunk in file.chunks():
        for name in file.header:
            if name in models:
                part = _scores(file, chunk, name, models, labels)
                columns.setdefault(name, Growing(part.dtype)).extend(part)
            elif name == "group":
                groups = (alike.setdefault(group, group) for group in chunk.columns[name])
                columns.setdefault(name, []).extend(groups)
            elif name in QUERY:
                columns.setdefault(name, []).extend(chunk.columns[name])
            elif name in columns_read and name.endswith("|answer"):
                texts = [text or None for text in chunk.columns[name]]
                columns.setdefault(name, Texts()).extend(texts)
            elif name in columns_read:
                columns.setdefault(name, Growing(np.float64)).extend(_beside(file, chunk, name))
    for name in QUERY:
        if name in columns:
            columns[name] = tuple(columns[name])
    return columns


def _scores(
    file: Rows, chunk: Chunk, name: str, models: frozenset[str], labels: bool
) -> np.ndarray:
    """The labels or scores of a model; where they are none, the error names the other models."""
    column_of = column_of_labels if labels else column_of_floats
    try:
        return column_of(file, chunk, name)
    except DataError as error:
        place = (error.row or chunk.first_row) - chunk.first_row
        for field in QUERY[:2]:
            if field in chunk.columns and is_total(text := chunk.columns[field][place]):
                raise file.error(about_total(text), chunk.first_row + place, field) from None
        others = [other for other in file.header if other in models and other != name]
        others = [other for other in others if _is_read(file, chunk, other, labels)]
        if not others:
            raise
        if chunk.first_row == 1 and numbers_rows(chunk.columns[name], least=2):
            raise no_model(file.path, name, others) from None
        without_it = Remedy("if it is not a model pass {}", models=few(others))
        raise error.advising(without_it, also=True) from None


def _is_read(file: Rows, chunk: Chunk, name: str, labels: bool) -> bool:
    """Whether the fields of a column are labels or scores."""
    try:
        (column_of_labels if labels else column_of_floats)(file, chunk, name)
    except DataError:
        return False
    return True


def _beside(file: Rows, chunk: Chunk, name: str) -> np.ndarray:
    """The costs or tokens of a model."""
    values = column_of_floats(file, chunk, name, low=0.0, whole=name.endswith("|tokens"))
    if name.endswith("|tokens") and (bad := np.isfinite(values) & (values % 1 != 0)).any():
        i = int(np.flatnonzero(bad)[0])
        raise file.error(f"must be a whole number, got {values[i]:g}", chunk.first_row + i, name)
    return values


def check_ids(path: Path, field: str, ids: Sequence[str]) -> None:
    """Refuses empty and repeated names of queries, with the row.

    Use this when a file names its queries.
    """
    if all(ids) and not may_repeat(ids):
        return
    first_row: dict[str, int] = {}
    for row, name in enumerate(ids, start=1):
        if not name:
            raise DataError("must not be empty", path=path, row=row, field=field)
        if (first := first_row.setdefault(name, row)) != row:
            raise DataError(
                f"must be unique, got {name[:60]!r} in row {first} already",
                path=path,
                row=row,
                field=field,
            )
