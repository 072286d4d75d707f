"""Files as text: UTF-8 or an error that says where it is not, and CSV read in bulk without losing the place."""

import codecs
import csv
import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from racer_jax.data.errors import DataError

# One field may be this long; an unclosed quote then ends in an error, not in a field as long as the
# file.
MAX_FIELD = 1 << 24
# Small enough that the rows of a chunk stay in the cache and are freed young: 65,536 is half as
# fast again.
CHUNK_ROWS = 1 << 12


def not_utf8(path: Path) -> DataError:
    """The error for a file that is not UTF-8, with the line of the first bad byte."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, offset = 1, 0
    with path.open("rb") as file:
        while True:
            pending = len(decoder.getstate()[0])
            block = file.read(1 << 20)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                at = error.start - pending
                line += block.count(b"\n", 0, max(at, 0))
                hint = (
                    "; it looks like UTF-16"
                    if offset == 0 and block[:2] in (b"\xff\xfe", b"\xfe\xff")
                    else ""
                )
                bad = error.object[error.start]
                return DataError(
                    f"must be UTF-8, got byte 0x{bad:02x} at offset {offset + at}{hint}",
                    path=path,
                    line=line,
                )
            line, offset = line + block.count(b"\n"), offset + len(block)
            if not block:
                return DataError("must be UTF-8", path=path)


def refuse_binary(path: Path) -> None:
    """Refuses pickles, which run code when read, and other files that hold no text; says how to turn them into CSV."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise cannot_read(path, error) from None
    recipe = f'python -c "import pandas; pandas.{{}}({str(path)!r}).to_csv({str(path.with_suffix(".csv"))!r})"'
    if path.suffix in (".pkl", ".pickle") or (
        start[:1] == b"\x80" and b"\x02" <= start[1:2] <= b"\x05"
    ):
        raise DataError(
            "must not be a pickle, which can run any code when it is read; turn one that you "
            "trust into CSV with " + recipe.format("read_pickle"),
            path=path,
        )
    if start[:4] == b"PAR1":
        raise DataError(
            "must be text, got Parquet; turn it into CSV with " + recipe.format("read_parquet"),
            path=path,
        )
    if start[:4] == b"PK\x03\x04":
        raise DataError(
            "must be text, got a zip archive; save a spreadsheet as CSV (UTF-8) first", path=path
        )


