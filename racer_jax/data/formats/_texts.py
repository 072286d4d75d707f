"""Columns of texts of which many are equal, such as answers."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from racer_jax.data.formats._growing import Growing, Names, give_back

# Texts are numbered up to so many distinct ones, and as long as they are fewer than half.
_MOST_DISTINCT = 1 << 16
_CHUNK = 1 << 11


class Texts:
    """A column of texts and None: a byte or two for each as long as few are distinct."""

    def __init__(self) -> None:
        self._names = Names()
        self._parts: list[Any] = []
        self._waiting: list[str | None] = []
        self._list: list[str | None] | None = None
        self._length = 0

    def extend(self, values: Iterable[str | None]) -> None:
        """Adds texts."""
        self._waiting.extend(values)
        if len(self._waiting) >= _CHUNK:
            self._put()

    def _put(self) -> None:
        values, self._waiting = self._waiting, []
        self._length += len(values)
        if self._list is not None:
            self._list.extend(values)
            return
        codes = self._names.codes(values)
        if codes:
            self._parts.append(np.array(codes, np.min_scalar_type(max(codes))))
        if len(self._names) > min(_MOST_DISTINCT, _CHUNK // 2 + self._length // 2):
            names = self._names.names
            self._list = [names[code] for part in self._parts for code in part.tolist()]
            self._names, self._parts = Names(), []

    def __len__(self) -> int:
        return self._length + len(self._waiting)

    def __getitem__(self, part: slice) -> list[str | None]:
        """Some of the texts."""
        if self._waiting:
            self._put()
        if self._list is not None:
            return self._list[part]
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        names = self._names.names
        return [names[code] for codes in self._parts for code in codes[part].tolist()]


def side_by_side(columns: Sequence[Growing | Texts | None], num_rows: int) -> np.ndarray:
    """The matrix of columns, which are let go one after another.

    Args:
      columns: Numbers, or texts; None where nothing is known.
      num_rows: The length of each.

    Returns:
      `[num_rows, len(columns)]`, NaN or None where nothing is known.
    """
    give_back()
    kind = next(column for column in columns if column is not None)
    dtype = np.dtype(object) if isinstance(kind, Texts) else kind.dtype
    matrix = np.empty((num_rows, len(columns)), dtype)
    for j, column in enumerate(columns):
        if column is None:
            matrix[:, j] = None if isinstance(kind, Texts) else np.nan
            continue
        for start in range(0, num_rows, _CHUNK):
            end = min(start + _CHUNK, num_rows)
            part = column[start:end] if isinstance(column, Texts) else column.take(end - start)
            matrix[start:end, j] = part
    return matrix
