"""JSON with nothing hidden.

Repeated keys, NaN, deep nesting and broken encodings become errors that say where.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from racer_jax.data.errors import DataError
from racer_jax.data.formats._lines import MAX_RECORD, byte_lines
from racer_jax.data.formats._source import opened
from racer_jax.data.formats._text import read_text

_SPACE = " \t\n\r"


class Repeated(dict[str, Any]):
    """A JSON object that named `key` twice; plain `json` would keep the last in silence."""

    key: str = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    duplicates, keys = Repeated(result), set()
    for key, _ in pairs:
        if key in keys:
            duplicates.key = key
        keys.add(key)
    return duplicates


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def parse(text: str, path: Path, *, row: int | None = None, line: int | None = None) -> Any:
    """One JSON value; NaN and infinities pass as floats, which the caller refuses by field."""
    value, end = _value(text, _skip(text, 0), path, row, line)
    if (end := _skip(text, end)) != len(text):
        raise _invalid(json.JSONDecodeError("Extra data", text, end), path, row=row, line=line)
    return value


def _skip(text: str, start: int) -> int:
    """The first position from `start` on that is no white space."""
    while start < len(text) and text[start] in _SPACE:
        start += 1
    return start


def _value(text: str, start: int, path: Path, row: int | None, line: int | None) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and where it ends."""
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise _invalid(error, path, row=row, line=line) from None
    except RecursionError:
        raise too_deep(path, row=row, line=line) from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise DataError(
            f"must be JSON with numbers of a sane length: {error}", path=path, row=row, line=line
        ) from None


def _invalid(
    error: json.JSONDecodeError, path: Path, *, row: int | None, line: int | None
) -> DataError:
    where = error.lineno if line is None else line
    problem = f"must be JSON: {error.msg} at column {error.colno}"
    return DataError(problem, path=path, row=row, line=where)


def too_deep(path: Path, *, row: int | None = None, line: int | None = None) -> DataError:
    """The error for JSON nested so deeply that Python gives up."""
    return DataError("must be JSON nested less deeply", path=path, row=row, line=line)


def json_lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The objects of a JSON-lines file, or of one JSON list, with row and line, each checked."""
    if starts_list(path):
        yield from ((row, 0, record) for row, record in json_list(read_text(path), path))
        return
    for row, (line, content) in enumerate(byte_lines(path), start=1):
        record = parse(str(content, "utf-8"), path, row=row, line=line)
        check_object(record, path, row=row, line=line)
        yield row, line, record


def starts_list(path: Path) -> bool:
    """Whether a file begins as a JSON list does."""
    with opened(path) as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return start[:1] == b"["


def json_list(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON list, one by one, with their number."""
    position, row = _skip(text, 0), 0
    if text[position : position + 1] != "[":
        kind = type(parse(text, path)).__name__
        raise DataError(f"must be a JSON list of objects, got {kind}", path=path)
    position = _skip(text, position + 1)
    while text[position : position + 1] != "]" or row:
        record, end = _value(text, position, path, None, None)
        row += 1
        _check_length(end - position, path, row, None)
        check_object(record, path, row=row)
        yield row, record
        position = _skip(text, end)
        if text[position : position + 1] == "]":
            break
        if text[position : position + 1] != ",":
            error = json.JSONDecodeError("Expecting ',' delimiter", text, position)
            raise _invalid(error, path, row=row, line=None)
        position = _skip(text, position + 1)
    if not row:
        raise DataError("must hold at least one record, got an empty list", path=path)
    if (end := _skip(text, position + 1)) != len(text):
        raise _invalid(json.JSONDecodeError("Extra data", text, end), path, row=None, line=None)


def _check_length(length: int, path: Path, row: int, line: int | None) -> None:
    if length > MAX_RECORD:
        problem = f"must be a record of at most {MAX_RECORD >> 20} MiB, got {length >> 20} MiB"
        raise DataError(problem, path=path, row=row, line=line)


def check_object(
    record: Any, path: Path, *, row: int | None, line: int | None = None, field: str | None = None
) -> None:
    """Refuses what is not an object, and an object that names a key twice."""
    if not isinstance(record, dict):
        raise DataError(
            f"must be an object, got {shown(record)}", path=path, row=row, line=line, field=field
        )
    if isinstance(record, Repeated):
        name = record.key if field is None else f"{field}.{record.key}"
        raise DataError(
            "must be named once, got it twice", path=path, row=row, line=line, field=name
        )


def check_text(
    value: Any,
    field: str,
    *,
    path: Path,
    row: int | None,
    line: int | None = None,
    empty: bool = True,
) -> None:
    """Refuses what is no string that UTF-8 can write: JSON can escape half of a character."""
    if not isinstance(value, str) or not (value or empty):
        raise DataError(
            f"must be a text, got {shown(value)}", path=path, row=row, line=line, field=field
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        place = error.start + 1
        problem = f"must be text that UTF-8 can write, got a lone surrogate at character {place}"
        raise DataError(problem, path=path, row=row, line=line, field=field) from None


def shown(value: Any) -> str:
    """A value as an error shows it: JSON, cut short."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def row_columns(
    path: Path, rows: Iterator[tuple[int, int, dict[str, Any]]], texts: frozenset[str]
) -> tuple[dict[str, list[str]], list[int]]:
    """JSON objects as columns of fields, and their lines; a key that a row lacks is empty.

    Args:
      path: For an error.
      rows: Row, line and object.
      texts: Keys whose values must be texts or numbers; what is nested under others is only kept so
        that it can be named.

    Returns:
      The columns and the lines.
    """
    columns: dict[str, list[str]] = {}
    lines: list[int] = []
    values = 0
    for row, line, record in rows:
        values += len(record)
        for name, value in record.items():
            if name not in columns:
                _check_sparsity(path, row, len(columns) + 1, values)
            column = columns.setdefault(name, [])
            column.extend([""] * (len(lines) - len(column)))
            if isinstance(value, list | dict) and name not in texts:
                value = type(value).__name__
            column.append(cell(value, name, path=path, row=row, line=line or None))
        lines.append(line)
    if not columns:
        raise DataError("must hold at least one field", path=path)
    _check_sparsity(path, len(lines), len(columns), values)
    for column in columns.values():
        column.extend([""] * (len(lines) - len(column)))
    return columns, lines


def _check_sparsity(path: Path, rows: int, columns: int, values: int) -> None:
    """Refuses rows of which each has fields of its own: their table would not fit in memory."""
    if rows * columns > 100_000 + 20 * values:
        raise DataError(
            f"must have the same fields in most rows, got {values} values for {rows} rows x "
            f"{columns} fields",
            path=path,
        )


def cell(value: Any, field: str, *, path: Path, row: int, line: int | None = None) -> str:
    """A value of a row as the field of a table; None and NaN are empty."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    check_text(value, field, path=path, row=row, line=line)
    return str(value)
