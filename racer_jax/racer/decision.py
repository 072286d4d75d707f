"""What a racer answers: which models to call, in which order, and why."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from math import isfinite
from typing import Any, overload

import numpy as np


class Reason(StrEnum):
    """Why these models are called."""

    OK = "ok"
    ABSTAIN = "abstain"
    INFEASIBLE = "alpha infeasible"
    UNKNOWN_GROUP = "unknown group"


def _number(value: float) -> float | str:
    """JSON has no infinity."""
    return value if isfinite(value) else str(value)


@dataclass(frozen=True)
class Decision:
    """The decision on one query.

    Attributes:
      models: The models to call, most plausible first; empty where the racer abstains.
      scores: The router's score of every model, in [0, 1].
      margins: Threshold minus nonconformity of every model: those that are called have at least 0.
      threshold: The threshold; infinite where every model is called whatever its score.
      reason: `ok`; `abstain`: no model is plausible enough; `alpha infeasible`: no finite threshold
        keeps alpha, so every model is called; `unknown group`: nobody calibrated on the query's
        group, so every model is called.
      alpha: The risk level.
      group: The group of the query, None where there is none.
      expected_cost: Dollars, the mean costs of the called models added up; None where costs are not
        known.
    """

    models: tuple[str, ...]
    scores: Mapping[str, float]
    margins: Mapping[str, float]
    threshold: float
    reason: Reason
    alpha: str
    group: str | None = None
    expected_cost: float | None = None

    @property
    def abstained(self) -> bool:
        """Whether no model is called."""
        return not self.models

    def explain(self) -> str:
        """The decision in words."""
        of_group = "" if self.group is None else f" of group {self.group!r}"
        num = len(self.scores)
        if self.reason is Reason.ABSTAIN:
            lead = f"Call no model: none of {num} is plausible enough at alpha = {self.alpha}{of_group}."
        elif self.reason is Reason.UNKNOWN_GROUP:
            named = (
                "no group was given"
                if self.group is None
                else f"nobody calibrated on group {self.group!r}"
            )
            lead = f"Call every model: {named}, so nothing is promised for fewer."
        elif self.reason is Reason.INFEASIBLE:
            lead = f"Call every model: no threshold{of_group} keeps the risk at most {self.alpha}."
        else:
            lead = (
                f"Call {', then '.join(self.models)}: {len(self.models)} of {num} models are plausible enough at "
                f"alpha = {self.alpha}{of_group}."
            )
        told = []
        for model, score in sorted(
            self.scores.items(), key=lambda item: (-self.margins[item[0]], -item[1])
        ):
            margin = self.margins[model]
            side = "called" if model in self.models else "left out"
            by = f" by {abs(margin):.3f}" if isfinite(margin) else ""
            told.append(f"{model} {score:.3f} ({side}{by})")
        threshold = f"threshold {self.threshold:.4g}"
        cost = "" if self.expected_cost is None else f" Expected cost ${self.expected_cost:.4g}."
        return f"{lead} Scores: {'; '.join(told)}; {threshold}.{cost}"

    def to_dict(self) -> dict[str, Any]:
        """The decision as plain values; infinities as the strings `inf` and `-inf`."""
        plain = asdict(self)
        plain["models"] = list(self.models)
        plain["abstained"] = self.abstained
        plain["reason"] = str(self.reason)
        plain["threshold"] = _number(self.threshold)
        plain["margins"] = {model: _number(margin) for model, margin in self.margins.items()}
        return plain

    def to_json(self) -> str:
        """One line of JSON; `from_json` reads it back without loss."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Decision":
        """The decision `to_dict` gave.

        Raises:
          ValueError: If a field is missing, unknown or not what it should be.
        """
        names = {field.name for field in fields(cls)}
        values = {name: value for name, value in plain.items() if name != "abstained"}
        if set(values) != names:
            raise ValueError(
                f"a decision must have the fields {sorted(names)}, got {sorted(values)}"
            )
        try:
            return cls(
                models=tuple(values["models"]),
                scores={str(model): float(score) for model, score in values["scores"].items()},
                margins={str(model): float(margin) for model, margin in values["margins"].items()},
                threshold=float(values["threshold"]),
                reason=Reason(values["reason"]),
                alpha=str(values["alpha"]),
                group=values["group"],
                expected_cost=values["expected_cost"],
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"not a decision: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> "Decision":
        """The decision `to_json` wrote.

        Raises:
          ValueError: If the text is not the JSON of a decision.
        """
        plain = json.loads(text)
        if not isinstance(plain, dict):
            raise ValueError(f"a decision must be a JSON object, got {type(plain).__name__}")
        return cls.from_dict(plain)


@dataclass(frozen=True, eq=False)
class Decisions(Sequence[Decision]):
    """The decisions on several queries: arrays for those who want arrays, a sequence of `Decision` for the others.

    Attributes:
      pool: Names of the models, `[m]`.
      scores: s(x, m), float32 `[n, m]`.
      nonconformity: E(x, m), float32 `[n, m + 1]`, null model last.
      sets: Which models are in the set, bool `[n, m + 1]`, null model last.
      order: The models by nonconformity, int `[n, m]`.
      threshold: The threshold of each query, float32 `[n]`.
      reasons: Why, `[n]`.
      alpha: The risk level.
      groups: The group of each query, or None.
      cost: Mean dollars of each model, float64 `[m]`, or None.
    """

    pool: tuple[str, ...]
    scores: np.ndarray
    nonconformity: np.ndarray
    sets: np.ndarray
    order: np.ndarray
    threshold: np.ndarray
    reasons: tuple[Reason, ...]
    alpha: str
    groups: Sequence[str | None] | None = None
    cost: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def called(self) -> np.ndarray:
        """Whether each model is called, bool `[n, m]`."""
        return self.sets[:, :-1]

    @overload
    def __getitem__(self, index: int) -> Decision: ...

    @overload
    def __getitem__(self, index: slice) -> list[Decision]: ...

    def __getitem__(self, index: int | slice) -> Decision | list[Decision]:
        if isinstance(index, slice):
            return [self._decision(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be between {-len(self)} and {len(self) - 1}, got {index}")
        return self._decision(index % len(self))

    def __iter__(self) -> Iterator[Decision]:
        return map(self._decision, range(len(self)))

    def _decision(self, i: int) -> Decision:
        called, threshold = self.sets[i].tolist(), float(self.threshold[i])
        models = tuple(self.pool[j] for j in self.order[i].tolist() if called[j])
        margins = [threshold - e for e in self.nonconformity[i].tolist()]
        cost = None if self.cost is None else float(self.cost[self.sets[i, :-1]].sum())
        return Decision(
            models=models,
            scores=dict(zip(self.pool, self.scores[i].tolist(), strict=True)),
            margins=dict(zip(self.pool, margins, strict=False)),
            threshold=threshold,
            reason=self.reasons[i],
            alpha=self.alpha,
            group=None if self.groups is None else self.groups[i],
            expected_cost=cost,
        )


def reasons(sets: np.ndarray, infinite: np.ndarray, unknown: np.ndarray) -> tuple[Reason, ...]:
    """The reason of each query, from its set `[n, m + 1]` and whether its threshold is infinite, its group unknown."""
    code = np.where(unknown, 3, np.where(infinite, 2, np.where(sets[:, :-1].any(axis=1), 0, 1)))
    names = (Reason.OK, Reason.ABSTAIN, Reason.INFEASIBLE, Reason.UNKNOWN_GROUP)
    return tuple(names[c] for c in code.tolist())
