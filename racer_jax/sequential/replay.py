r"""Paths replayed on logged tables.

What a policy would have called, answered and paid at any threshold.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.aggregation import NO_ANSWER
from racer_jax.core.nonconformity import TieBroken
from racer_jax.data.table import RoutingTable
from racer_jax.montecarlo.step_functions import Pool, pool_steps
from racer_jax.risk_control.stopping import (
    Loss,
    path_nonconformity,
    stop_critical_scores,
    stop_losses,
)
from racer_jax.risk_control.vote_path import PathStates, path_states, stopping_scores
from racer_jax.sequential.logged_tables import check_labels, check_table
from racer_jax.sequential.policy import (
    Policy,
    batch_last,
    check_answers,
    group_codes,
    leaders,
)


@dataclass(frozen=True, eq=False)
class Paths:
    """The paths of logged queries under a policy: all that stopping at each call would have given.

    Use this when you read what `replay` returns.

    Attributes:
      policy: The policy.
      codes: Answer codes of the pool, int32 `[n, m]`.
      correct: Whether each is right, bool `[n, m]`; None where the rows have no labels.
      group: Code of each query's group among those of the policy, -1 for none, int32 `[n]`.
      reference: Code of the reference's answer, int32 `[n]`.
      states: The state after each call.
      leader: The answer after each call, the reference's after the last, int32 `[n, b]`.
      cost: Dollars of each call, float64 `[n, b]`; None where not logged.
    """

    policy: Policy
    codes: np.ndarray
    correct: np.ndarray | None
    group: np.ndarray
    reference: np.ndarray
    states: PathStates
    leader: jax.Array
    cost: np.ndarray | None

    def scores(self, loss: Loss) -> jax.Array:
        """Stopping scores for a loss, float32 `[n, b]`.

        Use this when you want the scores for another loss than that of the calibration.
        """
        risk = self.policy.risk[loss]
        offset = np.append(risk.groups, 0.0)[self.group].astype(np.float32)
        scores: jax.Array = stopping_scores(
            self.states,
            jnp.asarray(risk.coefficients, jnp.float32),
            jnp.asarray(offset),
            jnp.asarray(self.policy.ends),
            self.policy.settled(loss),
        )
        return scores

    def losses(self, loss: Loss) -> jax.Array:
        """The loss of stopping after each call, bool `[n, b]`.

        Use this when you want to see where stopping would have been wrong.
        """
        codes = self.codes
        if loss == "differs":
            return stop_losses(loss, self.leader, codes, self.reference)
        correct, answerable = self._labels, self._labels.any(axis=1)
        if loss == "covers":
            calls = list(self.policy.order)
            codes, correct = codes[:, calls], correct[:, calls]
        return stop_losses(loss, self.leader, codes, self.reference, correct, answerable)

    def critical(self, loss: Loss, tie_break: jax.Array | None = None) -> Any:
        """Critical scores of the envelope `[n]`, a `TieBroken` pair with a tie-break `[n, b]`.

        Use this when you calibrate a stopping threshold yourself; `Cascade.calibrate` does it for
        you.
        """
        scores = self.scores(loss)
        if tie_break is None:
            return stop_critical_scores(scores, self.losses(loss))
        return stop_critical_scores(scores, self.losses(loss), tie_break)

    @property
    def _labels(self) -> np.ndarray:
        if self.correct is None:
            raise ValueError("the rows have no labels; only the loss 'differs' needs none")
        return self.correct

    def right(self, code: ArrayLike) -> np.ndarray:
        """Whether answers `[n, k]` are those of a model that is right, bool `[n, k]`.

        Use this when you want to see which answers along the path are right.
        """
        has_answer = self._labels & (self.codes != NO_ANSWER)
        same = np.asarray(code)[:, :, None] == self.codes[:, None, :]
        return np.asarray((same & has_answer[:, None, :]).any(axis=2))

    @cached_property
    def metrics(self) -> dict[str, np.ndarray]:
        """Each metric of a query by the call it stops after, float64 `[n, b + 1]`.

        The last entry is for a query that abstains.

        `calls`, `rounds` (batches), `differs` and `abstained`; with labels `accuracy` and `regret`;
        with logged costs `dollars`.
        """
        num, num_calls = self.leader.shape
        last = batch_last(self.policy.ends)
        num_called = np.broadcast_to(last + 1.0, (num, num_calls))
        rounds = np.cumsum(self.policy.ends) - self.policy.ends + 1.0
        values = {
            "calls": num_called,
            "rounds": np.broadcast_to(rounds, num_called.shape),
            "differs": np.asarray(self.losses("differs"), np.float64),
        }
        at_end = {}
        if self.cost is not None:
            values["dollars"] = np.cumsum(self.cost, axis=1)[:, last]
        if self.correct is not None:
            values["accuracy"] = self.right(self.leader).astype(np.float64)
            values["regret"] = np.asarray(self.losses("regret"), np.float64)
            at_end["accuracy"] = np.zeros(num)
        at_end["differs"] = np.ones(num)
        tables = {
            name: np.column_stack([table, at_end.get(name, table[:, -1])])
            for name, table in values.items()
        }
        if self.correct is not None:
            tables["regret"][:, -1] = self.right(self.reference[:, None])[:, 0]
        no_answer = np.zeros((num, num_calls + 1))
        no_answer[:, -1] = 1.0
        return {**tables, "abstained": no_answer}

    def pool(self, loss: Loss, tie_break: jax.Array | None = None) -> Pool:
        """The paths in rank space, for `split_trials`, `pool_law` and all that reads a pool.

        Use this when you want the laws or trials of a cascade.
        """
        return stopping_pool(self.scores(loss), self.losses(loss), self.metrics, tie_break)


def stopping_pool(
    scores: ArrayLike,
    losses: ArrayLike,
    metrics: dict[str, np.ndarray],
    tie_break: jax.Array | None = None,
) -> Pool:
    """Paths in rank space, for random splits: their risk, and metrics by the number of calls.

    The metric `risk` is that of the envelope.

    The columns of the running maximum stand for the calls and, last, for abstaining; the null
    model's column holds the critical score, so it is the one that is never right by chance.

    Use this when you have stopping scores and losses of your own and want the risk over random
    splits; `Paths.pool` makes the pool of replayed queries.

    Args:
      scores: Stopping scores, floating `[n, b]`.
      losses: Loss of stopping, bool `[n, b]`.
      metrics: Tables `[n, b + 1]`: the value of a query that stops after each call, and that of one
        that abstains after the last.
      tie_break: Second keys, uint32 `[n, b]`.

    Returns:
      The `Pool` of `risk` and the metrics.
    """
    columns: jax.Array | None = None
    if tie_break is None:
        running, critical = path_nonconformity(scores), stop_critical_scores(scores, losses)
        nonconformity = jnp.concatenate([running, critical[:, None]], axis=1)
    else:
        pair = path_nonconformity(scores, tie_break)
        at: TieBroken = stop_critical_scores(scores, losses, tie_break)
        nonconformity = jnp.concatenate([pair.value, at.value[:, None]], axis=1)
        columns = jnp.concatenate([pair.tie, at.tie[:, None]], axis=1)
    # No column is right but the null model's: the critical score of the pool is the envelope's.
    none = np.zeros((len(nonconformity), nonconformity.shape[1] - 1), bool)
    # No query stops before the first call: no call is worth as much as one.
    tables = {name: np.column_stack([table[:, 0], table]) for name, table in metrics.items()}
    pool = pool_steps(nonconformity, none, columns, metrics=tables)
    return pool.only("risk", *metrics)


def replay(policy: Policy, table: RoutingTable) -> Paths:
    """The paths of the logged queries of a table.

    Use this when you have a `Policy` without a cascade; `Cascade.replay` does the same for a
    cascade.

    Args:
      policy: The policy.
      table: Rows with the answer of every model, matched by name; further models are left out.
        Rows without labels (`missing`) are replayed for the loss `differs` alone.

    Returns:
      The calls of every query, and the vote after each.

    Raises:
      ValueError: If the table has no answers or lacks a model.
    """
    check_table(table)
    table = table.aligned(policy.models)
    codes = check_answers(table)
    correct: np.ndarray | None = None
    if table.missing is None:
        check_labels(table)
        correct = np.asarray(table.correct)
    order = list(policy.order)
    states = path_states(codes[:, order], policy.weights.astype(np.float32))
    reference = np.asarray(states.leader[:, -1])
    if policy.reference == "best":
        reference = codes[:, order[-1]]
    cost: np.ndarray | None = None
    if table.cost is not None and not np.isnan(table.cost[:, order]).any():
        cost = table.cost[:, order]
    group = group_codes(table.group, policy.groups, len(table))
    leader = leaders(states, reference)
    return Paths(policy, codes, correct, group, reference, states, leader, cost)
