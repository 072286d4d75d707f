r"""Calling one model after another: the state of the vote, when to stop, and what stopping costs.

The models of a pool are called in a fixed order. After each call j the answers so far have a leader
y_j, the answer with the largest sum of vote weights, and a stopping score S_j says how safe it is
to stop there. The policy at a threshold lambda stops at the first call whose score is above it,

  tau(lambda) = min{j : S_j > lambda},

and answers y_tau. As lambda rises, tau runs through the *records* of the path, the calls whose
score is above all scores before them. A loss of stopping need not fall as lambda rises, for a later
leader may be wrong where an earlier one was right; its envelope, the largest loss at any threshold
above lambda, does fall, and it is 1{c(x) > lambda} with the critical score

  c(x) = max{S_j : j is a record and stopping at j loses}, -inf if there is none.

So `calibrate`, the tie-break, calibration by group, with high probability and under covariate shift
and the monitors take these critical scores as they take those of Eq. 5. Model j + 1 is called
exactly where max_{i <= j} S_i <= lambda: the running maximum is a nonconformity, and the models
called are its `prediction_sets`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.aggregation import NO_ANSWER
from racer_jax.core.checks import (
    as_array,
    as_binary,
    check_no_nan,
    check_tie_break,
    on_device,
)
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.padding import by_rows
from racer_jax.core.placement import on_any_mesh

Loss = Literal["regret", "differs", "covers", "wrong"]
LOSSES: tuple[str, ...] = get_args(Loss)


@partial(jax.jit, static_argnames="loss")
def _stop_losses(
    leader: jax.Array,
    answers: jax.Array,
    correct: jax.Array,
    reference: jax.Array,
    answerable: jax.Array | None = None,
    *,
    loss: str,
) -> jax.Array:
    if answerable is None:
        answerable = correct.any(axis=-1)
    if loss == "differs":
        return leader != reference[..., None]
    if loss == "covers":
        any_right = lax.cummax(correct.astype(jnp.int32), axis=correct.ndim - 1) > 0
        return ~any_right & answerable[..., None]
    right_answer = correct & (answers != NO_ANSWER)

    def is_right(code: jax.Array) -> jax.Array:
        return (right_answer[..., None, :] & (answers[..., None, :] == code[..., None])).any(-1)

    wrong = ~is_right(leader)
    if loss == "wrong":
        return wrong
    return wrong & is_right(reference[..., None])


@on_any_mesh
def stop_losses(
    loss: Loss,
    leader: ArrayLike,
    answers: ArrayLike,
    reference: ArrayLike,
    correct: ArrayLike | None = None,
    answerable: ArrayLike | None = None,
) -> jax.Array:
    r"""The loss of stopping after each call.

    * `regret`: the answer is wrong though the reference is right.
    * `differs`: the answer is not the reference's; needs no label.
    * `covers`: no model called is right though some model of the pool is.
    * `wrong`: the answer is wrong.

    Use this when you have logged answers to all calls and need the losses for
    `stop_critical_scores`.

    Args:
      loss: The name of one of these losses.
      leader: y_j, int `[..., b]`, the last of them the answer after all calls.
      answers: Answer codes of all models in any order, int `[..., m]`; for `covers` in the order of
        the calls.
      reference: Code of the reference's answer, int `[...]`.
      correct: Whether each of those answers is right, bool or 0/1 `[..., m]`; not used by
        `differs`.
      answerable: Whether some model of the pool is right, bool or 0/1 `[...]`; by default, whether
        one of `correct` is.

    Returns:
      bool `[..., b]`.

    Raises:
      TypeError: If `correct` is neither boolean nor numeric.
      ValueError: If the loss is unknown, or `correct` is needed and missing.

    >>> stop_losses("regret", jnp.array([1, 0]), jnp.array([1, 0]), 0, [0, 1]).tolist()
    [True, False]
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {LOSSES}, got {loss!r}")
    answers = as_array("answers", answers)
    if correct is None:
        if loss != "differs":
            raise ValueError(f"loss {loss!r} needs correct, got None; `differs` needs no labels")
        correct = np.zeros(answers.shape, bool)
    right = as_binary("correct", correct)
    if right.shape != answers.shape:
        raise ValueError(
            f"correct and answers must have the same shape, got {right.shape} and {answers.shape}"
        )
    of_query = [as_array("reference", reference)]
    if answerable is not None:
        of_query.append(as_binary("answerable", answerable))
    arrays = (as_array("leader", leader), answers, right)
    losses: jax.Array = by_rows(partial(_stop_losses, loss=loss), *arrays, vectors=tuple(of_query))
    return losses


# --- the envelope ---------------------------------------------------------------------------------


