"""Files as text: UTF-8 or an error that says where it is not, and CSV read in bulk."""

import codecs
import csv
import gc
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

from racer_jax.data.errors import DataError
from racer_jax.data.formats._progress import progress
from racer_jax.data.formats._rows import CHUNK_ROWS, Chunk, Header, Rows
from racer_jax.data.formats._source import cannot_read, opened, refuse_binary
from racer_jax.data.remedies import Remedy

__all__ = ["Chunk", "CsvFile", "cannot_read", "open_csv", "read_text", "refuse_binary"]

# One field may be this long; an unclosed quote then ends in an error, not in a field as long as the
# file.
MAX_FIELD = 1 << 24
# Rows are held so many bytes at a time, at least a few of them.
_CHUNK_BYTES, _FIRST_ROWS, _FEWEST_ROWS = 1 << 18, 32, 16
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# What spreadsheet programs read as the first line, to know what separates the fields.
_HINT = re.compile(r'"?sep=([^"\r\n])"?\s*')


def not_utf8(path: Path, file: IO[bytes]) -> DataError:
    """The error for a file that is not UTF-8, with the line of the first bad byte."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, offset = 1, 0
    file.seek(0)
    while True:
        pending = len(decoder.getstate()[0])
        block = file.read(1 << 20)
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            at = error.start - pending
            line += block.count(b"\n", 0, max(at, 0))
            bad = error.object[error.start]
            problem = f"must be UTF-8, got byte 0x{bad:02x} at offset {offset + at}"
            problem += "; save it as UTF-8 (in Excel: CSV UTF-8)"
            return DataError(problem, path=path, line=line)
        line, offset = line + block.count(b"\n"), offset + len(block)
        if not block:
            return DataError("must be UTF-8", path=path)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark; an error where there is none."""
    with opened(path) as file:
        refuse_binary(path, file.read(8))
        file.seek(0)
        try:
            text = file.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise not_utf8(path, file) from None
    if not text.strip():
        raise DataError("must not be empty", path=path)
    return text


