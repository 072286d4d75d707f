"""Costs: sets of at most some models, and thresholds that keep a budget in dollars."""

from fractions import Fraction
from functools import partial
from math import nextafter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import as_array, check_no_nan, check_tie_break, first_bad, on_host
from racer_jax.core.float_keys import float_keys
from racer_jax.core.padding import by_rows
from racer_jax.core.placement import on_any_mesh
from racer_jax.core.proportions import clopper_pearson_upper
from racer_jax.core.scalar_checks import check_count


@on_any_mesh
def cap_models(
    nonconformity: ArrayLike, most: int, tie_break: jax.Array | None = None
) -> jax.Array:
    """Nonconformity under which no set holds more than `most` real models, at any threshold.

    All but the first `most` models of each query get E = +inf. The order depends on the query
    alone, so every guarantee holds as it is, down to the smallest alpha that can be attained
    (`attainable_alpha`).

    Args:
      nonconformity: E(x, m), floating `[..., m + 1]`, null model last; its column is not changed.
      most: The cap, at least 1.
      tie_break: Second keys, uint32 of the same shape, where calibration uses them; without them
        the first of tied models stay.

    Returns:
      `[..., m + 1]`, the same dtype.

    Raises:
      TypeError: If `nonconformity` is not floating, `most` not an integer, or `tie_break` not
        uint32.
      ValueError: If the shapes do not fit, a value is NaN, or `most` is below 1.

    Use this when no query may call more than a fixed number of models; `attainable_alpha` then says
    how small alpha can be.

    >>> cap_models(jnp.array([0.5, 0.1, 0.3, -jnp.inf]), 2).tolist()
    [inf, 0.10000000149011612, 0.30000001192092896, -inf]
    """
    nonconformity = as_array("nonconformity", nonconformity)
    check_no_nan("nonconformity", nonconformity)
    check_count("most", most)
    _check_entries(nonconformity, tie_break)
    capped: jax.Array = by_rows(partial(_capped, most=int(most)), nonconformity, tie_break)
    return capped


@partial(jax.jit, static_argnames="most", inline=True)
def _capped(nonconformity: jax.Array, tie_break: jax.Array | None, most: int) -> jax.Array:
    place = _places(nonconformity, tie_break)
    real = nonconformity[..., :-1]
    return jnp.concatenate(
        [jnp.where(place < most, real, jnp.inf), nonconformity[..., -1:]], axis=-1
    )


@on_any_mesh
def call_at_least(
    nonconformity: ArrayLike, least: int, tie_break: jax.Array | None = None
) -> jax.Array:
    """Nonconformity under which every set holds at least `least` real models, at any threshold.

    The first `least` models of each query get E = -inf. Which they are depends on the query alone,
    so every guarantee holds as it is; the exact law does where the threshold is sure to be finite.
    Sets grow by max(least - size, 0) at a given threshold, on average by the share of empty sets
    where `least` is 1; calibrated anew, some of it comes back, for a query whose first models are
    right is no miss at any threshold.

    Args:
      nonconformity: E(x, m), floating `[..., m + 1]`, null model last; its column is not changed.
      least: The number of models, at least 1.
      tie_break: Second keys, uint32 of the same shape, where calibration uses them; without them
        the first of tied models are called.

    Returns:
      `[..., m + 1]`, the same dtype.

    Raises:
      TypeError: If `nonconformity` is not floating, `least` not an integer, or `tie_break` not
        uint32.
      ValueError: If the shapes do not fit, a value is NaN, or `least` is below 1 or above m.

    Use this when every query shall be answered by somebody; `cap_models` limits the other side.

    >>> call_at_least(jnp.array([0.5, 0.25, -jnp.inf]), 1).tolist()
    [0.5, -inf, -inf]
    """
    nonconformity = as_array("nonconformity", nonconformity)
    check_count("least", least)
    _check_entries(nonconformity, tie_break)
    num_models = nonconformity.shape[-1] - 1
    if least > num_models:
        raise ValueError(f"least must be at most the {num_models} models, got {least}")
    called: jax.Array = by_rows(partial(_called, least=int(least)), nonconformity, tie_break)
    return called


@partial(jax.jit, static_argnames="least", inline=True)
def _called(nonconformity: jax.Array, tie_break: jax.Array | None, least: int) -> jax.Array:
    place = _places(nonconformity, tie_break)
    real = jnp.where(place < least, -jnp.inf, nonconformity[..., :-1])
    return jnp.concatenate([real, nonconformity[..., -1:]], axis=-1)


