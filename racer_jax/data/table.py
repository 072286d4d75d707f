"""The routing table: who answered what rightly, at what cost, validated once and frozen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from racer_jax._arrays import given
from racer_jax.data.checks import (
    answer_matrix,
    first_bad,
    first_place,
    frozen,
    label_matrix,
    number_array,
    strings,
)
from racer_jax.data.errors import DataError
from racer_jax.data.labels import GIVEN
from racer_jax.data.texts import normal_text

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True, eq=False, repr=False)
class RoutingTable:
    """Queries x models: which model answered which query rightly, and what else is known.

    Arrays are host NumPy, read-only. NaN in `graded`, `confidence`, `cost`, `tokens` means "not
    known"; None in `answers` means the model gave no answer, which is not the same as a wrong one:
    it casts no vote.

    Use this when your labels are already in memory; `load` makes a table from a file.

    Attributes:
      ids: Name of each query, unique, `[n]`.
      texts: Text of each query, `[n]`; empty where there is none.
      models: Name of each model, unique, `[m]`.
      correct: Whether each model answered each query rightly, bool `[n, m]`; False where `missing`.
      group: Benchmark or subject of each query, `[n]`, or None.
      graded: Graded score the labels were made from, float64 `[n, m]`, or None.
      answers: Answer of each model in a normal form, object `[n, m]` of str or None, or None.
      confidence: Scheme (`verbal`, `p_true`, ...) -> float64 `[n, m]` in [0, 1].
      cost: Dollars for each answer, float64 `[n, m]`, or None.
      tokens: Tokens of each answer, float64 `[n, m]` of whole numbers, or None.
      price: Dollars per million tokens of each model, float64 `[m]`, or None.
      label_rule: How `correct` was made: one name for the whole table, or one for each group.
      missing: Pairs that were not evaluated, bool `[n, m]`, or None where there are none. See
        `complete`.
      notes: What reading and combining did that a reader of the results should know, one sentence
        each.

    Raises:
      TypeError: If a field is of the wrong kind.
      ValueError: If shapes do not fit, names repeat, or a value is out of range.

    >>> texts, correct = ["1 + 1?", "2 + 2?"], [[1, 0], [0, 0]]
    >>> RoutingTable(ids=["a", "b"], texts=texts, models=["x", "y"], correct=correct)
    RoutingTable(2 queries x 2 models, label rule 'as given')
    """

    ids: Sequence[str]
    texts: Sequence[str]
    models: Sequence[str]
    correct: np.ndarray
    group: Sequence[str] | None = None
    graded: np.ndarray | None = None
    answers: np.ndarray | None = None
    confidence: Mapping[str, np.ndarray] = field(default_factory=dict)
    cost: np.ndarray | None = None
    tokens: np.ndarray | None = None
    price: np.ndarray | None = None
    label_rule: str | Mapping[str, str] = GIVEN
    missing: np.ndarray | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("ids", strings("ids", self.ids, unique=True))
        put("models", strings("models", self.models, unique=True))
        put("texts", strings("texts", self.texts, empty=True))
        put("notes", strings("notes", self.notes))
        n, m = len(self.ids), len(self.models)
        if m < 1:
            raise ValueError("models must hold at least one model, got none")
        if len(self.texts) != n:
            raise ValueError(
                f"texts must hold one text for each of the {n} ids, got {len(self.texts)}"
            )
        put("correct", label_matrix("correct", self.correct, (n, m)))
        if self.group is not None:
            put("group", strings("group", self.group))
            if len(self.group) != n:
                raise ValueError(
                    f"group must hold one name for each of the {n} ids, got {len(self.group)}"
                )
        for name in ("graded", "cost", "tokens"):
            if (value := getattr(self, name)) is not None:
                put(
                    name,
                    number_array(name, value, (n, m), low=-np.inf if name == "graded" else 0.0),
                )
        if self.tokens is not None and (bad := first_bad(self.tokens, _is_fraction)) is not None:
            place, value = bad
            raise ValueError(f"tokens must be whole numbers, got {value:g} at {place}")
        if self.price is not None:
            put(
                "price",
                number_array(
                    "price", self.price, (m,), low=0.0, unit=" dollars per million tokens"
                ),
            )
        schemes = strings("confidence schemes", self.confidence)
        put(
            "confidence",
            {
                s: number_array(f"confidence[{s!r}]", self.confidence[s], (n, m), 0.0, 1.0)
                for s in schemes
            },
        )
        if self.answers is not None:
            put("answers", answer_matrix(self.answers, (n, m)))
        if self.missing is not None:
            missing = label_matrix("missing", self.missing, (n, m))
            if (bad := missing & self.correct).any():
                raise ValueError(f"correct must be 0 where missing, got 1 at {first_place(bad)}")
            put("missing", missing if missing.any() else None)
        put("label_rule", self._checked_rule())

    def _checked_rule(self) -> str | Mapping[str, str]:
        rule = self.label_rule
        if isinstance(rule, str):
            return strings("label_rule", [rule])[0]
        if not isinstance(rule, Mapping):
            raise TypeError(
                f"label_rule must be a name or a mapping of group to name, got {rule!r}"
            )
        if self.group is None:
            raise ValueError("label_rule by group needs groups, got none")
        present = list(dict.fromkeys(self.group))
        if absent := [g for g in present if g not in rule]:
            raise ValueError(
                f"label_rule must name a rule for every group, got none for {absent[0]!r}"
            )
        names = strings("label_rule", [rule[g] for g in present])
        return names[0] if len(set(names)) == 1 else dict(zip(present, names, strict=True))

    def __eq__(self, other: object) -> bool:
        """Whether every field is the same; NaN equals NaN."""
        if not isinstance(other, RoutingTable):
            return NotImplemented
        return all(
            _same(getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__
        )

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        rule = (
            f"'{self.label_rule}'"
            if isinstance(self.label_rule, str)
            else str(dict(self.label_rule))
        )
        return (
            f"RoutingTable({len(self.ids)} queries x {len(self.models)} models, label rule {rule})"
        )

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups in order of first appearance; empty where the table has none."""
        return tuple(dict.fromkeys(self.group or ()))

    @property
    def rules(self) -> dict[str, str]:
        """The label rule of each group; of `all` where there are no groups or no rows."""
        if isinstance(self.label_rule, str):
            return dict.fromkeys(self.groups or ("all",), self.label_rule)
        return dict(self.label_rule)

    @cached_property
    def question_ids(self) -> np.ndarray:
        """Which rows are the same question: int32 `[n]`, equal where normal texts are equal.

        Numbered by first appearance over the whole table. A query without text is a question of its
        own. Splits are made over these numbers, so that no question stands on both sides.
        """
        code_of: dict[str, int] = {}
        numbers = np.empty(len(self.ids), np.int32)
        # A query without text gets a key no normalised text can equal: those never begin with a
        # space.
        for i, (name, text) in enumerate(zip(self.ids, self.texts, strict=True)):
            numbers[i] = code_of.setdefault(normal_text(text) or f" {name}", len(code_of))
        return frozen(numbers)

    def select(
        self,
        rows: Any = None,
        *,
        models: Sequence[str] | None = None,
        group: str | Sequence[str] | None = None,
    ) -> "RoutingTable":
        """Some of the rows, some of the models, or both.

        Use this when rows by group, mask or number, or models by name, are needed.

        Args:
          rows: Row numbers, a boolean mask `[n]` or a slice; all rows when None.
          models: Names of the models to keep, in the order given; all when None.
          group: Name or names of the groups to keep; all when None.

        Returns:
          A table of these rows and models; the label rule and the notes stay with it.

        Raises:
          TypeError: If `rows` is neither integers, booleans nor a slice.
          ValueError: If a row, model or group does not exist, or a row is named twice.
        """
        n = len(self.ids)
        if rows is None:
            index = np.arange(n)
        elif isinstance(rows, slice):
            index = np.arange(n)[rows]
        else:
            array = np.asarray(given("rows", rows))
            if array.dtype.kind == "b":
                if array.shape != (n,):
                    raise ValueError(f"rows must be a mask of shape ({n},), got {array.shape}")
                index = np.flatnonzero(array)
            elif array.dtype.kind in "iu" or array.size == 0:
                index = array.astype(np.int64)
            else:
                raise TypeError(
                    f"rows must be integers, booleans or a slice, got dtype {array.dtype}"
                )
            if index.ndim != 1:
                raise ValueError(f"rows must have one dimension, got shape {index.shape}")
        if ((index < 0) | (index >= n)).any():
            raise ValueError(
                f"rows must be in [0, {n}), got {index[(index < 0) | (index >= n)][0]}"
            )
        if len(np.unique(index)) < len(index):
            raise ValueError("rows must name each row once")
        if group is not None:
            group_names = [group] if isinstance(group, str) else list(group)
            if absent := [g for g in group_names if g not in self.groups]:
                if self.group is None:
                    raise ValueError(
                        f"group must be left out: the table has no groups, got {absent[0]!r}"
                    )
                raise ValueError(f"group must be one of {self.groups}, got {absent[0]!r}")
            of_row = self.group or ()
            kept_groups = frozenset(group_names)
            indices = [i for i in index.tolist() if of_row[i] in kept_groups]
            index = np.array(indices, dtype=np.int64)
        names = self.models if models is None else tuple(models)
        places = {name: j for j, name in enumerate(self.models)}
        if absent := [name for name in names if name not in places]:
            raise ValueError(f"models must be among {tuple(self.models)}, got {absent[0]!r}")
        columns = np.array([places[name] for name in names], dtype=np.int64)

        rule = self.label_rule
        if not (len(index) or isinstance(rule, str)):
            # Without rows there are no groups, and a rule by group has nothing to stand by.
            rule = "; ".join(f"{name}: {r}" for name, r in rule.items())

        def cells(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[np.ix_(index, columns)]

        numbers = index.tolist()
        groups = None if self.group is None else [self.group[i] for i in numbers]
        return replace(
            self,
            ids=[self.ids[i] for i in numbers],
            texts=[self.texts[i] for i in numbers],
            models=names,
            group=groups,
            correct=self.correct[np.ix_(index, columns)],
            graded=cells(self.graded),
            answers=cells(self.answers),
            confidence={
                scheme: array[np.ix_(index, columns)] for scheme, array in self.confidence.items()
            },
            cost=cells(self.cost),
            tokens=cells(self.tokens),
            price=None if self.price is None else self.price[columns],
            label_rule=rule,
            missing=cells(self.missing),
        )

    def aligned(self, models: Sequence[str]) -> "RoutingTable":
        """The table with its models put into an order by name.

        Use this when scores or an artefact name the models, and a table of the same pool lists them
        in another order, or holds more of them.

        Args:
          models: Names of the models, in the order wanted.

        Returns:
          The table of these models. Further models are left out, and a note names them.

        Raises:
          DataError: If the table lacks one of the models; it names those that are missing.

        >>> table = RoutingTable(ids=["a"], texts=["1?"], models=["x", "y"], correct=[[1, 0]])
        >>> table.aligned(["y"]).notes
        ('left out 1 of 2 models, which the pool does not hold: x',)
        """
        models = strings("models", models, unique=True)
        present, targets = set(self.models), set(models)
        if absent := [name for name in models if name not in present]:
            shown = [*(_meant(name, self.models) for name in absent[:10]), *absent[10:]]
            raise DataError(
                f"the table has no model {_named(shown)}; it has: {_named(self.models)}"
            )
        if tuple(models) == tuple(self.models):
            return self
        table = self.select(models=models)
        if not (further := [name for name in self.models if name not in targets]):
            return table
        note = (
            f"left out {len(further)} of {len(self.models)} models, which the pool does not hold: "
            f"{_named(further)}"
        )
        return replace(table, notes=(*table.notes, note))

    @classmethod
    def from_frame(cls, frame: Any, **options: Any) -> "RoutingTable":
        """The table of a data frame of pandas or polars.

        Use this when logs are in memory already: its columns are those of a long or wide CSV.

        Args:
          frame: The frame; neither library is imported.
          **options: Those of `read_long_csv` or `read_wide_csv`, but for `delimiter`.

        Returns:
          The table, with a note of what was left out.

        Raises:
          TypeError: If it is not a data frame.
          DataError: If a field is not what it should be; it names row and column.
        """
        return _above("frames", "table_of_frame")(frame, **options)  # type: ignore[no-any-return]

    def summary(self, confidence: float = 0.95) -> Any:
        """The table in figures, to print; see `racer_jax.data.summary.summarize`.

        Use this when you look at a table before you train or calibrate on it.
        """
        return _above("summary", "summarize")(self, confidence)

    def split(
        self,
        key: "jax.Array",
        fractions: Sequence[float] | Mapping[str, Sequence[float]] = (0.5, 0.1, 0.4),
        by_group: bool = True,
    ) -> Any:
        """Row numbers of a random split by question; see `racer_jax.data.splits.split`.

        Use this when you need parts of one table, such as training and test rows.
        """
        return _above("splits", "split")(key, self, fractions, by_group)

    def complete(self) -> "RoutingTable":
        """The table without the queries that lack a model's result; a note counts them.

        Use this when a step needs every result, as calibration does.
        """
        if self.missing is None:
            return self
        whole = ~self.missing.any(axis=1)
        note = (
            f"left out {int((~whole).sum())} of {len(self.ids)} queries that lack a model's result"
        )
        return replace(self.select(whole), notes=(*self.notes, note))


def _above(module: str, name: str) -> Callable[..., Any]:
    """A function that a table offers as a method, of a module that stands above this one.

    It is imported when it is called: on this module all others stand.
    """
    function: Callable[..., Any] = getattr(import_module(f"racer_jax.data.{module}"), name)
    return function


def _meant(name: str, models: Sequence[str]) -> str:
    """A name that is no model of the table, and the one that was perhaps meant."""
    by_lower = {model.lower(): model for model in models}
    holding = [lower for lower in by_lower if name and name.lower() in lower]
    close = get_close_matches(name.lower(), list(by_lower), 1) or holding
    return f"{name!r} (did you mean {by_lower[close[0]]!r}?)" if close else repr(name)


def _named(names: Sequence[str]) -> str:
    """Names in a row, the first ten of them."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def _is_fraction(numbers: np.ndarray) -> np.ndarray:
    """Which numbers are known and not whole."""
    bad: np.ndarray = np.isfinite(numbers) & (numbers % 1 != 0)
    return bad


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(_same(a[name], b[name]) for name in a)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return type(a) is type(b) and bool(a == b)
