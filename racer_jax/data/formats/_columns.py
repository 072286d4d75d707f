"""Checks on whole columns of codes."""

import numpy as np


def first_difference(values: np.ndarray, queries: np.ndarray) -> tuple[int, int] | None:
    """The first row whose value is not that of its query's first row.

    Args:
      values: Code of the value of each row, `[k]`.
      queries: Code of the query of each row, `[k]`, numbered by first appearance.

    Returns:
      That row and the query's first row, None where all agree.
    """
    firsts = np.unique(queries, return_index=True)[1]
    differs = values != values[firsts][queries]
    if not differs.any():
        return None
    row = int(np.flatnonzero(differs)[0])
    return row, int(firsts[queries[row]])
