r"""The laws of every metric over ALL C(N, n) calibration/test splits of a pool, with no sampling.

Let J be the position of the threshold, the k-th of n calibration queries drawn from N in rank
order, k = n - b. Its law is negative hypergeometric. Given J, the test queries below it are a
uniform subset of the queries below it, and those above it of the queries above it, so the mean and
variance of any metric's total are those of sampling without replacement, from prefix sums of the
metric and of its square. Host, NumPy, float64; every alpha at once.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.risk_levels import Alpha, Budget, budget_of
from racer_jax.montecarlo.step_functions import METRICS, Pool, Steps, pool_steps

# Positions less likely than exp(-_NEGLIGIBLE) in sum are left out of the law of J.
_NEGLIGIBLE = 48.0


class Mixture(NamedTuple):
    """The law of a metric over all splits as a mixture over the position of the threshold.

    Use this when a quantile or a tail of a metric over splits is wanted, not its mean alone. Each
    component is the mean of two samples without replacement; its mean and standard deviation
    are exact, and for large parts it is close to normal.

    Attributes:
      probability: Probability of each position, float64 `[a, w]`.
      mean: Mean of the metric given the position, `[a, w]`.
      std: Its standard deviation given the position, `[a, w]`.
    """

    probability: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def cdf(self, value: ArrayLike) -> np.ndarray:
        """P(metric <= value) with normal components, `[a]`, for values `[a]` or one for all.

        Use this when you want the chance that a metric of one split stays below a value.
        """
        from scipy.special import ndtr  # takes a fifth of a second to import

        distance = (
            np.broadcast_to(np.asarray(value, np.float64), len(self.mean))[:, None] - self.mean
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            below = np.where(self.std > 0, ndtr(distance / self.std), distance >= 0)
        return np.asarray((self.probability * below).sum(axis=1))


class SplitLaw(NamedTuple):
    """Exact laws over all splits.

    Arrays are float64 `[a]` unless said otherwise (a = 1 for a single alpha). Metrics that the pool
    does not hold (see `Pool.only`) are None.

    Use this when you read the result of `split_law` or `pool_law`: means and standard deviations by
    name, the whole law of the risk, and tails of the other metrics from `mixture`.

    Attributes:
      risk_mean: Mean over splits of the test risk.
      risk_std: Its standard deviation over splits.
      size_mean: Mean over splits of the mean number of models called, the null model never counted.
      size_std: Its standard deviation over splits.
      abstention_mean: Mean over splits of the share of test queries for which no model is called.
      abstention_std: Its standard deviation over splits.
      avoidable_miss_mean: Mean over splits of the share of test queries that some model could
        answer, while none that can was called.
      avoidable_miss_std: Its standard deviation over splits.
      extra_mean: Mean over splits of each further metric, by name.
      extra_std: Its standard deviation over splits.
      risk_support: Values of the test risk, ascending, `[a, w]`.
      risk_probability: Their probabilities, `[a, w]`; each row sums to 1.
      mixture: The law of each metric as a `Mixture`, by name.
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
    mixture: dict[str, Mixture]


# --- the law of the threshold's position ----------------------------------------------------------


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of Bernoulli laws."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first_part = np.where(p > 0, p * np.log(p / q), 0.0)
        right = np.where(p < 1, (1 - p) * np.log((1 - p) / (1 - q)), 0.0)
    return first_part + right


