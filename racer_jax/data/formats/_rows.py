"""Rows with named columns, and the fields of a column as labels or numbers.

Spreadsheets write the same thing in many ways. What can mean one thing only is read, and said once,
in the note of `Rows.notes`; what can mean two things is refused.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.remedies import Remedy

# Small enough that the rows of a chunk stay in the cache and are freed young: 65,536 is half as
# fast again.
CHUNK_ROWS = 1 << 12
# What pandas calls the column of an index that had no name.
_INDEX_NAMES = frozenset({"", "Unnamed: 0"})


class Chunk(NamedTuple):
    """Some rows, by column.

    Attributes:
      first_row: Number of the first record, counted from 1 without the header.
      columns: Column name -> its fields.
    """

    first_row: int
    columns: dict[str, tuple[str, ...]]


class Header:
    """How the names of columns are read.

    Attributes:
      columns: Column of the format -> its name in the file, where they differ.
      index: Whether a first column without a name is the index of a data frame.
      exact: Whether names are read as they stand, spaces and case included.
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        columns: Mapping[str, str] | None = None,
        index: bool = True,
        exact: bool = False,
    ) -> None:
        self._spelling_of = {name.casefold(): name for name in names}
        self.columns, self.index, self.exact = dict(columns or {}), index, exact

    def count_known(self, names: Iterable[str]) -> int:
        """How many of the names are columns of the format."""
        targets = set(self.columns.values())
        return sum(n in targets or n.strip().casefold() in self._spelling_of for n in names)

    def names(self, path: Path, raw: Sequence[str]) -> tuple[list[str], bool]:
        """The names by which columns are read, and whether any was written in another way."""
        theirs = {name: ours for ours, name in self.columns.items()}
        for ours, name in self.columns.items():
            if name not in raw:
                raise DataError(
                    f"must be a column, the header has {listed(raw)}", path=path, field=name
                )
            if ours in raw and ours != name:
                raise DataError(
                    f"must not be a column of its own and stand for {name!r} as well",
                    path=path,
                    field=ours,
                )
        if self.exact:
            return list(raw), False
        exact, names, loose = set(raw), [], False
        for name in raw:
            plain = name.strip()
            spelling = self._spelling_of.get(plain.casefold())
            if name in theirs:
                names.append(theirs[name])
            elif spelling is not None and (spelling == name or spelling not in exact):
                names.append(spelling)
            else:
                names.append(plain)
            loose = loose or (names[-1] != name and name not in theirs)
        return names, loose


