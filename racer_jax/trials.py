r"""Monte Carlo: thousands of random splits x many alphas in one jitted call.

A trial draws a uniform n-subset of the pool for calibration and measures every metric on the rest. Nothing is sorted:
the pool is in rank space already (`pool_steps`), so a threshold is a position, found by counting calibration queries,
and every metric is a prefix sum. Trial i is a function of `fold_in(key, i)` alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax.calibration import Alpha, exact_alphas, miss_budget
from racer_jax.nonconformity import TieBroken
from racer_jax.steps import METRICS, Pool, Steps
from racer_jax.subsets import uniform_subsets, unpack

_TILE = 256
_BLOCK = 64


class Trials(NamedTuple):
    """What each trial measured on its test part, for each alpha.

    Attributes:
      threshold: Calibrated thresholds, `[s, a]`; a `TieBroken` pair of them if the pool has a tie-break.
      risk: Share of test queries misrouted, float32 `[s, a]`.
      size: Mean number of models called, the null model never counted, `[s, a]`.
      abstention: Share of test queries for which no model is called, `[s, a]`.
      avoidable_miss: Share of test queries some model could answer, while none that can was called, `[s, a]`.
      extra: Mean of each further metric of the pool, by name, `[s, a]`.
    """

    threshold: jax.Array | TieBroken
    risk: jax.Array
    size: jax.Array
    abstention: jax.Array
    avoidable_miss: jax.Array
    extra: dict[str, jax.Array]


class Summary(NamedTuple):
    """Moments and quantiles of one metric over trials.

    Attributes:
      mean: float64 `[a]`.
      std: Standard deviation over trials (not of the mean), float64 `[a]`.
      minimum: float64 `[a]`.
      maximum: float64 `[a]`.
      edges: Edges of the histogram's bins, float64 `[a, h + 1]`.
      histogram: Number of trials in each bin, int64 `[a, h]`.
    """

    mean: np.ndarray
    std: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    edges: np.ndarray
    histogram: np.ndarray

    def quantile(self, level: float) -> np.ndarray:
        """The smallest value that at least this share of the trials does not exceed, `[a]`, to a bin's width."""
        total = np.cumsum(self.histogram, axis=1)
        index = (total < level * total[:, -1:]).sum(axis=1)
        return np.asarray(self.edges[np.arange(len(index)), index + 1])


def _trial_keys(key: jax.Array, trials: jax.Array) -> tuple[jax.Array, jax.Array]:
    data = jax.random.key_data(jax.vmap(partial(jax.random.fold_in, key))(trials))
    return data[:, 0], data[:, 1]


@partial(jax.jit, static_argnames=("num_calibration", "num_queries"))
def split_masks(key: jax.Array, trials: ArrayLike, *, num_calibration: int, num_queries: int) -> jax.Array:
    """Replays splits: which POSITIONS of the pool are calibration queries in each trial.

    Args:
      key: The typed PRNG key given to `split_trials`.
      trials: Indices of trials, int `[s]`.
      num_calibration: n.
      num_queries: N.

    Returns:
      bool `[s, N]`, by position; query `pool.order[j]` stands at position j.
    """
    words = uniform_subsets(_trial_keys(key, jnp.asarray(trials)), num_calibration, num_queries)
    return jnp.transpose(unpack(words, num_queries))


def _prefix_sums(rows: jax.Array, delta: jax.Array | None, upto: jax.Array) -> jax.Array:
    """Sums of the first `upto` `[a, t]` rows of `rows` `[K, t]`, each times its `delta` `[K]`; int32 `[a, t]`."""
    rows = rows.astype(jnp.int32)
    rows = rows if delta is None else rows * delta[:, None]
    rows = jnp.pad(rows, ((0, _BLOCK - rows.shape[0] % _BLOCK), (0, 0)))
    blocks = rows.reshape(-1, _BLOCK, rows.shape[1]).sum(axis=1)
    before = lax.scan(lambda total, block: (total + block, total), jnp.zeros_like(blocks[0]), blocks)[1]
    lane = jnp.arange(rows.shape[1])[None]
    block = upto // _BLOCK

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        return total + jnp.where(block * _BLOCK + i < upto, rows[block * _BLOCK + i, lane], 0)

    sums: jax.Array = lax.fori_loop(0, _BLOCK, add, before[block, lane])
    return sums


