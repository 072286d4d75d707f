"""Rows of a table as lines of JSON, or one list of objects, read twice as a stream.

The first pass finds the names of the fields, of which a row may lack some; the second reads the
rows some at a time.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from racer_jax.data.errors import DataError
from racer_jax.data.formats._batches import Batch, record_batches
from racer_jax.data.formats._content import chat_text
from racer_jax.data.formats._json import cell, starts_list
from racer_jax.data.formats._lines import byte_lines
from racer_jax.data.formats._records import Record
from racer_jax.data.formats._rows import Header, Rows

# So many rows are held at a time where they are not read together.
_CHUNK = 1 << 10
_TEXT = frozenset({str})


class JsonRows(Rows):
    """Rows whose fields have names of their own; what a row lacks is empty.

    Args:
      path: The file.
      header: How the names are read.
      texts: Names whose values must be texts or numbers; what is nested under others is only kept
        so that it can be named.
    """

    def __init__(self, path: Path, header: Header, texts: frozenset[str]) -> None:
        self._texts = texts
        self._keys = _names(path)
        super().__init__(path, self._keys, header)

    def blocks(self) -> Iterator[tuple[int, list[tuple[str, ...]]]]:
        """The records, many at a time: number of the first, and the columns."""
        first = 1
        for batch in record_batches(self.path):
            columns = self._together(batch)
            if columns is not None:
                yield first, columns
                first += len(batch)
                continue
            while records := list(islice(batch.records, _CHUNK)):
                yield first, [tuple(self._cells(records, key)) for key in self._keys]
                first += len(records)

    def _together(self, batch: Batch) -> list[tuple[str, ...]] | None:
        """The columns of rows that all have the same fields, where each is as usual."""
        if not len(batch):
            return None
        columns = []
        for key in self._keys:
            if key not in batch:
                columns.append(("",) * len(batch))
                continue
            values = batch.column(key)
            if values is None:
                return None
            if not (_TEXT.issuperset(map(type, values)) and all(map(str.isascii, values))):
                values = self._plain(values, key)
            if values is None:
                return None
            columns.append(tuple(values))
        return columns

    def _plain(self, values: list[Any], key: str) -> list[str] | None:
        """Values as the fields of a table; None where one is to be refused with its row."""
        try:
            return [self._cell(value, key, 0, 0) for value in values]
        except DataError:
            return None

    def _cells(self, records: list[Record], key: str) -> Iterator[str]:
        for record in records:
            _, row, line = record.place
            yield self._cell(record[key], key, row, line)

    def _cell(self, value: Any, key: str, row: int, line: int) -> str:
        if isinstance(value, list | dict) and key not in self._texts:
            return type(value).__name__
        if isinstance(value, list) and (text := chat_text(value)) is not None:
            value = text
        return cell(value, key, path=self.path, row=row, line=line or None)

    def line_of(self, row: int) -> int | None:
        """The line a record stands on, None where there are no lines."""
        if starts_list(self.path):
            return None
        return next(islice(byte_lines(self.path), row - 1, None), (None, b""))[0]


def _names(path: Path) -> list[str]:
    """The names of the fields of all rows, by first appearance."""
    names: dict[str, None] = {}
    num_rows = num_values = 0
    for batch in record_batches(path):
        if len(batch):
            num_rows, num_values = num_rows + len(batch), num_values + len(batch) * len(batch.names)
            names |= dict.fromkeys(batch.names)
            continue
        for record in batch.records:
            num_rows, num_values = num_rows + 1, num_values + len(record.names)
            if not names.keys() >= set(record.names):
                names |= dict.fromkeys(record.names)
                _check_sparsity(path, num_rows, len(names), num_values)
    if not names:
        raise DataError("must hold at least one field", path=path)
    _check_sparsity(path, num_rows, len(names), num_values)
    return list(names)


def _check_sparsity(path: Path, rows: int, columns: int, values: int) -> None:
    """Refuses rows of which each has fields of its own: their table would not fit in memory."""
    if rows * columns > 100_000 + 20 * values:
        raise DataError(
            f"must have the same fields in most rows, got {values} values for {rows} rows x "
            f"{columns} fields",
            path=path,
        )
