"""Functions of a batch of columns, to be handed to an engine that spreads batches over workers.

They hold the path of an artefact and nothing else, so that they pickle in a hundred bytes, and a
worker imports JAX and reads the artefact with the first batch it gets. Every batch is cut into
pieces of one length, the last one filled up, so that a worker compiles one program in its life.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from racer_jax.racer.racer import Racer

# Artefacts that a worker keeps: engines pickle the function anew for every task.
_KEPT = 4


@lru_cache(_KEPT)
def _loaded(artefact: str, alpha: str | None, changed: int) -> "Racer":
    """The racer of an artefact as it was at a time, at its own level or another."""
    from racer_jax.racer.racer import Racer

    if alpha is not None:  # several levels share one encoder, and its memory
        return _loaded(artefact, None, changed).at(alpha)
    return Racer.load(artefact)


class _Rows(list[Any]):
    """A column of results, of one type in Arrow whatever its rows are.

    Arrow reads the type of a plain list from its values. A batch without rows, or one whose rows
    all call no model, would then be of another type than the next batch, and the two could not
    stand in one table or in the files of one data set.
    """

    def __init__(self, kind: str, is_list: bool) -> None:
        super().__init__()
        self.kind, self.is_list = kind, is_list

    def __arrow_array__(self, type: Any = None) -> Any:
        import pyarrow

        if type is None:
            kind = pyarrow.type_for_alias(self.kind)
            type = pyarrow.list_(kind) if self.is_list else kind
        return pyarrow.array(list(self), type)


def _values(column: Any) -> list[Any]:
    """A column of any library as a list: of Arrow, NumPy, pandas, Polars, or a sequence."""
    for name in ("to_pylist", "tolist", "to_list"):
        if hasattr(column, name):
            values: list[Any] = getattr(column, name)()
            return values
    return list(column)


def labels_of(column: Any, name: str, models: Sequence[str]) -> "np.ndarray":
    """Whether each model is right on each query, bool `[n, m]`, of a column of lists.

    Nothing else than 0 and 1 is a label: a NaN or a text would count as right, a null as wrong.

    Use this when labels come as a column; rows are counted from 0 in errors.

    Args:
      column: Lists of m labels: False and True, or the numbers 0 and 1.
      name: Its name.
      models: The pool, in the order of the labels.

    Raises:
      ValueError: If a row has not one label for each model, or a label is another one.
    """
    import numpy as np

    rows = _values(column)
    right = np.zeros((len(rows), len(models)), bool)
    for row, labels in enumerate(rows):
        where = f"column {name!r} must hold lists of {len(models)} labels, one for each model, got"
        if labels is None or isinstance(labels, str | bytes) or not hasattr(labels, "__len__"):
            raise ValueError(f"{where} {labels!r} in row {row}")
        if len(labels) != len(models):
            raise ValueError(f"{where} {len(labels)} in row {row}")
        for place, label in enumerate(labels):
            is_number = isinstance(label, int | float | np.bool_ | np.integer | np.floating)
            if not is_number or label not in (0, 1):
                raise ValueError(
                    f"column {name!r} must hold 0 or 1 (or false and true) for each model, got "
                    f"{label!r} for {models[place]!r} in row {row}"
                )
            right[row, place] = bool(label)
    return right


def _column(columns: Any, name: str) -> Any:
    """A column of a mapping, a data frame or an Arrow batch.

    Raises:
      TypeError: If these are no columns, or there is one value in the place of a column.
      ValueError: If there is none of that name, or more than one.
    """
    known = columns
    if not isinstance(columns, Mapping):  # of Arrow, then of pandas and Polars
        known = getattr(columns, "column_names", getattr(columns, "columns", None))
    if known is None:
        raise TypeError(
            "columns must be a mapping of names to columns, a data frame or an Arrow batch, got "
            f"{type(columns).__name__}"
        )
    known = list(known)
    if known.count(name) != 1:
        often = f" once, got it {known.count(name)} times" if name in known else ""
        raise ValueError(
            f"columns must hold {name!r}{often or ', got ' + ', '.join(map(repr, known))}"
        )
    column = columns[name]
    if isinstance(column, str | bytes):
        raise TypeError(
            f"column {name!r} must hold a value for each of several queries, got the one string "
            f"{column!r}: give a batch of rows (`Dataset.map` does with batched=True)"
        )
    return column if hasattr(column, "__len__") else list(column)


def _group(value: Any) -> Any:
    """A group, None where a library wrote that there is none: a NaN, or the NA of pandas."""
    is_absent = isinstance(value, float) and value != value
    return None if is_absent or type(value).__name__ == "NAType" else value


@dataclass(frozen=True)
class _Batch:
    """What both functions have in common; see `RouteBatch`."""

    artefact: str | os.PathLike[str]
    text: str = "text"
    group: str | None = None
    keep: Sequence[str] = ()
    rows: int = 256

    def __post_init__(self) -> None:
        try:
            is_positive = index(self.rows) > 0
        except TypeError:
            raise TypeError(f"rows must be an integer, got {self.rows!r}") from None
        if not is_positive:
            raise ValueError(f"rows must be at least 1, got {self.rows}")
        if isinstance(self.keep, str):
            raise TypeError(
                f"keep must be a sequence of names, got a single string; pass [{self.keep!r}]"
            )
        for name in self.keep:
            if name in self._results():
                raise ValueError(
                    f"keep must not name {name!r}: the result has a column of that name; rename "
                    "the one that is to be kept"
                )
        # As text: a path of one machine's kind pickles as a class that another does not have.
        object.__setattr__(self, "artefact", os.fsdecode(self.artefact))

    def _results(self) -> dict[str, _Rows]:
        """The columns of the result, without rows, those that are kept left out."""
        return {}

    def _racer(self, alpha: str | None = None) -> "Racer":
        path = Path(self.artefact)
        changed = path.stat().st_mtime_ns if path.exists() else 0
        return _loaded(str(self.artefact), alpha, changed)

    def _read(self, columns: Any) -> tuple[list[str], list[str | None] | None, dict[str, Any]]:
        """The texts, their groups, and the columns that are passed on, all of one length."""
        from racer_jax.encoders.base import check_texts
        from racer_jax.racer.unknown_groups import check_groups

        texts = _values(_column(columns, self.text))
        texts = check_texts(texts) if texts else []
        groups = None
        if self.group is not None:
            groups = [_group(value) for value in _values(_column(columns, self.group))]
            check_groups(self._of_all(groups, self.group, len(texts)))
        further = {n: self._of_all(_column(columns, n), n, len(texts)) for n in self.keep}
        return texts, groups, further

    def _of_all(self, column: Any, name: str, num: int) -> Any:
        """The column, where it has as many rows as there are queries."""
        if len(column) != num:
            raise ValueError(
                f"column {name!r} must hold a value for each of the {num} queries of "
                f"{self.text!r}, got {len(column)}"
            )
        return column

    def _pieces(
        self, texts: list[str], groups: list[str | None] | None
    ) -> Iterator[tuple[list[str], list[str | None] | None, int]]:
        """Texts and groups of one length, the first repeated where there are fewer.

        The number is that of the rows that are meant. A longer piece than the largest batch of a
        racer would be cut there, and its rest be of another length.
        """
        from racer_jax.racer.scoring import LARGEST

        rows = min(self.rows, LARGEST)
        for start in range(0, len(texts), rows):
            piece = texts[start : start + rows]
            absent = rows - len(piece)
            named = None
            if groups is not None:
                named = groups[start : start + rows]
                named += named[:1] * absent
            yield piece + piece[:1] * absent, named, len(piece)


@dataclass(frozen=True)
class RouteBatch(_Batch):
    """Which models to call for each query of a batch of columns.

    Use this when there are more queries than one process should route: hand it to `map_batches` of
    Ray Data, `mapInPandas` of Spark, `Dataset.map` of Hugging Face, or call it on Arrow batches.

    Attributes:
      artefact: Folder of a calibrated artefact, at a path that every worker can read.
      text: Column of the queries' texts.
      group: Column of their groups; None where there are none.
      keep: Columns that are passed on as they are, such as a name of the query.
      rows: Rows of the one program that a worker compiles, 1,024 where it is more; batches of a
        multiple of it are best.
      alpha: Another risk level than the artefact's.

    Raises:
      TypeError: If `rows` is no integer, or `keep` a single string.
      ValueError: If `rows` is below 1, or `keep` names a column of the result.

    >>> RouteBatch("my.racer", keep=["id"])
    RouteBatch(artefact='my.racer', text='text', group=None, keep=['id'], rows=256, alpha=None)
    """

    alpha: str | None = None

    def _results(self) -> dict[str, _Rows]:
        return {
            "models": _Rows("string", True),
            "reason": _Rows("string", False),
            "threshold": _Rows("float64", False),
            "scores": _Rows("float64", True),
        }

    def __call__(self, columns: Any) -> dict[str, Any]:
        """Routes a batch.

        Args:
          columns: A mapping of columns, a data frame or an Arrow batch or table.

        Returns:
          Columns, row by row what `Racer.route` decides: `models` (names of the models to call,
          most plausible first), `reason`, `threshold` and `scores` (of every model of the pool,
          in its order), besides those that are kept.

        Raises:
          DataError: If the artefact cannot be read.
          NotCalibratedError: If it is not calibrated.
          TypeError: If a text or a group is not a string.
          ValueError: If a column is absent or of another length, or a text is empty.
        """
        queries, of_groups, further = self._read(columns)
        racer = self._racer(self.alpha)
        result = self._results()
        for texts, groups, num in self._pieces(queries, of_groups):
            routed = racer.route(texts, groups)
            for order, sets in zip(routed.order[:num].tolist(), routed.sets[:num], strict=True):
                result["models"].append([racer.models[j] for j in order if sets[j]])
            result["reason"] += [str(reason) for reason in routed.reasons[:num]]
            result["threshold"] += routed.threshold[:num].tolist()
            result["scores"] += routed.scores[:num].tolist()
        return {**further, **result}


@dataclass(frozen=True)
class ScoreBatch(_Batch):
    """The scores of each query of a batch of columns; with labels, its critical score.

    Use this when scores are to be kept, or a threshold is to be calibrated on more rows than one
    process holds: `threshold_of_shards` reads the critical scores.

    Attributes:
      artefact: Folder of an artefact, at a path that every worker can read; it needs no threshold.
      text: Column of the queries' texts.
      group: Column of their groups; None where there are none.
      keep: Columns that are passed on as they are, such as a name of the query.
      rows: Rows of the one program that a worker compiles, 1,024 where it is more.
      correct: Column of lists, whether each model of the pool, in its order, is right: 0 or 1,
        or false and true; None where there are no labels.
    """

    correct: str | None = None

    def _results(self) -> dict[str, _Rows]:
        lists = {name: _Rows("float64", True) for name in ("scores", "nonconformity")}
        return lists if self.correct is None else {**lists, "critical": _Rows("float64", False)}

    def __call__(self, columns: Any) -> dict[str, Any]:
        """Scores a batch.

        Args:
          columns: A mapping of columns, a data frame or an Arrow batch or table.

        Returns:
          Columns: `scores` (s(x, m), lists of m), `nonconformity` (E(x, m), lists of m + 1, the
          null model last) and, with labels, `critical` (the smallest threshold that is no miss, its
          ties unbroken), besides those that are kept.

        Raises:
          DataError: If the artefact cannot be read.
          TypeError: If a text or a group is not a string.
          ValueError: If a column is absent or of another length, a text is empty, labels do not
            fit, or the racer has no router of its own.
        """
        import numpy as np

        queries, of_groups, further = self._read(columns)
        racer = self._racer()
        if racer.scorer is None:
            raise ValueError(f"the racer of {self.artefact} has no router of its own")
        right = None
        if self.correct is not None:
            right = labels_of(_column(columns, self.correct), self.correct, racer.models)
            num = len(queries)
            if len(right) != num:
                raise ValueError(
                    f"column {self.correct!r} must hold labels of each of the {num} queries, got "
                    f"{len(right)}"
                )
        result = self._results()
        for texts, groups, num in self._pieces(queries, of_groups):
            measured = racer.scorer(texts, racer.nonconformity, racer.null, groups)
            result["scores"] += measured.scores[:num].tolist()
            result["nonconformity"] += measured.nonconformity[:num].tolist()
        if right is not None:
            truth = np.concatenate([right, ~right.any(axis=1, keepdims=True)], axis=1)
            entries = np.array(result["nonconformity"], np.float32).reshape(truth.shape)
            result["critical"] += np.where(truth, entries, np.float32(np.inf)).min(axis=1).tolist()
        return {**further, **result}
