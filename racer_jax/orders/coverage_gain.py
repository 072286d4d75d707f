r"""Nonconformity by marginal coverage gain (RACER-J).

Order models by what each adds to those before it.

Models of one pool are redundant: scores s(x, m) that are nearly equal make a set jump from one
model to all of them, although the second adds little to the first. RACER-J orders the models of a
query greedily by the COVERAGE each adds, the chance that it is right where all the models before it
are wrong, under a law of the correctness patterns that weights the training rows by their likeness
to the query:

  s(x, m) = sum_i W_i(x) Y_im
  m_j = argmax of the gain over the models not used yet
  E(x, m_j) = 1 - gain_j

with the uncovered weight U, at first W, multiplied by 1 - Y_(., m_j) after each step and gain(m) =
sum_i U_i Y_im. Gains never grow along the order, so the sets {E <= lambda} are nested, the loss is
monotone, and the guarantee of `calibrate` is the same as for every other score. Uniform weights
give the `static_order`, the same for every query.

Coverage-optimal is not vote-optimal: the order adds complementary weak models, which may outvote
the right one. It is meant for a judge, a verifier or a human who picks among the answers; for
voting prefer `gap` or `inverse_probability`.
"""

from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import as_binary, check_floating, first_bad, is_traced
from racer_jax.core.nonconformity import NullMode, check_null, null_nonconformity
from racer_jax.core.scalar_checks import check_cost_weight

# Uncovered weight `[s]`, models used `[m]`, the last gain's nonconformity, nonconformity so far
# `[m]`.
_Carry: TypeAlias = tuple[jax.Array, jax.Array, jax.Array, jax.Array]

# Weights are computed in float32; a sum further from 1 than this is not rounding.
_SUM_TOLERANCE = 1e-3
# Floats held at once for a block of queries.
_BLOCK_ENTRIES = 1 << 22


class Patterns(NamedTuple):
    """The distinct rows of a correctness matrix; rows of one pattern are one row to RACER-J.

    Use this when you read what `distinct_patterns` returns.

    Attributes:
      correct: The patterns, bool `[s, m]`, in lexicographic order.
      of_row: int32 `[n]`, the pattern of each row.
      num_rows: int64 `[s]`, how many rows have each pattern.
    """

    correct: np.ndarray
    of_row: np.ndarray
    num_rows: np.ndarray


def distinct_patterns(correct: ArrayLike) -> Patterns:
    """The distinct rows of `correct`: at most 2^m.

    Few rows stand for many where m is small.

    Runs on the host.

    Use this when many training rows are alike, which makes RACER-J faster.

    Args:
      correct: Whether each model got each training query right, bool or 0/1 `[n, m]`.

    Returns:
      The `Patterns`.

    Raises:
      TypeError: If `correct` is neither boolean nor numeric.
      ValueError: If it is not `[n, m]` with n, m >= 1, or holds anything but 0 and 1.

    >>> distinct_patterns([[1, 0], [0, 0], [1, 0]]).of_row.tolist()
    [1, 0, 1]
    """
    rows = np.asarray(check_training_rows(correct))
    patterns, index, count = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    return Patterns(patterns, index.reshape(-1).astype(np.int32), count)


def check_training_rows(correct: ArrayLike) -> jax.Array:
    """Correctness of training rows as booleans `[n, m]`, n and m at least 1.

    Use this when an order is fitted to training rows.
    """
    rows = as_binary("correct", correct)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"correct must have shape [n, m] with n, m >= 1, got {rows.shape}")
    return rows


def check_weights(weights: ArrayLike, num_rows: int) -> jax.Array:
    """Weights over support rows.

    Floating, `[..., s]`, finite, not negative, each row with sum 1.

    Use this when support rows have weights.
    """
    weights = jnp.asarray(given("weights", weights))
    check_floating("weights", weights)
    if weights.ndim < 1 or weights.shape[-1] != num_rows:
        raise ValueError(
            f"weights must have shape [..., {num_rows}], one for each row of correct, got "
            f"{weights.shape}"
        )
    if is_traced(weights):
        return weights
    values = np.asarray(weights)
    if (bad := ~(np.isfinite(values) & (values >= 0))).any():
        raise ValueError(
            f"weights must be finite and not negative, got {values[bad][0]} at {first_bad(bad)}"
        )
    total = values.sum(axis=-1, dtype=np.float64)
    if (bad := np.abs(total - 1) > _SUM_TOLERANCE).any():
        where = f" at {first_bad(bad)}" if total.ndim else ""
        raise ValueError(f"weights must sum to 1 for each query, got {total[bad][0]:.6g}{where}")
    return weights


