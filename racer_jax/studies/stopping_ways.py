r"""Ways to answer with a pool of models whose answers are logged, all measured alike.

Each way is a path of calls for each query: an order, the answer after each call, and a stopping
score. Sets chosen before anyone has answered are such paths too: the models in order of their
nonconformity, stopping after call j scored by the nonconformity of the model that would come next.
So all are calibrated on the same loss, against the same reference, by the same critical scores.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import gammaln

from racer_jax.core.aggregation import NO_ANSWER, answer_codes
from racer_jax.core.nonconformity import inverse_probability
from racer_jax.core.risk_levels import miss_budget
from racer_jax.core.sort_keys import ordered_keys
from racer_jax.data.table import RoutingTable
from racer_jax.montecarlo.step_functions import Pool
from racer_jax.orders.model_orders import fit_order
from racer_jax.risk_control.stopping import (
    Loss,
    stop_critical_scores,
    stop_losses,
)
from racer_jax.risk_control.vote_path import PathStates, path_states
from racer_jax.routers.knn import KNNR
from racer_jax.sequential.policy import batch_last
from racer_jax.sequential.replay import Paths, stopping_pool
from racer_jax.studies.order_studies import hashed_embeddings

METRICS = ("calls", "dollars", "rounds", "accuracy", "regret")


def codes_of(table: RoutingTable) -> np.ndarray:
    """The answer codes of a table, int32 `[n, m]`. Use this when votes are counted."""
    return answer_codes(table.answers)


class Way(NamedTuple):
    """Paths of the queries that are not trained on.

    Use this when you read what a way of stopping returns.

    Attributes:
      scores: Stopping scores, float32 `[n, b]`; +inf where a fixed rule stops.
      losses: The calibrated loss of stopping after each call, bool `[n, b]`.
      metrics: Tables `[n, b + 1]` by the call a query stops after, as `Paths.metrics`.
    """

    scores: np.ndarray
    losses: np.ndarray
    metrics: dict[str, np.ndarray]

    def pool(self, ties: jax.Array) -> Pool:
        """In rank space. Use this when a way is to be calibrated or measured by splits."""
        return stopping_pool(self.scores, self.losses, self.metrics, ties)


def of_paths(paths: Paths, loss: Loss) -> Way:
    """The sequential policy. Use this when the sequential policy is compared with other ways."""
    metrics = {name: table for name, table in paths.metrics.items() if name in METRICS}
    return Way(np.asarray(paths.scores(loss)), np.asarray(paths.losses(loss)), metrics)


class Rows(NamedTuple):
    """Rows to be answered, and their reference.

    Use this when you write a way of stopping.

    Attributes:
      codes: Answer codes, int32 `[n, m]`.
      correct: Whether each is right, bool `[n, m]`.
      cost: Dollars of each, `[n, m]`; None where not logged.
      reference: Code of the reference's answer, int32 `[n]`.
    """

    codes: np.ndarray
    correct: np.ndarray
    cost: np.ndarray | None
    reference: np.ndarray

    def way(
        self,
        order: np.ndarray,
        leader: np.ndarray,
        scores: np.ndarray,
        rounds: np.ndarray | None = None,
        ends: np.ndarray | None = None,
    ) -> Way:
        """A way from the order of its calls, its answers and scores `[n, b]`, and batches `[b]`.

        Use this when a way is made of orders and scores.
        """
        num, num_calls = leader.shape
        ends = np.ones(num_calls, bool) if ends is None else ends
        last = batch_last(ends)
        calls = np.tile(last + 1.0, (num, 1))
        num_called = np.arange(1.0, num_calls + 1) if rounds is None else rounds
        losses = stop_losses("regret", leader, self.codes, self.reference, self.correct)
        wrong = stop_losses("wrong", leader, self.codes, self.reference, self.correct)
        values = {
            "calls": calls,
            "rounds": np.tile(num_called, (num, 1)),
            "accuracy": 1.0 - np.asarray(wrong),
            "regret": np.asarray(losses, np.float64),
        }
        if self.cost is not None:
            costs = np.take_along_axis(self.cost, order, axis=1)
            values["dollars"] = np.cumsum(costs, axis=1)[:, last]
        tables = {name: np.column_stack([v, v[:, -1]]) for name, v in values.items()}
        stop_scores = np.where(ends, scores, -np.inf).astype(np.float32)
        return Way(stop_scores, np.asarray(losses), tables)

    def along(self, order: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, PathStates]:
        """Votes along an order for each query `[n, b]` with weights `[m]`: order and states.

        Use this when a way votes.
        """
        codes = np.take_along_axis(self.codes, order, axis=1)
        return order, path_states(codes, weights[order].astype(np.float32))


def fixed(order: np.ndarray, num: int) -> np.ndarray:
    """One order for every query, `[n, b]`. Use this when a way calls the models in one order."""
    return np.tile(order, (num, 1))


def agreement(rows: Rows, accuracy: np.ndarray) -> Way:
    """Stop by the share of the plurality, (its votes) / (calls + 1), most accurate models first.

    Use this when the policy is compared with stopping by agreement.
    """
    num, num_models = rows.codes.shape
    order = fixed(np.argsort(-accuracy, kind="stable"), num)
    _, states = rows.along(order, np.ones(num_models))
    leader = np.array(states.leader)
    leader[:, -1] = rows.reference
    share = np.asarray(states.leader_votes) / (np.arange(num_models) + 2.0)
    share[:, -1] = np.inf
    return rows.way(order, leader, share)


def majority_decided(rows: Rows, accuracy: np.ndarray) -> Way:
    """Stop when the majority of all is decided, most accurate models first.

    Nothing is calibrated.

    Use this when the policy is compared with stopping at a decided majority.
    """
    num, num_models = rows.codes.shape
    order = fixed(np.argsort(-accuracy, kind="stable"), num)
    _, states = rows.along(order, np.ones(num_models))
    is_decided = np.array(states.is_decided)
    is_decided[:, -1] = True
    return rows.way(order, np.asarray(states.leader), np.where(is_decided, np.inf, -np.inf))


def unanimity(rows: Rows, key: np.ndarray, size: int = 3) -> Way:
    """Three models at a time, the cheapest first, until three agree.

    At last the plurality of all (ABC).

    Use this when the policy is compared with stopping at unanimity.
    """
    num, num_models = rows.codes.shape
    order = fixed(np.argsort(key, kind="stable"), num)
    _, states = rows.along(order, np.ones(num_models))
    codes = np.take_along_axis(rows.codes, order, axis=1)
    leader = np.array(states.leader)
    scores = np.full(codes.shape, -np.inf)
    ends = np.zeros(num_models, bool)
    for end in range(size, num_models + 1, size):
        tier = codes[:, end - size : end]
        unanimous = (tier == tier[:, :1]).all(axis=1) & (tier[:, 0] != NO_ANSWER)
        scores[unanimous, end - 1] = np.inf
        leader[unanimous, end - 1] = tier[unanimous, 0]
        ends[end - 1] = True
    unanimous_at_end = scores[:, -1] == np.inf
    leader[~unanimous_at_end, -1] = np.asarray(states.leader)[~unanimous_at_end, -1]
    scores[:, -1], ends[-1] = np.inf, True
    rounds = np.cumsum(ends) - ends + 1.0
    return rows.way(order, leader, scores, rounds, ends)


def top(rows: Rows, accuracy: np.ndarray, k: int) -> Way:
    """The majority of the k most accurate models.

    Use this when the policy is compared with a fixed number of models.
    """
    num = len(rows.codes)
    order = fixed(np.argsort(-accuracy, kind="stable")[:k], num)
    _, states = rows.along(order, np.ones(rows.codes.shape[1]))
    scores = np.full((num, k), -np.inf)
    scores[:, -1] = np.inf
    ends = np.arange(k) == k - 1
    return rows.way(order, np.asarray(states.leader), scores, np.ones(k), ends)


def full_vote(rows: Rows, weights: np.ndarray) -> Way:
    """The weighted vote of all, ties to the most weighty model.

    Use this when the policy is compared with calling every model.
    """
    num, num_models = rows.codes.shape
    order = fixed(np.argsort(-weights, kind="stable"), num)
    _, states = rows.along(order, weights)
    scores = np.full((num, num_models), -np.inf)
    scores[:, -1] = np.inf
    ends = np.arange(num_models) == num_models - 1
    return rows.way(order, np.asarray(states.leader), scores, np.ones(num_models), ends)


def one_shot(rows: Rows, nonconformity: np.ndarray, weights: np.ndarray) -> Way:
    """A set chosen before anyone has answered, which then votes.

    Models `[n, m]` in order of nonconformity.

    Use this when the policy is compared with RACER's sets.
    """
    order = np.argsort(nonconformity, axis=1, kind="stable")
    _, states = rows.along(order, weights)
    leader = np.array(states.leader)
    leader[:, -1] = rows.reference
    following = np.take_along_axis(nonconformity, order, axis=1)[:, 1:]
    scores = np.column_stack([following, np.full(len(order), np.inf)])
    return rows.way(order, leader, scores, np.ones(order.shape[1]))


def one_shot_nonconformities(
    key: jax.Array, train: RoutingTable, rest: RoutingTable, k: int
) -> dict[str, np.ndarray]:
    """Nonconformities `[n, m]` of the sets that are chosen before anyone has answered.

    Use this when `one_shot` is to stand for RACER-P, -G, -J and the static order.
    """
    x, z = hashed_embeddings(key, train, rest)
    scores = KNNR.fit(x, train.correct, k=min(k, len(train)))(z)
    return {
        "RACER-P": np.asarray(inverse_probability(scores, "free"))[:, :-1],
        "RACER-G": np.asarray(scores.max(axis=1, keepdims=True) - scores),
        "RACER-J": fit_order("J", x, train.correct, None)(z, None, "free")[:, :-1],
        "static": fit_order("static", x, train.correct, None)(z, None, "free")[:, :-1],
    }


# --- the exact mean over all splits, query by query -----------------------------------------------


def rank_law(rank: int, num: int, size: int) -> np.ndarray:
    """The law of the `rank`-th of `num` ranks drawn of `size`, float64 `[size]`.

    Use this when splits in halves are replaced by their law.
    """
    j = np.arange(size, dtype=np.float64)

    def log_choose(n: np.ndarray, k: float) -> np.ndarray:
        inside = (n >= k) & (k >= 0)
        n = np.where(inside, n, k)
        value = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
        return np.where(inside, value, -np.inf)

    law = np.exp(log_choose(j, rank - 1) + log_choose(size - 1 - j, num - rank))
    return np.asarray(law / law.sum())


def means_by_query(way: Way, ties: np.ndarray, alphas: list[str]) -> dict[str, np.ndarray]:
    """Mean of each metric of each query over all splits in halves that test it, `[a, n]` by name.

    Given that a query is tested, the calibration rows are a uniform subset of the others, so the
    threshold is the critical score of a rank whose law is negative hypergeometric.

    Use this when a mean over all splits is needed without drawing any.
    """
    num = len(way.scores)
    calibrating = num // 2
    keys = jnp.asarray(ties)
    critical = stop_critical_scores(way.scores, way.losses, keys)
    limits = ordered_keys(np.asarray(critical.value), np.asarray(critical.tie))
    order = np.argsort(limits, kind="stable")
    rows = np.arange(num)
    position = np.empty(num, np.int64)
    position[order] = rows
    # A query has stopped by call j at the thresholds below the largest of its first j scores:
    # `below` counts these. A score of -inf stops at none, +inf also at +inf, which is the last.
    scores = np.asarray(way.scores, np.float32)  # as in the critical scores
    below = np.searchsorted(limits[order], ordered_keys(scores, ties))
    below = np.where(scores == -np.inf, 0, below)
    below = np.where(scores == np.inf, num + 1, below)
    below = np.maximum.accumulate(below, axis=1)
    place = (below <= np.arange(num + 1)[:, None, None]).sum(axis=2)
    # The chance of each threshold, given that the query is tested; it depends on the query by its
    # own place alone, which is left out of the ranks of the others.
    others = np.arange(num - 1)[:, None] + (np.arange(num - 1)[:, None] >= position)
    weights = np.zeros((len(alphas), num + 1, num))
    for weight, alpha in zip(weights, alphas, strict=True):
        budget = miss_budget(alpha, calibrating)
        if budget < 0:
            weight[-1] = 1.0
        else:
            law = rank_law(calibrating - budget, calibrating, num - 1)
            weight[others, rows] = law[:, None]
    return {
        name: np.einsum("atn,tn->an", weights, table[rows, place])
        for name, table in way.metrics.items()
    }


class QuestionMeans:
    """Means of a cell by question, added up over the draws of the training part.

    Use this when standard errors shall be over questions.
    """

    def __init__(self, num: int) -> None:
        self.count = np.zeros(num)
        self.totals: dict[str, np.ndarray] = {}
        self.risk: list[float] = []

    def add(self, rows: np.ndarray, values: dict[str, np.ndarray]) -> None:
        """Adds the values of the rows of one draw. Use this when a draw is measured."""
        self.count[rows] += 1
        for name, value in values.items():
            self.totals.setdefault(name, np.zeros(len(self.count)))[rows] += value

    def mean(self, name: str) -> tuple[float, float]:
        """Mean over questions and its standard error; nan where not logged.

        Use this when all draws are there.
        """
        if name not in self.totals:
            return float("nan"), float("nan")
        nonzero = self.count > 0
        value = self.totals[name][nonzero] / self.count[nonzero]
        return float(value.mean()), float(value.std(ddof=1) / np.sqrt(len(value)))
