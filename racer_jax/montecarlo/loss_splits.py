r"""Bounded losses over random splits: thresholds and test means of every split, or exact means.

All steps of all queries are sorted once, as one split does. A split then only says which steps are
of calibration queries: their cumulative sum gives the place of the threshold among the steps, and
the sums of the other steps up to that place are what the test queries lose, call and abstain from.
"""

from collections.abc import Callable
from itertools import combinations, islice
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from racer_jax.core.loss_calibration import Pair, cumulative, first_within, loss_budget, total
from racer_jax.core.losses import TICKS, SetLoss
from racer_jax.core.placement import on_own_devices
from racer_jax.core.risk_levels import Alpha
from racer_jax.core.scalar_checks import check_count
from racer_jax.core.sort_keys import ordered_keys
from racer_jax.montecarlo.replay import split_masks

Progress = Callable[[int], object]
# Splits whose sums are kept at once, by the steps of a split: some 100 MB.
_MOST_ENTRIES = 1 << 22
# Splits that are enumerated rather than refused.
MOST_SPLITS = 200_000


class LossTrials(NamedTuple):
    """What each split measured on its test part, for each alpha; arrays of the host.

    Use this when you read the result of `loss_trials`.

    Attributes:
      loss: Mean loss of the test queries, float64 `[s, a]`.
      size: Mean number of models called, the null model never counted, `[s, a]`.
      abstention: Share of test queries for which no model is called, `[s, a]`.
      reached: Whether a threshold was within the budget, bool `[s, a]`.
    """

    loss: np.ndarray
    size: np.ndarray
    abstention: np.ndarray
    reached: np.ndarray


class _Sorted(NamedTuple):
    """All steps of a pool in order, of those that any threshold can reach.

    Attributes:
      start: Loss of the empty set, ticks, `[N]`.
      query: Whose step it is, `[K]`.
      drop: How much the loss falls, ticks, `[K]`.
      real: Whether a real model enters, `[K]`.
      first: Whether it is the query's first real model, `[K]`.
      after: Number of steps inside at a threshold at this step, ties included, `[K + 2]`; the last
        two are those of the thresholds +inf and -inf.
    """

    start: jax.Array
    query: jax.Array
    drop: jax.Array
    real: jax.Array
    first: jax.Array
    after: jax.Array


def _sorted(loss: SetLoss) -> _Sorted:
    """The steps of a pool in order."""
    step, drop, model = (np.asarray(x) for x in (loss.step, loss.drop, loss.model))
    tie = None if loss.tie is None else np.asarray(loss.tie)
    num, num_steps = step.shape
    real = model < num_steps - 1
    first = real & (np.cumsum(real, axis=1) == 1)
    keys = ordered_keys(step, tie).ravel()
    order = np.argsort(keys, kind="stable")
    order = order[step.ravel()[order] < np.inf]
    keys = keys[order]
    after = np.searchsorted(keys, keys, side="right")
    always = int((step == -np.inf).sum())
    query = np.repeat(np.arange(num, dtype=np.int32), num_steps)
    last = np.append(np.maximum(after, always), [len(order), always])
    return _Sorted(
        start=loss.start,
        query=jnp.asarray(query[order]),
        drop=jnp.asarray(drop.ravel()[order]),
        real=jnp.asarray(real.ravel()[order]),
        first=jnp.asarray(first.ravel()[order]),
        after=jnp.asarray(last.astype(np.int32)),
    )


@jax.jit
def _measured(pool: _Sorted, budget: Pair, masks: jax.Array) -> tuple[jax.Array, ...]:
    """Test sums of each split `[s, a]`: loss in pairs of ticks, models, abstentions; reached."""
    count = pool.drop.shape[0]
    num_test = (~masks).sum(axis=-1, dtype=jnp.int32)[:, None]

    def one(mask: jax.Array) -> tuple[jax.Array, ...]:
        inside = mask[pool.query]
        index, free = first_within(
            total(jnp.where(mask, pool.start, 0)),
            cumulative(jnp.where(inside, pool.drop, 0)),
            budget,
        )
        end = pool.after[jnp.where(free, count + 1, index)]

        def upto(sums: jax.Array) -> jax.Array:
            return jnp.concatenate([jnp.zeros(1, sums.dtype), sums])[end]

        high, low = cumulative(jnp.where(inside, 0, pool.drop))
        start = total(jnp.where(mask, 0, pool.start))
        models = jnp.cumsum(pool.real & ~inside, dtype=jnp.int32)
        begun = jnp.cumsum(pool.first & ~inside, dtype=jnp.int32)
        return start[0] - upto(high), start[1] - upto(low), upto(models), upto(begun), index < count

    high, low, models, begun, reached = lax.map(one, masks)
    return high, low, models, num_test - begun, reached, num_test