def check_cost(cost: ArrayLike, num_models: int) -> jax.Array:
    """Costs of calling each model, `[..., m]`: numeric, finite and above 0.

    Use this when models have costs.
    """
    cost = jnp.asarray(given("cost", cost))
    if not (jnp.issubdtype(cost.dtype, jnp.floating) or jnp.issubdtype(cost.dtype, jnp.integer)):
        raise TypeError(f"cost must be numeric, got dtype {cost.dtype}")
    cost = cost.astype(jnp.float32)
    if cost.ndim < 1 or cost.shape[-1] != num_models:
        raise ValueError(
            f"cost must have shape [..., {num_models}], one for each model, got {cost.shape}"
        )
    if not is_traced(cost):
        values = np.asarray(cost)
        if (bad := ~(np.isfinite(values) & (values > 0))).any():
            raise ValueError(
                f"cost must be known, finite and above 0 for every model, got {values[bad][0]} at "
                f"{first_bad(bad)}"
            )
    return cost


def discounts(cost: ArrayLike | None, gamma: float, num_models: int) -> jax.Array:
    """Factor of a gain by cost, (c_min / c)^gamma in (0, 1], `[..., m]`; ones without costs.

    Use this when a gain counts less for an expensive model.
    """
    check_cost_weight("gamma", gamma)
    if cost is None:
        return jnp.ones(num_models, jnp.float32)
    cost = check_cost(cost, num_models)
    return (cost.min(axis=-1, keepdims=True) / cost) ** gamma


# RACER-J is greedy because coverage is submodular: what a model adds only shrinks as the set grows,
# so without costs the first k of the greedy order cover at least 1 - 1/e of what the best k can.
# One order serves every threshold. Each step keeps, for every support row, the chance that no model
# so far is right; a gain is the mean of a model's own chance over what is left: one product of a
# vector and a matrix, whatever the number of models chosen.
def greedy(weights: jax.Array, support: jax.Array, discount: jax.Array, null: str) -> jax.Array:
    """Nonconformity `[m + 1]` of one query.

    Weights `[s]` over support `[s, m]`, gains discounted by `[m]`.

    Support holds chances of being right, given which the models are independent: 0 and 1 where they
    are training rows.

    Use this when you want RACER-J of one query by itself; `RacerJ` serves many.
    """
    column = jnp.arange(support.shape[1])

    def gain(weight: jax.Array) -> jax.Array:
        return jnp.matmul(weight, support, precision=lax.Precision.HIGHEST)

    def step(carry: _Carry, _: None) -> tuple[_Carry, None]:
        weight, in_set, level, nonconformity = carry
        ratio = jnp.where(in_set, -jnp.inf, gain(weight) * discount)
        best = jnp.argmax(ratio)
        # Exact gains never grow along the order; the maximum takes out what rounding does.
        level = jnp.maximum(level, 1 - ratio[best])
        is_best = column == best
        return (
            weight * (1 - support.T[best]),
            in_set | is_best,
            level,
            jnp.where(is_best, level, nonconformity),
        ), None

    zero = jnp.zeros((), weights.dtype)
    start = (weights, jnp.zeros(column.shape, bool), zero, jnp.zeros(column.shape, weights.dtype))
    nonconformity = lax.scan(step, start, length=len(column))[0][3]
    # g = 1 - max_m s(x, m), hence E(x, m0) = max_m s(x, m).
    null_value = null_nonconformity(gain(weights).max(), null)
    return jnp.append(nonconformity, null_value)


@partial(jax.jit, static_argnames="null")
def _weighted(weights: jax.Array, support: jax.Array, discount: jax.Array, null: str) -> jax.Array:
    """`greedy` of `[n, s]` weights and `[n, m]` discounts, a block of queries at a time."""
    result: jax.Array = lax.map(
        lambda rows: greedy(rows[0], support, rows[1], null),
        (weights, discount),
        batch_size=block_size(support.shape[0]),
    )
    return result


