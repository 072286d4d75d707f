"""A long CSV, one row for each (query, model): for your own data, and for exported tables.

Columns: `model`; `query_id`, `query` (the text) or both; `correct` (0/1, True/False) or `score`
with a label rule; and, as far as they are known, `group`, `score`, `answer`, `cost` (dollars),
`tokens`, `confidence_<scheme>`. Their order is free. An empty field means "not known"; an empty
`answer` means that the model gave none. With an `answer` the labels may be left out, for steps that
need none.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from racer_jax._files import written_whole
from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import (
    Missing,
    Rules,
    built,
    check_missing,
    check_rule,
    settle_missing,
)
from racer_jax.data.formats._fields import column_of_floats, column_of_labels
from racer_jax.data.formats._json import Repeated, parse
from racer_jax.data.formats._long_rows import (
    CONFIDENCE,
    LongRows,
    add_labels,
    is_unlabelled,
    or_unlabelled,
    prices_of,
)
from racer_jax.data.formats._rows import Rows, listed
from racer_jax.data.formats._tables import open_rows
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax

VERSION = 1
# The first line of a file that this package wrote: what a table holds beside its rows, as JSON.
MARK = "#racer_jax_table "
COLUMNS = ("query_id", "query", "model", "correct", "score", "group", "answer", "cost", "tokens")
_NUMBERS = {"score": (-np.inf, np.inf), "cost": (0.0, np.inf), "tokens": (0.0, np.inf)}


def read_long_csv(
    path: str | Path,
    *,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    missing: Missing | None = None,
    delimiter: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> RoutingTable:
    """Reads a long CSV, or JSON lines of the same rows.

    Use this when your own data have one row for each query and model; `read_wide_csv` reads one row
    for each query.

    Args:
      path: The file, UTF-8, with a header.
      label_rule: Makes the labels from the column `score`: `score > X`, `score >= X` or
        `one attempt`, for all rows or by group. When None they are the column `correct`.
      key: A typed PRNG key, for the rule `one attempt` alone.
      missing: What to do with pairs that have no row, or an empty label: refuse them (`error`),
        leave out their queries with a note (`drop`) or keep them marked (`keep`), as all are where
        there are answers and no column of labels. When None they are refused, but empty labels are
        kept in a file that this package exported.
      delimiter: What separates the fields; a comma, semicolon or tab. When None it is found in
        the header.
      columns: Columns that have another name in the file, such as `{"query": "prompt"}`.

    Returns:
      The table; queries and models in order of first appearance.

    Raises:
      DataError: If the file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    check_missing(missing or "error")
    check_rule(label_rule)
    path = Path(path)
    with open_rows(path, delimiter, MARK, names=COLUMNS, columns=columns) as rows:
        return table_of_long_rows(rows, label_rule=label_rule, key=key, missing=missing)


