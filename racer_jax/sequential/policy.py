r"""A policy of calling one model after another: order, vote weights, reference and risk models.

All of it is learned on training rows; it stops at a threshold, which comes from other rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.core.aggregation import NO_ANSWER, answer_codes
from racer_jax.core.host_threads import one_blas_thread
from racer_jax.core.risk_levels import exact_alpha
from racer_jax.data.labels import generator
from racer_jax.data.table import RoutingTable
from racer_jax.risk_control.stopping import LOSSES, Loss, stop_losses
from racer_jax.risk_control.vote_path import (
    PathStates,
    Settled,
    path_states,
    state_features,
)
from racer_jax.sequential.agreement import agreement_weights, agrees_with_vote
from racer_jax.sequential.decided_order import decided_order
from racer_jax.sequential.logged_tables import (
    check_logged,
    check_training,
    is_unlabelled,
    mean_filled,
)
from racer_jax.sequential.order_search import (
    LEVELS,
    Order,
    candidate_orders,
    cut_after,
    mean_cost_at,
    mean_cost_when_safe,
    search,
)
from racer_jax.sequential.risk_model import RiskModel, fit_risk_model, on_grid
from racer_jax.sequential.weights import (
    cross_validated_accuracy,
    fit_vote_weights,
)

Reference = Literal["auto", "vote", "best"]
REFERENCES: tuple[str, ...] = get_args(Reference)
Objective = Literal["calls", "dollars"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
_MOST_ROWS = 2000


class PolicyOptions(TypedDict, total=False):
    """What a policy is to be good at; the options of `fit_policy`, which says what each means.

    Use this when you pass them on.

    Attributes:
      loss: What stopping early shall not incur, and what the order is searched for.
      reference: Whose answer is the measure: `vote`, `best`, or `auto` for the better one.
      objective: What the search makes small: `calls` or `dollars`.
      batches: Sizes of the first batches of calls made at once; None for one at a time.
      alpha: The level meant for calibration; None for none in particular.
    """

    loss: Loss
    reference: Reference
    objective: Objective
    batches: Sequence[int] | None
    alpha: float | None


@dataclass(frozen=True, eq=False)
class Policy:
    """Which model to call when, how answers vote, and when stopping is safe; host arrays.

    Use this when you want to inspect what `fit_policy` learned, or set order and weights by hand.

    Attributes:
      models: Names of the pool, `[m]`.
      order: The models in the order of their calls, numbers into `models`, `[b]`.
      weights: Vote weight of each call, at least 0, float64 `[b]`.
      reference: `vote`, the weighted vote of the pool, or `best`, the answer of the last call.
      ends: Whether a batch of calls ends with each call, bool `[b]`; the last one does.
      risk: The risk model of each loss, by name.
      groups: Names of the groups the risk models know, `[g]`.
      mean_cost: Mean dollars of each call on the training rows, `[b]`; None where not logged.
      loss: The loss the order was searched for, and the default of calibration.
    """

    models: tuple[str, ...]
    order: Order
    weights: np.ndarray
    reference: str
    ends: np.ndarray
    risk: Mapping[str, RiskModel]
    groups: tuple[str, ...]
    mean_cost: np.ndarray | None
    loss: Loss

    @property
    def calls(self) -> tuple[str, ...]:
        """Names of the models in the order of their calls."""
        return tuple(self.models[m] for m in self.order)

    def settled(self, loss: str) -> Settled:
        """Where stopping cannot incur a loss.

        Use this when you want to know after which calls the vote cannot change.
        """
        if loss == "wrong":
            return "never"
        if loss == "covers" or self.reference == "best":
            return "last"
        return "vote"


def group_codes(names: Sequence[str] | None, groups: Sequence[str], num: int) -> np.ndarray:
    """The number of each query's group among the known ones, -1 for any other, int32 `[n]`.

    Use this when queries have names of groups and the policy was fitted by group.
    """
    if names is None or not groups:
        return np.full(num, -1, np.int32)
    number = {name: i for i, name in enumerate(groups)}
    return np.array([number.get(name, -1) for name in names], np.int32)


def check_answers(table: RoutingTable) -> np.ndarray:
    """The answer codes `[n, m]` of a table of logged answers.

    Use this when a table comes from outside.

    Raises:
      ValueError: If the table has no rows or no answers.
    """
    check_logged(table)
    return answer_codes(table.answers)


def batch_ends(batches: Sequence[int] | None, num_calls: int) -> np.ndarray:
    """Whether a batch ends with each call: batches of the sizes given, then all the rest at once.

    Use this when a policy calls several models at a time.

    Args:
      batches: Sizes of the first batches; None to call one model at a time.
      num_calls: b.

    Raises:
      ValueError: If a size is not a whole number of at least 1.

    >>> batch_ends((2, 2), 6).astype(int).tolist()
    [0, 1, 0, 1, 0, 1]
    """
    if batches is None:
        return np.ones(num_calls, bool)
    sizes = list(batches)
    bad = [s for s in sizes if isinstance(s, bool) or not isinstance(s, int | np.integer) or s < 1]
    if bad or not sizes:
        raise ValueError(
            f"batches must be sizes of at least 1, such as (2, 2), or None, got {batches!r}"
        )
    ends = np.zeros(num_calls, bool)
    ends[[end - 1 for end in np.cumsum(sizes).tolist() if end < num_calls]] = True
    ends[-1] = True
    return ends


def leaders(states: PathStates, reference: np.ndarray) -> jax.Array:
    """The answer after each call; after the last call it is the reference's. int32 `[n, b]`.

    Use this when votes along the order are there.
    """
    return states.leader.at[..., -1].set(jnp.asarray(reference))


@dataclass(frozen=True, eq=False)
class _Training:
    """What the search reads of the training rows."""

    codes: np.ndarray
    correct: np.ndarray
    cost: np.ndarray | None
    group: np.ndarray | None
    weights: np.ndarray
    best: int | None
    batches: Sequence[int] | None

    def reference(self) -> np.ndarray | None:
        return None if self.best is None else self.codes[:, self.best]

    def fitted(self, order: Order, loss: Loss) -> tuple[RiskModel, np.ndarray, np.ndarray]:
        """Risk model of an order, its features and losses.

        With the path cut after the reference.
        """
        num_models = len(self.weights)
        # The path is worked out over the whole pool, so that one shape serves every order.
        rest = [m for m in range(num_models) if m not in order]
        whole, length = [*order, *rest], len(order)
        codes, weights = self.codes[:, whole], self.weights[whole]
        states = path_states(codes, weights.astype(np.float32))
        features = np.asarray(state_features(states), np.float64)[:, :length]
        features = features[..., : features.shape[-1] - num_models + length]
        reference = self.reference()
        if reference is None:
            reference = np.asarray(states.leader[:, -1])
        leader = np.array(states.leader)
        leader[:, length - 1] = reference
        correct = self.correct[:, whole]
        losses = np.asarray(stop_losses(loss, leader, codes, reference, correct))[:, :length]
        rows = batch_ends(self.batches, length) & (leader[:, :length] != NO_ANSWER)
        is_decided = np.zeros(leader.shape, bool)
        is_decided[:, length - 1] = loss != "wrong"
        if self.best is None and loss in ("regret", "differs"):
            is_decided |= np.asarray(states.is_decided)
            is_decided[:, :length] &= batch_ends(self.batches, length)
        rows &= ~is_decided[:, :length]
        model = fit_risk_model(features, losses, rows, self.group)
        scores = np.where(rows, model.scores(features, self._groups()), -np.inf)
        scores[is_decided[:, :length]] = np.inf
        return model, scores, losses

    def _groups(self) -> np.ndarray:
        return np.full(len(self.codes), -1) if self.group is None else self.group


@one_blas_thread()
def fit_policy(
    key: jax.Array,
    table: RoutingTable,
    *,
    loss: Loss = "regret",
    reference: Reference = "auto",
    objective: Objective = "calls",
    batches: Sequence[int] | None = None,
    alpha: float | None = None,
) -> Policy:
    """Learns order, weights, reference and risk models from training rows.

    Without any label the weights come from agreement: a model counts as right where it gives the
    answer of the weighted vote. The promises stay valid, and the vote is less often right than one
    learned from labels where the models differ much.

    Use this when every model's answer to some hundred training queries is logged, if possible with
    its label.

    Args:
      key: A typed PRNG key: it halves the rows for the choice of the reference, and picks 2,000
        rows of a larger table.
      table: Training rows with answers; with `cost` where the objective is `dollars`. Rows without
        any label (`missing` everywhere) will do for the loss `differs` and the reference `vote`.
      loss: What stopping early shall not incur; the order is searched for it (for that of `regret`
        where it is `wrong`).
      reference: `vote`, the weighted vote of all; `best`, the model with the most right answers;
        `auto`, the vote if it is right more often on rows held out.
      objective: What the search makes small: `calls` or `dollars`.
      batches: Sizes of the first batches of calls made at once, such as `(2, 2)`: then all the
        rest; None for one at a time.
      alpha: The level meant for calibration; None searches for an order good at all of .005 to .03.
        With a single model as the reference the default is .01. 0 searches for the order with which
        votes are decided soonest, for a policy that is never calibrated.

    Returns:
      The order, the weights and the risk models that were learned.

    Raises:
      TypeError: If the key is not typed.
      ValueError: If the table has no answers, labels or costs where they are needed, or an option
        is unknown.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {LOSSES}, got {loss!r}")
    if reference not in REFERENCES:
        raise ValueError(f"reference must be one of {REFERENCES}, got {reference!r}")
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {OBJECTIVES}, got {objective!r}")
    if alpha is not None and not _is_zero(alpha):
        alpha = float(exact_alpha(alpha))
    check_training(table, loss, reference, objective)
    label_free = loss == "differs" and is_unlabelled(table)
    batch_ends(batches, len(table.models))
    rng = generator(key)
    if len(table) > _MOST_ROWS:
        table = table.select(np.sort(rng.permutation(len(table))[:_MOST_ROWS]))
    cost = mean_filled(table.cost)
    codes, correct = check_answers(table), np.asarray(table.correct)
    if not (codes != NO_ANSWER).any():
        raise ValueError("no model answered any training query: there is nothing to learn from")

    if label_free:
        weights, reference = agreement_weights(codes), "vote"
        correct = agrees_with_vote(codes, weights)
    else:
        weights = fit_vote_weights(codes, correct)
    accuracy = (correct & (codes != NO_ANSWER)).mean(axis=0)
    best = _reference_model(rng, codes, correct, accuracy, reference)
    names = table.groups if len(table.groups) > 1 else ()
    group = group_codes(table.group, names, len(table)) if names else None
    training = _Training(codes, correct, cost, group, weights, best, batches)

    search_loss: Loss = "regret" if loss == "wrong" else loss
    levels = LEVELS if alpha is None else (float(alpha),)
    if best is not None and alpha is None:
        levels = (0.01,)

    def value(order: Order) -> float:
        _, scores, losses = training.fitted(order, search_loss)
        total_cost = np.broadcast_to(np.arange(1.0, len(order) + 1), scores.shape)
        if objective == "dollars" and cost is not None:
            total_cost = np.cumsum(cost[:, list(order)], axis=1)
        if batches is not None:
            total_cost = total_cost[:, batch_last(batch_ends(batches, len(order)))]
        if alpha == 0:
            return mean_cost_when_safe(scores, total_cost)
        return mean_cost_at(scores, losses, total_cost, levels)

    mean_cost = None if cost is None else cost.mean(axis=0)
    candidates = candidate_orders(weights, accuracy, mean_cost)
    if best is None and search_loss in ("regret", "differs"):
        soonest = decided_order(codes, weights, cost if objective == "dollars" else None, batches)
        candidates += [] if soonest is None else [soonest]
    order, _ = search(candidates, value, best)
    if mean_cost is not None:
        mean_cost = mean_cost[list(order)]
    total = float(weights[list(order)].sum())
    risk = {name: on_grid(training.fitted(order, name)[0], total) for name in get_args(Loss)}
    return Policy(
        models=tuple(table.models),
        order=order,
        weights=weights[list(order)],
        reference="vote" if best is None else "best",
        ends=batch_ends(batches, len(order)),
        risk=risk,
        groups=tuple(names),
        mean_cost=mean_cost,
        loss=loss,
    )