def _above(
    value: jax.Array, tie: jax.Array | None, other: jax.Array, other_tie: jax.Array | None
) -> jax.Array:
    """Whether (value, tie) is lexicographically above the other pair."""
    if tie is None or other_tie is None:
        return value > other
    return (value > other) | ((value == other) & (tie > other_tie))


def _checked(scores: ArrayLike, tie_break: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """Scores `[..., b]` and their second keys, checked."""
    scores = as_array("scores", scores)
    check_no_nan("scores", scores)
    if scores.ndim < 1 or scores.shape[-1] < 1:
        raise ValueError(f"scores must have shape [..., b] with b >= 1, got {scores.shape}")
    if tie_break is None:
        return scores, None
    tie_break = as_array("tie_break", tie_break)
    check_tie_break(tie_break, scores.shape)
    return scores, tie_break


def _of_records(scores: jax.Array, tie: jax.Array | None) -> jax.Array | None:
    """Second keys of scores: one of -inf can be no record, whatever its key."""
    return None if tie is None else jnp.where(scores == -jnp.inf, np.uint32(0), tie)


@jax.jit
def _running(scores: jax.Array, tie: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """The largest pair among the scores before each call and among all, `[..., b + 1]`."""
    tie = _of_records(scores, tie)
    start = jnp.full((*scores.shape[:-1], 1), -jnp.inf, scores.dtype)
    value = jnp.concatenate([start, scores], axis=-1)
    if tie is None:
        return lax.cummax(value, axis=value.ndim - 1), None
    second = jnp.concatenate([jnp.zeros(start.shape, jnp.uint32), tie], axis=-1)

    def larger(
        a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        above = _above(*b, *a)
        return jnp.where(above, b[0], a[0]), jnp.where(above, b[1], a[1])

    best: tuple[jax.Array, jax.Array] = lax.associative_scan(larger, (value, second), axis=-1)
    return best


@overload
def path_nonconformity(scores: ArrayLike, tie_break: None = None) -> jax.Array: ...


@overload
def path_nonconformity(scores: ArrayLike, tie_break: jax.Array) -> TieBroken: ...


@on_any_mesh
def path_nonconformity(
    scores: ArrayLike, tie_break: jax.Array | None = None
) -> jax.Array | TieBroken:
    r"""The running maximum of the stopping scores.

    A nonconformity whose sets are the models called.

    Column j + 1 is max_{i <= j} S_i: -inf for the first call, which is always made. The last column
    takes the place of the null model. It is in the set exactly if no score is above the threshold,
    that is, if the policy abstains after the last call.

    Use this when you want the models called by a stopping policy as sets, to measure them as other
    sets are measured; `stops_at` gives only their number.

    Args:
      scores: S_j, floating `[..., b]`, without NaN.
      tie_break: Second keys, uint32 `[..., b]`; pairs (S, U) are then compared lexicographically.

    Returns:
      `[..., b + 1]`; with a tie-break a `TieBroken` pair of that shape, for `prediction_sets`.

    Raises:
      TypeError: If `scores` is not floating or `tie_break` not uint32.
      ValueError: If a shape does not fit or a score is NaN.

    >>> path_nonconformity(jnp.array([0.5, 0.25, jnp.inf])).tolist()
    [-inf, 0.5, 0.5, inf]
    """
    value, tie = by_rows(_running, *_checked(scores, tie_break))
    return value if tie is None else TieBroken(value, tie)


@jax.jit
def _critical(
    scores: jax.Array, tie: jax.Array | None, losses: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """The largest record at which stopping loses."""
    tie = _of_records(scores, tie)
    before, before_tie = _running(scores, tie)
    if before_tie is not None:
        before_tie = before_tie[..., :-1]
    losing = losses & _above(scores, tie, before[..., :-1], before_tie)
    value = jnp.where(losing, scores, -jnp.inf)
    if tie is None:
        return value.max(axis=-1), None
    # Records rise along the path, so the largest that loses is the last: its pair is the largest.
    best, second = _running(value, jnp.where(losing, tie, jnp.uint32(0)))
    return best[..., -1], None if second is None else second[..., -1]


@overload
def stop_critical_scores(
    scores: ArrayLike, losses: ArrayLike, tie_break: None = None
) -> jax.Array: ...


@overload
def stop_critical_scores(
    scores: ArrayLike, losses: ArrayLike, tie_break: jax.Array
) -> TieBroken: ...


@on_any_mesh
def stop_critical_scores(
    scores: ArrayLike, losses: ArrayLike, tie_break: jax.Array | None = None
) -> jax.Array | TieBroken:
    r"""Critical scores of the envelope.

    They are c(x) = max{S_j : j a record, the loss of stopping at j is 1}.

    The policy at lambda, and at any threshold above it, loses on x only if c(x) > lambda. With
    these scores `calibrate` bounds the chance of the loss by alpha. A score of +inf stops at every
    threshold: if one loses, a threshold of +inf promises nothing.

    Use this when you stop a path of calls by a score of your own and want its error bounded.

    Args:
      scores: S_j, floating `[..., b]`, without NaN.
      losses: Loss of stopping at each call, bool or 0/1 `[..., b]`, from `stop_losses`.
      tie_break: Second keys, uint32 `[..., b]`.

    Returns:
      `[...]`, -inf where no threshold loses; with a tie-break a `TieBroken` pair.

    Raises:
      TypeError: If an array has the wrong kind.
      ValueError: If a shape does not fit, a score is NaN or a loss not 0/1.

    >>> scores = jnp.array([[0.5, 0.25, 0.75, jnp.inf]])
    >>> stop_critical_scores(scores, jnp.array([[0, 1, 1, 0]])).tolist()
    [0.75]
    """
    scores, tie = _checked(scores, tie_break)
    loss_flags = as_binary("losses", losses)
    if loss_flags.shape != scores.shape:
        raise ValueError(
            f"losses must have the shape of scores {scores.shape}, got {loss_flags.shape}"
        )
    value, second = by_rows(_critical, scores, tie, loss_flags)
    return value if second is None else TieBroken(value, second)


class Stops(NamedTuple):
    """Where the policy stops at each threshold.

    Use this when you read the result of `stops_at`, to count calls and abstentions.

    Attributes:
      calls: Number of models called, 1 to b, int32 `[..., n]`.
      has_stop: Whether a score was above the threshold; False where the policy abstains after the
        last call; bool `[..., n]`.
    """

    calls: jax.Array
    has_stop: jax.Array


@on_any_mesh
def stops_at(
    scores: ArrayLike, threshold: ArrayLike | TieBroken, tie_break: jax.Array | None = None
) -> Stops:
    r"""The number of calls at a threshold, tau = min{j : S_j > lambda}.

    A score of +inf stops at every threshold, +inf included.

    Use this when you have a calibrated threshold and want the number of calls of each query;
    `path_nonconformity` gives the models called as sets.

    Args:
      scores: S_j, floating `[..., n, b]`, or `[b]` for a single query.
      threshold: lambda, floating, any shape that broadcasts against the axes before `n`, as in
        `prediction_sets`. With a tie-break the `TieBroken` pair that `calibrate` returned.
      tie_break: Second keys, uint32, the shape of `scores`; required with, and only with, a
        `TieBroken` threshold.

    Returns:
      Calls of each query, and whether a score stopped them.

    Raises:
      TypeError: If an array has the wrong kind.
      ValueError: If a shape does not fit, a value is NaN, or only one of the two is tie-broken.

    >>> stops_at(jnp.array([[0.5, 0.25, jnp.inf]]), jnp.array([0.0, 0.5])).calls.tolist()
    [[1], [3]]
    """
    if isinstance(threshold, TieBroken) != (tie_break is not None):
        raise ValueError(
            "threshold and tie_break go together: a TieBroken threshold needs the tie_break of the "
            "paths, and a tie_break needs a threshold calibrated with one"
        )
    scores, tie = _checked(scores, tie_break)
    if isinstance(threshold, TieBroken):
        value, limit = threshold.value, threshold.tie
    else:
        if not isinstance(threshold, jax.Array):
            threshold = np.asarray(given("threshold", threshold), scores.dtype)
        value, limit = on_device(threshold).astype(scores.dtype), None
    check_no_nan("threshold", value)
    call = by_rows if value.ndim == 0 else _called
    stops: Stops = call(_stops, scores, tie, value, limit)
    return stops


def _called(function: Callable[..., Any], *args: Any) -> Any:
    """A function called as it is: thresholds that have axes come before those of the queries."""
    return function(*args)


@jax.jit
def _stops(
    scores: jax.Array, tie: jax.Array | None, value: jax.Array, limit: jax.Array | None
) -> Stops:
    """The number of calls at thresholds `[...]`."""
    tie = _of_records(scores, tie)
    inner = tuple(range(-min(scores.ndim, 2), 0))
    scores, value = jnp.broadcast_arrays(scores, jnp.expand_dims(value, inner))
    if tie is not None and limit is not None:
        tie, limit = jnp.broadcast_arrays(tie, jnp.expand_dims(limit, inner))
    safe = _above(scores, tie, value, limit) & (scores > -jnp.inf) | (scores == jnp.inf)
    has_stop = safe.any(axis=-1)
    calls = jnp.where(has_stop, safe.argmax(axis=-1) + 1, scores.shape[-1])
    return Stops(calls.astype(jnp.int32), has_stop)
