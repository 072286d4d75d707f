"""Pairs (nonconformity, tie) as integers in their lexicographic order."""

from math import inf

import numpy as np

# No real number has this key: a query with it is in no set, not even at threshold +inf.
NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)


def entry_keys(nonconformity: np.ndarray, ties: np.ndarray | None) -> np.ndarray:
    """Keys `[n, m + 1]`, uint64, such that a model is in the set when its key is at most that of the threshold."""
    keys = ordered_keys(
        nonconformity, np.zeros(nonconformity.shape, np.uint32) if ties is None else ties
    )
    null = nonconformity[:, -1]
    keys[:, -1] = np.where(null == -inf, np.uint64(0), np.where(null == inf, NEVER, keys[:, -1]))
    return keys


def ordered_keys(value: np.ndarray, tie: np.ndarray | None) -> np.ndarray:
    """Unsigned integers in the lexicographic order of (value, tie)."""
    ordered: np.ndarray
    if value.dtype.itemsize <= 4:
        bits = np.where(value == 0, np.float32(0), value).astype(np.float32).view(np.uint32)
        ordered = np.where(bits >> 31 != 0, ~bits, bits | np.uint32(1 << 31))
    else:  # float64: 64 bits of value leave no room for a tie, so its rank stands for it
        ordered = np.unique(value, return_inverse=True)[1].reshape(value.shape).astype(np.uint32)
    if tie is None:
        return ordered
    return (ordered.astype(np.uint64) << np.uint64(32)) | tie.astype(np.uint64)