def _is_zero(alpha: object) -> bool:
    """Whether a level stands for "decided votes alone"; a bool is no level."""
    return not isinstance(alpha, bool) and alpha == 0


def batch_last(ends: np.ndarray) -> np.ndarray:
    """The last call of the batch that each call is in, int `[b]`.

    Use this when calls of one batch share what is known after it.

    >>> batch_last(np.array([False, True, True])).tolist()
    [1, 1, 2]
    """
    return np.flatnonzero(ends)[np.searchsorted(np.flatnonzero(ends), np.arange(len(ends)))]


def _reference_model(
    rng: np.random.Generator,
    codes: np.ndarray,
    correct: np.ndarray,
    accuracy: np.ndarray,
    reference: str,
) -> int | None:
    """The model that is the reference; None where the vote is."""
    best = int(accuracy.argmax())
    if reference == "vote" or (reference == "auto" and len(codes) < 2):
        return None
    if reference == "best":
        return best
    fold = rng.permutation(len(codes)) % 2
    scores = cross_validated_accuracy(codes, correct, fold)
    return best if accuracy[best] >= scores else None


__all__ = [
    "OBJECTIVES",
    "REFERENCES",
    "Policy",
    "PolicyOptions",
    "batch_ends",
    "batch_last",
    "cut_after",
    "fit_policy",
    "group_codes",
    "leaders",
]