def _check_entries(nonconformity: jax.Array, tie_break: jax.Array | None) -> None:
    """Refuses nonconformity that is NaN or has no real model, and a tie-break that does not fit."""
    check_no_nan("nonconformity", nonconformity)
    if nonconformity.ndim < 1 or nonconformity.shape[-1] < 2:
        raise ValueError(
            f"nonconformity must have shape [..., m + 1] with m >= 1, got {nonconformity.shape}"
        )
    if tie_break is not None:
        check_tie_break(tie_break, nonconformity.shape)


def _places(nonconformity: jax.Array, tie_break: jax.Array | None) -> jax.Array:
    """The place of each real model among those of its query, by (E, U), int `[..., m]`."""
    real = nonconformity[..., :-1]
    second = jnp.zeros(real.shape, jnp.uint32) if tie_break is None else tie_break[..., :-1]
    return jnp.argsort(jnp.lexsort((second, float_keys(real)), axis=-1), axis=-1)


class Attainable(NamedTuple):
    """The smallest feasible alpha, and the queries missed when every allowed model is called.

    Attributes:
      alpha: The smallest feasible alpha, (misses + 1) / (n + 1), rounded up: `calibrate` has a
        threshold for any alpha that is at least as large. Its expectation bounds the risk of
        calling all allowed models, below which no alpha can be kept: on a lucky calibration set
        this one may be below that.
      upper: Upper bound of that risk with probability 1 - delta, by Clopper and Pearson.
      misses: Calibration queries that no allowed model answers.

    Use this when you read the result of `attainable_alpha`.
    """

    alpha: float
    upper: float
    misses: int


def attainable_alpha(critical_scores: ArrayLike, delta: float = 0.05) -> Attainable:
    """The smallest alpha that can be attained under a cap or the null mode `never`.

    Below it `calibrate` returns +inf, and that threshold guarantees nothing here, since models with
    E = +inf are in no set at any threshold.

    Args:
      critical_scores: c(x) of the calibration queries, floating `[n]`; +inf where no allowed model
        is right.
      delta: Chance of failure of the upper bound, in (0, 1).

    Returns:
      The least alpha, and the queries missed even then.

    Raises:
      TypeError: If scores are not floating or delta not a number.
      ValueError: If scores are not `[n]`, n >= 1, NaN, or delta is outside (0, 1).

    Use this when sets are capped (`cap_models`) or the null mode is `never`, before you choose
    alpha.

    >>> attainable_alpha(jnp.array([0.1, jnp.inf, 0.2])).alpha
    0.5
    """
    value = on_host(critical_scores)
    check_no_nan("critical_scores", value)
    if value.ndim != 1 or not len(value):
        raise ValueError(f"critical_scores must have shape [n] with n >= 1, got {value.shape}")
    misses, n = int((value == np.inf).sum()), len(value)
    alpha = (misses + 1) / (n + 1)
    if Fraction(str(alpha)) * (n + 1) < misses + 1:  # 2 / 3 as a float is a little less
        alpha = nextafter(alpha, 1.0)
    return Attainable(alpha, clopper_pearson_upper(misses, n, delta), misses)


class BudgetThreshold(NamedTuple):
    """The largest threshold within a budget.

    Attributes:
      threshold: The threshold; -inf where not even the cheapest non-empty sets are within the
        budget: no model is called but those with E = -inf (`call_at_least`).
      mean_cost: Mean cost of a calibration query at this threshold, dollars.
      bound: Largest possible cost of a query, dollars; the guarantee holds only if no query costs
        more.

    Use this when you read the result of `calibrate_budget`; `prediction_sets` takes the threshold.
    """

    threshold: float
    mean_cost: float
    bound: float


