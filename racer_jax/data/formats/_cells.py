"""From a list of (query, model) results to a matrix; what is missing or named twice is reported, never filled in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.table import RoutingTable

Missing = Literal["error", "drop", "keep"]
# A table may have this many cells for each result read, beyond the first million; a sparser list is
# a mistake, and its matrix would not fit in memory.
_MAX_SPARSITY = 20


def check_missing(missing: str) -> None:
    """Refuses an unknown policy."""
    if missing not in get_args(Missing):
        raise ValueError(f"missing must be one of {get_args(Missing)}, got {missing!r}")


class Grid(NamedTuple):
    """Where each result stands in the matrix.

    Attributes:
      places: Flat position of each result in the matrix, int64 `[k]`.
      shape: (queries, models).
    """

    places: np.ndarray
    shape: tuple[int, int]

    def fill(self, values: Any, default: Any, dtype: Any = None) -> np.ndarray:
        """The matrix `[n, m]` of one value for each result, `default` where there is none."""
        values = np.asarray(values, dtype=dtype)
        matrix = np.full(self.shape, default, dtype=values.dtype)
        matrix.reshape(-1)[self.places] = values
        return matrix


def repeated(index: np.ndarray) -> tuple[int, int] | None:
    """The positions of the first result that repeats a pair, and of the one it repeats; None if there is none."""
    order = np.argsort(index, kind="stable")
    again = np.flatnonzero(np.diff(index[order]) == 0)
    if not len(again):
        return None
    later = int(order[again + 1].min())
    return int(np.flatnonzero(index == index[later])[0]), later


def grid(queries: np.ndarray, models: np.ndarray, shape: tuple[int, int], path: Path) -> Grid:
    """The places of results by the codes of their query and model.

    Args:
      queries: Code of the query of each result, `[k]`.
      models: Code of its model, `[k]`.
      shape: Numbers of queries and models.
      path: For the error.

    Returns:
      The grid.

    Raises:
      DataError: If there are so few results for so many queries and models that something else is
        wrong.
    """
    cells, most = shape[0] * shape[1], 1_000_000 + _MAX_SPARSITY * len(queries)
    if cells > most:
        raise DataError(
            f"must hold most of the pairs, got {len(queries)} results for {shape[0]} queries x "
            f"{shape[1]} models",
            path=path,
        )
    return Grid(queries * shape[1] + models, shape)


def built(path: Path, **fields: Any) -> RoutingTable:
    """A table of what a file says; what is wrong with it as a table is wrong with the file."""
    try:
        return RoutingTable(**fields)
    except (ValueError, TypeError) as error:
        raise DataError(f"must hold a valid table: {error}", path=path) from None


def settle_missing(table: RoutingTable, missing: Missing, path: Path) -> RoutingTable:
    """The table under a policy for pairs that nobody evaluated.

    Args:
      table: As read.
      missing: `error` refuses them, `drop` leaves out their queries and says so in a note, `keep`
        keeps them marked.
      path: For the error.

    Returns:
      The table.

    Raises:
      DataError: If there are such pairs and the policy is `error`, or no whole query is left.
    """
    if table.missing is None:
        return table
    report = missing_report(table)
    if missing == "error":
        raise DataError(
            f"must hold a result for every query and model, {report}; "
            "pass missing='drop' to leave these queries out or missing='keep' to keep them marked",
            path=path,
        )
    if missing == "keep":
        return table
    whole = table.complete()
    if not len(whole):
        raise DataError(
            f"must hold a result of every model for at least one query, {report}", path=path
        )
    return whole


def missing_report(table: RoutingTable) -> str:
    """What is missing, in one line: how many pairs, of which models, and the first of them."""
    if table.missing is None:
        return "nothing is missing"
    holes = table.missing.sum(axis=0)
    models = ", ".join(
        f"{table.models[j]} {holes[j]}" for j in np.argsort(-holes, kind="stable")[:5] if holes[j]
    )
    i, j = (int(k) for k in np.argwhere(table.missing)[0])
    return (
        f"{int(holes.sum())} of {table.missing.size} are missing ({models}), "
        f"the first for query {table.ids[i]!r} and model {table.models[j]!r}"
    )


def object_matrix(place: Grid, values: Sequence[str | None]) -> np.ndarray:
    """A matrix of strings, None where there is none."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return place.fill(column, None)
