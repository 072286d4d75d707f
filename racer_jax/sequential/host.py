"""One query's path on the host: the state of the vote after each answer, in plain Python.

The same numbers as `racer_jax.risk_control.vote_path` to the last bit, since all sums are exact,
without the cost of a call to a device: some microseconds a step.
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import numpy as np

from racer_jax.risk_control.stopping import Loss
from racer_jax.sequential.policy import Policy


class HostState(NamedTuple):
    """Where a query stands after some calls.

    Use this when you read what `HostScorer.state` returns.

    Attributes:
      leader: The leading answer; None while no model has answered.
      is_decided: Whether the answers to come cannot change it.
      score: The stopping score, without the rule for decided and last calls.
    """

    leader: str | None
    is_decided: bool
    score: float


class HostScorer:
    """Scores the states of one query after another, for one loss.

    Use this when queries come one by one; `replay` scores many at once.

    Args:
      policy: The policy.
      loss: The loss whose risk model scores.
    """

    def __init__(self, policy: Policy, loss: Loss) -> None:
        risk = policy.risk[loss]
        self._weights: list[float] = policy.weights.tolist()
        weight_after = policy.weights.sum() - np.cumsum(policy.weights)
        self._weight_after: list[float] = weight_after.tolist()
        self._table: list[list[float]] = risk.coefficients.tolist()
        self._offset = dict(zip(policy.groups, risk.groups.tolist(), strict=False))

    def state(self, answers: Sequence[str | None], group: str | None) -> HostState:
        """The state after the first calls.

        Use this when a query has some answers.

        Args:
          answers: Their answers in normal form, in the order of the calls, at least one.
          group: The query's group.
        """
        sums: dict[str, float] = {}
        votes: dict[str, int] = {}
        for answer, weight in zip(answers, self._weights, strict=False):
            if answer is not None:
                sums[answer] = sums.get(answer, 0.0) + weight
                votes[answer] = votes.get(answer, 0) + 1
        # A dict keeps the order of first appearance, so max finds the first of equal sums.
        leader = max(sums, key=sums.__getitem__) if sums else None
        last = len(answers) - 1
        weight_after = self._weight_after[last]
        first, is_decided = 0.0, leader is not None
        second, second_votes, earlier = 0.0, 0, leader is not None
        for answer, total in sums.items():
            if answer == leader:
                first, earlier = total, False
                continue
            second, second_votes = max(second, total), max(second_votes, votes[answer])
            lead = sums[leader] - total if leader is not None else 0.0
            if weight_after > lead or (weight_after == lead and earlier):
                is_decided = False
        if weight_after > first:
            is_decided = False
        row = self._table[last]
        leader_votes = votes.get(leader, 0) if leader is not None else 0
        missing = len(answers) - sum(votes.values())
        linear = (
            row[0]
            + row[1] * first
            + row[2] * second
            + row[3] * (first - second)
            + row[4] * leader_votes
            + row[5] * second_votes
            + row[6] * len(sums)
            + row[7] * missing
        )
        if leader is not None:
            for place, answer in enumerate(answers, start=8):
                if answer == leader:
                    linear += row[place]
        offset = self._offset.get(group, 0.0) if group is not None else 0.0
        return HostState(leader, is_decided, offset - linear)


def is_above(score: float, tie: int, threshold: tuple[float, int]) -> bool:
    """Whether the pair (score, tie) is above the threshold, as `stops_at` compares them.

    Use this when a score is compared with a threshold on the host.
    """
    if score in (inf, -inf):
        return score > 0
    return (score, tie) > threshold
