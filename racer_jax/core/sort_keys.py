"""Pairs (nonconformity, tie) as unsigned integers in their lexicographic order, on the host.

One integer comparison then does what `prediction_sets` does on a device: a model is in the set when
its key is at most the key of the threshold. `Racer` routes single queries with it in microseconds,
where a call of a device would cost more than the work. That both agree bit for bit is tested.
"""

from math import inf

import numpy as np

from racer_jax._arrays import given

# Below the key of every threshold: the model is in every set, whatever its tie-break.
ALWAYS = np.uint64(0)
# No real number has this key: the model is in no set, not even at threshold +inf.
NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)

_SIGN = np.uint32(1 << 31)
_HIGH = np.uint64(32)


def ordered_keys(value: np.ndarray, tie: np.ndarray | None) -> np.ndarray:
    """Unsigned integers in the lexicographic order of (value, tie).

    Args:
      value: Numbers, no NaN, any shape. -0.0 and 0.0 are the same number. Keys of float16 and
        float32 compare across calls; keys of float64 only within one call, since 64 bits of a value
        leave no bits for a tie and its rank stands for it.
      tie: Second keys, uint32 of the same shape; None to compare by value alone.

    Returns:
      uint64 of the same shape; uint32 without `tie`.

    Use this when pairs are to be sorted or compared on the host.

    >>> keys = ordered_keys(np.float32([0.5, -1.0, 0.5]), np.uint32([7, 9, 3]))
    >>> np.argsort(keys).tolist()
    [1, 2, 0]
    """
    value, tie = given("value", value), given("tie", tie)
    keys: np.ndarray
    if value.dtype.itemsize <= 4:
        # A sum with 0.0 is the number itself, and 0.0 for -0.0.
        bits = (value.astype(np.float32, copy=False) + np.float32(0)).view(np.uint32)
        # All bits of a negative number are turned, and of others the sign alone.
        turned = (bits.view(np.int32) >> np.int32(31)).view(np.uint32)
        keys = bits ^ (turned | _SIGN)
    else:
        ranks = np.unique(value, return_inverse=True)[1]
        keys = ranks.reshape(value.shape).astype(np.uint32)
    if tie is None:
        return keys
    return (keys.astype(np.uint64) << _HIGH) | tie.astype(np.uint64)


def entry_keys(nonconformity: np.ndarray, tie_break: np.ndarray | None) -> np.ndarray:
    """Keys of which a model's is at most that of the threshold exactly when it is in the set.

    Args:
      nonconformity: E(x, m), float16 or float32 `[n, m + 1]`, no NaN, null model last.
      tie_break: Second keys, uint32 of the same shape; None where ties are not broken.

    Returns:
      uint64 `[n, m + 1]`: 0 where E = -inf, 2^64 - 1 where E = +inf.

    References:
      Eq. 4 of the paper, as `prediction_sets`.

    Use this when sets are made on the host: `entry_keys(E, U) <= ordered_keys(threshold, tie)`.

    >>> keys = entry_keys(np.float32([[0.0, 0.5, np.inf]]), None)
    >>> (keys <= ordered_keys(np.float32([0.25]), np.uint32([0]))).tolist()
    [[True, False, False]]
    """
    nonconformity = given("nonconformity", nonconformity)
    if tie_break is None:
        tie_break = np.zeros(nonconformity.shape, np.uint32)
    keys = ordered_keys(nonconformity, tie_break)
    keys[nonconformity == -inf] = ALWAYS
    keys[nonconformity == inf] = NEVER
    return keys


def critical_places(keys: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """The column of the critical score of each query: the smallest key of its augmented truth set.

    Args:
      keys: Keys of the augmented pool from `ordered_keys` or `entry_keys`, `[n, m + 1]`, null model
        last.
      correct: Whether each real model is right, bool `[n, m]`.

    Returns:
      int64 `[n]`: a column of the augmented truth set, also where no column of it is in any set.

    References:
      Eq. 5 of the paper, as `critical_scores`.

    Use this when the critical score's value and tie are needed on the host, in any dtype.

    >>> keys = entry_keys(np.float32([[0.5, 0.0, 0.25], [0.5, 0.0, 0.25]]), None)
    >>> critical_places(keys, np.array([[True, False], [False, False]])).tolist()
    [0, 2]
    """
    keys, correct = given("keys", keys), given("correct", correct)
    truth = np.concatenate([correct, ~correct.any(axis=1, keepdims=True)], axis=1)
    places = np.where(truth, keys, np.iinfo(keys.dtype).max).argmin(axis=1)
    # Where every column of the truth is NEVER, the smallest may be that of a wrong model.
    is_true = truth[np.arange(len(truth)), places]
    return np.asarray(np.where(is_true, places, truth.argmax(axis=1)))


def critical_keys(keys: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """The critical score of each query as a key: its set is a miss below it and none from it on.

    Args:
      keys: Keys of the augmented pool from `ordered_keys` or `entry_keys`, `[n, m + 1]`, null model
        last.
      correct: Whether each real model is right, bool `[n, m]`.

    Returns:
      `[n]`, the dtype of `keys`.

    References:
      Eq. 5 of the paper, as `critical_scores`.

    Use this when only the order of the critical scores matters, as in counting misses.
    """
    keys = given("keys", keys)
    return np.take_along_axis(keys, critical_places(keys, correct)[:, None], axis=1)[:, 0]
