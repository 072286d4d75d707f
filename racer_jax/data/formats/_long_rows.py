"""What long rows share, wherever they come from: a CSV, lines, a data frame or Parquet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import Rules, check_full, labels_by_rule, repeated
from racer_jax.data.formats._growing import Growing, Names, give_back
from racer_jax.data.formats._synonyms import other_id, other_names
from racer_jax.data.formats._texts import Texts
from racer_jax.data.formats._totals import about_total, is_total
from racer_jax.data.labels import GIVEN
from racer_jax.data.remedies import Remedy

if TYPE_CHECKING:
    import jax

CONFIDENCE = "confidence_"
# Makes an error of a message, a row counted from 1 and a field.
MakeError = Callable[[str, int, str], DataError]
# Pairs are marked in a table of them where it has at most so many cells for each row.
_MOST_CELLS = 20


class LongRows:
    """Rows for each (query, model), gathered some at a time.

    A row takes a few bytes: what the rows of a query share is held once for each query.

    Args:
      identity: The column that names the queries, `query_id` or `query`.

    Attributes:
      columns: The numbers, labels and answers of the rows, by column.
    """

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.columns: dict[str, Any] = {}
        self._names = {identity: Names(), "model": Names()}
        self._pairs = _Pairs()
        self._shared: dict[str, _Shared] = {}

    def add_names(self, columns: Mapping[str, Sequence[str]]) -> None:
        """Adds the names of some rows: of their queries and models, and what queries share."""
        queries, models = (codes.array(columns[name]) for name, codes in self._names.items())
        self._pairs.add(queries, models)
        numbers = queries.tolist()
        for name, values in columns.items():
            if name not in self._names:
                self._shared.setdefault(name, _Shared()).add(numbers, values)

    def add(self, name: str, values: Any) -> None:
        """Adds a column of some rows: an array, or a list of texts."""
        if isinstance(values, list):
            self.columns.setdefault(name, Texts()).extend(values)
        else:
            self.columns.setdefault(name, Growing(values.dtype)).extend(values)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._pairs)

    def row_of_empty(self, name: str) -> int | None:
        """The first row, counted from 1, whose name is empty; None where there is none."""
        if name in self._shared:
            return self._shared[name].empty_row
        if name not in self._names or "" not in (names := self._names[name].names):
            return None
        numbers = self._pairs.arrays()[int(name == "model")]
        return int(np.flatnonzero(numbers == names.index(""))[0]) + 1

    def check_last(self, error: MakeError) -> None:
        """Refuses a last question that looks like a row of totals."""
        last = len(self._names[self.identity]) - 1
        texts = {self.identity: self._names[self.identity].names[last]}
        if "query" in self._shared:
            texts["query"] = self._shared["query"].values[last]
        for field, text in texts.items():
            if is_total(text):
                row = int(np.flatnonzero(self._pairs.arrays()[0] == last)[0]) + 1
                raise error(about_total(text), row, field)

    def check(self, error: MakeError, header: Iterable[str] = ()) -> None:
        """Refuses a pair of query and model that stands twice, and a query that changes.

        Args:
          error: Makes the error.
          header: The columns, of which another may tell the queries apart.
        """
        try:
            self._check(error)
        except DataError as problem:
            other = other_id(header) if self.identity == "query" else None
            if other is None:
                raise
            columns = {"query_id": other}
            raise problem.advising(
                Remedy("if another column tells the questions apart pass {}", columns=columns)
            ) from None

    def _check(self, error: MakeError) -> None:
        ids, models = self._names[self.identity].names, self._names["model"].names
        if (twice := self._pairs.repeated((len(ids), len(models)))) is not None:
            first, again = twice
            query, model = (numbers[again] for numbers in self._pairs.arrays())
            raise error(
                f"must be given once for query {ids[query]!r} and model {models[model]!r}, got it "
                f"in row {first + 1} already",
                again + 1,
                "model",
            )
        for name, shared in self._shared.items():
            if shared.other_row is None:
                continue
            row = shared.other_row
            query, _ = self._pairs.arrays()
            first = int(np.flatnonzero(query == query[row - 1])[0])
            raise error(
                f"must be the same in every row of query {ids[query[row - 1]]!r}, got another "
                f"than in row {first + 1}",
                row,
                name,
            )

    def place(self, path: Path) -> Places:
        """Where each row stands in the table."""
        shape = (len(self._names[self.identity]), len(self._names["model"]))
        check_full(len(self), shape, path)
        return Places(self._pairs, shape)

    def fields(self, place: Places) -> dict[str, Any]:
        """All fields of a table but the labels; the columns of which they are made are let go."""
        # Each list goes as its tuple comes, which the table takes as it is.
        ids = tuple(self._names.pop(self.identity).names)
        fields: dict[str, Any] = {
            "ids": ids,
            "models": tuple(self._names.pop("model").names),
            "texts": ids if self.identity == "query" else ("",) * len(ids),
            "group": None,
            "answers": None,
        }
        for name, field in (("query", "texts"), ("group", "group")):
            if name in self._shared:
                fields[field] = tuple(self._shared.pop(name).values)
        give_back()
        for name, field in (("score", "graded"), ("cost", "cost"), ("tokens", "tokens")):
            if name in self.columns:
                fields[field] = place.fill(self.columns.pop(name), np.nan)
        schemes = [name for name in self.columns if name.startswith(CONFIDENCE)]
        fields["confidence"] = {
            name.removeprefix(CONFIDENCE): place.fill(self.columns.pop(name), np.nan)
            for name in schemes
        }
        # Last: numbers are held twice while they are put into a matrix, texts are not.
        if "answer" in self.columns:
            fields["answers"] = place.texts(self.columns.pop("answer"))
        return fields


class _Pairs:
    """The query and the model of each row, a byte or two for each."""

    def __init__(self) -> None:
        self._parts: list[tuple[_Numbers, _Numbers]] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The queries and the models of some rows after others, int64."""
        for queries, models in self._parts:
            yield queries.array(), models.array()

    def add(self, queries: np.ndarray, models: np.ndarray) -> None:
        """Adds some rows."""
        self._parts.append((_Numbers(queries), _Numbers(models)))
        self._length += len(queries)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The queries and the models of all rows, for what is to be said of one of them."""
        queries, models = zip(*self, strict=True)
        return np.concatenate(queries), np.concatenate(models)

    def repeated(self, shape: tuple[int, int]) -> tuple[int, int] | None:
        """The places of the first row that repeats a pair, and of the one it repeats, if any."""
        num_models = shape[1]
        if shape[0] * num_models <= 1_000_000 + _MOST_CELLS * len(self):
            marks = np.zeros(shape[0] * num_models, bool)
            for queries, models in self:
                marks[queries * num_models + models] = True
            if np.count_nonzero(marks) == len(self):
                return None
        queries, models = self.arrays()
        return repeated(queries * num_models + models)


class Places:
    """Where each row stands in the matrix.

    Args:
      pairs: The query and the model of each row, no pair twice.
      shape: (queries, models).
    """

    def __init__(self, pairs: _Pairs, shape: tuple[int, int]) -> None:
        self._pairs, self.shape = pairs, shape

    def is_full(self) -> bool:
        """Whether there is a row for each query and model."""
        return len(self._pairs) == self.shape[0] * self.shape[1]

    def fill(self, column: Growing, default: Any) -> np.ndarray:
        """The matrix `[n, m]` of a column, which is let go; `default` where there is no row."""
        matrix = np.empty(self.shape, column.dtype)
        flat = matrix.reshape(-1)
        if not self.is_full():
            flat.fill(default)
        for queries, models in self._pairs:
            flat[queries * self.shape[1] + models] = column.take(len(queries))
        return matrix

    def texts(self, column: Texts) -> np.ndarray:
        """A matrix of strings, None where there is none."""
        matrix = np.empty(self.shape, object)  # of None
        flat, start = matrix.reshape(-1), 0
        for queries, models in self._pairs:
            end = start + len(queries)
            flat[queries * self.shape[1] + models] = column[start:end]
            start = end
        return matrix


class _Numbers:
    """Numbers that are close together, a byte or two for each."""

    def __init__(self, numbers: np.ndarray) -> None:
        self._first = int(numbers.min())
        offsets = numbers - self._first
        self._offsets = offsets.astype(np.min_scalar_type(int(offsets.max())))

    def array(self) -> np.ndarray:
        """The numbers, int64."""
        array: np.ndarray = self._offsets.astype(np.int64)
        array += self._first
        return array


class _Shared:
    """What is the same in every row of a query: one value for each query.

    Attributes:
      values: The value in the first row of each query.
      other_row: The first row, counted from 1, whose value is another; None where there is none.
      empty_row: The first row whose value is empty.
    """

    def __init__(self) -> None:
        self.values: list[str] = []
        self.other_row: int | None = None
        self.empty_row: int | None = None
        self._alike: dict[str, str] = {}
        self._row = 0

    def add(self, queries: list[int], values: Sequence[str]) -> None:
        """Adds the values of rows whose queries are numbered by first appearance."""
        held = self.values
        for row, (query, value) in enumerate(zip(queries, values, strict=True), self._row + 1):
            if query == len(held):
                held.append(self._once(value))
            elif held[query] != value and self.other_row is None:
                self.other_row = row
        if self.empty_row is None and "" in values:
            self.empty_row = self._row + list(values).index("") + 1
        self._row += len(values)

    def _once(self, value: str) -> str:
        """One object for equal values, as long as there are few of them."""
        if len(self._alike) < 4096:
            return self._alike.setdefault(value, value)
        return self._alike.get(value, value)


def is_unlabelled(names: Collection[str], rule: Rules | None) -> bool:
    """Whether rows hold answers and nothing that a label could come from."""
    return rule is None and "answer" in names and not {"correct", "score"} & set(names)


def or_unlabelled(header: Iterable[str]) -> Remedy:
    """What to pass where rows hold answers and no labels."""
    name: Any = (other_names(header) or {}).get("correct")
    value = ... if name is None else {"correct": name}
    return Remedy("if it has another name pass {}", columns=value).then(
        Remedy(
            "to read the answers as unlabelled, which the loss 'differs' of a cascade takes, "
            "pass {}",
            missing="keep",
        )
    )


def add_labels(
    path: Path,
    fields: dict[str, Any],
    place: Places,
    columns: dict[str, Any],
    rule: Rules | None,
    key: jax.Array | None,
) -> None:
    """The labels of a table: those of the rows, or what a rule makes of the scores."""
    if rule is None:
        # Rows without the column are unlabelled.
        marks = np.full(place.shape, -1, np.int8)
        if "correct" in columns:
            marks = place.fill(columns.pop("correct"), -1)
        fields |= {"correct": marks == 1, "missing": marks == -1, "label_rule": GIVEN}
        return
    labels = labels_by_rule(path, fields["graded"], fields["group"], rule, key)
    fields |= {"correct": labels.correct, "missing": labels.missing, "label_rule": labels.rule}


def prices_of(prices: list[Any] | None) -> np.ndarray | None:
    """The prices of an exported table, null where not known.

    Raises:
      TypeError, ValueError or OverflowError: If they are no numbers.
    """
    if prices is None:
        return None
    return np.array([np.nan if price is None else price for price in prices], dtype=float)