def _positions(mask: jax.Array, rank: jax.Array) -> jax.Array:
    """Position of the rank-th calibration query, `[a, t]`; N where the rank is above their number."""
    num = mask.shape[0]
    taken = lax.scan(lambda n, row: (n + row, n + row), jnp.zeros(mask.shape[1], jnp.int32), mask.astype(jnp.int32))[1]
    lane = jnp.arange(mask.shape[1])[None]
    low = jnp.zeros((rank.shape[0], mask.shape[1]), jnp.int32)

    def halve(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds  # the answer is in [low, high]
        middle = (low + high) // 2
        below = taken[jnp.minimum(middle, num - 1), lane] < rank[:, None]
        open_ = low < high
        return jnp.where(open_ & below, middle + 1, low), jnp.where(open_ & ~below, middle, high)

    found: jax.Array = lax.fori_loop(0, num.bit_length() + 1, halve, (low, jnp.full_like(low, num)))[0]
    return found


def _totals(metric: Steps, mask: jax.Array, at: jax.Array) -> jax.Array:
    """Total of a metric over the queries outside `mask`, in limbs: int32 `[l, a, t]`."""
    upto = metric.upto[at]
    outside = ~mask
    totals = []
    for i, start in enumerate(metric.start):
        delta = None if metric.delta is None else metric.delta[i]
        steps = _prefix_sums(outside[metric.query], delta, upto) * (metric.unit or 1)
        totals.append(jnp.sum(jnp.where(outside, start[:, None], 0), axis=0, keepdims=True) + steps)
    return jnp.stack(totals)


@partial(jax.jit, static_argnames=("num_calibration", "tile"))
def _counts(
    key: jax.Array, pool: Pool, rank: jax.Array, trials: jax.Array, num_calibration: int, tile: int
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Positions `[a, s]` and totals `[l, a, s]` of each metric, tile by tile."""

    def one_tile(indices: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        words = uniform_subsets(_trial_keys(key, indices), num_calibration, pool.num_queries)
        mask = unpack(words, pool.num_queries)
        at = _positions(mask, rank)
        return at, {name: _totals(metric, mask, at) for name, metric in pool.metrics.items()}

    at, totals = lax.map(one_tile, trials.reshape(-1, tile))

    def merge(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1)

    return merge(at), jax.tree.map(merge, totals)


def _ranks(alpha: Alpha, num_calibration: int) -> np.ndarray:
    exact_alphas(alpha)
    return num_calibration - np.atleast_1d(miss_budget(alpha, num_calibration))


def _check(pool: Pool, num_calibration: int, num_trials: int) -> None:
    for name, value in (("num_calibration", num_calibration), ("num_trials", num_trials)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if num_calibration >= pool.num_queries:
        raise ValueError(
            f"num_calibration must leave at least one of the {pool.num_queries} queries for the test, "
            f"got {num_calibration}"
        )


def _trial_counts(
    key: jax.Array, pool: Pool, rank: np.ndarray, num_calibration: int, first: int, num: int
) -> tuple[jax.Array, dict[str, jax.Array]]:
    tile = min(_TILE, num)
    padded = -(-num // tile) * tile
    trials = jnp.arange(first, first + padded, dtype=jnp.uint32)
    at, totals = _counts(key, pool, jnp.asarray(rank, jnp.int32), trials, num_calibration, tile)
    return at[:, :num], jax.tree.map(lambda x: x[..., :num], totals)


def _means(metric: Steps, totals: jax.Array, num_test: int) -> jax.Array:
    """Limbs `[l, ...]` to means over the test part, float32."""
    value = totals[-1].astype(jnp.float32)
    for limb in totals[-2::-1]:
        value = value * 2.0**-metric.limb_bits + limb
    return value * metric.scale / num_test


def split_trials(
    key: jax.Array, pool: Pool, *, num_calibration: int, alpha: Alpha, num_trials: int, first_trial: int = 0
) -> Trials:
    """Random splits of a pool: threshold and test metrics of every trial and alpha.

    Each trial calibrates on an exactly uniform subset of `num_calibration` queries and is measured on the others.

    Args:
      key: A typed PRNG key. Trial i depends on `fold_in(key, i)` alone.
      pool: From `pool_steps`.
      num_calibration: n, at least 1, less than the number of queries.
      alpha: One risk level in (0, 1) or several.
      num_trials: S, the number of trials.
      first_trial: Index of the first.

    Returns:
      `Trials` of `[s, a]` arrays (a = 1 for a single alpha).

    Raises:
      TypeError: If a count is not an integer or an alpha not numeric.
      ValueError: If a count or an alpha is out of range.
    """
    _check(pool, num_calibration, num_trials)
    rank = _ranks(alpha, num_calibration)
    at, totals = _trial_counts(key, pool, rank, num_calibration, first_trial, num_trials)
    num_test = pool.num_queries - num_calibration
    means = {name: _means(pool.metrics[name], total, num_test).T for name, total in totals.items()}
    threshold = jax.tree.map(lambda x: x[at.T], pool.threshold)
    extra = {name: mean for name, mean in means.items() if name not in METRICS}
    return Trials(threshold=threshold, extra=extra, **{name: means[name] for name in METRICS})


@dataclass
class _Moments:
    """Running moments and histogram of one metric; float64 and int64 on the host."""

    low: np.ndarray
    width: np.ndarray
    histogram: np.ndarray
    centre: np.ndarray
    num: int
    total: np.ndarray
    square: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray

    @classmethod
    def start(cls, value: np.ndarray, low: np.ndarray, high: np.ndarray, bins: int) -> "_Moments":
        zero = np.zeros(len(value))
        return cls(
            low,
            (high - low) / bins,
            np.zeros((len(value), bins), np.int64),
            value.mean(axis=1),
            0,
            zero,
            zero,
            value.min(axis=1),
            value.max(axis=1),
        )

    def add(self, value: np.ndarray) -> None:
        self.num += value.shape[1]
        centred = value - self.centre[:, None]
        self.total = self.total + centred.sum(axis=1)
        self.square = self.square + (centred * centred).sum(axis=1)
        self.minimum = np.minimum(self.minimum, value.min(axis=1))
        self.maximum = np.maximum(self.maximum, value.max(axis=1))
        bins = self.histogram.shape[1]
        # A value on an edge belongs to the bin below it, so that the upper edges are quantiles.
        index = np.ceil((value - self.low[:, None]) / self.width[:, None]).astype(np.int64) - 1
        index = np.clip(index, 0, bins - 1) + np.arange(len(value))[:, None] * bins
        self.histogram += np.bincount(index.ravel(), minlength=self.histogram.size).reshape(self.histogram.shape)

    def finish(self) -> Summary:
        mean = self.total / self.num
        std = np.sqrt(np.maximum(self.square / self.num - mean * mean, 0.0) * self.num / max(self.num - 1, 1))
        edges = self.low[:, None] + self.width[:, None] * np.arange(self.histogram.shape[1] + 1)
        return Summary(self.centre + mean, std, self.minimum, self.maximum, edges, self.histogram)


def stream_trials(
    key: jax.Array,
    pool: Pool,
    *,
    num_calibration: int,
    alpha: Alpha,
    num_trials: int,
    first_trial: int = 0,
    chunk_size: int = 8192,
    bins: int = 200,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Summary]:
    """`split_trials` in bounded memory: moments, quantiles and a histogram of each metric over any number of trials.

    Args:
      key: A typed PRNG key. Trial i depends on `fold_in(key, i)` alone, whatever the chunk size.
      pool: From `pool_steps`.
      num_calibration: n.
      alpha: One risk level in (0, 1) or several.
      num_trials: S.
      first_trial: Index of the first.
      chunk_size: Trials in memory at once.
      bins: Bins of each histogram. Its range is that of the first chunk, widened by half on each side.
      progress: Called with the number of trials done since the last call, for example `bar.update` of tqdm.

    Returns:
      A `Summary` by name of metric: `risk`, `size`, `abstention`, `avoidable_miss` and those of the pool.

    Raises:
      TypeError: If a count is not an integer or an alpha not numeric.
      ValueError: If a count or an alpha is out of range.
    """
    _check(pool, num_calibration, num_trials)
    rank = _ranks(alpha, num_calibration)
    num_test = pool.num_queries - num_calibration
    moments: dict[str, _Moments] = {}
    for start in range(first_trial, first_trial + num_trials, chunk_size):
        num = min(chunk_size, first_trial + num_trials - start)
        totals = _trial_counts(key, pool, rank, num_calibration, start, num)[1]
        for name, limbs in totals.items():
            metric = pool.metrics[name]
            value = sum(np.float64(2.0 ** (-i * metric.limb_bits)) * np.asarray(x) for i, x in enumerate(limbs))
            value = np.asarray(value) * (metric.scale / num_test)
            if name not in moments:
                spread = np.maximum(value.max(axis=1) - value.min(axis=1), 1.0 / num_test)
                low, high = value.min(axis=1) - spread / 2, value.max(axis=1) + spread / 2
                moments[name] = _Moments.start(value, low, high, bins)
            moments[name].add(value)
        if progress is not None:
            progress(num)
    return {name: moment.finish() for name, moment in moments.items()}
