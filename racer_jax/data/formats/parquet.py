"""Parquet, long or wide: the columns of `long_csv` and `wide_csv`, with types.

A long table has a column `model` and one row for each (query, model); a wide one has one row for
each query and one column for each model. A file this package wrote holds in its metadata what rows
cannot: label rule, notes and prices. Rows are read in batches, columns that are not needed never.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from racer_jax._files import written_whole
from racer_jax.data.checks import may_repeat
from racer_jax.data.errors import DataError
from racer_jax.data.formats import _arrow
from racer_jax.data.formats._arrow import MARK, Columns, Source
from racer_jax.data.formats._cells import (
    Missing,
    Rules,
    built,
    check_missing,
    check_rule,
    labels_by_rule,
    settle_missing,
)
from racer_jax.data.formats._folders import unread, walked
from racer_jax.data.formats._json import parse
from racer_jax.data.formats._long_rows import (
    CONFIDENCE,
    LongRows,
    add_labels,
    is_unlabelled,
    or_unlabelled,
    prices_of,
)
from racer_jax.data.formats._rows import ignored_columns
from racer_jax.data.formats._synonyms import example_name, refuse_other_names
from racer_jax.data.formats._texts import side_by_side
from racer_jax.data.formats._wide_columns import (
    BESIDE,
    QUERY,
    check_last,
    few,
    model_columns,
    without_numbering,
)
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax

VERSION = 1
_BATCH, _WRITTEN = 1 << 10, 1 << 14


def read_parquet(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    models: Sequence[str] | None = None,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    missing: Missing | None = None,
) -> RoutingTable:
    """Reads Parquet, long or wide.

    Use this when results come from a warehouse, a data frame or a dataset of Hugging Face.

    Args:
      path: The file, or a folder of files that are parts of one table.
      columns: Names of the file's columns where they are others, such as
        `{"query": "prompt", "correct": "is_correct"}`; a dot goes into a struct (`doc.question`).
      models: Of a wide table, the columns that are models; when None, all but `query_id`, `query`,
        `group` and those with a `|`. Of a long table, the models to keep, in this order.
      label_rule: Makes the labels from graded scores: the column `score` of a long table, the
        models' columns of a wide one.
      key: A typed PRNG key, for the rule `one attempt` alone.
      missing: What to do with pairs that have no row or an empty label: refuse them (`error`),
        leave out their queries with a note (`drop`) or keep them marked (`keep`). When None they
        are refused, but kept in a file that this package wrote.

    Returns:
      The table; queries and models in order of first appearance.

    Raises:
      DataError: If the file is not what it should be; it names file, row and field.
      ImportError: If pyarrow is not installed.
      ValueError: If an option is not one of those above.
    """
    check_missing(missing or "error")
    path = Path(path)
    check_rule(label_rule)
    with _arrow.open_source(path, dict(columns or {})) as source:
        about = _about(source)
        long = "model" in source.names
        args = (label_rule, key)
        if not long and models is None:
            refuse_other_names(path, source.names)
        fields = _long(source, *args, about, missing) if long else _wide(source, models, *args)
        fields["notes"] += source.notes()
    fields["notes"] += unread(path, walked(path, ".parquet") if path.is_dir() else [], deep=True)
    table = built(path, **fields)
    if about is not None:  # the notes of the table that was written, and none on its texts
        table = replace(table, notes=fields["notes"])
    if models is not None and long:
        if absent := [name for name in models if name not in table.models]:
            raise DataError(f"must hold the model {absent[0]!r}, got {table.models}", path=path)
        table = table.select(models=models)
    default: Missing = "error" if about is None else "keep"
    return settle_missing(table, missing or default, path)


def _about(source: Source) -> dict[str, Any] | None:
    """What the metadata of a file says that this package wrote, checked."""
    text = source.metadata.get(MARK)
    if text is None:
        return None
    try:
        about = parse(text.decode(), source.path)
    except UnicodeDecodeError:
        raise DataError("must hold metadata in UTF-8", path=source.path) from None
    if not isinstance(about, dict) or about.get("version") != VERSION:
        version = about.get("version") if isinstance(about, dict) else about
        raise DataError(
            f"must be of format version {VERSION}, got {version!r}; update racer_jax",
            path=source.path,
        )
    kinds = {"rows": int, "label_rule": str | dict, "notes": list, "price": list | None}
    for name, kind in kinds.items():
        if name not in about or not isinstance(about[name], kind):
            raise DataError(
                "must stand in the metadata of an exported table", path=source.path, field=name
            )
    return about


def _long(
    source: Source,
    rule: Rules | None,
    key: jax.Array | None,
    about: dict[str, Any] | None,
    missing: Missing | None,
) -> dict[str, Any]:
    """The fields of a table of one row for each (query, model)."""
    label = "correct" if rule is None else "score"
    unlabelled = is_unlabelled(source.names, rule)
    if label not in source.names and not (unlabelled and missing == "keep"):
        name = example_name(label, source.names)
        remedy = Remedy("if it has another name pass, for example: {}", columns={label: name})
        if rule is None and "score" in source.names:
            remedy = Remedy("to make labels from the scores pass {}", label_rule="score > 0.5")
        problem = f"must be a column, the file has {source.shown()}"
        if unlabelled:
            problem, remedy = f"{problem}: answers and no labels", or_unlabelled(source.names)
        raise source.error(problem, None, label, remedy)
    identity = source.identity()
    schemes = [n for n in source.names if n.startswith(CONFIDENCE) and n != CONFIDENCE]
    numbers = {"score": -math.inf, "cost": 0.0, "tokens": 0.0}
    key_columns = [identity, "model", *(n for n in ("query", "group") if n != identity)]
    texts = [name for name in key_columns if name in source.names]
    columns, rows = Columns(source), LongRows(identity)
    for batch in source.batches([*texts, label, "answer", *numbers, *schemes], size=_BATCH):
        rows.add_names(
            {name: columns.names(batch, name, empty=name == "query" != identity) for name in texts}
        )
        for name, low in numbers.items():
            columns.numbers(batch, name, low=low, whole=name == "tokens")
        for name in schemes:
            columns.numbers(batch, name, low=0.0, high=1.0)
        if rule is None and not unlabelled:
            columns.labels(batch, "correct")
        columns.texts(batch, "answer")
    num_rows = len(rows)
    if about is None:
        rows.check_last(source.error)
    rows.check(source.error, source.names)
    place = rows.place(source.path)
    rows.columns = columns.taken()
    fields = rows.fields(place)
    add_labels(source.path, fields, place, rows.columns, rule, key)
    fields["notes"] = ignored_columns(
        name
        for name in source.names
        if name not in (*key_columns, *numbers, *schemes, label, "answer")
    )
    if about is not None:
        if about["rows"] != num_rows or not place.is_full():
            raise source.error(
                f"must hold the {about['rows']} rows that its metadata states, got {num_rows}"
            )
        fields["notes"] = [*about["notes"], *fields["notes"]]
        fields["price"] = _prices(about["price"], source)
        if rule is None:
            fields["label_rule"] = about["label_rule"]
    return fields


def _prices(prices: list[Any] | None, source: Source) -> np.ndarray | None:
    try:
        return prices_of(prices)
    except (ValueError, TypeError, OverflowError):
        raise source.error("must be a list of numbers", None, "price") from None


def _wide(
    source: Source, models: Sequence[str] | None, rule: Rules | None, key: jax.Array | None
) -> dict[str, Any]:
    """The fields of a table of one row for each query."""
    identity = source.identity()
    names = list(models or model_columns(source.path, source.names, source.accept))
    for name in names:
        if name not in source.names:
            raise source.error(f"must be a column, the file has {source.shown()}", None, name)
    if not names:
        raise source.error(f"must hold a column for each model, got {source.shown()}")
    beside = {f"{name}|{part}" for name in names for part in BESIDE} & set(source.names)
    names_read = {*QUERY, *names, *beside}
    columns = Columns(source)
    for batch in source.batches([*QUERY, *names, *sorted(beside)], size=_BATCH):
        for name in QUERY:
            columns.texts(batch, name, required=True, empty=name == "query" != identity)
        for name in names:
            if rule is None:
                _labels(source, columns, batch, name, names)
            else:
                columns.numbers(batch, name)
        for name in sorted(beside):
            if name.endswith("|answer"):
                columns.texts(batch, name)
            else:
                columns.numbers(batch, name, low=0.0, whole=name.endswith("|tokens"))
    columns_read = columns.taken()
    arrays = {name: columns_read.pop(name)[:] for name in QUERY if name in columns_read}
    ids = arrays[identity]
    check_last(source.path, arrays)
    if may_repeat(ids):
        first_row: dict[str, int] = {}
        for row, name in enumerate(ids, start=1):
            if (first := first_row.setdefault(name, row)) != row:
                raise source.error(
                    f"must be unique, got {name[:60]!r} in row {first} already", row, identity
                )
    values = side_by_side([columns_read.pop(name) for name in names], len(ids))
    if models is None and rule is not None:
        names, values = without_numbering(names, values, source.accept)
    fields: dict[str, Any] = {
        "ids": ids,
        "texts": arrays.get("query", [""] * len(ids)),
        "models": names,
        "group": arrays.get("group"),
        "notes": ignored_columns(name for name in source.names if name not in names_read),
    }
    if rule is None:
        fields |= {"correct": values == 1, "missing": values == -1}
    else:
        labels = labels_by_rule(source.path, values, fields["group"], rule, key)
        fields |= {"correct": labels.correct, "missing": labels.missing, "graded": values}
        fields["label_rule"] = labels.rule
    for part in BESIDE:
        if any(f"{name}|{part}" in columns_read for name in names):
            parts = [columns_read.pop(f"{name}|{part}", None) for name in names]
            fields["answers" if part == "answer" else part] = side_by_side(parts, len(ids))
    return fields


def _labels(
    source: Source, columns: Columns, batch: _arrow.Batch, name: str, names: Sequence[str]
) -> None:
    """The labels of a model; where they are none, the error names the columns of numbers."""
    try:
        columns.labels(batch, name)
    except DataError as error:
        others = [other for other in source.numeric(names) if other != name]
        if not others:
            raise
        without_it = Remedy("if it is not a model pass {}", models=few(others))
        raise error.advising(without_it, also=True) from None


def is_exported(path: Path) -> bool:
    """Whether this package wrote a file. Use this when a format is guessed from a Parquet file."""
    with _arrow.open_source(path, {}) as source:
        return MARK in source.metadata


def write_parquet(table: RoutingTable, path: str | Path) -> None:
    """Writes a table as long Parquet; `read_parquet` reads it back equal.

    Use this when a warehouse or a data frame is to read the table: one row for each
    (query, model), nulls where something is not known.

    Args:
      table: The table, of at least one query.
      path: Where to. Written whole or not at all.

    Raises:
      ImportError: If pyarrow is not installed.
      ValueError: If the table has no query.
    """
    arrow, parquet = _arrow.modules()
    if not len(table):
        raise ValueError("table must hold at least one query to be written as Parquet, got none")
    rule = table.label_rule if isinstance(table.label_rule, str) else dict(table.label_rule)
    prices = None
    if table.price is not None:
        prices = [None if math.isnan(price) else price for price in table.price.tolist()]
    about = {
        "version": VERSION,
        "rows": table.correct.size,
        "label_rule": rule,
        "price": prices,
        "notes": list(table.notes),
    }
    text, number = arrow.string(), arrow.float64()
    schema = {"query_id": text, "query": text}
    if table.group is not None:
        schema["group"] = text
    schema |= {"model": text, "correct": arrow.bool_()}
    cells = {"score": table.graded, "cost": table.cost, "tokens": table.tokens}
    matrices = {name: matrix for name, matrix in cells.items() if matrix is not None}
    matrices |= {CONFIDENCE + scheme: matrix for scheme, matrix in table.confidence.items()}
    schema |= dict.fromkeys(matrices, number)
    if table.answers is not None:
        schema["answer"] = text
    arrow_schema = arrow.schema(schema, metadata={MARK: json.dumps(about).encode()})
    with (
        written_whole(path) as temporary,
        parquet.ParquetWriter(temporary, arrow_schema, compression="zstd") as file,
    ):
        step = max(1, _WRITTEN // len(table.models))
        for start in range(0, len(table), step):
            rows = slice(start, min(start + step, len(table)))
            file.write_table(
                arrow.Table.from_pydict(_block(table, matrices, rows), schema=arrow_schema)
            )


def _block(table: RoutingTable, matrices: Mapping[str, np.ndarray], rows: slice) -> dict[str, Any]:
    """Some queries of a table, by column."""
    m = len(table.models)

    def spread(values: Sequence[str]) -> list[str]:
        return [value for value in values[rows] for _ in range(m)]

    block: dict[str, Any] = {"query_id": spread(table.ids), "query": spread(table.texts)}
    if table.group is not None:
        block["group"] = spread(table.group)
    labels = table.correct[rows].astype(object)
    if table.missing is not None:
        labels[table.missing[rows]] = None
    block |= {"model": list(table.models) * len(labels), "correct": labels.reshape(-1).tolist()}
    for name, matrix in matrices.items():
        values = matrix[rows].astype(object)
        values[np.isnan(matrix[rows])] = None
        block[name] = values.reshape(-1).tolist()
    if table.answers is not None:
        block["answer"] = table.answers[rows].reshape(-1).tolist()
    return block