def _window(rank: np.ndarray, num: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions [low, high) that J leaves with a chance below exp(-_NEGLIGIBLE).

    By Hoeffding's bound: J >= x says that fewer than k of the first x queries calibrate, and J < x
    that at least k do; the number is hypergeometric, whose tails are below exp(-n divergence(share,
    x / N)). Bisection for x.
    """
    edges = []
    for share, limit in ((rank / num, 0.0), ((rank - 1) / num, float(size))):
        inner, outer = share * size, np.full(len(rank), limit)
        for _ in range(int(np.log2(size)) + 3):
            middle = (inner + outer) / 2
            far = num * _divergence(share, middle / size) > _NEGLIGIBLE
            inner, outer = np.where(far, inner, middle), np.where(far, middle, outer)
        edges.append(outer)
    low = np.maximum(np.floor(edges[0]).astype(np.int64) - 1, rank - 1)
    high = np.minimum(np.ceil(edges[1]).astype(np.int64) + 1, size - num + rank)
    return low, high


def _position_law(rank: np.ndarray, num: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First position and P(J = first + i), `[a]` and `[a, w]`, for 1 <= rank <= num.

    P(J = j) = C(j, k - 1) C(N - 1 - j, n - k) / C(N, n), from ratios of neighbours: no digit is
    lost to logarithms.
    """
    low, high = _window(rank, num, size)
    width = int((high - low).max())
    row_low, low = low, np.minimum(low, size - width)  # one width for all, within the pool
    position = low[:, None] + np.arange(width, dtype=np.float64)
    k, budget = rank[:, None], (num - rank)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (
            (position + 1)
            * (size - 1 - budget - position)
            / ((position + 2 - k) * (size - 1 - position))
        )
    start = (row_low - low)[:, None]
    place = np.arange(width)
    ratio = np.where((place >= start) & (position < size - 1 - budget), ratio, 0.0)
    law = np.ones((len(rank), width))
    # Below its own window the law of a row is 0, or as good as 0.
    law[:, 1:] = np.where(place[None, :-1] < start, 1.0, ratio[:, :-1])
    np.cumprod(law, axis=1, out=law)
    law *= place >= start
    law /= law.sum(axis=1, keepdims=True)
    return low, law


# --- metrics given the position -------------------------------------------------------------------


class _Sums(NamedTuple):
    """Sums of numbers and squares over the queries below and above each position `[N + 1]`."""

    below: np.ndarray
    above: np.ndarray
    below_square: np.ndarray
    above_square: np.ndarray


# At every position of the threshold each query counts below or above it, with its metric's value.
# Instead of a table [N, N + 1], the sums are written as changes: from one position to the next one
# query passes from above to below, and some metrics step. A cumulative sum gives all in O(N).
def _sums(steps: Steps) -> _Sums:
    """Sums of a metric over the queries below and above each position of the threshold."""
    size = len(steps.start)
    first, query = steps.first, steps.query
    early = query > first  # the query is above the threshold while it acts, until it is passed
    passed = np.maximum(first, query + 1)  # from here on it acts below the threshold

    def split(start: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        change = np.bincount(passed, delta, minlength=size + 2).astype(np.float64)[: size + 1]
        change[1:] += start
        below = np.cumsum(change)
        change = np.bincount(first[early], delta[early], minlength=size + 2).astype(np.float64)
        change -= np.bincount(query[early], delta[early], minlength=size + 2)
        change = change[: size + 1]
        change[:-1] -= start
        return below, start.sum() + np.cumsum(change)

    below, above = split(steps.start, steps.delta)
    square = steps.value**2 - (steps.value - steps.delta) ** 2
    below_square, above_square = split(steps.start**2, square)
    return _Sums(below, above, below_square, above_square)


def _moments(
    total: np.ndarray, square: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of `size` numbers with these sums, and their variance over size - 1."""
    mean = total / np.maximum(size, 1)
    return mean, np.maximum(square - total * mean, 0.0) / np.maximum(size, 1) / np.maximum(
        size - 1, 1
    )


def _windows(values: np.ndarray, low: np.ndarray, width: int) -> np.ndarray:
    """`values[low : low + width]` for each low: `[a, w]`."""
    return np.asarray(np.lib.stride_tricks.sliding_window_view(values, width)[low])


# --- the law of the risk where scores tie ---------------------------------------------------------


def _log_chooser(size: int) -> Callable[[ArrayLike, ArrayLike], np.ndarray]:
    """Log C(a, b) for a up to `size`, -inf where it is 0.

    In extended precision where the machine has it.
    """
    log_factorial = np.cumsum(np.log(np.maximum(np.arange(size + 1), 1).astype(np.longdouble)))

    def log_choose(a: ArrayLike, b: ArrayLike) -> np.ndarray:
        a, b = np.asarray(a), np.asarray(b)
        good = (b >= 0) & (b <= a)
        a, b = np.where(good, a, 0), np.where(good, b, 0)
        return np.where(good, log_factorial[a] - log_factorial[b] - log_factorial[a - b], -np.inf)

    return log_choose


def _tied_misses(
    pool: Pool, rank: np.ndarray, num: int, low: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Number of test misses and its probability where critical scores tie; by position, `[a, v]`.

    A threshold in the block [s, e) of equal scores covers e queries, of which C(e) = c are
    calibration queries: P(C(e) = c, C(s) < k) for c = k, k + 1, ...: as many terms as the block has
    positions.
    """
    size = pool.num_queries
    num_covered = pool.covered.astype(np.int64)
    log_choose = _log_chooser(size)
    # Queries from here on have a critical score of +inf: they are never covered.
    finite = int(num_covered[-1])
    block_start = np.searchsorted(num_covered[:-1], num_covered[:-1])
    block_start[finite:] = finite
    last = low + width - 1
    low = block_start[low]
    high = np.where(last >= finite, size, num_covered[last])
    at = low[:, None] + np.arange((high - low).max())
    inside = at < high[:, None]
    at = np.minimum(at, size - 1)
    s, e, k = block_start[at], num_covered[at], rank[:, None]
    never = at >= finite
    c = np.where(never, k - 1 - (at - finite), k + (at - s))
    law = np.exp(log_choose(e, c) + log_choose(size - e, num - c) - log_choose(size, num))
    # P(C(s) < k | C(e) = c) falls with c: one more of the first e positions crosses k - 1 with
    # chance (s-k+1)/(e-c).
    with np.errstate(invalid="ignore"):
        crossing = np.exp(log_choose(s, k - 1) + log_choose(e - s, c - k) - log_choose(e, c - 1))
    crossing = np.where(
        never | (c > e), 0.0, crossing * np.maximum(s - k + 1, 0) / np.maximum(e - c + 1, 1)
    )
    crossing = np.where(inside, crossing, 0.0)
    before = np.cumsum(crossing, axis=1) - crossing
    split_ties = (
        before + crossing - np.take_along_axis(before, np.maximum(s - low[:, None], 0), axis=1)
    )
    law = np.where(inside, law * np.clip(1 - split_ties, 0.0, 1.0), 0.0)
    return (size - e) - (num - c), law.astype(np.float64)


def _by_value(misses: np.ndarray, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities by number of misses, ascending, `[a, w]`, from entries in any order."""
    positive = chance > 0
    low = np.where(positive, misses, misses.max()).min(axis=1)
    high = np.where(positive, misses, 0).max(axis=1)
    width = int((high - low).max()) + 1
    index = np.clip(misses - low[:, None], 0, width - 1) + np.arange(len(low))[:, None] * width
    probability = np.bincount(index.ravel(), chance.ravel(), minlength=len(low) * width).reshape(
        -1, width
    )
    return low[:, None] + np.arange(width), probability


def _infeasible_misses(pool: Pool, num_test: int) -> tuple[np.ndarray, np.ndarray]:
    """Law of the test misses at threshold +inf.

    Those are the queries that no threshold covers; their number is hypergeometric.
    """
    size = pool.num_queries
    num_unanswerable = size - int(pool.covered[-1])
    log_choose = _log_chooser(size)
    misses = np.arange(
        max(0, num_unanswerable - (size - num_test)), min(num_unanswerable, num_test) + 1
    )
    chance = np.exp(
        log_choose(num_unanswerable, misses)
        + log_choose(size - num_unanswerable, num_test - misses)
        - log_choose(size, num_test)
    )
    return misses, chance.astype(np.float64)


def _pad(array: np.ndarray, width: int, fill: str | float) -> np.ndarray:
    """Rows widened to `width`, by their last value or by a number."""
    extra = [(0, 0)] * (array.ndim - 1) + [(0, width - array.shape[-1])]
    if isinstance(fill, str):
        return np.pad(array, extra, mode="edge")
    return np.pad(array, extra, constant_values=fill)


# --- all together ---------------------------------------------------------------------------------


def pool_law(
    pool: Pool,
    *,
    num_calibration: int,
    alpha: Alpha | None = None,
    budget: Budget | None = None,
) -> SplitLaw:
    """`split_law` of a pool that is in rank space already.

    Use this when several laws of one pool are wanted (other levels, other numbers of calibration
    queries): it is sorted once, and each law takes milliseconds. It replaces `split_trials`
    wherever queries are split plainly.

    Args:
      pool: From `pool_steps`.
      num_calibration: n, at least 1, less than the number of queries.
      alpha: One risk level in (0, 1) or several.
      budget: In the place of `alpha`: how many calibration queries the threshold may miss, from -1
        (the threshold is +inf) to n - 1, one integer or `[a]`. For guarantees with budgets of their
        own, such as `high_probability_budget`.

    Returns:
      Mean and standard deviation of each metric over all splits, by alpha.

    Raises:
      TypeError: If `num_calibration` is not an integer or an alpha not numeric; or if not exactly
        one of `alpha` and `budget` is there.
      ValueError: If `num_calibration`, an alpha or a budget is out of range.
    """
    size, num = pool.num_queries, num_calibration
    budgets = np.atleast_1d(budget_of(alpha, num, budget))
    if num >= size:
        raise ValueError(
            f"num_calibration must leave at least one of the {size} queries for the test, got {num}"
        )
    num_test = size - num
    feasible = budgets >= 0
    rank = num - np.maximum(budgets, 0)
    low, law = _position_law(rank, num, size)
    width = law.shape[1]

    # Given J: t test queries below it of as many as its position, and the others above it.
    position = low[:, None] + np.arange(width)
    k = rank[:, None]
    below = (position - (k - 1)).astype(np.float64)
    above = num_test - below
    # Drawn times left; no less than 0 where the position is not one that J can take.
    below_spread, above_spread = np.maximum(below, 0) * (k - 1), np.maximum(above, 0) * (num - k)
    number = np.arange(size + 1)
    mean, std, mixture = {}, {}, {}
    for name, steps in pool.metrics.items():
        sums = _sums(steps)
        lower = _moments(sums.below, sums.below_square, number)
        upper = _moments(sums.above, sums.above_square, size - 1 - number)
        # An infeasible alpha has one threshold, +inf, and the whole pool to draw the test part
        # from.
        whole = _moments(sums.below[-1:], sums.below_square[-1:], np.array([size]))
        value = below * _windows(lower[0], low, width) + above * _windows(upper[0], low, width)
        spread = below_spread * _windows(lower[1], low, width) + above_spread * _windows(
            upper[1], low, width
        )
        value = np.where(feasible[:, None], value, num_test * whole[0])
        spread = np.where(feasible[:, None], spread, num_test * num * whole[1])
        total = np.einsum("aw,aw->a", law, value)
        variance = np.einsum("aw,aw->a", law, spread + (value - total[:, None]) ** 2)
        mean[name], std[name] = total / num_test, np.sqrt(variance) / num_test
        mixture[name] = Mixture(law, value / num_test, np.sqrt(spread) / num_test)

    if pool.distinct:
        # Misses fall one by one as the position rises.
        misses = (size - 1 - (num - rank) - (low + width - 1))[:, None] + np.arange(width)
        probability = law[:, ::-1]
    else:
        misses, probability = _by_value(*_tied_misses(pool, rank, num, low, width))
    if not feasible.all():
        infeasible_law, chance = _infeasible_misses(pool, num_test)
        width = max(misses.shape[1], len(infeasible_law))
        misses, probability = _pad(misses, width, "edge"), _pad(probability, width, 0.0)
        misses[~feasible], probability[~feasible] = (
            _pad(infeasible_law, width, "edge"),
            _pad(chance, width, 0.0),
        )
    extra = [name for name in pool.metrics if name not in METRICS]
    moments: dict[str, Any] = {f"{name}_mean": mean.get(name) for name in METRICS}
    moments |= {f"{name}_std": std.get(name) for name in METRICS}
    return SplitLaw(
        **moments,
        extra_mean={name: mean[name] for name in extra},
        extra_std={name: std[name] for name in extra},
        risk_support=misses / num_test,
        risk_probability=np.ascontiguousarray(probability),
        mixture=mixture,
    )


def split_law(
    nonconformity: ArrayLike,
    correct: ArrayLike,
    *,
    num_calibration: int,
    alpha: Alpha | None = None,
    budget: Budget | None = None,
    tie_break: jax.Array | None = None,
    metrics: Mapping[str, ArrayLike] | None = None,
) -> SplitLaw:
    r"""Mean and spread of every metric over all C(N, n) splits, and the whole law of the test risk.

    Use this when you want to know what calibration does to a table you have, at every level and
    with no sampling error. The pool is a fixed set of N labelled queries; each split calibrates on
    n of them and tests on the others, every split equally likely. Nothing is sampled:
    `split_trials` converges to this.

    Args:
      nonconformity: E(x, m) of the augmented pool, floating, `[N, m + 1]`, null model last.
      correct: Whether each real model is right, bool or 0/1, `[N, m]`.
      num_calibration: n, at least 1, less than N.
      alpha: One risk level in (0, 1) or several.
      budget: In the place of `alpha`, as in `pool_law`.
      tie_break: Optional second keys, uint32 `[N, m + 1]`, from `tie_break`. Without them ties
        count as in Eq. 4.
      metrics: Further metrics, as in `pool_steps`.

    Returns:
      Mean and standard deviation of each metric over all splits, by alpha.

    Raises:
      TypeError: If an array has the wrong kind, `num_calibration` is not an integer, or an alpha
        not numeric; or if not exactly one of `alpha` and `budget` is there.
      ValueError: If shapes do not fit, or a value, `num_calibration`, an alpha or a budget is out
        of range.

    References:
      Without ties the mean risk is floor(alpha (n + 1)) / (n + 1), between the bounds of Theorems
      4.3 and 4.5.
    """
    pool = pool_steps(nonconformity, correct, tie_break, metrics=metrics)
    return pool_law(pool, num_calibration=num_calibration, alpha=alpha, budget=budget)
