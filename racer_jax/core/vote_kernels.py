"""The kernels of the votes: the winners of all prefixes of an order, and of one set.

Two answers are compared by the sign of the difference of their sums (see `aggregation`).
"""

import jax
import jax.numpy as jnp
from jax import lax

NO_ANSWER = -1
# Binary digits of compared mean router scores: every float32 down to 2**-25 to its last digit.
_SCORE_DIGITS = 48


def _limbs(scores: jax.Array) -> jax.Array:
    """Scores as fixed-point integers in limbs `[l, m]`, largest first, for `_mean_sign`."""
    num_models = scores.shape[-1]
    bits = 30 - 2 * num_models.bit_length()
    rest, limbs = scores.astype(jnp.float32), []
    for _ in range(-(-_SCORE_DIGITS // bits)):
        rest = rest * 2.0**bits
        whole = jnp.floor(rest)
        limbs.append(whole.astype(jnp.int32))
        rest = rest - whole
    return jnp.stack(limbs)


def _mean_sign(limbs: jax.Array, mine: jax.Array, other: jax.Array) -> jax.Array:
    """Sign of (mean score of the voters `mine` - that of `other`), in integers, not rounded."""
    bits = 30 - 2 * limbs.shape[-1].bit_length()
    sum_difference = jnp.where(mine, other.sum(), 0) - jnp.where(other, mine.sum(), 0)
    difference, rest = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    # carries run from the last limb to the first; what stays behind them is not negative
    for limb in limbs[::-1]:
        difference = (difference >> bits) + jnp.sum(limb * sum_difference)
        rest = rest | (difference & ((1 << bits) - 1) != 0)
    return jnp.where(difference != 0, jnp.sign(difference), rest.astype(jnp.int32))


def _weight_sign(
    weights: jax.Array, temperature: jax.Array, mine: jax.Array, other: jax.Array
) -> jax.Array:
    """Sign of the difference of the sums of exp(w / T) over the voters `mine` and over `other`."""
    difference = mine.astype(jnp.int32) - other.astype(jnp.int32)
    index = jnp.arange(weights.shape[0])
    equal = weights[:, None] == weights[None, :]
    first = ~(equal & (index[None, :] < index[:, None])).any(axis=-1)
    # Votes of equal weight cancel as integers; the first model of each weight stands for them all.
    counts = jnp.where(first, jnp.sum(jnp.where(equal, difference[None, :], 0), axis=-1), 0)
    nonzero = counts != 0
    below = jnp.where(nonzero, jnp.where(nonzero, weights, -jnp.inf).max() - weights, 0.0)
    # exp(-x) = 1 + expm1(-x): the ones are counted exactly, so a large T leaves the digits to the
    # small differences.
    shrink = jnp.where(below == 0, 0.0, jnp.expm1(-below / temperature))
    counts = counts.astype(jnp.float32)  # of fewer models than 2**24: exact
    return jnp.sign(counts.sum() + jnp.sum(counts * shrink))


def _prefix_winners(
    order: jax.Array,
    answers: jax.Array,
    scores: jax.Array,
    weights: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    """Answers of the prefixes of one query, `[m + 1]`."""
    limbs = _limbs(scores)

    def join(
        state: tuple[jax.Array, jax.Array], model: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        is_member, winner = state
        answer = answers[model]
        is_member = is_member | (jnp.arange(answers.shape[0]) == model)
        # Only the answer of the model that joins has gained: no other can overtake the winner.
        mine, other = (
            is_member & (answers == answer),
            is_member & (answers == winner) & (winner != NO_ANSWER),
        )
        weight, mean = (
            _weight_sign(weights, temperature, mine, other),
            _mean_sign(limbs, mine, other),
        )
        wins = (weight > 0) | ((weight == 0) & ((mean > 0) | ((mean == 0) & (answer < winner))))
        winner = jnp.where(wins & (answer != NO_ANSWER), answer, winner)
        return (is_member, winner), winner

    start = (jnp.zeros(answers.shape, bool), jnp.array(NO_ANSWER, answers.dtype))
    _, winners = lax.scan(join, start, order)
    return jnp.concatenate([start[1][None], winners])


@jax.jit
def prefixes(
    order: jax.Array,
    answers: jax.Array,
    scores: jax.Array,
    weights: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    """The winners of every prefix `[..., m + 1]`.

    Use this when the arguments of `prefix_answers` were checked.
    """
    arguments = (order.astype(jnp.int32), answers, scores, weights, temperature[..., None])
    # leading axes in equal number, for strict rank promotion
    rank = max(argument.ndim for argument in arguments)
    columns = [
        jnp.expand_dims(argument, tuple(range(rank - argument.ndim))) for argument in arguments
    ]
    over_queries = jnp.vectorize(_prefix_winners, signature="(m),(m),(m),(m),(t)->(k)")
    winners: jax.Array = over_queries(*columns)
    return winners


@jax.jit
def winner_of(
    sets: jax.Array,
    answers: jax.Array,
    scores: jax.Array,
    weights: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    """The winner of each set: a model that is not called is one that gave no answer.

    Use this when the arguments of a vote were checked.
    """
    num_models = scores.shape[-1]
    shape = jnp.broadcast_shapes(sets.shape[:-1], answers.shape[:-1])
    is_member = jnp.broadcast_to(sets[..., :-1], (*shape, num_models))
    answers = jnp.where(is_member, jnp.broadcast_to(answers, (*shape, num_models)), NO_ANSWER)
    order = jnp.arange(num_models, dtype=jnp.int32)
    winners: jax.Array = prefixes(order, answers, scores, weights, temperature)
    return winners[..., -1]


@jax.jit
def right_of(answers: jax.Array, correct: jax.Array, answer: jax.Array) -> jax.Array:
    """Whether a model that is right gave the answer.

    Use this when the arguments of `voted_right` were checked.
    """
    shape = jnp.broadcast_shapes(answer.shape, answers.shape[:-1])
    answers, correct = (jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in (answers, correct))
    answer = jnp.broadcast_to(answer, shape)
    return (correct & (answers == answer[..., None]) & (answers != NO_ANSWER)).any(axis=-1)