class Rows(ABC):
    """Rows whose header has been read and checked.

    Attributes:
      path: Where they come from.
      header: The names of the columns that are read.
      columns: The same names as a set.
      theirs: Columns of the format that have another name in the file.
      preamble: What stood before the header, None where nothing did.
      width: Number of fields of a record.
      last_column: Name of the column that a record ends with, of those that are read.
      decimal_commas: Columns whose decimals stand after a comma.
    """

    def __init__(
        self, path: Path, raw: Sequence[str], header: Header, preamble: str | None = None
    ) -> None:
        self.path, self.preamble, self.width = path, preamble, len(raw)
        self.theirs = header.columns
        names, loose = header.names(path, raw)
        self._loose: dict[str, None] = {}
        if loose:
            self.accept("names of columns are read without spaces around them, in any case")
        self._index = 0 if header.index and raw[0] in _INDEX_NAMES and len(raw) > 1 else None
        self._blank = [j for j, name in enumerate(names) if not name and j != self._index]
        if not header.index:
            self._blank = []
        self._columns_read = [
            j for j in range(self.width) if j != self._index and j not in set(self._blank)
        ]
        self.header = tuple(names[j] for j in self._columns_read)
        self.columns = frozenset(self.header)
        self.last_column = names[-1]
        self.decimal_commas: set[str] = set()
        self._numbers: set[str] = set()
        if len(self.columns) < len(self.header):
            counts = Counter(self.header)
            raise DataError(
                "must be named once in the header, got it twice",
                path=path,
                field=next(name for name in self.header if counts[name] > 1),
            )
        if self._index is not None:
            self.accept("the first column, which has no name, is the index of a data frame")

    @abstractmethod
    def blocks(self) -> Iterator[tuple[int, list[tuple[str, ...]]]]:
        """The records, many at a time: number of the first, and the columns."""

    @abstractmethod
    def line_of(self, row: int) -> int | None:
        """The line a record ends on, None where there are no lines."""

    def check_end(self, safe: Iterable[str]) -> None:  # noqa: B027 - most rows have no end to check
        """Says where the end may be cut off; see `CsvFile`."""

    def accept(self, what: str) -> None:
        """Notes something that was read though it is not written as the format says."""
        self._loose[what] = None

    def notes(self, columns: Iterable[str] = ()) -> list[str]:
        """A note on what was accepted loosely, and one on the columns not read, if any."""
        notes = [f"accepted as written: {'; '.join(self._loose)}"] if self._loose else []
        return [*notes, *ignored_columns(columns)]

    def require(self, *names: str) -> None:
        """Refuses a header that lacks one of the names."""
        for name in names:
            if name not in self.columns:
                raise DataError(
                    f"must be a column, the header has {listed(self.header)}",
                    path=self.path,
                    field=name,
                    remedy=self.other_name(name),
                )

    def other_name(self, name: str) -> Remedy | None:
        """What to pass where a column of the format has another name."""
        if len(name) > 60:
            return None
        example = next((n for n in self.header if 0 < len(n) < 60), "name")
        return Remedy("if it has another name pass such as {}", columns={name: example})

    def chunks(self) -> Iterator[Chunk]:
        """The records, many at a time; every record has as many fields as the header."""
        empty = True
        for first, columns in self.blocks():
            empty = False
            self._check_left_out(first, columns)
            data_columns = (columns[j] for j in self._columns_read)
            yield Chunk(first, dict(zip(self.header, data_columns, strict=True)))
        if empty:
            raise DataError("must hold at least one row below the header", path=self.path)

    def _check_left_out(self, first: int, columns: Sequence[tuple[str, ...]]) -> None:
        """Refuses columns without a name that are more than an index, or not blank."""
        for j in self._blank:
            if any(map(str.strip, columns[j])):
                raise self._nameless()
            self.accept("columns without a name and without fields are left out")
        if self._index is None:
            return
        numbers = columns[self._index]
        if not all(text.isascii() and text.isdigit() for text in numbers):
            raise self._nameless()
        self._numbers.update(numbers)
        if len(self._numbers) < first - 1 + len(numbers):
            raise self._nameless()

    def _nameless(self) -> DataError:
        return DataError(
            "must have a name for every column, got one without", path=self.path, line=1
        )

    def error(self, problem: str, row: int, field: str | None = None, **more: Any) -> DataError:
        """An error at a record, with the line it ends on."""
        place: dict[str, Any] = {"row": row, "line": self.line_of(row), "field": field}
        return DataError(problem, path=self.path, **place, **more)


class ColumnRows(Rows):
    """Rows that are in memory already, by column: JSON lines of rows, or a data frame."""

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, Sequence[str]],
        header: Header,
        lines: Sequence[int] | None = None,
    ) -> None:
        self._columns, self._lines = [tuple(column) for column in columns.values()], lines
        super().__init__(path, list(columns), header)

    def blocks(self) -> Iterator[tuple[int, list[tuple[str, ...]]]]:
        """The records, many at a time: number of the first, and the columns."""
        for first in range(0, len(self._columns[0]), CHUNK_ROWS):
            yield first + 1, [column[first : first + CHUNK_ROWS] for column in self._columns]

    def line_of(self, row: int) -> int | None:
        """The line a record stands on, None where there are no lines."""
        return None if self._lines is None else self._lines[row - 1] or None


def listed(names: Iterable[str]) -> str:
    """Names as an error lists them: the first of them, and how many more."""
    names = list(names)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{[name[:60] for name in names[:20]]}{more}"


def ignored_columns(names: Iterable[str]) -> list[str]:
    """A note on the columns that were not read; none where there are none."""
    columns = ", ".join(map(repr, names))
    return [f"ignored columns {columns}"] if columns else []


# Fields that say that nothing is known, beside the empty one. Not "none" and "nan", which a file
# cut short would turn into "no" or "na".
_UNKNOWN = frozenset({"na", "n/a", "null"})
# 12,345 can be twelve thousand or twelve and a third; 0,345 and 12,34 can not.
_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


def column_of_floats(
    file: Rows,
    chunk: Chunk,
    name: str,
    low: float = -np.inf,
    high: float = np.inf,
) -> np.ndarray:
    """A column of decimal numbers, float64; NaN where empty; anything else is refused."""
    column = chunk.columns[name]
    whole = "".join(column)
    try:
        values = np.array([float(text) if text else np.nan for text in column])
        # float() also reads 1_000 and the digits of other scripts
        plain = whole.isascii() and "_" not in whole
    except ValueError:
        plain = False
    if not plain:
        column = _plain_numbers(file, chunk, name, low, high)
        values = np.array([float(text) if text else np.nan for text in column])
    empty = np.fromiter(map(len, column), np.int64, len(column)) == 0
    bad = ~(np.isfinite(values) & (values >= low) & (values <= high)) & ~empty
    for zero in np.flatnonzero(values == 0):  # 1e-400 is not zero
        bad[zero] |= any(digit in column[zero].lower().partition("e")[0] for digit in "123456789")
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        text = chunk.columns[name][first]
        raise file.error(_numeric(low, high, text), chunk.first_row + first, name)
    return values


