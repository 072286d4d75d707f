r"""Choosing alpha, a cap or a budget, and what is still promised afterwards.

Each threshold of `calibrate` keeps its promise on its own. Choosing the best looking of several
alphas on the same calibration queries does not keep it: the choice may chase the noise. Choose on
validation queries that calibration does not use (`knee`, `within_budget`, `within_error`), or
calibrate with bounds that hold for all thresholds at once (`calibrate_uniform`).
"""

from math import floor, log, sqrt
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.special import bdtr, betaincinv

from racer_jax.core.calibration import (
    Alpha,
    Level,
    check_count,
    exact_alpha,
    exact_alphas,
    threshold_at_rank,
)
from racer_jax.core.checks import as_binary, check_no_nan, check_tie_break, first_bad
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.prediction_sets import abstains, misrouted, prediction_sets
from racer_jax.risk_control.high_probability import check_delta

# --- one of several alphas, on validation queries -------------------------------------------------


def _curve(**columns: ArrayLike) -> list[np.ndarray]:
    """Columns of a curve as float64 `[a]`, finite, of one length."""
    arrays = {name: np.asarray(column, np.float64) for name, column in columns.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or not next(iter(shapes))[0]:
        raise ValueError(
            f"{', '.join(arrays)} must have one shape [a], got {', '.join(map(str, shapes))}"
        )
    for name, array in arrays.items():
        if (bad := ~np.isfinite(array)).any():
            raise ValueError(f"{name} must be finite, got {array[bad][0]} at {first_bad(bad)}")
    return list(arrays.values())


def knee(alpha: ArrayLike, size: ArrayLike) -> int:
    """Index of the knee of size against alpha: the point furthest below the chord between the ends.

    Args:
      alpha: Risk levels, increasing, `[a]`.
      size: Mean set size (or cost) at each, on validation queries, `[a]`.

    Returns:
      The index; 0 where the curve has no range.

    Raises:
      ValueError: If the shapes differ, there are fewer than three points, alphas do not increase,
        or a value is not finite.

    >>> knee([0.1, 0.2, 0.3, 0.4], [6.0, 2.0, 1.5, 1.0])
    1
    """
    levels, sizes = _curve(alpha=alpha, size=size)
    if len(levels) < 3 or (np.diff(levels) <= 0).any():
        raise ValueError(f"alpha must hold at least three increasing levels, got {levels.tolist()}")
    span = sizes[0] - sizes[-1]
    if span == 0:
        return 0
    across = (levels - levels[0]) / (levels[-1] - levels[0])
    return int(np.argmax(1 - across - (sizes - sizes[-1]) / span))


def within_budget(alpha: ArrayLike, cost: ArrayLike, budget: float) -> int:
    """Index of the smallest alpha whose mean cost a query is within the budget.

    Args:
      alpha: Risk levels, `[a]`.
      cost: Mean dollars (or calls) a query at each, on validation queries, `[a]`.
      budget: What a query may cost.

    Returns:
      The index.

    Raises:
      ValueError: If the shapes differ, a value is not finite, or no alpha is within the budget.

    >>> within_budget([0.05, 0.1, 0.2], [4.0, 2.0, 1.0], 2.5)
    1
    """
    levels, costs = _curve(alpha=alpha, cost=cost)
    within = costs <= budget
    if not within.any():
        raise ValueError(
            f"no alpha is within the budget of {budget:g}: the least cost is {costs.min():g}"
        )
    return int(np.flatnonzero(within)[np.argmin(levels[within])])


def within_error(accuracy: ArrayLike, error: ArrayLike, size: ArrayLike) -> int:
    """Index of the smallest sets whose accuracy is within one standard error of the best.

    Args:
      accuracy: Validation accuracy at each alpha, `[a]`.
      error: Its standard error, not negative, `[a]`.
      size: Mean set size (or cost) at each, `[a]`.

    Returns:
      The index.

    Raises:
      ValueError: If the shapes differ, a value is not finite, or an error is negative.

    >>> within_error([0.70, 0.71, 0.60], [0.02, 0.02, 0.02], [3.0, 5.0, 1.0])
    0
    """
    accuracies, errors, sizes = _curve(accuracy=accuracy, error=error, size=size)
    if (errors < 0).any():
        raise ValueError(f"error must not be negative, got {errors.min():g}")
    best = int(np.argmax(accuracies))
    good = accuracies >= accuracies[best] - errors[best]
    return int(np.flatnonzero(good)[np.argmin(sizes[good])])


# --- all alphas at once ---------------------------------------------------------------------------


def uniform_budget(alpha: Alpha, n: int, delta: float) -> Any:
    r"""Miss budgets that hold for every alpha at once: b = floor(n (alpha - sqrt(log(1 / delta) / (2 n)))).

    By the inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant, with probability 1
    - delta over the calibration set the risk of EVERY threshold is below its miss rate plus
      sqrt(log(1 / delta) / (2 n)). So alpha may
    be chosen after looking at all of them.

    Args:
      alpha: Risk level or levels in (0, 1).
      n: Number of calibration queries.
      delta: Chance of failure, in (0, .5].

    Returns:
      An int for one alpha, an int64 array `[a]` for several; -1 where no threshold is safe.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If alpha is outside (0, 1), delta outside (0, .5], or `n` below 1.

    References:
      Massart, "The Tight Constant in the Dvoretzky-Kiefer-Wolfowitz Inequality", 1990.
    """
    check_count("n", n)
    if check_delta(delta) > 0.5:
        raise ValueError(f"delta must be in (0, .5] for the one-sided inequality, got {delta}")
    fractions, scalar = exact_alphas(alpha)
    slack = sqrt(log(1 / delta) / (2 * n))
    budgets = np.array([max(-1, floor(n * (float(f) - slack))) for f in fractions], np.int64)
    return int(budgets[0]) if scalar else budgets


def calibrate_uniform(
    critical_scores: ArrayLike | TieBroken, alpha: Alpha, delta: float
) -> jax.Array | TieBroken:
    """Thresholds of which any may be chosen after looking: all keep risk <= alpha with probability 1 - delta.

    Args:
      critical_scores: c(x) of the calibration queries, floating, `[..., n]`, or a `TieBroken` pair.
      alpha: Risk level or levels in (0, 1).
      delta: Chance of failure, in (0, .5].

    Returns:
      The threshold `[...]` or `[..., a]`, as of `calibrate`; +inf where no threshold is safe.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If there is no query, scores are NaN, or alpha or delta is out of range.
    """
    value, tie = (
        critical_scores
        if isinstance(critical_scores, TieBroken)
        else (jnp.asarray(critical_scores), None)
    )
    check_no_nan("critical_scores", value)
    if value.ndim < 1 or value.shape[-1] < 1:
        raise ValueError(f"critical_scores must have shape [..., n] with n >= 1, got {value.shape}")
    budget = uniform_budget(alpha, value.shape[-1], delta)
    rank = jnp.asarray(value.shape[-1] - np.atleast_1d(budget), jnp.int32)
    threshold: jax.Array | TieBroken = threshold_at_rank(value, rank, None, tie)
    return threshold if np.ndim(budget) else jax.tree.map(lambda x: x[..., 0], threshold)


# --- a cap on the number of models ----------------------------------------------------------------


def cap_models(
    nonconformity: ArrayLike, most: int, tie_break: jax.Array | None = None
) -> jax.Array:
    """Nonconformity under which no set holds more than so many real models, whatever the threshold.

    All but the first `most` models of each query are put at +inf. The order depends on the query
    alone, so every guarantee holds as it is, down to the smallest alpha that can be attained
    (`attainable_alpha`).

    Args:
      nonconformity: E(x, m), floating `[..., m + 1]`, null model last; it is left as it is.
      most: The cap, at least 1.
      tie_break: Second keys, uint32 of the same shape, where calibration uses them; else the first
        of tied models stay.

    Returns:
      `[..., m + 1]`, the same dtype.

    Raises:
      TypeError: If `nonconformity` is not floating, `most` not an integer, or `tie_break` not
        uint32.
      ValueError: If the shapes do not fit, a value is NaN, or `most` is below 1.

    >>> cap_models(jnp.array([0.5, 0.1, 0.3, -jnp.inf]), 2).tolist()
    [inf, 0.10000000149011612, 0.30000001192092896, -inf]
    """
    nonconformity = jnp.asarray(nonconformity)
    check_no_nan("nonconformity", nonconformity)
    check_count("most", most)
    if nonconformity.ndim < 1 or nonconformity.shape[-1] < 2:
        raise ValueError(
            f"nonconformity must have shape [..., m + 1] with m >= 1, got {nonconformity.shape}"
        )
    real = nonconformity[..., :-1]
    second = jnp.zeros(real.shape, jnp.uint32)
    if tie_break is not None:
        check_tie_break(tie_break, nonconformity.shape)
        second = tie_break[..., :-1]
    place = jnp.argsort(jnp.lexsort((second, real), axis=-1), axis=-1)
    return jnp.concatenate(
        [jnp.where(place < most, real, jnp.inf), nonconformity[..., -1:]], axis=-1
    )


class Attainable(NamedTuple):
    """What calling every model that may be called still misses.

    Attributes:
      alpha: The smallest feasible alpha, (misses + 1) / (n + 1): `calibrate` keeps any alpha from
        here on. Its expectation bounds the risk of calling all of them.
      upper: Bound of that risk with probability 1 - delta, by Clopper and Pearson.
      misses: Calibration queries that no allowed model answers.
    """

    alpha: float
    upper: float
    misses: int


def attainable_alpha(critical_scores: ArrayLike, delta: float = 0.05) -> Attainable:
    """The smallest alpha that can be attained under a cap or the null mode `never`.

    Below it `calibrate` returns +inf, which then is no promise: capped models stay out at any
    threshold.

    Args:
      critical_scores: c(x) of the calibration queries, floating `[n]`; +inf where no allowed model
        is right.
      delta: Chance of failure of the upper bound, in (0, 1).

    Returns:
      The `Attainable`.

    Raises:
      TypeError: If scores are not floating or delta not a number.
      ValueError: If scores are not `[n]`, n >= 1, NaN, or delta is outside (0, 1).

    >>> attainable_alpha(jnp.array([0.1, jnp.inf, 0.2])).alpha
    0.5
    """
    value = jnp.asarray(critical_scores)
    check_no_nan("critical_scores", value)
    if value.ndim != 1 or not len(value):
        raise ValueError(f"critical_scores must have shape [n] with n >= 1, got {value.shape}")
    misses, n = int((value == jnp.inf).sum()), len(value)
    return Attainable((misses + 1) / (n + 1), clopper_pearson(misses, n, delta), misses)


def clopper_pearson(misses: int, n: int, delta: float) -> float:
    """Upper bound of a Bernoulli mean that holds with probability 1 - delta: the exact one."""
    check_count("n", n)
    return 1.0 if misses >= n else float(betaincinv(misses + 1, n - misses, 1 - check_delta(delta)))


# --- a budget in dollars --------------------------------------------------------------------------


class BudgetThreshold(NamedTuple):
    """The largest threshold within a budget.

    Attributes:
      threshold: It; -inf where not even the cheapest non-empty sets are within the budget.
      mean_cost: Mean cost of a calibration query at it, dollars.
      bound: What a query can cost at most, dollars: what the promise rests on.
    """

    threshold: float
    mean_cost: float
    bound: float


def calibrate_budget(
    nonconformity: ArrayLike, cost: ArrayLike, budget: float, *, most: ArrayLike | None = None
) -> BudgetThreshold:
    r"""The largest threshold whose expected cost of a query is at most the budget.

    Cost grows with the threshold and is at most B, the cost of calling every model of any query
    there may be. The threshold is the largest with (sum of the n calibration costs + B) / (n + 1)
    <= budget, so that for exchangeable queries E[cost of a new query] <= budget. What risk it has
    is then measured (`attainable_alpha` of its misses), not promised beforehand.

    B must be known before the queries are seen: with one price a model it is their sum; where costs
    vary from query to query it is for the caller to declare (longest prompt times price, say). The
    dearest calibration query is no such bound, since a dearer one may come.

    Args:
      nonconformity: E(x, m) of the calibration queries, floating `[n, m + 1]`, null model last.
      cost: Dollars of calling each model, `[m]`, or for each query `[n, m]`; known, not negative.
      budget: Dollars a query, above 0.
      most: What calling a model can cost at most, dollars: of each model `[m]`, or of all of them
        together, a number. Implied by one price a model, needed where costs are `[n, m]`.

    Returns:
      The `BudgetThreshold`.

    Raises:
      TypeError: If `nonconformity` is not floating or costs are not numeric.
      ValueError: If shapes do not fit, a cost is missing or negative, costs vary and `most` is not
        given, a cost is above it, or the budget is not positive.

    References:
      Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control", 2024, Theorem 1, with
      the sign reversed.

    >>> nonconformity = jnp.tile(jnp.array([[0.1, 0.2, -jnp.inf], [0.3, 0.2, -jnp.inf]]), (50, 1))
    >>> calibrate_budget(nonconformity, [1.0, 2.0], 2.6).threshold  # at .3 every query costs 3
    0.20000000298023224
    """
    check_no_nan("nonconformity", jnp.asarray(nonconformity))
    value = np.asarray(nonconformity)
    if value.ndim != 2 or value.shape[1] < 2 or not len(value):
        raise ValueError(
            f"nonconformity must have shape [n, m + 1] with n, m >= 1, got {value.shape}"
        )
    num, num_models = len(value), value.shape[1] - 1
    costs = _dollars("cost", cost, ((num_models,), (num, num_models)))
    if not 0 < budget < float("inf"):
        raise ValueError(f"budget must be positive and finite, got {budget}")
    bound = _cost_bound(costs, most)
    costs = np.broadcast_to(costs, (num, num_models))
    entries, paid = value[:, :-1].ravel(), costs.ravel()
    order = np.argsort(entries, kind="stable")
    entries, total = entries[order], np.cumsum(paid[order])
    last = np.searchsorted(entries, entries, side="right") - 1  # models that tie enter together
    # A relative slack of 1e-12 takes in what rounding does to a sum that equals the budget on
    # paper.
    within = (total[last] + bound) / (num + 1) <= budget * (1 + 1e-12)
    within &= entries < np.inf
    if not within.any():
        return BudgetThreshold(-float("inf"), 0.0, bound)
    best = int(np.flatnonzero(within)[-1])
    return BudgetThreshold(float(entries[best]), float(total[last][best] / num), bound)


def _dollars(name: str, cost: ArrayLike, shapes: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Costs of one of the shapes: numeric, known, not negative; float64."""
    costs = np.asarray(cost)
    if costs.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numeric, got dtype {costs.dtype}")
    if costs.shape not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        raise ValueError(f"{name} must have shape {wanted}, got {list(costs.shape)}")
    if (bad := ~(np.isfinite(costs) & (costs >= 0))).any():
        raise ValueError(
            f"{name} must be known and not negative, got {costs[bad][0]} at {first_bad(bad)}"
        )
    return costs.astype(np.float64)


def _cost_bound(costs: np.ndarray, most: ArrayLike | None) -> float:
    """The largest cost of calling every model, declared or implied by fixed prices; costs `[m]` or `[n, m]`."""
    if most is None:
        if costs.ndim > 1:
            raise ValueError(
                "most must be given where costs vary from query to query: what calling a model can cost at most, [m], "
                "or all of them together; the dearest calibration query is no bound for the queries to come"
            )
        return float(costs.sum())
    limit = _dollars("most", most, ((), costs.shape[-1:]))
    paid = costs if limit.ndim else costs.sum(axis=-1)
    if (bad := paid > limit * (1 + 1e-12)).any():
        where = f" at {first_bad(bad)}" if bad.ndim else ""
        kind = "a model's cost" if limit.ndim else "the cost of all models"
        raise ValueError(
            f"{kind} must be at most what was declared, got {paid[bad][0]:g}{where}, declared "
            f"{most!r}"
        )
    return float(limit.sum())


# --- selective risk -------------------------------------------------------------------------------


class Selective(NamedTuple):
    """A threshold with a bound of the share misrouted among the queries answered.

    Attributes:
      threshold: The smallest certified; None where none is.
      answered: Share of the calibration queries it answers.
      misrouted: Share misrouted among those.
      upper: Clopper-Pearson bound of that share at this threshold alone.
      num_tested: Thresholds tested until the first that failed.
    """

    threshold: float | None
    answered: float
    misrouted: float
    upper: float
    num_tested: int


def calibrate_selective(
    nonconformity: ArrayLike, correct: ArrayLike, thresholds: ArrayLike, alpha: Level, delta: float
) -> Selective:
    r"""Smallest threshold of a fixed grid whose SELECTIVE risk is at most alpha, with probability 1 - delta.

    Selective risk is P(misrouted | some model is called). It is not monotone in the threshold, so
    Eq. 6 does not bound it. Learn-then-Test does: thresholds are tested from the largest down, each
    by the exact binomial test of "selective risk > alpha" at level delta, and testing stops at the
    first that is not rejected; so the chance that any certified threshold is above alpha is at most
    delta, without a share for each.

    Args:
      nonconformity: E(x, m) of the calibration queries, floating `[n, m + 1]`, null model last.
      correct: Whether each real model is right, bool or 0/1 `[n, m]`.
      thresholds: The grid, floating `[l]`, chosen WITHOUT the calibration queries (for example
        quantiles of E over training queries).
      alpha: Selective risk allowed, in (0, 1).
      delta: Chance of failure, in (0, 1).

    Returns:
      The `Selective`.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If shapes do not fit, or a value is out of range.

    References:
      Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test", 2021, fixed sequence testing.
    """
    level, delta = float(exact_alpha(alpha)), check_delta(delta)
    grid = np.asarray(thresholds)
    if grid.dtype.kind != "f" or grid.ndim != 1 or not len(grid) or np.isnan(grid).any():
        raise ValueError(
            f"thresholds must be floating [l] with l >= 1 and no NaN, got {thresholds!r}"
        )
    right = as_binary("correct", correct)
    found = Selective(None, 0.0, 0.0, 1.0, 0)
    for i, threshold in enumerate(np.sort(grid)[::-1], start=1):
        sets = prediction_sets(
            nonconformity, jnp.asarray(threshold, jnp.asarray(nonconformity).dtype)
        )
        answered = ~np.asarray(abstains(sets))
        misses, num = (
            int((np.asarray(misrouted(sets, right)) & answered).sum()),
            int(answered.sum()),
        )
        # so few misses are too likely at risk alpha
        if not num or bdtr(misses, num, level) > delta:
            return found._replace(num_tested=i)
        found = Selective(
            float(threshold),
            num / len(answered),
            misses / num,
            clopper_pearson(misses, num, delta),
            i,
        )
    return found