def cannot_read(path: Path, error: OSError) -> DataError:
    """The error for a file that the system will not give."""
    return DataError(f"cannot be read: {error.strerror or error}", path=path)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark; an error where there is none."""
    refuse_binary(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise cannot_read(path, error) from None
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    if not text.strip():
        raise DataError("must not be empty", path=path)
    return text


class Codes:
    """Strings as integers, numbered by first appearance."""

    def __init__(self) -> None:
        self._index: defaultdict[str, int] = defaultdict(count().__next__)

    def __call__(self, values: Sequence[str]) -> np.ndarray:
        """The code of each value, int64."""
        return np.fromiter(map(self._index.__getitem__, values), np.int64, len(values))

    def __len__(self) -> int:
        return len(self._index)

    @property
    def values(self) -> list[str]:
        """The distinct values in order of their codes."""
        return list(self._index)


class Chunk(NamedTuple):
    """Some rows of a CSV file, by column.

    Attributes:
      first_row: Number of the first record, counted from 1 without the header.
      columns: Column name -> its fields.
    """

    first_row: int
    columns: dict[str, tuple[str, ...]]


class CsvFile:
    """A CSV file whose header has been read and checked.

    Attributes:
      path: The file.
      header: The names of the columns.
      preamble: The text after `marker` on the first line, None where the file does not begin with
        the marker.
    """

    def __init__(self, path: Path, file: TextIO, delimiter: str, marker: str | None) -> None:
        self.path, self._file, self._delimiter = path, file, delimiter
        self.preamble: str | None = None
        start = file.tell()
        first = file.readline()
        if marker is not None and first.startswith(marker):
            self.preamble = first[len(marker) :].strip()
        else:
            file.seek(start)
        self._start = file.tell()
        self.header = self._header()

    def _header(self) -> tuple[str, ...]:
        try:
            self._reader = csv.reader(self._file, delimiter=self._delimiter, strict=True)
            header = tuple(next((row for row in self._reader if row), ()))
        except csv.Error as error:
            raise DataError(f"must be CSV: {error}", path=self.path, line=1) from None
        if not header:
            raise DataError("must not be empty", path=self.path)
        if len(header) == 1:
            for other, name in ((";", "semicolons"), ("\t", "tabs"), (",", "commas")):
                if other in header[0]:
                    raise DataError(
                        f"must be separated by {self._delimiter!r}, the header has {name}; pass "
                        f"delimiter={other!r}",
                        path=self.path,
                        line=1,
                    )
        seen: set[str] = set()
        for name in header:
            if name in seen:
                raise DataError(
                    "must be named once in the header, got it twice", path=self.path, field=name
                )
            seen.add(name)
        return header

    def require(self, *names: str) -> None:
        """Refuses a header that lacks one of the names."""
        for name in names:
            if name not in self.header:
                raise DataError(
                    f"must be a column, the header has {list(self.header)}",
                    path=self.path,
                    field=name,
                )

    def chunks(self) -> Iterator[Chunk]:
        """The records, many at a time; every record has as many fields as the header."""
        first, width = 1, len(self.header)
        while True:
            rows: list[list[str]] = []
            try:
                rows.extend(islice(self._reader, CHUNK_ROWS))
            except csv.Error as error:
                row = first + len(rows)
                raise DataError(f"must be CSV: {error}", path=self.path, row=row) from None
            if not rows:
                break
            if set(map(len, rows)) != {width}:
                rows = [row for row in rows if row]  # blank lines are no records
                odd = next((i for i, row in enumerate(rows) if len(row) != width), None)
                if odd is not None:
                    raise self.error(
                        f"must have {width} fields like the header, got {len(rows[odd])}",
                        first + odd,
                    )
                if not rows:
                    continue
            yield Chunk(first, dict(zip(self.header, zip(*rows, strict=True), strict=True)))
            first += len(rows)
        if first == 1:
            raise DataError("must hold at least one row below the header", path=self.path)

    def error(self, problem: str, row: int, field: str | None = None) -> DataError:
        """An error at a record, with the line it ends on."""
        self._file.seek(self._start)
        reader = csv.reader(self._file, delimiter=self._delimiter, strict=True)
        numbers = (reader.line_num for fields in reader if fields)
        line = next(islice(numbers, row, None), None)
        if line is not None and self.preamble is not None:
            line += 1
        return DataError(problem, path=self.path, row=row, line=line, field=field)

    def check_end(self, safe: Iterable[str]) -> None:
        """Refuses a file that ends in the middle of a line, where the cut could pass unnoticed.

        A number or an answer that lost its last characters is still a number or an answer. Where
        the last column is one of `safe`, a cut field is either refused by its own rule or means the
        same.
        """
        if self.header[-1] in set(safe):
            return
        with self.path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 1))
            if file.read() not in (b"\n", b"\r"):
                raise DataError(
                    "must end with a line break: without one the last field may have been cut short; "
                    "add one if the file is whole",
                    path=self.path,
                    field=self.header[-1],
                )


@contextmanager
def open_csv(path: Path, delimiter: str = ",", marker: str | None = None) -> Iterator[CsvFile]:
    """Opens a CSV file; whatever is wrong with it as text becomes a `DataError`.

    Args:
      path: The file.
      delimiter: One character.
      marker: What the first line begins with where it is not the header but belongs to the format.

    Yields:
      The file, its header read.
    """
    refuse_binary(path)
    # Strings by the million make no cycles, but the collector looks for some at every turn, and jax
    # hangs a callback on it: half of the time of reading.
    collecting = gc.isenabled()
    gc.disable()
    # The limit is the module's, for all readers of the process: put back when done.
    limit = csv.field_size_limit(MAX_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield CsvFile(path, file, delimiter, marker)
    except OSError as error:
        raise cannot_read(path, error) from None
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    finally:
        csv.field_size_limit(limit)
        if collecting:
            gc.enable()


def column_of_floats(
    file: CsvFile,
    chunk: Chunk,
    name: str,
    low: float = -np.inf,
    high: float = np.inf,
) -> np.ndarray:
    """A column of decimal numbers, float64; an empty field is NaN ("not known"), anything else is refused."""
    column = chunk.columns[name]
    try:
        values = np.array([float(text) if text else np.nan for text in column])
    except ValueError:
        i = next(i for i, text in enumerate(column) if text and not is_number(text))
        raise file.error(_numeric(low, high, column[i]), chunk.first_row + i, name) from None
    joined = "".join(column)
    # float() also reads 1_000 and the digits of other scripts
    if not joined.isascii() or "_" in joined:
        i = next(i for i, text in enumerate(column) if not text.isascii() or "_" in text)
        raise file.error(_numeric(low, high, column[i]), chunk.first_row + i, name)
    empty = np.fromiter(map(len, column), np.int64, len(column)) == 0
    bad = ~(np.isfinite(values) & (values >= low) & (values <= high)) & ~empty
    for zero in np.flatnonzero(values == 0):  # 1e-400 is not zero
        bad[zero] |= any(digit in column[zero].lower().partition("e")[0] for digit in "123456789")
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise file.error(_numeric(low, high, column[first]), chunk.first_row + first, name)
    return values


def _numeric(low: float, high: float, text: str) -> str:
    bounds = (
        f" in [{low:g}, {high:g}]"
        if np.isfinite(high)
        else (f" of at least {low:g}" if np.isfinite(low) else "")
    )
    return f"must be a number{bounds}, or empty where not known, got {text[:60]!r}"


def ignored_columns(names: Iterable[str]) -> list[str]:
    """A note on the columns that were not read; none where there are none."""
    listed = ", ".join(map(repr, names))
    return [f"ignored columns {listed}"] if listed else []


def is_number(text: str) -> bool:
    """Whether `float` reads the text."""
    try:
        float(text)
    except ValueError:
        return False
    return True


_LABELS = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "true": 1, "false": 0, "": -1}


def column_of_labels(file: CsvFile, chunk: Chunk, name: str) -> np.ndarray:
    """A column of 0/1 or True/False, int8; an empty field is -1 ("nobody evaluated this pair")."""
    column = chunk.columns[name]
    known = {text: _LABELS.get(text.lower()) for text in set(column)}
    if any(value is None for value in known.values()):
        i = next(i for i, text in enumerate(column) if known[text] is None)
        problem = f"must be 0/1 or True/False, or empty where not evaluated, got {column[i][:60]!r}"
        if is_number(column[i]):
            problem += "; for graded scores pass label_rule, such as 'score > 0.5'"
        raise file.error(problem, chunk.first_row + i, name)
    return np.array([known[text] for text in column], dtype=np.int8)