def _plain_numbers(file: Rows, chunk: Chunk, name: str, low: float, high: float) -> tuple[str, ...]:
    """A column with the ways of spreadsheets put into Python's; what is no number is refused."""
    numbers = []
    if any(map(_has_decimal_comma, chunk.columns[name])):
        file.decimal_commas.add(name)
    for i, text in enumerate(chunk.columns[name]):
        plain = text.strip()
        if plain.lower() in _UNKNOWN:
            file.accept("NA, N/A and null stand for what is not known")
            plain = ""
        if low == 0 and plain[:1] == "$":
            file.accept("a dollar sign may stand before a number")
            plain = plain[1:].strip()
        if _COMMA.fullmatch(plain):
            if _AMBIGUOUS.fullmatch(plain) and name not in file.decimal_commas:
                raise file.error(
                    f"must be a number with a decimal point, got {text[:60]!r}, which can be "
                    f"{plain.replace(',', '.')} or {plain.replace(',', '')}",
                    chunk.first_row + i,
                    name,
                )
            file.accept("decimals may stand after a comma")
            plain = plain.replace(",", ".")
        if plain and not (is_number(plain) and plain.isascii() and "_" not in plain):
            raise file.error(_numeric(low, high, text), chunk.first_row + i, name)
        numbers.append(plain)
    return tuple(numbers)


def _has_decimal_comma(text: str) -> bool:
    """Whether the comma of a number can only stand before its decimals."""
    plain = text.strip().removeprefix("$").strip()
    return bool(_COMMA.fullmatch(plain)) and not _AMBIGUOUS.fullmatch(plain)


def _numeric(low: float, high: float, text: str) -> str:
    bounds = ""
    if np.isfinite(high):
        bounds = f" in [{low:g}, {high:g}]"
    elif np.isfinite(low):
        bounds = f" of at least {low:g}"
    return f"must be a number{bounds}, or empty where not known, got {text[:60]!r}"


def is_number(text: str) -> bool:
    """Whether `float` reads the text."""
    try:
        float(text)
    except ValueError:
        return False
    return True


_LABELS = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "true": 1, "false": 0, "": -1}
_WORDS = {"yes": 1, "no": 0, "y": 1, "n": 0} | dict.fromkeys(_UNKNOWN, -1)


def column_of_labels(file: Rows, chunk: Chunk, name: str, score: str | None = None) -> np.ndarray:
    """A column of 0/1 or True/False, int8; an empty field is -1 ("this pair was not evaluated").

    Args:
      file: The rows.
      chunk: Some of them.
      name: The column.
      score: The column that a label rule reads, where it is another.

    Returns:
      int8 `[k]`.

    Raises:
      DataError: If a field is none of these.
    """
    column = chunk.columns[name]
    value_of: dict[str, int] = {}
    for text in set(column):
        plain = text.strip().lower()
        if len(plain) < len(text) and plain in _LABELS | _WORDS:
            file.accept("labels are read without spaces around them")
        if plain in _LABELS:
            value_of[text] = _LABELS[plain]
        elif plain in _WORDS:
            value_of[text] = _WORDS[plain]
            what = "yes/no and y/n stand for right and wrong"
            if plain in _UNKNOWN:
                what = "NA, N/A and null stand for what is not known"
            file.accept(what)
    if len(value_of) < len(set(column)):
        i = next(i for i, text in enumerate(column) if text not in value_of)
        problem = f"must be 0/1 or True/False, or empty where not evaluated, got {column[i][:60]!r}"
        raise file.error(
            problem, chunk.first_row + i, name, remedy=_graded(file, name, column[i], score)
        )
    return np.array([value_of[text] for text in column], dtype=np.int8)


def _graded(file: Rows, name: str, text: str, score: str | None) -> Remedy | None:
    """What to pass where a label is a score; None where it is no number."""
    if not is_number(text):
        return None
    rule = "score > 50" if 1 < float(text) <= 100 else "score > 0.5"
    if score is None or score in file.columns:
        return Remedy("for graded scores pass {}", label_rule=rule)
    columns = {score: file.theirs.get(name, name)}
    return Remedy("for graded scores pass {} and {}", label_rule=rule, columns=columns)
