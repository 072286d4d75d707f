r"""The laws of every metric over ALL C(N, n) calibration/test splits of a pool, with no sampling.

Let J be the position of the threshold, the k-th of n calibration queries drawn from N in rank order, k = n - b. Its law
is negative hypergeometric. Given J, the test queries below it are a uniform subset of the queries below it, and those
above it of the queries above it, so the mean and variance of any metric's total are those of sampling without
replacement, from prefix sums of the metric and of its square. Host, NumPy, float64; every alpha at once.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from racer_jax.calibration import Alpha, miss_budget
from racer_jax.steps import METRICS, Pool, Steps, pool_steps

# Positions less likely than exp(-_NEGLIGIBLE) in sum are left out of the law of J.
_NEGLIGIBLE = 48.0


class SplitLaw(NamedTuple):
    """Exact laws over all splits; arrays are float64 `[a]` unless said otherwise (a = 1 for a single alpha).

    Attributes:
      risk_mean: Mean over splits of the test risk.
      risk_std: Its standard deviation over splits.
      size_mean: Mean over splits of the mean number of models called, the null model never counted.
      size_std: Its standard deviation over splits.
      abstention_mean: Mean over splits of the share of test queries for which no model is called.
      abstention_std: Its standard deviation over splits.
      avoidable_miss_mean: Mean over splits of the share of test queries that some model could answer, while none that
        can was called.
      avoidable_miss_std: Its standard deviation over splits.
      extra_mean: The same of each further metric, by name.
      extra_std: Its standard deviation over splits.
      risk_support: Values of the test risk, ascending, `[a, w]`.
      risk_probability: Their probabilities, `[a, w]`; each row sums to 1.
    """

    risk_mean: np.ndarray
    risk_std: np.ndarray
    size_mean: np.ndarray
    size_std: np.ndarray
    abstention_mean: np.ndarray
    abstention_std: np.ndarray
    avoidable_miss_mean: np.ndarray
    avoidable_miss_std: np.ndarray
    extra_mean: dict[str, np.ndarray]
    extra_std: dict[str, np.ndarray]
    risk_support: np.ndarray
    risk_probability: np.ndarray


class _Curves(NamedTuple):
    """Sums of a metric at each threshold position: over queries at lower and at higher positions; `[N + 1]`."""

    below: np.ndarray
    above: np.ndarray


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of Bernoulli laws."""
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log(p / q), 0.0)
        right = np.where(p < 1, (1 - p) * np.log((1 - p) / (1 - q)), 0.0)
    return left + right


