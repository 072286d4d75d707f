r"""Aggregation: the answers of the models called become one answer (Section 3.3 of the paper).

Answers are integer codes, one code for each distinct answer of a query; -1 means that a model gave
no answer, and it then casts no vote. A vote adds up softmax weights over the called models,

  a* = argmax_a sum_{m in S: a_m = a} softmax_S(w / T)_m,

and majority is its limit T = inf. Ties go to the answer whose voters have the highest mean router
score, then to the smallest code. If no model answered, the system abstains: -1.

Exactness. Two answers are compared by the sign of the difference of their sums, never by two
rounded sums: equal weights cancel as integers, and what is left is taken relative to its largest
term. So answers tie when they should (for finite T: iff their voters' weights are equal one by
one), no weight is lost at T = .01, none overflows, and T = inf counts votes. The rest is float32:
sums that differ by less than one part in 10^6 may come out either way.

Every set is a prefix of its query's models in order of nonconformity: `prefix_answers` does every
set in one pass, since a model that joins can only make its own answer win.
"""

from math import inf
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax.core.checks import (
    as_array,
    as_binary,
    check_floating,
    check_no_nan,
    check_scores,
    check_tie_break,
    first_bad,
    is_traced,
)
from racer_jax.core.float_keys import float_keys

NO_ANSWER = -1
# Binary digits of compared mean router scores: every float32 down to 2**-25 to its last digit.
_SCORE_DIGITS = 48


def answer_codes(answers: Any) -> np.ndarray:
    """Answers as integer codes of one query each. Use this when answers are strings to vote on.

    Args:
      answers: Hashable, sortable answers, such as strings; None for no answer; `[n, m]`.

    Returns:
      int32 `[n, m]`: the place among the sorted distinct answers of the query, -1 for None.

    Raises:
      ValueError: If `answers` does not have two axes.

    >>> answer_codes([["B", "A", None, "B"]]).tolist()
    [[1, 0, -1, 1]]
    """
    table = np.array(answers, dtype=object)
    if table.ndim != 2:
        raise ValueError(f"answers must have shape [n, m], got {table.shape}")
    codes = np.full(table.shape, NO_ANSWER, np.int32)
    for i, row in enumerate(table):
        place = {answer: code for code, answer in enumerate(sorted(set(row) - {None}))}
        codes[i] = [place.get(answer, NO_ANSWER) for answer in row]
    return codes


def log_odds(scores: ArrayLike, margin: float = 0.005) -> jax.Array:
    r"""Log-odds log(s / (1 - s)) of scores. Use this when votes shall count by confidence.

    Args:
      scores: Router scores in [0, 1], floating, `[..., m]`.
      margin: Scores are first clipped to [margin, 1 - margin], so that no model decides alone; in
        (0, 0.5).

    Returns:
      `[..., m]`, the dtype of `scores`; finite.

    Raises:
      TypeError: If `scores` is not floating.
      ValueError: If a score is not finite or outside [0, 1], or the margin outside (0, 0.5).

    >>> log_odds(jnp.array([0.5, 0.0])).round(2).tolist()
    [0.0, -5.289999961853027]
    """
    scores = as_array("scores", scores)
    check_scores(scores)
    if not 0 < margin < 0.5:
        raise ValueError(f"margin must be in (0, 0.5), got {margin}")
    inside = jnp.clip(scores, margin, 1 - margin)
    return jnp.log(inside) - jnp.log1p(-inside)


