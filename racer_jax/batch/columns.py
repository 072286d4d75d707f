"""Functions of a batch of columns, to be handed to an engine that spreads batches over workers.

They hold the path of an artefact and nothing else, so that they pickle in a hundred bytes, and a
worker imports JAX and reads the artefact with the first batch it gets. Every batch is cut into
pieces of one length, the last one filled up, so that a worker compiles one program in its life.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
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

    racer = Racer.load(artefact)
    return racer if alpha is None else racer.at(alpha)


def _values(column: Any) -> list[Any]:
    """A column of any library as a list: of Arrow, NumPy, pandas, or a sequence."""
    for name in ("to_pylist", "tolist"):
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
      ValueError: If there is none of that name.
    """
    known = getattr(columns, "column_names", None)  # of Arrow
    known = list(columns if known is None else known)
    if name not in known:
        raise ValueError(f"columns must hold {name!r}, got {', '.join(map(repr, known))}")
    return columns[name]


@dataclass(frozen=True)
class _Batch:
    """What both functions have in common; see `RouteBatch`."""

    artefact: str | os.PathLike[str]
    text: str = "text"
    group: str | None = None
    keep: Sequence[str] = ()
    rows: int = 256

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows must be at least 1, got {self.rows}")
        # As text: a path of one machine's kind pickles as a class that another does not have.
        object.__setattr__(self, "artefact", os.fspath(self.artefact))

    def _racer(self, alpha: str | None = None) -> "Racer":
        path = Path(self.artefact)
        changed = path.stat().st_mtime_ns if path.exists() else 0
        return _loaded(str(self.artefact), alpha, changed)

    def _kept(self, columns: Any) -> dict[str, Any]:
        return {name: _column(columns, name) for name in self.keep}

    def _pieces(self, columns: Any) -> Iterator[tuple[list[str], list[str | None] | None, int]]:
        """Texts and groups of one length, the first repeated where there are fewer.

        The number is that of the rows that are meant.
        """
        from racer_jax.encoders.base import check_texts

        texts = _values(_column(columns, self.text))
        texts = check_texts(texts) if texts else []
        groups = None if self.group is None else _values(_column(columns, self.group))
        for start in range(0, len(texts), self.rows):
            piece = texts[start : start + self.rows]
            absent = self.rows - len(piece)
            named = None
            if groups is not None:
                named = groups[start : start + self.rows]
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
      rows: Rows of the one program that a worker compiles; batches of a multiple of it are best.
      alpha: Another risk level than the artefact's.

    Raises:
      ValueError: If `rows` is below 1.

    >>> RouteBatch("my.racer", keep=["id"])
    RouteBatch(artefact='my.racer', text='text', group=None, keep=['id'], rows=256, alpha=None)
    """

    alpha: str | None = None

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
          TypeError: If a text is not a string.
          ValueError: If a column is absent, or a text is empty.
        """
        further = self._kept(columns)
        racer = self._racer(self.alpha)
        names = ("models", "reason", "threshold", "scores")
        result: dict[str, Any] = {name: [] for name in names}
        for texts, groups, num in self._pieces(columns):
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
      rows: Rows of the one program that a worker compiles.
      correct: Column of lists, whether each model of the pool, in its order, is right: 0 or 1,
        or false and true; None where there are no labels.
    """

    correct: str | None = None

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
          TypeError: If a text is not a string.
          ValueError: If a column is absent, a text is empty, labels do not fit, or the racer has no
            router of its own.
        """
        import numpy as np

        racer = self._racer()
        if racer.scorer is None:
            raise ValueError(f"the racer of {self.artefact} has no router of its own")
        right = None
        if self.correct is not None:
            right = labels_of(_column(columns, self.correct), self.correct, racer.models)
            num = len(_column(columns, self.text))
            if len(right) != num:
                raise ValueError(
                    f"column {self.correct!r} must hold labels of each of the {num} queries, got "
                    f"{len(right)}"
                )
        result: dict[str, Any] = {"scores": [], "nonconformity": []}
        for texts, groups, num in self._pieces(columns):
            measured = racer.scorer(texts, racer.nonconformity, racer.null, groups)
            result["scores"] += measured.scores[:num].tolist()
            result["nonconformity"] += measured.nonconformity[:num].tolist()
        if right is not None:
            truth = np.concatenate([right, ~right.any(axis=1, keepdims=True)], axis=1)
            entries = np.array(result["nonconformity"], np.float32).reshape(truth.shape)
            result["critical"] = np.where(truth, entries, np.float32(np.inf)).min(axis=1).tolist()
        return {**self._kept(columns), **result}