def _chunk(pool: _Sorted, budget: Pair, masks: jax.Array, bound: float) -> LossTrials:
    """The test means of some splits."""
    high, low, models, abstains, reached, num = (
        np.asarray(x) for x in _measured(pool, budget, masks)
    )
    ticks = high.astype(np.float64) * 2**16 + low
    return LossTrials(ticks / TICKS * bound / num, models / num, abstains / num, reached)


@on_own_devices
def loss_trials(
    key: jax.Array,
    loss: SetLoss,
    alpha: Alpha,
    *,
    num_calibration: int,
    num_trials: int,
    progress: Progress = lambda _: None,
) -> LossTrials:
    """Random splits of a pool: each calibrates on some queries and measures the others.

    Args:
      key: A typed PRNG key; trial i depends on `fold_in(key, i)` alone.
      loss: The loss of each query, `[N]`.
      alpha: One level in (0, B) or several `[a]`.
      num_calibration: n, less than N.
      num_trials: S, the number of splits.
      progress: Called with the number of splits done since the last call.

    Returns:
      The `LossTrials` of `[s, a]` arrays.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If a count or an alpha is out of range.

    Use this when you want to see what `calibrate_loss` does to a table you have; for 0/1 losses
    `split_trials` and the exact `pool_law` do it faster.
    """
    check_count("num_trials", num_trials)
    pool, budget = _prepared(loss, alpha, num_calibration)
    size = max(1, min(num_trials, _MOST_ENTRIES // len(pool.drop)))
    parts = []
    for begin in range(0, num_trials, size):
        numbers = jnp.arange(begin, begin + size, dtype=jnp.uint32)  # one compilation for all
        masks = split_masks(
            key, numbers, num_calibration=num_calibration, num_queries=loss.num_queries
        )
        num_rows = min(size, num_trials - begin)
        chunk = _chunk(pool, budget, masks, float(loss.bound))
        parts.append(LossTrials(*(values[:num_rows] for values in chunk)))
        progress(num_rows)
    return LossTrials(*(np.concatenate(values) for values in zip(*parts, strict=True)))


@on_own_devices
def exact_loss_means(loss: SetLoss, alpha: Alpha, *, num_calibration: int) -> LossTrials:
    """The means of every metric over all C(N, n) splits, by enumeration of a small pool.

    Args:
      loss: As of `loss_trials`.
      alpha: As of `loss_trials`.
      num_calibration: n, less than N.

    Returns:
      The `LossTrials`, each the mean over all splits, `[a]`; `reached` is whether each was.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If there are more than 200,000 splits, or a count or an alpha is out of range.

    Use this when a pool is small, or all but one or two of its queries calibrate. Losses of two
    values have a closed law for pools of any size: `pool_law`.
    """
    pool, budget = _prepared(loss, alpha, num_calibration)
    number = comb(loss.num_queries, num_calibration)
    if number > MOST_SPLITS:
        raise ValueError(
            f"there are {number:.3g} splits, more than the {MOST_SPLITS:,} that are enumerated: "
            "use loss_trials; a loss of two values has a closed law, pool_law"
        )
    splits = combinations(range(loss.num_queries), num_calibration)
    size = min(number, max(1, _MOST_ENTRIES // len(pool.drop)))
    sums, reached, done = [], [], 0
    while done < number:
        rows = np.array(list(islice(splits, size)))
        masks = np.zeros((size, loss.num_queries), bool)
        np.put_along_axis(masks[: len(rows)], rows, True, axis=1)
        chunk = _chunk(pool, budget, jnp.asarray(masks), float(loss.bound))
        sums.append([values[: len(rows)].sum(axis=0) for values in chunk[:3]])
        reached.append(chunk.reached[: len(rows)].all(axis=0))
        done += len(rows)
    mean, size, abstention = np.sum(sums, axis=0) / number
    return LossTrials(mean, size, abstention, np.all(reached, axis=0))


def _prepared(loss: SetLoss, alpha: Alpha, num_calibration: int) -> tuple[_Sorted, Pair]:
    """The sorted pool and the budgets of the levels, checked."""
    check_count("num_calibration", num_calibration)
    if loss.start.ndim != 1 or not num_calibration < loss.num_queries:
        raise ValueError(
            "loss must be of queries [N], of which num_calibration leaves at least one: got "
            f"{list(loss.start.shape)} and {num_calibration}"
        )
    budget, _ = loss_budget(alpha, num_calibration, loss.bound)
    return _sorted(loss), budget
