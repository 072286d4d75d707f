"""Scores of any router in a file of its own, with or without labels; nothing here imports JAX."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._npz import open_npz
from racer_jax.data.formats._source import opened
from racer_jax.data.formats.score_matrix import ScoredTable, read_score_matrix
from racer_jax.data.loading import load
from racer_jax.data.table import RoutingTable


def check_labelled(path: Path) -> None:
    """Refuses a file of scores that has no labels, by its names, shape or columns.

    Use this when no table of labels is named.

    Raises:
      DataError: If it has none, or cannot be read.
    """
    if not path.is_file():  # what is read once is not looked into before
        return
    kind = path.suffix.lower()
    if kind == ".npz":
        with open_npz(path) as archive:
            if "scores" in archive and "correct" not in archive:
                raise _no_labels(path, "add the array correct [n, m]")
    elif kind == ".npy":
        shape = _loaded(path, mmap_mode="r").shape
        if len(shape) != 3 or shape[0] != 2:
            raise _no_labels(path, "stack scores and correct [2, n, m]")
    elif "score" not in _header(path):
        raise _no_labels(path, "give it the columns score and correct")


def _header(path: Path) -> list[str]:
    """The columns of a CSV file, in small letters, whatever separates them."""
    with opened(path) as file:
        line = file.readline().decode("utf-8-sig", "replace")
    return [name.strip(" \"'\r\n").casefold() for name in re.split("[,;\t]", line)]


def _no_labels(path: Path, instead: str) -> DataError:
    problem = "holds scores alone: name the table of its queries and labels too"
    return DataError(f"{problem}, or {instead}", path=path)


def read_scored(path: Path, table: RoutingTable | None) -> ScoredTable:
    """Queries with their labels, and the scores of a file.

    Use this when a router runs elsewhere and its scores are read; `scored_pools` says from what.

    Args:
      path: The file of scores.
      table: The queries and their labels; None where the file has them.

    Raises:
      DataError: If a file is not what it should be, or the two do not fit.
    """
    kind = path.suffix.lower()
    if table is None:
        check_labelled(path)
    if kind == ".npz" and table is None:
        return read_score_matrix(path)
    if kind not in (".npz", ".npy", ".csv"):
        raise DataError("must be an .npz, .npy or .csv file of scores", path=path)
    if table is None:
        table, values = _read_with_labels(path)
    else:
        table = table.complete()
        values = _score_csv(path, table) if kind == ".csv" else _array(path)
    if values.shape != table.correct.shape:
        raise DataError(
            f"must hold scores {list(table.correct.shape)}, a row for each query of the table and "
            f"a column for each model, got {list(values.shape)}",
            path=path,
        )
    if (bad := ~((values >= 0) & (values <= 1))).any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"must hold scores in [0, 1], got {values[row, column]:g}", path=path, row=row + 1
        )
    return ScoredTable(table, values)


def _read_with_labels(path: Path) -> tuple[RoutingTable, np.ndarray]:
    """The table and the scores of a file in which `check_labelled` found labels."""
    if path.suffix.lower() == ".csv":
        table = load(path).complete()
        if table.graded is None:
            raise _no_labels(path, "give it the columns score and correct")
        return table, table.graded
    both = _array(path)
    if both.ndim != 3 or len(both) != 2 or not np.isin(both[1], (0, 1)).all():
        raise _no_labels(path, "stack scores and correct [2, n, m]")
    num, num_models = both.shape[1:]
    table = RoutingTable(
        ids=[str(i) for i in range(num)],
        texts=[""] * num,
        models=[str(j) for j in range(num_models)],
        correct=both[1].astype(bool),
    )
    return table, both[0]


def _array(path: Path) -> np.ndarray:
    """The numbers of an `.npy`, or the array `scores` of an `.npz`."""
    loaded = _loaded(path)
    if not isinstance(loaded, np.ndarray):
        with loaded as archive:
            if "scores" not in archive.files:
                raise DataError("must hold the array 'scores'", path=path)
            loaded = archive["scores"]
    if loaded.dtype.kind not in "fiub":
        raise DataError(f"must hold numbers, got dtype {loaded.dtype}", path=path)
    return np.asarray(loaded, np.float64)


def _loaded(path: Path, **options: Any) -> Any:
    """What NumPy reads of a file."""
    try:
        return np.load(path, allow_pickle=False, **options)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"cannot be read as {path.suffix}: {error}", path=path) from None


def _score_csv(path: Path, table: RoutingTable) -> np.ndarray:
    """Scores of a CSV file: a column for each model, and `id` where rows are in another order."""
    import csv

    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise DataError("must hold a row for each query, got none", path=path)
    if lacking := [name for name in table.models if name not in rows[0]]:
        raise DataError(f"must have a column for each model, none for {lacking[0]!r}", path=path)
    if "id" in rows[0]:
        by_id = {row["id"]: row for row in rows}
        if lacking := [name for name in table.ids if name not in by_id]:
            raise DataError(f"must have a row for each query, none for {lacking[0]!r}", path=path)
        rows = [by_id[name] for name in table.ids]
    values = np.empty((len(rows), len(table.models)))
    for i, row in enumerate(rows):
        for j, name in enumerate(table.models):
            try:
                values[i, j] = float(row[name])
            except (TypeError, ValueError):
                raise DataError(
                    f"must be a score, got {row[name]!r}", path=path, row=i + 1, field=name
                ) from None
    return values
