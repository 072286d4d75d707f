r"""The vote after each call of a path.

Who leads, whether that can still change, how safe it is to stop.

The models of a pool are called in a fixed order. After each call the answers so far have a leader,
the answer with the largest sum of vote weights, and a linear risk model of the state of the vote
says how safe it is to stop there.

Exactness. Weights and coefficients that are multiples of a power of two (`racer_jax.sequential`
makes such) have sums that float32 holds exactly, in any order. Then ties are ties, and a query
scored alone on the host is scored as in a batch on a device, to the last bit.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.aggregation import NO_ANSWER
from racer_jax.core.checks import as_array, check_floating, is_traced, on_device, on_host
from racer_jax.core.padding import by_rows
from racer_jax.core.placement import on_any_mesh

Settled = Literal["vote", "last", "never"]
NUM_STATE_FEATURES = 7


class PathStates(NamedTuple):
    """The state of the vote after each call of a path.

    Arrays are `[..., b]`, one entry for each call, unless said otherwise.

    Use this when you write a stopping score of your own from the state of the vote; `path_states`
    returns it.

    Attributes:
      leader: Code of the answer with the largest sum of weights, of equal sums the one that was
        given first; -1 while no model has answered; int32.
      leader_sum: Its sum of weights, float32; 0 while no model has answered.
      runner_up_sum: The largest sum of any other answer, at least 0, float32.
      leader_votes: Models that gave the leader, int32.
      second_votes: Models that gave the most frequent other answer, int32.
      distinct: Distinct answers, int32.
      missing: Models called that gave no answer, int32.
      is_decided: Whether no answers of the models left can change the leader, bool.
      for_leader: Whether call i was made and gave the leader after call j, bool `[..., b, b]` by j,
        then i.
    """

    leader: jax.Array
    leader_sum: jax.Array
    runner_up_sum: jax.Array
    leader_votes: jax.Array
    second_votes: jax.Array
    distinct: jax.Array
    missing: jax.Array
    is_decided: jax.Array
    for_leader: jax.Array


def _rounding(weights: jax.Array) -> jax.Array:
    """By how much two sums of weights may be off together; 0 where every sum is exact.

    Multiples of a unit of which the total has less than 2**24 have exact sums in any order.
    """
    total = weights.sum()
    unit = jnp.ldexp(jnp.float32(1), jnp.frexp(total)[1] - 24)
    is_exact = (jnp.rint(weights / unit) * unit == weights).all()
    return jnp.where(is_exact, 0, 2 * len(weights) * np.finfo(np.float32).eps * total)


def _one_path(answers: jax.Array, weights: jax.Array) -> PathStates:
    """The states of one path `[b]`."""
    num_calls = len(answers)
    has_answer = answers != NO_ANSWER
    # Axes: call j, then the call i whose answer is meant. An answer has one entry for each of its
    # voters; the entry of the first of them stands for it, which is what argmax finds.
    is_called = jnp.tril(jnp.ones((num_calls, num_calls), bool))
    present = is_called & has_answer[None, :]
    same = (answers[:, None] == answers[None, :]) & has_answer[None, :]
    sums = jnp.cumsum(same.astype(jnp.float32) * weights[:, None], axis=0)
    votes = jnp.cumsum(same.astype(jnp.int32), axis=0)

    anyone = present.any(axis=1)
    leader = answers[jnp.where(present, sums, -1.0).argmax(axis=1)]
    leader = jnp.where(anyone, leader, NO_ANSWER)
    for_leader = present & (answers[None, :] == leader[:, None])
    others = present & ~for_leader
    first = present & ~jnp.tril(same, -1).any(axis=1)[None, :]

    # A rival can still gain all the weight that is left. With exactly that much it ties, and a tie
    # goes to the answer that was there first; an answer no model has given yet comes last.
    first_call = jnp.arange(num_calls)[None, :]
    weight_after = weights.sum() - jnp.cumsum(weights) + _rounding(weights)
    weight_after = jnp.where(first_call[0] < num_calls - 1, weight_after, 0.0)
    leader_first = jnp.where(for_leader, first_call, num_calls).min(axis=1, keepdims=True)
    leader_sum = jnp.where(for_leader, sums, 0.0).max(axis=1)
    reach, total = sums + weight_after[:, None], leader_sum[:, None]
    overtakes = (reach > total) | ((reach == total) & (first_call < leader_first))
    is_open = (first & others & overtakes).any(axis=1) | (weight_after > leader_sum)
    return PathStates(
        leader=leader,
        leader_sum=leader_sum,
        runner_up_sum=jnp.where(others, sums, 0.0).max(axis=1),
        leader_votes=jnp.where(for_leader, votes, 0).max(axis=1),
        second_votes=jnp.where(others, votes, 0).max(axis=1),
        distinct=first.sum(axis=1, dtype=jnp.int32),
        missing=(is_called & ~has_answer[None, :]).sum(axis=1, dtype=jnp.int32),
        is_decided=anyone & ~is_open,
        for_leader=for_leader,
    )


@jax.jit
def _path_states(answers: jax.Array, weights: jax.Array) -> PathStates:
    shape = jnp.broadcast_shapes(answers.shape, weights.shape)
    answers = jnp.broadcast_to(answers, shape).astype(jnp.int32)
    weights = jnp.broadcast_to(weights, shape).astype(jnp.float32)
    batch = answers.shape[:-1]
    flat = (x.reshape(-1, x.shape[-1]) for x in (answers, weights))
    states = jax.vmap(_one_path)(*flat)
    result: PathStates = jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), states)
    return result


@on_any_mesh
def path_states(answers: ArrayLike, weights: ArrayLike) -> PathStates:
    r"""The state of the vote after each call.

    The leader is *decided* when its sum is above that of every other answer by more than all the
    weight that is left (or by exactly that much where a tie goes to the leader): then it is the
    answer of the full vote, whatever the models left say. That needs weights of at least 0. Where
    their sums are not exact in float32 (decimals such as .1), what rounding may add counts as
    weight that is left.

    Use this when the answers of a whole pool are logged and you want to know what calling it one by
    one would have seen.

    Args:
      answers: Answer codes in the order of the calls, int `[..., b]`; -1 where a model gave none.
      weights: Vote weight of each call, at least 0 and finite, floating `[..., b]`; leading axes
        broadcast against `answers`.

    Returns:
      The state of the vote after each call.

    Raises:
      TypeError: If `answers` does not hold integers or `weights` is not floating.
      ValueError: If a shape does not fit, a code is below -1 or a weight is negative or not finite.

    References:
      Equal weights give the early stopping of majority votes.

    >>> states = path_states([0, 1, 0], jnp.array([2.0, 1.0, 0.5]))
    >>> states.leader.tolist(), states.is_decided.tolist()
    ([0, 0, 0], [True, True, True])
    """
    answers, weights = as_array("answers", answers), as_array("weights", weights)
    if not jnp.issubdtype(answers.dtype, jnp.integer):
        raise TypeError(
            f"answers must be integer codes (see answer_codes), got dtype {answers.dtype}"
        )
    check_floating("weights", weights)
    if answers.ndim < 1 or weights.ndim < 1 or answers.shape[-1] != weights.shape[-1]:
        raise ValueError(
            "answers and weights must have the same last axis, one entry for each call, got "
            f"{answers.shape} and {weights.shape}"
        )
    if answers.shape[-1] < 1:
        raise ValueError("answers must hold at least one call, got none")
    if not is_traced(answers) and (bad := on_host(answers) < NO_ANSWER).any():
        raise ValueError(
            f"answers must be codes >= 0, or -1 for none, got {on_host(answers)[bad][0]}"
        )
    if not is_traced(weights):
        values = on_host(weights)
        if (bad := ~(np.isfinite(values) & (values >= 0))).any():
            raise ValueError(f"weights must be at least 0 and finite, got {values[bad][0]}")
    jnp.broadcast_shapes(answers.shape, weights.shape)
    states: PathStates = by_rows(_path_states, answers, weights)
    return states


@on_any_mesh
def state_features(states: PathStates) -> jax.Array:
    """The columns of the risk model after each call, float32 `[..., b, 7 + b]`.

    The seven are: the leader's sum, the runner-up's, their difference, the leader's votes, the
    second most votes, distinct answers, missing answers. Then, for each call, whether it was made
    and gave the leader.

    Use this when you fit or inspect a linear risk model, whose coefficients belong to these
    columns; `stopping_scores` applies one.

    Args:
      states: From `path_states`.
    """
    counts = (states.leader_votes, states.second_votes, states.distinct, states.missing)
    sums = (states.leader_sum, states.runner_up_sum)
    features: jax.Array = by_rows(_features, *sums, *counts, cubes=(states.for_leader,))
    return features


@jax.jit
def _features(leader_sum: jax.Array, runner_up_sum: jax.Array, *others: jax.Array) -> jax.Array:
    *counts, for_leader = others
    columns = (
        leader_sum,
        runner_up_sum,
        leader_sum - runner_up_sum,
        *(count.astype(jnp.float32) for count in counts),
    )
    return jnp.concatenate([jnp.stack(columns, axis=-1), for_leader.astype(jnp.float32)], axis=-1)


@on_any_mesh
def stopping_scores(
    states: PathStates,
    coefficients: jax.Array,
    offset: jax.Array,
    ends: jax.Array,
    settled: Settled = "vote",
) -> jax.Array:
    r"""The stopping scores S_j of a linear risk model: -logit of the predicted loss of stopping.

    S_j is -inf where stopping is impossible, inside a batch of calls and while there is no answer,
    and +inf where stopping cannot lose.

    Use this when you have the coefficients of a linear risk model; scores of any other kind go to
    `stop_critical_scores` directly.

    Args:
      states: From `path_states`.
      coefficients: Intercept, then one for each of `state_features`, by call, float32
        `[b, 8 + b]`.
      offset: A number added to every score of a query (that of its group), float32 `[...]`.
      ends: Whether a batch of calls ends with each call, bool `[b]`; the last one does.
      settled: Where stopping cannot lose: `vote`, once the leader is decided and after the last
        call; `last`, after the last call alone; `never`, for a loss that the last answer incurs
        too, so that the policy may abstain.

    Returns:
      float32 `[..., b]`.
    """
    *columns, for_leader = states
    if is_traced(coefficients, ends):
        arrays = (*columns, for_leader, offset, coefficients, ends)
        traced: jax.Array = _stopping_scores(*arrays, settled=settled)
        return traced
    shared = [on_device(array) for array in (coefficients, ends)]
    function = partial(_stopping_scores_of, *shared, settled=settled)
    scores: jax.Array = by_rows(
        function, *columns, cubes=(for_leader,), vectors=(on_device(offset),)
    )
    return scores


def _stopping_scores_of(
    coefficients: jax.Array, ends: jax.Array, *of_queries: jax.Array, settled: Settled
) -> jax.Array:
    """The scores, from what belongs to all queries and what belongs to each."""
    scores: jax.Array = _stopping_scores(*of_queries, coefficients, ends, settled=settled)
    return scores


@partial(jax.jit, static_argnames="settled")
def _stopping_scores(*arrays: jax.Array, settled: Settled) -> jax.Array:
    *columns, offset, coefficients, ends = arrays
    states = PathStates(*columns)
    features = state_features(states)
    # A product and a sum rather than a matrix product: exact on every device.
    shape = (1,) * (features.ndim - 2)
    table = coefficients.reshape(*shape, *coefficients.shape)
    linear = table[..., 0] + (features * table[..., 1:]).sum(axis=-1)
    scores = offset[..., None] - linear
    safe = jnp.zeros(scores.shape, bool)
    if settled == "vote":
        safe = states.is_decided
    if settled != "never":
        safe = safe.at[..., -1].set(True)
    ends = ends.reshape(*shape, -1)
    scores = jnp.where(ends & (states.leader != NO_ANSWER), scores, -jnp.inf)
    return jnp.where(ends & safe, jnp.inf, scores)