class CsvFile(Rows):
    """A CSV file whose header has been read and checked.

    Attributes:
      delimiter: What separates its fields.
    """

    def __init__(
        self,
        path: Path,
        binary: IO[bytes],
        text: io.TextIOWrapper,
        delimiter: str | None,
        marker: str | None,
        header: Header,
    ) -> None:
        self._binary, self._file = binary, text
        start = text.tell()
        first = text.readline()
        preamble = None
        if marker is not None and first.startswith(marker):
            preamble = first[len(marker) :].strip()
        else:
            text.seek(start)
        if (hint := _HINT.fullmatch(first)) is not None:
            delimiter = delimiter or hint[1]
            text.readline()
        self._lines_before = int(preamble is not None or hint is not None)
        self._start = text.tell()
        is_export = preamble is not None
        if is_export:
            header = Header(columns=header.columns, index=False, exact=not header.columns)
        self.delimiter = (
            "," if is_export and delimiter is None else delimiter or self._sniffed(header)
        )
        super().__init__(path, self._names(path), header, preamble)
        if self._blank_rows:
            self.accept("rows without any field are left out")
        if delimiter is None and self.delimiter != ",":
            self.accept(f"fields are separated by {_DELIMITERS[self.delimiter]}")
        if hint is not None:
            self.accept(f"the first line, {first.strip()!r}, says what separates the fields")

    def _sniffed(self, header: Header) -> str:
        """The delimiter that makes most sense of the first line; a comma where none does."""
        line = next((line for line in self._file if line.strip("\r\n\t ,;|")), "")
        self._file.seek(self._start)
        names = {}
        for delimiter in _DELIMITERS:
            try:
                fields = next(csv.reader([line], delimiter=delimiter, strict=True), [])
            except csv.Error:
                continue
            if len(fields) > 1:
                names[delimiter] = header.count_known(fields)
        if not names:
            return ","
        # Of equals the first: a comma, unless other fields are known by their names.
        return max(names, key=lambda delimiter: names[delimiter])

    def _names(self, path: Path) -> tuple[str, ...]:
        try:
            self._reader = csv.reader(self._file, delimiter=self.delimiter, strict=True)
            names: tuple[str, ...] = ()
            self._blank_rows = False
            for row in self._reader:
                if any(map(str.strip, row)):
                    names = tuple(row)
                    break
                self._blank_rows |= len(row) > 1
        except csv.Error as error:
            raise DataError(f"must be CSV: {_in_words(error)}", path=path, line=1) from None
        if not names:
            raise DataError("must not be empty", path=path)
        if len(names) == 1:
            for other, name in _DELIMITERS.items():
                if other in names[0]:
                    raise DataError(
                        f"must be separated by {self.delimiter!r}, the header has {name}",
                        path=path,
                        line=1,
                        remedy=Remedy("pass {}", delimiter=other),
                    )
        return names

    def blocks(self) -> Iterator[tuple[int, list[tuple[str, ...]]]]:
        """The records, many at a time: number of the first, and the columns."""
        position = self._binary.tell()
        size = self._binary.seek(0, os.SEEK_END)
        self._binary.seek(position)
        self._num_rows = min(CHUNK_ROWS, _FIRST_ROWS)
        with progress(self.path, size) as update:
            for first, columns in self._blocks():
                position, before = self._binary.tell(), position
                update(position - before)
                # As many rows as a chunk may hold, by the length of those before.
                length = max(1, (position - before) // len(columns[0]))
                self._num_rows = min(CHUNK_ROWS, max(_FEWEST_ROWS, _CHUNK_BYTES // length))
                yield first, columns
                del columns

    def _blocks(self) -> Iterator[tuple[int, list[tuple[str, ...]]]]:
        """The records, many at a time."""
        first, width = 1, self.width
        while True:
            rows: list[list[str]] = []
            try:
                rows.extend(islice(self._reader, self._num_rows))
            except csv.Error as error:
                row = first + len(rows)
                raise DataError(
                    f"must be CSV: {_in_words(error)}", path=self.path, row=row
                ) from None
            if not rows:
                break
            if set(map(len, rows)) != {width} or not all(map(any, rows)):
                rows = self._records(rows, first)
                if not rows:
                    continue
            columns = list(zip(*rows, strict=True))
            del rows
            yield first, columns
            first += len(columns[0])

    def _records(self, rows: list[list[str]], first: int) -> list[list[str]]:
        """The rows without blank lines and blank rows, which are no records."""
        if any(len(row) > 1 and not any(row) for row in rows):
            self.accept("rows without any field are left out")
        rows = [row for row in rows if _is_record(row)]
        odd = next((i for i, row in enumerate(rows) if len(row) != self.width), None)
        if odd is not None:
            raise self.error(
                f"must have {self.width} fields like the header, got {len(rows[odd])}", first + odd
            )
        return rows

    def line_of(self, row: int) -> int | None:
        """The line a record ends on."""
        self._file.seek(self._start)
        reader = csv.reader(self._file, delimiter=self.delimiter, strict=True)
        try:
            numbers = (reader.line_num for fields in reader if _is_record(fields))
            line = next(islice(numbers, row, None), None)
        except csv.Error:
            return None
        return None if line is None else line + self._lines_before

    def check_end(self, safe: Iterable[str]) -> None:
        """Says where a file ends in the middle of a line, so that a cut could pass unnoticed.

        A number or an answer that lost its last characters is still a number or an answer. Where
        the last column is one of `safe`, a cut field is either refused by its own rule or means the
        same. A file that this package wrote always ends with a line break: one that does not was
        cut.
        """
        position = self._binary.tell()
        end = self._binary.seek(0, os.SEEK_END)
        self._binary.seek(max(0, end - 8))
        tail = self._binary.read()
        self._binary.seek(position)
        if tail[-1:] in (b"\n", b"\r", b""):
            return
        if self.last_column in set(safe):
            last = tail.rpartition(self.delimiter.encode())[2].strip().lower()
            if last in (b"n", b"no"):
                self.cut = last.decode()
                self.accept(
                    f"the file does not end with a line break: if it was cut off, its last field, "
                    f"{self.cut!r}, may be the beginning of another word"
                )
            return
        if self.preamble is not None:
            raise DataError(
                "must end with a line break, as it was written: its end is cut off",
                path=self.path,
                field=self.last_column,
            )
        self.accept(
            f"the file does not end with a line break: if it was cut off, the last field of its "
            f"last row, {self.last_column!r}, may have lost characters"
        )


def _in_words(error: csv.Error) -> str:
    """What the module `csv` says, where its words do not say what to look for."""
    text = str(error)
    return "a quotation mark opens a field and none ends it" if "end of data" in text else text


def _is_record(fields: list[str]) -> bool:
    """Whether a row says anything: neither a blank line nor a row of empty fields."""
    return any(fields) or len(fields) == 1


def check_delimiter(delimiter: str, path: Path | None = None) -> None:
    """Refuses what cannot separate the fields of a CSV."""
    if len(delimiter) != 1 or delimiter in '\r\n"\x00':
        raise DataError(
            f"must be separated by one character, got {delimiter!r}",
            path=path,
            remedy=Remedy("pass {}", delimiter=";"),
        )


@contextmanager
def open_csv(
    path: Path,
    delimiter: str | None = None,
    marker: str | None = None,
    *,
    names: Iterable[str] = (),
    columns: Mapping[str, str] | None = None,
    index: bool = True,
) -> Iterator[CsvFile]:
    """Opens a CSV file; whatever is wrong with it as text becomes a `DataError`.

    Args:
      path: The file, plain or compressed.
      delimiter: One character; a comma, a semicolon or a tab, recognised from the header, when
        None.
      marker: What the first line begins with where it is not the header but belongs to the format.
      names: Columns of the format, read whatever their case and the spaces around them.
      columns: Columns of the format that have another name in the file.
      index: Whether a first column without a name is the index of a data frame, and left out.

    Yields:
      The file, its header read.
    """
    if delimiter is not None:
        check_delimiter(delimiter, path)
    # Strings by the million make no cycles, but the collector looks for some at every turn, and jax
    # attaches a callback to it: half of the time of reading.
    collecting = gc.isenabled()
    gc.disable()
    # The limit is the module's, for all readers of the process: put back when done.
    limit = csv.field_size_limit(MAX_FIELD)
    try:
        with opened(path) as binary:
            refuse_binary(path, binary.read(8))
            binary.seek(0)
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
            try:
                yield CsvFile(path, binary, text, delimiter, marker, Header(names, columns, index))
            except UnicodeDecodeError:
                raise not_utf8(path, binary) from None
            finally:
                # The code that opened it closes it.
                text.detach()
    finally:
        csv.field_size_limit(limit)
        if collecting:
            gc.enable()