def _window(rank: np.ndarray, num: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions [low, high) outside which J falls with a chance below exp(-_NEGLIGIBLE), by Hoeffding's bound."""
    centre = rank / num * size
    edges = []
    for share, limit in ((rank / num, 0.0), ((rank - 1) / num, float(size))):
        inner, outer = np.clip(share * size, 0, size), np.full(len(rank), limit)
        for _ in range(int(np.log2(size)) + 3):
            middle = (inner + outer) / 2
            far = num * _divergence(share, middle / size) > _NEGLIGIBLE
            inner, outer = np.where(far, inner, middle), np.where(far, middle, outer)
        edges.append(outer)
    low = np.maximum(np.minimum(np.floor(edges[0]), np.floor(centre)).astype(np.int64) - 1, rank - 1)
    high = np.minimum(np.maximum(np.ceil(edges[1]), np.ceil(centre)).astype(np.int64) + 1, size - num + rank)
    return low, high


def _position_law(rank: np.ndarray, num: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and P(J = position), `[a, w]`; ranks at most n. Ratios of neighbours, so no digit is lost to logs."""
    low, high = _window(rank, num, size)
    position = low[:, None] + np.arange((high - low).max())
    k, budget = rank[:, None], (num - rank)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (position + 1) * (size - 1 - position - budget) / ((position + 2 - k) * (size - 1.0 - position))
    ratio = np.where(position + 1 < high[:, None], ratio, 0.0)
    law = np.cumprod(np.concatenate([np.ones((len(rank), 1)), ratio[:, :-1]], axis=1), axis=1)
    return np.minimum(position, size - 1), law / law.sum(axis=1, keepdims=True)


def _value(limbs: np.ndarray, metric: Steps) -> np.ndarray:
    """Limbs `[l, ...]` as float64."""
    weight = metric.scale * 2.0 ** (-metric.limb_bits * np.arange(len(limbs)))
    return np.tensordot(weight, np.asarray(limbs, np.float64), 1)


def _curves(metric: Steps) -> tuple[_Curves, _Curves]:
    """The sums of a metric and of its square."""
    start = _value(np.asarray(metric.start), metric)
    query, upto = np.asarray(metric.query), np.asarray(metric.upto)
    size = len(start)
    delta = np.full(len(query), float(metric.unit))
    if metric.delta is not None:
        delta = _value(np.asarray(metric.delta), metric)
    first = np.repeat(np.arange(size + 1), np.diff(upto, prepend=0))

    # Steps of the square: (value after)^2 - (value before)^2, along each query's own steps.
    by_query = np.argsort(query, kind="stable")
    along = np.cumsum(delta[by_query])
    num_steps = np.bincount(query, minlength=size)
    before_query = np.concatenate([[0.0], along])[np.cumsum(num_steps) - num_steps]
    after = np.empty(len(query))
    after[by_query] = along - np.repeat(before_query, num_steps)
    after += start[query]
    square = after * after - (after - delta) ** 2

    def sums(start: np.ndarray, delta: np.ndarray) -> _Curves:
        place = np.maximum(first, query + 1)  # from here on the step counts among the queries below the threshold
        below = np.cumsum(np.bincount(place, delta, minlength=size + 1))[: size + 1]
        below = below + np.concatenate([[0.0], np.cumsum(start)])
        place = np.where(query > first, query, size + 1)  # ... and up to here among those above it
        entered = np.bincount(first, np.where(query > first, delta, 0.0), minlength=size + 2)
        above = np.cumsum(entered - np.bincount(place, delta, minlength=size + 2))[: size + 1]
        above = above + np.append(start.sum() - np.cumsum(start), 0.0)
        return _Curves(below, above)

    return sums(start, delta), sums(start * start, square)


def _sampled(total: np.ndarray, square: np.ndarray, drawn: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean and variance of the total of a uniform subset of `drawn` of `size` numbers with these sums."""
    size = np.maximum(size, 1)
    mean = drawn * (total / size)
    spread = np.maximum(square - total * (total / size), 0.0) / size
    return mean, drawn * (size - drawn) / np.maximum(size - 1, 1) * spread


def _log_chooser(size: int) -> Callable[[ArrayLike, ArrayLike], np.ndarray]:
    """Log C(a, b) for a up to `size`, -inf where it is 0; in extended precision where the machine has it."""
    log_factorial = np.cumsum(np.log(np.maximum(np.arange(size + 1), 1).astype(np.longdouble)))

    def log_choose(a: ArrayLike, b: ArrayLike) -> np.ndarray:
        a, b = np.asarray(a), np.asarray(b)
        good = (b >= 0) & (b <= a)
        a, b = np.where(good, a, 0), np.where(good, b, 0)
        return np.where(good, log_factorial[a] - log_factorial[b] - log_factorial[a - b], -np.inf)

    return log_choose


def _tied_misses(pool: Pool, rank: np.ndarray, num: int, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of test misses and its probability, one entry a position, `[a, w]`, where critical scores tie.

    A threshold in the block [s, e) of equal scores covers e queries, of which C(e) = c are calibration queries:
    P(C(e) = c, C(s) < k) for c = k, k + 1, ...: as many terms as the block has positions.
    """
    size = pool.num_queries
    covered = np.asarray(pool.covered).astype(np.int64)
    log_choose = _log_chooser(size)
    finite = int(covered[-1])  # queries from here on have a critical score of +inf: never covered
    low, high = position.min(axis=1), position.max(axis=1)
    block_start = np.searchsorted(covered[:-1], covered[:-1])
    block_start[finite:] = finite
    low = block_start[low]
    high = np.where(high >= finite, size, covered[high])
    at = low[:, None] + np.arange((high - low).max())
    inside = at < high[:, None]
    at = np.minimum(at, size - 1)
    s, e, k = block_start[at], covered[at], rank[:, None]
    never = at >= finite
    c = np.where(never, k - 1 - (at - finite), k + (at - s))
    law = np.exp(log_choose(e, c) + log_choose(size - e, num - c) - log_choose(size, num))
    # P(C(s) < k | C(e) = c) falls with c: one more of the first e positions crosses k - 1 with chance (s-k+1)/(e-c).
    with np.errstate(invalid="ignore"):
        crossing = np.exp(log_choose(s, k - 1) + log_choose(e - s, c - k) - log_choose(e, c - 1))
    crossing = np.where(never | (c > e), 0.0, crossing * np.maximum(s - k + 1, 0) / np.maximum(e - c + 1, 1))
    crossed = np.cumsum(np.where(inside, crossing, 0.0), axis=1)
    start = np.maximum(s - low[:, None], 0)
    crossed -= np.take_along_axis(crossed, start, axis=1) - np.take_along_axis(crossing, start, axis=1)
    law = np.where(inside, law * np.clip(1 - crossed, 0.0, 1.0), 0.0)
    return (size - e) - (num - c), law.astype(np.float64)


def pool_law(pool: Pool, *, num_calibration: int, alpha: Alpha) -> SplitLaw:
    """`split_law` of a pool that is in rank space already.

    Args:
      pool: From `pool_steps`.
      num_calibration: n, at least 1, less than the number of queries.
      alpha: One risk level in (0, 1) or several.

    Returns:
      The `SplitLaw`.

    Raises:
      TypeError: If `num_calibration` is not an integer or an alpha not numeric.
      ValueError: If `num_calibration` or an alpha is out of range.
    """
    size, num = pool.num_queries, num_calibration
    budget = np.atleast_1d(miss_budget(alpha, num))
    if num >= size:
        raise ValueError(f"num_calibration must leave at least one of the {size} queries for the test, got {num}")
    num_test = size - num
    rank = num - budget
    feasible = rank <= num
    position, law = _position_law(np.minimum(rank, num), num, size)

    mean, std = {}, {}
    k = np.minimum(rank, num)[:, None]
    for name, metric in pool.metrics.items():
        values, squares = _curves(metric)
        lower = _sampled(values.below[position], squares.below[position], position - k + 1, position)
        drawn = size - 1 - position - (num - k)
        upper = _sampled(values.above[position], squares.above[position], drawn, size - 1 - position)
        given, variance = lower[0] + upper[0], lower[1] + upper[1]
        mean[name] = (law * given).sum(axis=1)
        total = (law * (variance + (given - mean[name][:, None]) ** 2)).sum(axis=1)
        # An infeasible alpha has one threshold, +inf, and the whole pool to draw the test part from.
        everywhere = _sampled(values.below[-1:], squares.below[-1:], np.array([num_test]), np.array([size]))
        mean[name] = np.where(feasible, mean[name], everywhere[0]) / num_test
        std[name] = np.sqrt(np.where(feasible, total, everywhere[1])) / num_test

    if pool.distinct:
        misses, chance = size - 1 - position - (num - k), law
    else:
        misses, chance = _tied_misses(pool, k[:, 0], num, position)
    misses = np.where(chance > 0, misses, num_test)
    support, probability = _gathered(misses, chance)
    if not feasible.all():
        lost = size - int(pool.covered[-1])
        log_choose = _log_chooser(size)
        m = np.arange(max(0, lost - num), min(lost, num_test) + 1)
        pmf = np.exp(log_choose(lost, m) + log_choose(size - lost, num_test - m) - log_choose(size, num_test)).astype(
            float
        )
        width = max(support.shape[1], len(m))
        grow = ((0, 0), (0, width - support.shape[1]))
        support, probability = np.pad(support, grow, mode="edge"), np.pad(probability, grow)
        support[~feasible] = np.pad(m, (0, width - len(m)), mode="edge")
        probability[~feasible] = np.pad(pmf, (0, width - len(m)))
    extra = [name for name in pool.metrics if name not in METRICS]
    return SplitLaw(
        risk_mean=mean["risk"],
        risk_std=std["risk"],
        size_mean=mean["size"],
        size_std=std["size"],
        abstention_mean=mean["abstention"],
        abstention_std=std["abstention"],
        avoidable_miss_mean=mean["avoidable_miss"],
        avoidable_miss_std=std["avoidable_miss"],
        extra_mean={name: mean[name] for name in extra},
        extra_std={name: std[name] for name in extra},
        risk_support=support / num_test,
        risk_probability=probability,
    )


def _gathered(misses: np.ndarray, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities by number of misses, ascending, `[a, w]`."""
    positive = chance > 0
    low = np.where(positive, misses, misses.max()).min(axis=1)
    high = np.where(positive, misses, low[:, None]).max(axis=1)
    width = int((high - low).max()) + 1
    index = np.clip(misses - low[:, None], 0, width - 1) + np.arange(len(low))[:, None] * width
    probability = np.bincount(index.ravel(), chance.ravel(), minlength=len(low) * width).reshape(-1, width)
    return low[:, None] + np.arange(width), probability


def split_law(
    nonconformity: ArrayLike,
    correct: ArrayLike,
    *,
    num_calibration: int,
    alpha: Alpha,
    tie_break: jax.Array | None = None,
    metrics: Mapping[str, ArrayLike] | None = None,
) -> SplitLaw:
    r"""Mean and standard deviation of every metric over all C(N, n) splits, and the whole law of the test risk.

    The pool is a fixed set of N labelled queries; each split calibrates on n of them and tests on the others, every
    split equally likely. Nothing is sampled: `split_trials` converges to this.

    Args:
      nonconformity: E(x, m) of the augmented pool, floating, `[N, m + 1]`, null model last.
      correct: Whether each real model is right, bool or 0/1, `[N, m]`.
      num_calibration: n, at least 1, less than N.
      alpha: One risk level in (0, 1) or several.
      tie_break: Optional second keys, uint32 `[N, m + 1]`, from `tie_break`. Without them ties count as in Eq. 4.
      metrics: Further metrics, as in `pool_steps`.

    Returns:
      The `SplitLaw`.

    Raises:
      TypeError: If an array has the wrong kind, `num_calibration` is not an integer, or an alpha not numeric.
      ValueError: If shapes do not fit, or a value, `num_calibration` or an alpha is out of range.

    References:
      Without ties the mean risk is floor(alpha (n + 1)) / (n + 1), between the bounds of Theorems 4.3 and 4.5.
    """
    pool = pool_steps(nonconformity, correct, tie_break, metrics=metrics)
    return pool_law(pool, num_calibration=num_calibration, alpha=alpha)