def table_of_long_rows(
    file: Rows,
    *,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    missing: Missing | None = None,
) -> RoutingTable:
    """The table of rows for each (query, model), from wherever they come.

    Use this when long rows come from a CSV, lines of JSON or a data frame.

    Args:
      file: The rows.
      label_rule: See `read_long_csv`.
      key: See `read_long_csv`.
      missing: See `read_long_csv`.

    Returns:
      The table, a query a row.

    Raises:
      DataError: See `read_long_csv`.
    """
    path = file.path
    about = _about(file)
    if label_rule is None and "correct" not in file.columns and "score" in file.columns:
        raise DataError(
            "must be a column",
            path=path,
            field="correct",
            remedy=Remedy("to make labels from the scores pass {}", label_rule="score > 0.5"),
        )
    unlabelled = is_unlabelled(file.columns, label_rule)
    if unlabelled and missing != "keep":
        raise DataError(
            f"must be a column, the header has {listed(file.header)}: answers and no labels",
            path=path,
            field="correct",
            remedy=or_unlabelled(file.header),
        )
    label = "correct" if label_rule is None else "score"
    file.require("model", *([] if unlabelled else [label]))
    check_identity(file)
    file.check_end(safe=["correct"])
    rows, notes, fraction = _rows(file, use_labels=label_rule is None and not unlabelled)
    num_rows = len(rows)
    _check_names(file, rows, fraction)
    if about is not None and about["rows"] != num_rows:
        whole = f"the {about['rows']} rows that its first line states"
        raise DataError(f"must hold {whole}, got {num_rows}", path=path)
    place = rows.place(path)
    fields = rows.fields(place)
    if about is not None and not place.is_full():
        raise DataError("must hold a row for every query and model, as it was exported", path=path)
    add_labels(path, fields, place, rows.columns, label_rule, key)
    del rows, place  # before the table is checked
    fields["notes"] = notes
    if about is None:
        return settle_missing(built(path, **fields), missing or "error", path)
    fields["price"] = _prices(about["price"], path)
    if label_rule is None:
        fields["label_rule"] = about["label_rule"]
    # The notes of an exported table stand in its first line, all of them.
    table = replace(built(path, **fields), notes=())
    try:
        table = replace(table, notes=[*about["notes"], *notes])
    except (ValueError, TypeError) as error:
        raise DataError(f"must hold a valid table: {error}", path=path) from None
    return settle_missing(table, missing or "keep", path)


def check_identity(file: Rows) -> None:
    """Refuses rows that name no query. Use this when rows are by query and model."""
    if "query_id" not in file.columns and "query" not in file.columns:
        raise DataError(
            "must be a column, or 'query' must",
            path=file.path,
            field="query_id",
            remedy=file.other_name("query"),
        )


def _prices(prices: list[Any] | None, path: Path) -> np.ndarray | None:
    """The prices of the first line, null where not known."""
    try:
        return prices_of(prices)
    except (ValueError, TypeError, OverflowError):
        raise DataError("must be a list of numbers", path=path, line=1, field="price") from None


def _about(file: Rows) -> dict[str, Any] | None:
    """What the first line of an exported table says, checked."""
    if file.preamble is None:
        return None
    about = parse(file.preamble, file.path, line=1)
    if isinstance(about, Repeated):
        raise DataError("must be named once, got it twice", path=file.path, line=1, field=about.key)
    if not isinstance(about, dict) or about.get("version") != VERSION:
        version = about.get("version") if isinstance(about, dict) else about
        raise DataError(
            f"must be of format version {VERSION}, got {version!r}; update racer_jax",
            path=file.path,
            line=1,
        )
    kinds = {"rows": int, "notes": list, "label_rule": str | dict, "price": list | None}
    for name, kind in kinds.items():
        # A missing "price" is not a price of None: `null` is written where there is none.
        if name not in about or not isinstance(about[name], kind):
            raise DataError(
                "must stand in the first line of an exported table",
                path=file.path,
                line=1,
                field=name,
            )
    return about


def _rows(file: Rows, use_labels: bool) -> tuple[LongRows, list[str], tuple[int, float] | None]:
    """The rows of the file, the notes on how they were read, and the first part of a token."""
    schemes = [name for name in file.header if name.startswith(CONFIDENCE) and name != CONFIDENCE]
    columns_read = {*COLUMNS, *schemes}
    other_columns = [name for name in file.header if name not in columns_read]
    identity = "query_id" if "query_id" in file.columns else "query"
    shared = [name for name in ("query", "group") if name in file.columns and name != identity]
    rows = LongRows(identity)
    fraction: tuple[int, float] | None = None
    for chunk in file.chunks():
        rows.add_names({name: chunk.columns[name] for name in (identity, "model", *shared)})
        for name in _NUMBERS:
            if name in file.columns:
                values = column_of_floats(file, chunk, name, *_NUMBERS[name], name == "tokens")
                rows.add(name, values)
                if name == "tokens" and fraction is None:
                    fraction = _first_fraction(values, chunk.first_row)
        for name in schemes:
            rows.add(name, column_of_floats(file, chunk, name, 0.0, 1.0))
        if use_labels:
            rows.add("correct", column_of_labels(file, chunk, "correct", "score"))
        if "answer" in file.columns:
            rows.add("answer", [text or None for text in chunk.columns["answer"]])
    return rows, file.notes(other_columns), fraction


