"""Rows with named columns, from a file or from memory, and what was accepted in reading them."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from racer_jax.data.errors import DataError
from racer_jax.data.formats._synonyms import example_name
from racer_jax.data.remedies import Remedy

# Small enough that the rows of a chunk stay in the cache and are freed young: 65,536 is half as
# fast again.
CHUNK_ROWS = 1 << 10
# What pandas calls the column of an index that had no name.
_INDEX_NAMES = frozenset({"", "Unnamed: 0"})
# Columns of names, around which spaces mean nothing.
_NAMES = frozenset({"query_id", "model", "group"})
_LABEL_LIKE = frozenset({"0", "1", "0.0", "1.0"})


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
        theirs = {}
        for ours, name in self.columns.items():
            if name not in raw:
                alike = [n for n in raw if n.strip().casefold() == name.strip().casefold()]
                if len(alike) != 1:
                    raise DataError(
                        f"must be a column, the header has {listed(raw)}", path=path, field=name
                    )
                name = alike[0]
            theirs[name] = ours
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
      thousand_commas: Columns whose thousands stand before one.
      cut: The last field, lower case, where it may be a word cut short; else empty.
    """

    def __init__(
        self, path: Path, raw: Sequence[str], header: Header, preamble: str | None = None
    ) -> None:
        self.path, self.preamble, self.width = path, preamble, len(raw)
        self.theirs = header.columns
        names, loose = header.names(path, raw)
        self._exact = header.exact
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
        self.thousand_commas: set[str] = set()
        self.cut = ""
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

    def unknown(self, word: str, name: str) -> None:
        """Notes a word for what is not known, and refuses an end that may be such a word cut short.

        Raises:
          DataError: If the last field of the file begins like a word for what is not known.
        """
        cut = self.cut
        if (
            cut
            and name == self.last_column
            and word.lower() != cut
            and word.lower().startswith(cut)
        ):
            raise DataError(
                f"must end with a line break: {cut!r} can be {word[:60]!r} cut short; add one if "
                f"the file is whole",
                path=self.path,
                field=name,
            )

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
        columns = {name: example_name(name, self.header)}
        return Remedy("if it has another name pass, for example: {}", columns=columns)

    def chunks(self) -> Iterator[Chunk]:
        """The records, many at a time; every record has as many fields as the header."""
        empty = True
        for first, columns in self.blocks():
            empty = False
            self._check_left_out(first, columns)
            data_columns = (columns[j] for j in self._columns_read)
            fields = dict(zip(self.header, data_columns, strict=True))
            for name in () if self._exact else _NAMES & self.columns:
                fields[name] = self._stripped(fields[name])
            yield Chunk(first, fields)
        if empty:
            raise DataError("must hold at least one row below the header", path=self.path)

    def _stripped(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Names of queries, models or groups without spaces around them."""
        if not any(name[:1].isspace() or name[-1:].isspace() for name in set(names)):
            return names
        self.accept("names of queries, models and groups are read without spaces around them")
        return tuple(name.strip() for name in names)

    def _check_left_out(self, first: int, columns: Sequence[tuple[str, ...]]) -> None:
        """Refuses columns without a name that are more than an index, or not blank."""
        for j in self._blank:
            if any(map(str.strip, columns[j])):
                raise self._nameless()
            self.accept("columns without a name and without fields are left out")
        if self._index is None:
            return
        numbers = columns[self._index]
        if not all(text.isascii() and text.removesuffix(".0").isdigit() for text in numbers):
            raise self._nameless()
        self._numbers.update(numbers)
        # Frames one after another repeat their numbers; of 0 and 1 alone, they may be labels.
        if len(self._numbers) < first - 1 + len(numbers) and self._numbers <= _LABEL_LIKE:
            raise self._nameless()

    def _nameless_place(self) -> int:
        """The number of the first column without a name."""
        return 1 + min(j for j in range(self.width) if j not in self._columns_read)

    def _nameless(self) -> DataError:
        return DataError(
            f"must have a name for every column, got none for column {self._nameless_place()}; "
            f"write one into the header, or leave the column out",
            path=self.path,
            line=1,
        )

    def error(self, problem: str, row: int, field: str | None = None, **more: Any) -> DataError:
        """An error at a record, with the line it ends on."""
        place: dict[str, Any] = {"row": row, "line": self.line_of(row), "field": field}
        return DataError(problem, path=self.path, **place, **more)


class ColumnRows(Rows):
    """Rows that are in memory already, by column: a data frame."""

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, Sequence[str]],
        header: Header,
    ) -> None:
        self._columns = [tuple(column) for column in columns.values()]
        super().__init__(path, list(columns), header)

    def blocks(self) -> Iterator[tuple[int, list[tuple[str, ...]]]]:
        """The records, many at a time: number of the first, and the columns."""
        for first in range(0, len(self._columns[0]), CHUNK_ROWS):
            yield first + 1, [column[first : first + CHUNK_ROWS] for column in self._columns]

    def line_of(self, row: int) -> int | None:
        """None: there are no lines."""
        return None


def listed(names: Iterable[str]) -> str:
    """Names as an error lists them: the first of them, and how many more."""
    names = list(names)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{[name[:60] for name in names[:20]]}{more}"


def ignored_columns(names: Iterable[str]) -> list[str]:
    """A note on the columns that were not read; none where there are none."""
    columns = ", ".join(map(repr, names))
    return [f"ignored columns {columns}"] if columns else []
