"""Rows of a table, from a CSV file, JSON lines or a data frame."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from racer_jax.data.errors import DataError
from racer_jax.data.formats._content import chat_text
from racer_jax.data.formats._json import cell
from racer_jax.data.formats._json_rows import JsonRows
from racer_jax.data.formats._lines import without_collector
from racer_jax.data.formats._rows import ColumnRows, Header, Rows
from racer_jax.data.formats._source import opened
from racer_jax.data.formats._text import open_csv

# What errors name where there is no file.
FRAME = Path("the data frame")
_TEXTS = ("query_id", "query", "model", "group", "answer")


@contextmanager
def open_rows(
    path: Path,
    delimiter: str | None = None,
    marker: str | None = None,
    *,
    names: Iterable[str] = (),
    columns: Mapping[str, str] | None = None,
) -> Iterator[Rows]:
    """Opens a file of rows: a CSV, or JSON with an object for each row.

    Args:
      path: The file, plain or compressed.
      delimiter: What separates the fields of a CSV; recognised from the header when None.
      marker: See `open_csv`.
      names: Columns of the format, read whatever their case and the spaces around them.
      columns: Columns of the format that have another name in the file.

    Yields:
      The rows.
    """
    if not holds_json(path):
        with open_csv(path, delimiter, marker, names=names, columns=columns) as file:
            yield file
        return
    with without_collector():
        yield JsonRows(path, Header(names, columns, index=False), _texts(columns))


def _texts(columns: Mapping[str, str] | None) -> frozenset[str]:
    """The names that columns of text have in the file."""
    return frozenset((columns or {}).get(name, name) for name in _TEXTS)


def holds_json(path: Path) -> bool:
    """Whether a file begins as JSON does."""
    with opened(path) as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return start[:1] in (b"{", b"[")


def frame_rows(
    frame: Any, names: Iterable[str] = (), columns: Mapping[str, str] | None = None
) -> ColumnRows:
    """The rows of a data frame of pandas or polars, neither of which is imported.

    Args:
      frame: The frame. An index of pandas that has a name is a column like the others.
      names: Columns of the format, read whatever their case and the spaces around them.
      columns: Columns of the format that have another name in the frame.

    Returns:
      The rows.

    Raises:
      TypeError: If it is not a data frame.
      DataError: If a field is neither text, number nor truth value.
    """
    if hasattr(frame, "reset_index") and any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    try:
        headings = [str(name) for name in frame.columns]
        values = [_listed(frame, j) for j in range(len(headings))]
    except (AttributeError, TypeError):
        raise TypeError(
            f"frame must be a data frame of pandas or polars, got {type(frame).__name__}"
        ) from None
    if len(set(headings)) < len(headings):
        twice = next(name for name in headings if headings.count(name) > 1)
        raise DataError("must be named once, got it twice", path=FRAME, field=twice)
    if not headings or not values[0]:
        raise DataError("must hold at least one row", path=FRAME)
    texts = _texts(columns)
    fields = {
        name: [_field(value, name, row, name in texts) for row, value in enumerate(column, start=1)]
        for name, column in zip(headings, values, strict=True)
    }
    return ColumnRows(FRAME, fields, Header(names, columns, index=False))


def _listed(frame: Any, position: int) -> list[Any]:
    """A column as plain Python values."""
    if hasattr(frame, "iloc"):  # pandas
        return list(frame.iloc[:, position].tolist())
    return list(frame.to_series(position).to_list())


def _field(value: Any, name: str, row: int, is_text: bool) -> str:
    """A value as the field of a table; what pandas calls missing is empty."""
    if type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a scalar of NumPy
        value = value.item()
    if type(value).__name__ == "Decimal":
        return str(value)
    if is_text and isinstance(value, list) and (text := chat_text(value)) is not None:
        value = text
    if not is_text and not isinstance(value, str | bool | int | float | None):
        value = type(value).__name__  # a column to be named, not read
    return cell(value, name, path=FRAME, row=row)