def calibrate_budget(
    nonconformity: ArrayLike, cost: ArrayLike, budget: float, *, most: ArrayLike | None = None
) -> BudgetThreshold:
    r"""The largest threshold whose expected cost of a query is at most the budget.

    Cost grows with the threshold and is at most B, the largest possible cost of calling every model
    on one query. The threshold is the largest with (sum of the n calibration costs + B) / (n + 1)
    <= budget, so that for exchangeable queries E[cost of a new query] <= budget. The risk at this
    threshold is measured afterwards (`attainable_alpha` of its misses), not guaranteed beforehand.

    B must be known before the queries are seen: with one price a model it is their sum; where costs
    vary from query to query the caller must declare it, for example as the longest prompt times the
    price. The most expensive calibration query is no such bound, since a more expensive one may
    follow.

    Args:
      nonconformity: E(x, m) of the calibration queries, floating `[n, m + 1]`, null model last.
      cost: Dollars of calling each model, `[m]`, or for each query `[n, m]`; known, not negative.
      budget: Dollars a query, above 0.
      most: Largest possible cost of calling a model, dollars: of each model `[m]`, or of all of
        them together, a number. Implied by one price a model, needed where costs are `[n, m]`.

    Returns:
      The threshold, and the mean cost of the calibration queries at it.

    Raises:
      TypeError: If `nonconformity` is not floating or costs are not numeric.
      ValueError: If shapes do not fit, a cost is missing or negative, costs vary and `most` is not
        given, a cost is above it, or the budget is not positive or below what the models cost that
        are called for every query.

    References:
      Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control", 2024, Theorem 1, with
      the sign reversed.

    Use this when the expected cost of a query is limited and no level of risk is required;
    `calibrate` limits the risk and leaves the cost open.

    >>> nonconformity = jnp.tile(jnp.array([[0.1, 0.2, -jnp.inf], [0.3, 0.2, -jnp.inf]]), (50, 1))
    >>> calibrate_budget(nonconformity, [1.0, 2.0], 2.6).threshold  # at .3 every query costs 3
    0.20000000298023224
    """
    value = on_host(nonconformity)
    check_no_nan("nonconformity", value)
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
    entries, dollars = value[:, :-1].ravel(), costs.ravel()
    order = np.argsort(entries, kind="stable")
    entries, total = entries[order], np.cumsum(dollars[order])
    last = np.searchsorted(entries, entries, side="right") - 1  # models that tie enter together
    # A relative slack of 1e-12 takes in what rounding does to a sum that equals the budget on
    # paper.
    within = (total[last] + bound) / (num + 1) <= budget * (1 + 1e-12)
    within &= entries < np.inf
    if not within.any():
        always = float(dollars[value[:, :-1].ravel() == -np.inf].sum())  # of `call_at_least`
        if always:
            raise ValueError(
                f"budget must be at least {(always + bound) / (num + 1):.4g}, what the models cost "
                f"that are called for every query (E = -inf), got {budget:g}"
            )
        return BudgetThreshold(-float("inf"), always / num, bound)
    best = int(np.flatnonzero(within)[-1])
    return BudgetThreshold(float(entries[best]), float(total[last][best] / num), bound)


def _dollars(name: str, cost: ArrayLike, shapes: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Costs of one of the shapes: numeric, known, not negative; float64."""
    costs = np.asarray(given(name, cost))
    if costs.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numeric, got dtype {costs.dtype}")
    if costs.shape not in shapes:
        expectation = " or ".join(str(list(shape)) for shape in shapes)
        raise ValueError(f"{name} must have shape {expectation}, got {list(costs.shape)}")
    if (bad := ~(np.isfinite(costs) & (costs >= 0))).any():
        raise ValueError(
            f"{name} must be known and not negative, got {costs[bad][0]} at {first_bad(bad)}"
        )
    return costs.astype(np.float64)


def _cost_bound(costs: np.ndarray, most: ArrayLike | None) -> float:
    """The largest cost of calling every model, declared or implied by fixed prices.

    Costs `[m]` or `[n, m]`.
    """
    if most is None:
        if costs.ndim > 1:
            raise ValueError(
                "most must be given where costs vary from query to query: what calling a model can "
                "cost at most, [m], or all of them together; the most expensive calibration query "
                "is no bound for the queries to come"
            )
        return float(costs.sum())
    limit = _dollars("most", most, ((), costs.shape[-1:]))
    dollars = costs if limit.ndim else costs.sum(axis=-1)
    if (bad := dollars > limit * (1 + 1e-12)).any():
        where = f" at {first_bad(bad)}" if bad.ndim else ""
        kind = "a model's cost" if limit.ndim else "the cost of all models"
        raise ValueError(
            f"{kind} must be at most what was declared, got {dollars[bad][0]:g}{where}, declared "
            f"{most!r}"
        )
    return float(limit.sum())