def _first_fraction(numbers: np.ndarray, first_row: int) -> tuple[int, float] | None:
    """The row and the value of the first number that is not whole; None where all are."""
    bad = np.flatnonzero(np.isfinite(numbers) & (numbers % 1 != 0))
    return (first_row + int(bad[0]), float(numbers[bad[0]])) if len(bad) else None


def _check_names(file: Rows, rows: LongRows, fraction: tuple[int, float] | None) -> None:
    """Refuses empty names, repeated pairs, and a query whose text or group changes."""
    for name in (rows.identity, "model", "group"):
        if (row := rows.row_of_empty(name)) is not None:
            raise file.error("must not be empty", row, name)
    if fraction is not None:
        row, tokens = fraction
        raise file.error(f"must be a whole number, got {tokens:g}", row, "tokens")
    if file.preamble is None:
        rows.check_last(file.error)
    rows.check(file.error, file.header)


def write_long_csv(table: RoutingTable, path: str | Path) -> None:
    """Writes a table as a long CSV; `read_long_csv` reads it back equal.

    The first line begins with `#` and holds, as JSON, what the rows cannot: the format's version,
    label rule, notes and prices. `pandas.read_csv(path, skiprows=1)` reads the rest.

    Use this when people or other programs shall read the table; `save_table` writes for this
    package alone.

    Args:
      table: The table, of at least one query.
      path: Where to. Written whole or not at all.

    Raises:
      ValueError: If the table has no query.
    """
    if not len(table):
        raise ValueError("table must hold at least one query to be written as CSV, got none")
    rule = table.label_rule if isinstance(table.label_rule, str) else dict(table.label_rule)
    prices = None
    if table.price is not None:
        prices = [None if np.isnan(price) else price for price in table.price.tolist()]
    about = {
        "version": VERSION,
        "rows": table.correct.size,
        "label_rule": rule,
        "price": prices,
        "notes": list(table.notes),
    }
    labels = np.where(table.correct, "1", "0").astype(object)
    if table.missing is not None:
        labels[table.missing] = ""
    matrices: dict[str, np.ndarray] = {"correct": labels}
    for name, matrix in (("score", table.graded), ("cost", table.cost), ("tokens", table.tokens)):
        if matrix is not None:
            matrices[name] = _written(matrix)
    matrices |= {
        CONFIDENCE + scheme: _written(matrix) for scheme, matrix in table.confidence.items()
    }
    if table.answers is not None:
        absent = table.answers == None  # noqa: E711 - elementwise
        matrices["answer"] = np.where(absent, "", table.answers)
    with (
        written_whole(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        file.write(MARK + json.dumps(about) + "\r\n")
        # ends lines with CRLF, as RFC 4180 says, and so quotes both characters
        writer = csv.writer(file)
        per_query = ["query_id", "query"] + ([] if table.group is None else ["group"])
        writer.writerow([*per_query, "model", *matrices])
        for i, name in enumerate(table.ids):
            query = [name, table.texts[i]] + ([] if table.group is None else [table.group[i]])
            cells = zip(*(matrix[i] for matrix in matrices.values()), strict=True)
            writer.writerows(
                [*query, model, *cell] for model, cell in zip(table.models, cells, strict=True)
            )


def _written(matrix: np.ndarray) -> np.ndarray:
    """Numbers as the shortest decimals that read back equal, empty where not known."""
    texts = ["" if value != value else repr(value) for value in matrix.reshape(-1).tolist()]
    return np.array(texts, dtype=object).reshape(matrix.shape)
