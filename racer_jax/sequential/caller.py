"""One query in use: which models to call next, and when their answers are enough."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np

from racer_jax.sequential.calibration import StopCalibration
from racer_jax.sequential.host import HostScorer, is_above
from racer_jax.sequential.normal_forms import NormalForm
from racer_jax.sequential.policy import Policy

_TOP = 0xFFFFFFFF


@dataclass(frozen=True)
class CallState:
    """Where a query stands: the models to call now, or its answer.

    Use this when you read what `Cascade.start` and `Cascade.tell` return.

    Attributes:
      call: Names of the models whose answers are awaited; empty once there is an answer.
      answer: The answer in normal form; None while models are awaited, where it abstained, or where
        no model answered.
      reason: `decided` (no answers to come can change it), `risk` (the predicted loss is small
        enough), `all called`, `abstained`; None while models are awaited.
      calls: Number of models that were called and have answered or failed.
      cost: Dollars of these calls, from `dollars` where `tell` was given them and else the mean of
        the training rows; None where neither is known.
      answers: The answers heard so far by model, in normal form, None for no answer.
      score: The stopping score after the last complete batch; None before.
      group: The query's group.
      ties: Second keys of the scores, one for each call.
      spent: Dollars of each call heard, by model.
    """

    call: tuple[str, ...]
    answer: str | None = None
    reason: str | None = None
    answers: Mapping[str, str | None] = field(default_factory=dict)
    score: float | None = None
    group: str | None = None
    ties: tuple[int, ...] = ()
    spent: Mapping[str, float] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether there is nothing more to call."""
        return self.reason is not None

    @property
    def calls(self) -> int:
        """Number of models that were called and have answered or failed."""
        return len(self.answers)

    @property
    def cost(self) -> float | None:
        """Dollars of the calls heard; None where those of one are not known."""
        return sum(self.spent.values()) if len(self.spent) == len(self.answers) else None

    def to_dict(self) -> dict[str, Any]:
        """The state as plain values for JSON.

        Use this when a state waits on disk or goes to another process.
        """
        state: dict[str, Any] = {"call": list(self.call)}
        if self.done:
            state = {"answer": self.answer, "reason": self.reason}
        return {**state, "calls": self.calls, "cost": self.cost}


def _check_steps(state: object, answers: object, dollars: object) -> None:
    """Refuses what is no step of a query.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If dollars are no amount, or of a model whose answer is not among these.
    """
    if not isinstance(state, CallState):
        raise TypeError(f"state must be what start or tell returned, got {type(state).__name__}")
    for name, value in (("answers", answers), ("dollars", {} if dollars is None else dollars)):
        if not isinstance(value, Mapping):
            raise TypeError(f"{name} must be by model, such as {{'a': ...}}, got {value!r}")
        for model, amount in value.items() if name == "dollars" else ():
            if isinstance(amount, bool) or not isinstance(amount, int | float | np.number):
                raise TypeError(f"dollars of {model!r} must be a number, got {amount!r}")
            if not 0 <= float(amount) < inf:
                raise ValueError(f"dollars of {model!r} must be at least 0, got {amount!r}")
            if model not in answers:  # type: ignore[operator]
                raise ValueError(f"dollars must be of models that answer now, got {model!r}")