def block_size(entries: int) -> int:
    """Queries treated at once where each takes so many floats.

    Use this when a large array is computed in parts.
    """
    return max(1, _BLOCK_ENTRIES // max(entries, 1))


def gains_under(
    weights: jax.Array, support: jax.Array, discount: jax.Array, null: str
) -> jax.Array:
    """Nonconformity `[..., m + 1]`: weights `[..., s]`, support `[s, m]`, discounts `[..., m]`.

    Use this when weights and supports of many queries are there.
    """
    num_models = support.shape[1]
    batch = jnp.broadcast_shapes(weights.shape[:-1], discount.shape[:-1])
    weights = jnp.broadcast_to(weights, (*batch, weights.shape[-1])).reshape(-1, weights.shape[-1])
    discount = jnp.broadcast_to(discount, (*batch, num_models)).reshape(-1, num_models)
    result: jax.Array = _weighted(weights, support, discount, null)
    return result.reshape(*batch, num_models + 1)


def coverage_gain(
    weights: ArrayLike,
    correct: ArrayLike,
    null: NullMode = "free",
    *,
    cost: ArrayLike | None = None,
    gamma: float = 0.5,
) -> jax.Array:
    r"""RACER-J: nonconformity by marginal coverage gain under weighted training rows.

    Args:
      weights: W(x) >= 0 over the training rows or their patterns, floating `[..., s]`; each row
        sums to 1.
      correct: Whether each model got each training row right, bool or 0/1 `[s, m]`.
      null: The null mode; under `"paper"` the null model scores g(x) = 1 - max_m s(x, m).
      cost: Dollars a call of each model costs (or is expected to cost), `[m]` or `[..., m]`, above
        0. The order is then by gain / cost^gamma, scaled so that the gain of the cheapest model is
        not reduced.
      gamma: How much cost matters: 0 not at all, 1 the gain for each dollar.

    Returns:
      Nonconformity `[..., m + 1]`, null model last, float32; real models' in [0, 1].

    Raises:
      TypeError: If weights are not floating, costs not numeric, or `correct` neither boolean nor
        numeric.
      ValueError: If shapes do not fit, weights are negative, infinite or do not sum to 1, a cost is
        missing, not above 0 or infinite, `correct` is not 0/1, or the null mode is unknown.

    Use this when you have weights of the training rows for each query from a source of your own;
    `RacerJ` makes them from groups and neighbours.

    >>> # The second model adds nothing to the first.
    >>> rows = jnp.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]])
    >>> coverage_gain(jnp.full(4, 0.25), rows).tolist()
    [0.25, 1.0, 0.75, -inf]
    """
    check_null(null)
    support = check_training_rows(correct).astype(jnp.float32)
    weights = check_weights(weights, support.shape[0]).astype(jnp.float32)
    return gains_under(weights, support, discounts(cost, gamma, support.shape[1]), null)


def static_order(
    correct: ArrayLike,
    null: NullMode = "free",
    *,
    cost: ArrayLike | None = None,
    gamma: float = 0.5,
) -> jax.Array:
    """The static order: RACER-J with uniform weights, the same greedy cover for every query.

    Every study of sets should include it as a baseline. Its critical scores take m + 1 values only,
    so calibrate it with the exact tie-break: the set is then a prefix of the order, one model
    longer for a random share of the queries.

    Args:
      correct: Whether each model got each training query right, bool or 0/1 `[n, m]`; those of one
        group for an order of this group.
      null: The null mode.
      cost: As in `coverage_gain`, `[m]`.
      gamma: As in `coverage_gain`.

    Returns:
      Nonconformity of every query, `[m + 1]`, null model last, float32.

    Raises:
      TypeError: If `correct` is neither boolean nor numeric, or costs are not numeric.
      ValueError: If `correct` is not 0/1 `[n, m]`, a cost is missing, not above 0 or infinite, or
        the null mode is unknown.

    Use this when one order should serve all queries of a group; `StaticOrder` keeps one for each
    group, and `RacerJ` changes the order with the query.

    >>> static_order([[1, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]]).tolist()
    [0.25, 1.0, 0.75, -inf]
    """
    patterns = distinct_patterns(correct)
    weights = (patterns.num_rows / patterns.num_rows.sum()).astype(np.float32)
    return coverage_gain(weights, patterns.correct, null, cost=cost, gamma=gamma)