def model_order(nonconformity: ArrayLike, tie_break: jax.Array | None = None) -> jax.Array:
    """The real models in order of nonconformity. Use this when their prefixes are voted on.

    Args:
      nonconformity: E(x, m) of the augmented pool, floating, `[..., m + 1]`, null model last.
      tie_break: Optional second keys, uint32 `[..., m + 1]`, from `tie_break`.

    Returns:
      int32 `[..., m]`; models that still tie are in the order of the pool.

    Raises:
      TypeError: If `nonconformity` is not floating, or `tie_break` not uint32.
      ValueError: If a shape does not fit or nonconformity is NaN.

    >>> model_order(jnp.array([0.5, 0.0, 0.25, 0.1])).tolist()
    [1, 2, 0]
    """
    nonconformity = jnp.asarray(nonconformity)
    check_no_nan("nonconformity", nonconformity)
    if nonconformity.ndim < 1 or nonconformity.shape[-1] < 2:
        raise ValueError(
            f"nonconformity must have shape [..., m + 1] with m >= 1, got {nonconformity.shape}"
        )
    # Integers, since a sort of floats would take subnormal numbers for zeros.
    real = float_keys(nonconformity[..., :-1])
    if tie_break is None:
        return jnp.argsort(real, axis=-1, stable=True).astype(jnp.int32)
    check_tie_break(tie_break, nonconformity.shape)
    return jnp.lexsort((tie_break[..., :-1], real), axis=-1).astype(jnp.int32)


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
def _prefixes(
    order: jax.Array,
    answers: jax.Array,
    scores: jax.Array,
    weights: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    arguments = (order, answers, scores, weights, temperature[..., None])
    # leading axes in equal number, for strict rank promotion
    rank = max(argument.ndim for argument in arguments)
    columns = [
        jnp.expand_dims(argument, tuple(range(rank - argument.ndim))) for argument in arguments
    ]
    over_queries = jnp.vectorize(_prefix_winners, signature="(m),(m),(m),(m),(t)->(k)")
    winners: jax.Array = over_queries(*columns)
    return winners


def _check_vote(
    answers: ArrayLike, scores: ArrayLike, weights: ArrayLike | None, temperature: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    answers, scores = as_array("answers", answers), as_array("scores", scores)
    check_scores(scores)
    num_models = scores.shape[-1]
    if not jnp.issubdtype(answers.dtype, jnp.integer):
        raise TypeError(
            f"answers must be integer codes (see answer_codes), got dtype {answers.dtype}"
        )
    if answers.ndim < 1 or answers.shape[-1] != num_models:
        raise ValueError(
            f"answers must have shape [..., m] with the m = {num_models} of scores, got "
            f"{answers.shape}"
        )
    if not is_traced(answers) and (bad := np.asarray(answers) < NO_ANSWER).any():
        raise ValueError(
            f"answers must be codes >= 0, or -1 for none, got {np.asarray(answers)[bad][0]}"
        )
    weights = jnp.zeros(num_models, jnp.float32) if weights is None else jnp.asarray(weights)
    check_floating("weights", weights)
    if weights.ndim < 1 or weights.shape[-1] != num_models:
        raise ValueError(
            f"weights must have shape [..., m] with the m = {num_models} of scores, got "
            f"{weights.shape}"
        )
    if not is_traced(weights) and (bad := ~np.isfinite(np.asarray(weights))).any():
        raise ValueError(
            f"weights must be finite, got {np.asarray(weights)[bad][0]} at {first_bad(bad)}"
        )
    temperature = jnp.asarray(temperature, jnp.float32)
    if not is_traced(temperature) and (bad := ~(np.asarray(temperature) > 0)).any():
        raise ValueError(
            f"temperature must be positive (inf is majority), got {np.asarray(temperature)[bad][0]}"
        )
    return answers.astype(jnp.int32), scores, weights.astype(jnp.float32), temperature


def prefix_answers(
    order: ArrayLike,
    answers: ArrayLike,
    scores: ArrayLike,
    weights: ArrayLike | None = None,
    temperature: ArrayLike = inf,
) -> jax.Array:
    r"""The voted answer of the first 0, 1, ..., m models in an order: of every set there can be.

    All leading axes broadcast: weightings `[w, 1, n, m]` and temperatures `[t, 1]` give one table
    `[w, t, n, m + 1]`.

    Args:
      order: The models by nonconformity, a permutation of 0 ... m - 1, `[..., m]`; see
        `model_order`.
      answers: Answer codes, int `[..., m]`; -1 where a model gave none.
      scores: Router scores in [0, 1], floating `[..., m]`; their means break ties.
      weights: w of the weighted vote, finite, `[..., m]`; None for a majority vote.
      temperature: T, positive, `[...]`; inf counts votes whatever their weights.

    Returns:
      int32 `[..., m + 1]`: the answer code by the number of models called; -1 where none of them
      answered.

    Raises:
      TypeError: If `answers` or `order` does not hold integers, or scores or weights are not
        floating.
      ValueError: If a shape does not fit, a value is out of range, or an order is no permutation.

    References:
      Section 3.3 of the paper.

    Use this when you need the answers at many set sizes; `majority_vote` answers for one set.

    >>> prefix_answers([2, 0, 1], [0, 0, 1], jnp.array([0.25, 0.5, 0.75])).tolist()
    [-1, 1, 1, 0]
    """
    answers, scores, weights, temperature = _check_vote(answers, scores, weights, temperature)
    order = jnp.asarray(order)
    if not jnp.issubdtype(order.dtype, jnp.integer):
        raise TypeError(f"order must hold integers, got dtype {order.dtype}")
    if order.ndim < 1 or order.shape[-1] != scores.shape[-1]:
        raise ValueError(
            f"order must have shape [..., m] with the m = {scores.shape[-1]} of scores, got "
            f"{order.shape}"
        )
    if not is_traced(order):
        bad = np.sort(np.asarray(order), axis=-1) != np.arange(order.shape[-1])
        if bad.any():
            row = np.asarray(order)[tuple(np.argwhere(bad)[0][:-1])]
            raise ValueError(f"order must hold permutations of 0 ... m - 1, got {row.tolist()}")
    winners: jax.Array = _prefixes(order.astype(jnp.int32), answers, scores, weights, temperature)
    return winners


def weighted_vote(
    sets: ArrayLike,
    answers: ArrayLike,
    scores: ArrayLike,
    weights: ArrayLike,
    temperature: ArrayLike,
) -> jax.Array:
    r"""Weighted vote of the called models, softmax(w / T) over them; all leading axes broadcast.

    Args:
      sets: bool or 0/1, `[..., m + 1]`, null model last; it does not vote.
      answers: Answer codes, int `[..., m]`; -1 where a model gave none.
      scores: Router scores in [0, 1], floating `[..., m]`; their means break ties.
      weights: w, finite, `[..., m]`: router scores, their `log_odds`, verbal confidence, P(True).
      temperature: T, positive, `[...]`; inf is `majority_vote`.

    Returns:
      int32 `[...]`: the answer code; -1 where no model is called or none of them answered.

    Raises:
      TypeError: If an array has the wrong kind.
      ValueError: If a shape does not fit or a value is out of range.

    References:
      Section 3.3 of the paper, "Weighted aggregation".

    Use this when some models should count more than others; `majority_vote` counts all alike.

    >>> answers, weights = jnp.array([0, 1, 1]), jnp.array([1.0, 0.5, 0.5])
    >>> sets = jnp.array([True, True, True, False])
    >>> [int(weighted_vote(sets, answers, weights, weights, t)) for t in (0.5, 1.0, jnp.inf)]
    [0, 1, 1]
    """
    return _vote(sets, answers, scores, weights, temperature)


def majority_vote(sets: ArrayLike, answers: ArrayLike, scores: ArrayLike) -> jax.Array:
    """Majority vote of the called models; all leading axes broadcast.

    Args:
      sets: bool or 0/1, `[..., m + 1]`, null model last; it does not vote.
      answers: Answer codes, int `[..., m]`; -1 where a model gave none.
      scores: Router scores in [0, 1], floating `[..., m]`; their means break ties.

    Returns:
      int32 `[...]`: the answer code; -1 where no model is called or none of them answered.

    Raises:
      TypeError: If an array has the wrong kind.
      ValueError: If a shape does not fit or a value is out of range.

    References:
      Section 3.3 of the paper, "Majority voting".

    Use this when each called model has one vote; `weighted_vote` lets some models count more.

    >>> sets = jnp.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 1]], bool)
    >>> majority_vote(sets, jnp.array([0, 0, 1]), jnp.array([0.25, 0.5, 0.75])).tolist()
    [0, 1, -1]
    """
    return _vote(sets, answers, scores, None, inf)


def _vote(
    sets: ArrayLike,
    answers: ArrayLike,
    scores: ArrayLike,
    weights: ArrayLike | None,
    temperature: ArrayLike,
) -> jax.Array:
    """The vote of any set: a model that is not called is one that gave no answer."""
    answers, scores, weights, temperature = _check_vote(answers, scores, weights, temperature)
    sets = as_binary("sets", sets)
    num_models = scores.shape[-1]
    if sets.ndim < 1 or sets.shape[-1] != num_models + 1:
        raise ValueError(
            f"sets must have shape [..., m + 1] where scores has [..., m], got {sets.shape} and "
            f"{scores.shape}; the "
            f"null model is the last column"
        )
    shape = jnp.broadcast_shapes(sets.shape[:-1], answers.shape[:-1])
    is_member = jnp.broadcast_to(sets[..., :-1], (*shape, num_models))
    answers = jnp.where(is_member, jnp.broadcast_to(answers, (*shape, num_models)), NO_ANSWER)
    winners: jax.Array = _prefixes(jnp.arange(num_models), answers, scores, weights, temperature)
    return winners[..., -1]


@jax.jit
def _right(answer: jax.Array, answers: jax.Array, correct: jax.Array) -> jax.Array:
    return (correct & (answers == answer[..., None]) & (answers != NO_ANSWER)).any(axis=-1)


def voted_right(answer: ArrayLike, answers: ArrayLike, correct: ArrayLike) -> jax.Array:
    """Whether the voted answer is right: whether a model that is right gave it.

    Args:
      answer: Answer codes, int `[...]`; -1, an abstention, is never right.
      answers: Answer codes of the models, int `[..., m]`; leading axes broadcast against `answer`.
      correct: Whether each model is right, bool or 0/1 `[..., m]`.

    Returns:
      bool `[...]`.

    Raises:
      TypeError: If codes are not integers, or `correct` is neither boolean nor numeric.
      ValueError: If the shapes do not fit, or `correct` holds anything but 0 and 1.

    Use this when you measure the accuracy of a vote; `misrouted` measures the sets themselves.

    >>> answers, correct = jnp.array([[0, 0, 1]]), jnp.array([[0, 0, 1]])
    >>> table = prefix_answers([[2, 0, 1]], answers, jnp.array([[0.25, 0.5, 0.75]]))
    >>> voted_right(table, answers[:, None], correct[:, None]).astype(int).tolist()
    [[0, 1, 1, 0]]
    """
    answer, answers, correct = (
        jnp.asarray(answer),
        jnp.asarray(answers),
        as_binary("correct", correct),
    )
    for name, codes in (("voted", answer), ("answers", answers)):
        if not jnp.issubdtype(codes.dtype, jnp.integer):
            raise TypeError(
                f"{name} must hold integer codes (see answer_codes), got dtype {codes.dtype}"
            )
    if answers.ndim < 1 or correct.shape != answers.shape:
        raise ValueError(
            f"answers and correct must both be [..., m], got {answers.shape} and {correct.shape}"
        )
    shape = jnp.broadcast_shapes(answer.shape, answers.shape[:-1])
    answers, correct = (jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in (answers, correct))
    right: jax.Array = _right(jnp.broadcast_to(answer, shape), answers, correct)
    return right