class Caller:
    """Carries out a policy, one query at a time, on the host.

    Use this when you have a policy by itself; `Cascade.start` and `Cascade.tell` do it for a
    cascade.

    Args:
      policy: The policy.
      calibration: Where it may stop before the vote is decided; None for nowhere.
      form: From what a model wrote to its normal form.
    """

    def __init__(
        self, policy: Policy, calibration: StopCalibration | None, form: NormalForm
    ) -> None:
        self._policy, self._calibration, self._form = policy, calibration, form
        self._loss = policy.loss if calibration is None else calibration.loss
        # Whoever is not calibrated always has an answer, decided or that of all.
        if calibration is None and self._loss in ("wrong", "covers"):
            self._loss = "regret"
        self._scorer = HostScorer(policy, self._loss)
        self._calls = policy.calls
        self._cost = None if policy.mean_cost is None else policy.mean_cost.tolist()
        ends = (np.flatnonzero(policy.ends) + 1).tolist()
        # The models of each batch, by the number of calls made before it.
        starts = [0, *ends[:-1]]
        self._batches = {
            first: self._calls[first:end] for first, end in zip(starts, ends, strict=True)
        }

    def start(self, ties: np.ndarray, group: str | None) -> CallState:
        """The first models to call, for a query with these second keys, uint32 `[b]`.

        Use this when a query is new.
        """
        if self._calibration is None and self._policy.reference == "best":
            return CallState((self._calls[-1],), group=group)
        return CallState(self._batches[0], group=group, ties=tuple(ties.tolist()))

    def tell(
        self,
        state: CallState,
        answers: Mapping[str, str | None],
        dollars: Mapping[str, float] | None,
    ) -> CallState:
        """The state after hearing some of the models that are awaited.

        Use this when answers have come.
        """
        _check_steps(state, answers, dollars)
        all_answers, all_costs = dict(state.answers), dict(state.spent)
        for model, answer in answers.items():
            self._check_told(state, model, answer)
            all_answers[model] = None if answer is None else self._in_form(answer)
            price = None if dollars is None else dollars.get(model)
            if price is None and self._cost is not None:
                price = self._cost[self._calls.index(model)]
            if price is not None:
                all_costs[model] = price
        missing_models = tuple(model for model in state.call if model not in answers)
        state = replace(state, call=missing_models, answers=all_answers, spent=all_costs)
        return state if missing_models else self._decided(state)

    def _check_told(self, state: CallState, model: str, answer: object) -> None:
        if model not in state.call:
            if model in state.answers:
                raise ValueError(f"model {model!r} has an answer already for this query")
            expectation = f"the models asked are {list(state.call)}"
            if state.done:
                expectation = "this query has its answer"
            raise ValueError(f"model {model!r} was not asked: {expectation}")
        if answer is not None and not isinstance(answer, str):
            raise TypeError(
                f"the answer of {model!r} must be a string, or None for no answer, got "
                f"{type(answer).__name__}"
            )

    def _in_form(self, answer: str) -> str | None:
        """An answer in normal form; a form of one's own may give anything."""
        normal: object = self._form(answer)
        if normal is not None and not isinstance(normal, str):
            raise TypeError(
                "the normal form must give a string, or None for no answer, got "
                f"{type(normal).__name__}"
            )
        return normal

    def _decided(self, state: CallState) -> CallState:
        """What follows from a complete batch."""
        if not state.ties:  # not calibrated, and a single model is the reference
            return replace(state, answer=next(iter(state.answers.values())), reason="decided")
        num_calls = len(state.answers)
        answers = [state.answers[model] for model in self._calls[:num_calls]]
        now = self._scorer.state(answers, state.group)
        safe = now.leader is not None and self._safe(state, now.score)
        answer, reason = now.leader, None
        if num_calls == len(self._calls):
            reason = "all called"
            if self._policy.reference == "best":
                answer = answers[-1]
            if self._policy.settled(self._loss) == "never" and not safe:
                answer, reason = None, "abstained"
        elif now.is_decided and self._policy.settled(self._loss) == "vote":
            reason = "decided"
        elif safe:
            reason = "risk"
        if reason is not None:
            return replace(state, answer=answer, reason=reason, score=now.score)
        return replace(state, call=self._batches[num_calls], score=now.score)

    def _safe(self, state: CallState, score: float) -> bool:
        """Whether the score after the calls heard is above the threshold."""
        threshold = (inf, _TOP)
        if self._calibration is not None:
            threshold = self._calibration.threshold(state.group)
        return is_above(score, state.ties[len(state.answers) - 1], threshold)
