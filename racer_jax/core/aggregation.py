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

from functools import partial
from math import inf
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import (
    as_array,
    as_binary,
    check_floating,
    check_no_nan,
    check_scores,
    check_tie_break,
    first_bad,
    is_traced,
    on_device,
    on_host,
)
from racer_jax.core.float_keys import float_keys
from racer_jax.core.padding import by_rows
from racer_jax.core.placement import on_any_mesh
from racer_jax.core.vote_kernels import NO_ANSWER as NO_ANSWER
from racer_jax.core.vote_kernels import prefixes, right_of, winner_of


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


@on_any_mesh
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
    odds: jax.Array = by_rows(partial(_log_odds, margin=float(margin)), scores)
    return odds


@partial(jax.jit, static_argnames="margin", inline=True)
def _log_odds(scores: jax.Array, margin: float) -> jax.Array:
    inside = jnp.clip(scores, margin, 1 - margin)
    return jnp.log(inside) - jnp.log1p(-inside)


@on_any_mesh
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
    nonconformity = as_array("nonconformity", nonconformity)
    check_no_nan("nonconformity", nonconformity)
    if nonconformity.ndim < 1 or nonconformity.shape[-1] < 2:
        raise ValueError(
            f"nonconformity must have shape [..., m + 1] with m >= 1, got {nonconformity.shape}"
        )
    if tie_break is not None:
        tie_break = as_array("tie_break", tie_break)
        check_tie_break(tie_break, nonconformity.shape)
    order: jax.Array = by_rows(_model_order, nonconformity, tie_break)
    return order


@partial(jax.jit, inline=True)
def _model_order(nonconformity: jax.Array, tie_break: jax.Array | None) -> jax.Array:
    # Integers, since a sort of floats would take subnormal numbers for zeros.
    real = float_keys(nonconformity[..., :-1])
    if tie_break is None:
        return jnp.argsort(real, axis=-1, stable=True).astype(jnp.int32)
    return jnp.lexsort((tie_break[..., :-1], real), axis=-1).astype(jnp.int32)


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
    if not is_traced(answers) and (bad := on_host(answers) < NO_ANSWER).any():
        raise ValueError(
            f"answers must be codes >= 0, or -1 for none, got {on_host(answers)[bad][0]}"
        )
    weights = as_array("weights", np.zeros(num_models, np.float32) if weights is None else weights)
    check_floating("weights", weights)
    if weights.ndim < 1 or weights.shape[-1] != num_models:
        raise ValueError(
            f"weights must have shape [..., m] with the m = {num_models} of scores, got "
            f"{weights.shape}"
        )
    if not is_traced(weights) and (bad := ~np.isfinite(on_host(weights))).any():
        raise ValueError(
            f"weights must be finite, got {on_host(weights)[bad][0]} at {first_bad(bad)}"
        )
    if not isinstance(temperature, jax.Array):
        temperature = np.asarray(given("temperature", temperature), np.float32)
    temperature = on_device(temperature).astype(jnp.float32)
    if not is_traced(temperature) and (bad := ~(on_host(temperature) > 0)).any():
        raise ValueError(
            f"temperature must be positive (inf is majority), got {on_host(temperature)[bad][0]}"
        )
    return answers.astype(jnp.int32), scores, weights.astype(jnp.float32), temperature


@on_any_mesh
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
    order = as_array("order", order)
    if not jnp.issubdtype(order.dtype, jnp.integer):
        raise TypeError(f"order must hold integers, got dtype {order.dtype}")
    if order.ndim < 1 or order.shape[-1] != scores.shape[-1]:
        raise ValueError(
            f"order must have shape [..., m] with the m = {scores.shape[-1]} of scores, got "
            f"{order.shape}"
        )
    if not is_traced(order):
        bad = np.sort(on_host(order), axis=-1) != np.arange(order.shape[-1])
        if bad.any():
            row = on_host(order)[tuple(np.argwhere(bad)[0][:-1])]
            raise ValueError(f"order must hold permutations of 0 ... m - 1, got {row.tolist()}")
    winners: jax.Array = by_rows(prefixes, order, answers, scores, weights, temperature)
    return winners


@on_any_mesh
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


@on_any_mesh
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
    winner: jax.Array = by_rows(winner_of, sets, answers, scores, weights, temperature)
    return winner


@on_any_mesh
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
    answer, answers = as_array("voted", answer), as_array("answers", answers)
    correct = as_binary("correct", correct)
    for name, codes in (("voted", answer), ("answers", answers)):
        if not jnp.issubdtype(codes.dtype, jnp.integer):
            raise TypeError(
                f"{name} must hold integer codes (see answer_codes), got dtype {codes.dtype}"
            )
    if answers.ndim < 1 or correct.shape != answers.shape:
        raise ValueError(
            f"answers and correct must both be [..., m], got {answers.shape} and {correct.shape}"
        )
    jnp.broadcast_shapes(answer.shape, answers.shape[:-1])
    right: jax.Array = by_rows(right_of, answers, correct, vectors=(answer,))
    return right
