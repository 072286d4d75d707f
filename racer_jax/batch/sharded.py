"""An exact threshold over more critical scores than one machine holds, in two counting passes.

The threshold is the k-th smallest critical score. A float32 has 32 bits, which order as an integer
once the sign is seen to: the first pass counts scores by their upper 16 bits, and the k-th stands
in one of these buckets; the second counts those of that bucket by their lower 16 bits. Counts of
shards are added up, so a pass is a sum of 65,536 numbers over the shards, which every engine can
do, and nothing is sorted, sampled or sent.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.risk_levels import Level, miss_budget

_HALF = 16
NUM_BUCKETS = 1 << _HALF


class Bucket(NamedTuple):
    """Where the threshold is, after the first pass.

    Use this when the two passes run on an engine: it is what the second pass has to know.

    Attributes:
      number: The upper 16 bits of the threshold's key; None where the threshold is +inf, since
        alpha is below 1 / (n + 1).
      rank: The threshold's rank within the bucket, from 1.
      num: n, the critical scores in all.
      size: How many of them are in the bucket, which the second pass must count again; None where
        that is not known.
    """

    number: int | None
    rank: int
    num: int
    size: int | None = None


def _keys(critical: ArrayLike) -> np.ndarray:
    """Unsigned integers in the order of the scores; -0 and 0 are the same number."""
    if np.ma.is_masked(critical):  # a null of DuckDB, over a number that means nothing
        raise ValueError("critical scores must not be null, got a masked one")
    values = np.asarray(given("critical scores", critical))
    if not jnp.issubdtype(values.dtype, jnp.floating):  # bfloat16 is of no kind of NumPy's
        raise TypeError(f"critical scores must be floating, got dtype {values.dtype}")
    exact = values.ravel()
    with np.errstate(over="ignore"):  # beyond every float32 is infinite
        values = exact.astype(np.float32)
        # Up: an engine may compare the scores as they are with the threshold.
        if exact.dtype.itemsize > 4 and (below := values < exact).any():
            values[below] = np.nextafter(values[below], np.float32(np.inf))
    if np.isnan(values).any():
        raise ValueError("critical scores must not be NaN")
    bits = np.where(values == 0, np.float32(0), values).view(np.uint32)
    # The sign bit is turned; of negative numbers all others too, as they order the other way.
    return np.asarray(bits ^ np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(1 << 31)))


def count_buckets(critical: ArrayLike) -> np.ndarray:
    """The first pass over a shard: critical scores in each bucket, int64 `[65536]`.

    Use this when an engine maps a function over shards and adds up the results.

    Args:
      critical: Critical scores of the shard, floating; float64 is rounded up to float32.

    Raises:
      TypeError: If they are not floating.
      ValueError: If one is NaN or masked.
    """
    return np.bincount(_keys(critical) >> _HALF, minlength=NUM_BUCKETS)


def bucket_of_threshold(counts: np.ndarray, alpha: Level) -> Bucket:
    """Where the threshold is.

    Use this when the first pass over all shards is done.

    Args:
      counts: The sum of `count_buckets` over all shards.
      alpha: The risk level.

    Raises:
      ValueError: If there is no critical score, alpha is out of range, or these are no such counts.
    """
    counts = _summed(counts)
    num = int(counts.sum())
    if num < 1:
        raise ValueError("there must be at least one critical score, got none")
    budget = int(miss_budget(alpha, num))
    if budget < 0:
        return Bucket(None, 0, num, 0)
    rank = num - budget
    up_to = np.cumsum(counts)
    number = int(np.searchsorted(up_to, rank))
    size = int(counts[number])
    return Bucket(number, rank - int(up_to[number]) + size, num, size)


def _summed(counts: ArrayLike) -> np.ndarray:
    """The sum of the counts of all shards; the sum of none is 0."""
    values = np.asarray(counts)
    if values.ndim == 0 and values == 0:
        return np.zeros(NUM_BUCKETS, np.int64)
    if values.shape != (NUM_BUCKETS,):
        raise ValueError(
            f"counts must have shape ({NUM_BUCKETS},), added up over the shards, got {values.shape}"
        )
    return values


def count_within(critical: ArrayLike, bucket: Bucket) -> np.ndarray:
    """The second pass over a shard: critical scores of the bucket by their lower bits.

    Use this when an engine maps a function over shards and adds up the results.

    Args:
      critical: As for `count_buckets`.
      bucket: From `bucket_of_threshold`.

    Returns:
      int64 `[65536]`.
    """
    keys = _keys(critical)
    within = np.zeros(0, np.uint32)
    if bucket.number is not None:
        within = keys[keys >> _HALF == bucket.number] & np.uint32(NUM_BUCKETS - 1)
    return np.bincount(within, minlength=NUM_BUCKETS)


def threshold_in_bucket(counts: np.ndarray, bucket: Bucket) -> np.float32:
    """The threshold, exactly.

    Use this when the second pass over all shards is done.

    Args:
      counts: The sum of `count_within` over all shards.
      bucket: The bucket that was counted.

    Raises:
      ValueError: If there are more or fewer than the first pass counted: the shards have changed.
    """
    if bucket.number is None:
        return np.float32(np.inf)
    up_to = np.cumsum(_summed(counts))
    is_other = bucket.size is not None and up_to[-1] != bucket.size
    if is_other or up_to[-1] < bucket.rank:
        number = f"at least {bucket.rank}" if bucket.size is None else str(bucket.size)
        raise ValueError(
            f"the second pass must count {number} scores of the bucket, as the first did, got "
            f"{up_to[-1]}: both passes must read the same shards"
        )
    key = np.uint32((bucket.number << _HALF) | int(np.searchsorted(up_to, bucket.rank)))
    flip = np.uint32(1 << 31) if key >> 31 else np.uint32(0xFFFFFFFF)
    return np.float32((key ^ flip).view(np.float32))


def threshold_of_shards(shards: Callable[[], Iterable[ArrayLike]], alpha: Level) -> np.float32:
    """The threshold that `calibrate` gives for all critical scores together.

    Scores of float64 are rounded up to float32, so that each of them that the threshold counted as
    covered is at most the threshold, in whatever precision the two are compared.

    Use this when the scores stand in several files, or are more than memory holds, and one machine
    reads them; on an engine, map the counting functions over the shards yourself.

    Args:
      shards: Called twice; gives the critical scores shard by shard, the same both times.
      alpha: The risk level.

    Returns:
      The threshold, float32; +inf where alpha is below 1 / (n + 1).

    Raises:
      TypeError: If critical scores are not floating.
      ValueError: If there are none, one is NaN, alpha is out of range, or the shards hold another
        number of scores the second time, in all or in the bucket of the threshold.

    References:
      Eq. 6 of the paper: the k-th smallest of n critical scores, k = n - floor(alpha (n + 1)) + 1.

    >>> files = [np.linspace(0, 1, 50), np.linspace(1, 2, 49)]
    >>> float(threshold_of_shards(lambda: files, 0.1))
    1.8125
    """
    counts = np.zeros(NUM_BUCKETS, np.int64)
    for shard in shards():
        counts += count_buckets(shard)
    bucket = bucket_of_threshold(counts, alpha)
    within = np.zeros(NUM_BUCKETS, np.int64)
    if bucket.number is not None:
        num = 0
        for shard in shards():
            within += count_within(shard, bucket)
            num += np.size(shard)
        if num != bucket.num:
            raise ValueError(
                f"both passes must read the same shards, got {bucket.num} scores first and then "
                f"{num}"
            )
    return threshold_in_bucket(within, bucket)
