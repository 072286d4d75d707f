"""Rows of JSON lines, many at a time, by field.

A block of lines whose rows all have the names of the rows before is decoded at once; what is asked
of a field is then asked of a list. Everything else is read row by row.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from racer_jax.data.formats._json import json_list, starts_list
from racer_jax.data.formats._lines import byte_blocks, lines_of
from racer_jax.data.formats._records import (
    AFTER_NAME,
    OFTEN,
    Layout,
    Record,
    checked,
    decoded_all,
    decoded_together,
    layout_of,
    parsed,
)

# More than so many numbers of names are not remembered.
_MAX_COUNTS = 1 << 10
# What is counted in so few rows is counted row by row; in more, by place.
_FEW_ROWS = 128
# Names are looked for so many bytes at a time.
_MARKED_AT_ONCE = 1 << 15


class Batch:
    """Rows that follow one another in a file.

    Args:
      records: The rows, one by one.
      names: The names of their fields, where the rows can be asked by field as well.
      columns: The values of each field, not decoded.
    """

    def __init__(
        self,
        records: Iterator[Record],
        names: Sequence[str] = (),
        columns: Sequence[tuple[Any, ...]] = (),
    ) -> None:
        self.records, self.names = records, tuple(names)
        self._raw = dict(zip(names, columns, strict=True))
        self._decoded: dict[str, list[Any] | None] = {}

    def __len__(self) -> int:
        """The number of rows that can be asked by field; 0 where none can."""
        return len(next(iter(self._raw.values()), ()))

    def __contains__(self, name: str) -> bool:
        """Whether the rows can be asked for a field of this name."""
        return name in self._raw

    def column(self, name: str, kinds: frozenset[type] | None = None) -> list[Any] | None:
        """The values of a field, each of one of these types; None where one is not, or is bad."""
        if name not in self._decoded:
            self._decode(name)
        values = self._decoded[name]
        if values is None or kinds is None or kinds.issuperset(map(type, values)):
            return values
        return None

    def _decode(self, name: str) -> None:
        """Decodes a field, and with the first of those that are nearly always read all of them."""
        raw = self._raw.get(name)
        if raw is None:
            self._decoded[name] = None
            return
        together = [often for often in OFTEN if often in self._raw]
        if name in OFTEN and not self._decoded:
            columns = decoded_together([self._raw[often] for often in together])
            if columns is not None:
                self._decoded |= zip(together, columns, strict=True)
                return
        self._decoded[name] = decoded_all(raw)


def record_batches(path: Path) -> Iterator[Batch]:
    """The objects of JSON lines, or of one JSON list, with their row and line, each checked.

    Args:
      path: The file, plain or compressed.

    Yields:
      The records, those of one block together; their place holds the row counted from 1 and the
      line (0 within a list).

    Raises:
      DataError: If the file is not what it should be; it names row and line.
    """
    if starts_list(path):
        yield Batch(parsed(value, (path, row, 0)) for row, value in json_list(path))
        return
    lines = _Lines(path)
    for line, block in byte_blocks(path):
        batch = lines.batch(block, line)
        del block  # held by the batch, which goes before the next block comes
        yield batch
        del batch


def record_lines(path: Path) -> Iterator[Record]:
    """The rows of `record_batches`, one by one."""
    for batch in record_batches(path):
        yield from batch.records


class _Lines:
    """Reads the rows of one file by what the rows before have shown."""

    def __init__(self, path: Path) -> None:
        self._path, self._row = path, 0
        self._layout: Layout | None = None
        # Numbers of names of rows within which no name stands twice.
        self._counts: set[int] = set()

    def batch(self, block: bytes, line: int) -> Batch:
        """The rows of whole lines."""
        first = self._row + 1
        columns = None if self._layout is None else self._layout.columns(block)
        if self._layout is None or columns is None or not self._are_known(block, len(columns[0])):
            return Batch(self._records(block, line))
        self._row += len(columns[0])
        return Batch(self._again(block, line, first), self._layout.names, columns)

    def _are_known(self, block: bytes, num_rows: int) -> bool:
        """Whether a line is a row, and each has as many names as rows within which none repeats."""
        ends, end = [0], 0
        while end := block.find(b"\n", end) + 1:
            ends.append(end)
        if not block.endswith(b"\n"):
            ends.append(len(block))
        if len(ends) != num_rows + 1:
            return False
        marks = _name_ends(np.frombuffer(block, np.uint8))
        if num_rows > _FEW_ROWS:
            counts = np.diff(np.searchsorted(marks.nonzero()[0], ends)).tolist()
        else:
            counts = [np.count_nonzero(marks[start:end]) for start, end in pairwise(ends)]
        return self._counts.issuperset(counts)

    def _records(self, block: bytes, line: int) -> Iterator[Record]:
        """The rows one by one, from which the next ones learn."""
        for number, content in lines_of(block, line):
            self._row += 1
            yield self._record(content, self._row, number)

    def _again(self, block: bytes, line: int, row: int) -> Iterator[Record]:
        """The rows of a block that was read by field, one by one."""
        layout = self._layout
        for number, content in lines_of(block, line):
            place = (self._path, row, number)
            record = None if layout is None else layout.record(content, place)
            yield checked(content, place) if record is None else record
            row += 1

    def _record(self, content: bytes, row: int, line: int) -> Record:
        """One row."""
        place = (self._path, row, line)
        record = None if self._layout is None else self._layout.record(content, place)
        if record is None:
            # Other names than the row before, or not what it should be.
            record = checked(content, place)
            layout = layout_of(content)
            self._layout = self._layout if layout is None else layout
            return record
        if (number := content.count(AFTER_NAME)) in self._counts:
            return record
        whole = checked(content, place)
        if len(self._counts) < _MAX_COUNTS:
            self._counts.add(number)
        return whole


def _name_ends(characters: np.ndarray) -> np.ndarray:
    """Which characters are the colon after a name."""
    mark, colon = AFTER_NAME
    marks: np.ndarray = characters == colon
    for start in range(1, len(marks), _MARKED_AT_ONCE):
        end = min(start + _MARKED_AT_ONCE, len(marks))
        marks[start:end] &= characters[start - 1 : end - 1] == mark
    return marks
