"""What a racer answers: which models to call, in which order, and why."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from math import inf, isfinite
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.aggregation import (
    NO_ANSWER,
    answer_codes,
    log_odds,
    majority_vote,
    weighted_vote,
)
from racer_jax.core.sort_keys import entry_keys
from racer_jax.data.errors import printable
from racer_jax.racer.calibration import Calibration
from racer_jax.racer.limits import limited
from racer_jax.racer.scoring import ModelScores

Groups: TypeAlias = Sequence[str | None] | str | None
WEIGHTINGS = ("majority", "score", "log_odds", "confidence")


class Reason(StrEnum):
    """Why these models are called.

    One of `Reason.OK`, `Reason.ABSTAIN`, `Reason.INFEASIBLE`, `Reason.UNKNOWN_GROUP` and
    `Reason.POOLED_GROUP`.

    Their texts, as `Decision.reason` explains them: `ok`, `abstain`, `alpha infeasible`,
    `unknown group` and `unknown group, pooled threshold`.

    Use this when your program does different things for different reasons: `Decision.reason` is one
    of these.
    """

    OK = "ok"
    ABSTAIN = "abstain"
    INFEASIBLE = "alpha infeasible"
    UNKNOWN_GROUP = "unknown group"
    POOLED_GROUP = "unknown group, pooled threshold"


def _number(value: float) -> float | str:
    """JSON has no infinity."""
    return value if isfinite(value) else str(value)


@dataclass(frozen=True)
class Decision:
    """The decision on one query.

    Use this when you read what `Racer.route` returns for one query.

    Attributes:
      models: The models to call, most plausible first; empty where the racer abstains.
      scores: The router's score of every model, in [0, 1].
      margins: Threshold minus nonconformity of every model: those that are called have at least 0.
      threshold: The threshold; infinite where every model is called whatever its score.
      reason: `ok`; `abstain`: no model is plausible enough; `alpha infeasible`: no finite threshold
        keeps alpha, so every model is called; `unknown group`: no calibration query is of the
        query's group, so every model is called; `unknown group, pooled threshold`: likewise, and
        the threshold of all groups together was used, as calibration said.
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
        """The decision in words; control characters in names are escaped.

        Use this when a person asks why these models are called.
        """
        of_group = "" if self.group is None else f" in group {self.group!r}"
        num = len(self.scores)
        unknown = "no group was given"
        if self.group is not None:
            unknown = f"there was no calibration query of group {self.group!r}"
        every = "every model"
        if len(self.models) < num:
            every = f"{', then '.join(map(printable, self.models))} (at most {len(self.models)})"
        if self.reason is Reason.ABSTAIN:
            lead = (
                f"Call no model: at alpha = {self.alpha}{of_group} none of the {num} models is "
                "plausible enough."
            )
        elif self.reason is Reason.UNKNOWN_GROUP:
            what = "is promised" if len(self.models) < num else "would be promised for fewer"
            lead = f"Call {every}: {unknown}, so nothing {what}."
        elif self.reason is Reason.POOLED_GROUP:
            called = ", then ".join(map(printable, self.models)) or "no model"
            lead = (
                f"Call {called}: {unknown}, so the threshold of all groups is used, and nothing is "
                "promised for this query."
            )
        elif self.reason is Reason.INFEASIBLE:
            lead = f"Call {every}: no threshold{of_group} keeps the risk to at most {self.alpha}."
        else:
            verb = "is" if len(self.models) == 1 else "are"
            lead = (
                f"Call {', then '.join(map(printable, self.models))}: {len(self.models)} of {num} "
                f"models {verb} plausible enough at alpha = {self.alpha}{of_group}."
            )
        order = sorted(self.scores, key=lambda name: (-self.margins[name], -self.scores[name]))
        details = "; ".join(
            f"{printable(name)} {self.scores[name]:.3f} ({self._distance(name)})" for name in order
        )
        cost = "" if self.expected_cost is None else f" Expected cost ${self.expected_cost:.4g}."
        above = " The set is chosen by what each model adds, not by its score alone."
        above = "" if self._follows_scores() else above
        return (
            f"{lead} Score of each model, and in brackets how far its nonconformity is below (+, "
            f"in the set) or above (-, left out) the threshold: {details}. Threshold of the "
            f"nonconformity: {self.threshold:.4g}.{above}{cost}"
        )

    def _follows_scores(self) -> bool:
        """Whether no model with a higher score is further from the set than one with a lower."""
        pairs = [
            (self.scores[name], margin) for name, margin in self.margins.items() if isfinite(margin)
        ]
        margins = [margin for _, margin in sorted(pairs)]
        return margins == sorted(margins)

    def _distance(self, model: str) -> str:
        """How far a model is inside or outside the set, where that is a number."""
        margin = self.margins[model]
        if isfinite(margin):
            return f"{margin:+.3f}"
        return "called" if model in self.models else "left out"

    def to_dict(self) -> dict[str, Any]:
        """The decision as plain values; infinities as the strings `inf` and `-inf`.

        Use this when the decision goes into a larger object of JSON.
        """
        plain = asdict(self)
        plain["models"] = list(self.models)
        plain["abstained"] = self.abstained
        plain["reason"] = str(self.reason)
        plain["threshold"] = _number(self.threshold)
        plain["margins"] = {model: _number(margin) for model, margin in self.margins.items()}
        return plain

    def to_json(self) -> str:
        """One line of JSON; `from_json` reads it back without loss.

        Use this when the decision goes to a file or another program.
        """
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Decision":
        """The decision `to_dict` gave.

        Use this when you read what `to_dict` gave.

        Raises:
          ValueError: If a field is missing, unknown or not what it should be.
        """
        names = {field.name for field in fields(cls)}
        values = {name: value for name, value in plain.items() if name != "abstained"}
        if set(values) != names:
            absent, unknown = sorted(names - set(values)), sorted(set(values) - names)
            problem = f"lacks {', '.join(absent)}" if absent else f"has {', '.join(unknown)} too"
            raise ValueError(
                f"a decision must have the fields that `to_dict` and `racer-jax route` write; this "
                f"{problem}"
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

        Use this when you read what `to_json` gave.

        Raises:
          ValueError: If the text is not the JSON of a decision.
        """
        plain = json.loads(text)
        if not isinstance(plain, dict):
            raise ValueError(f"a decision must be a JSON object, got {type(plain).__name__}")
        return cls.from_dict(plain)


@dataclass(frozen=True, eq=False)
class Decisions(Sequence[Decision]):
    """The decisions on several queries, as arrays and as a sequence of `Decision`.

    Use this when you read what `Racer.route` returns for several queries, or `Racer.route_scores`;
    its items are `Decision` objects.

    Attributes:
      pool: Names of the models, `[m]`.
      scores: s(x, m), float32 `[n, m]`.
      nonconformity: E(x, m), float32 `[n, m + 1]`, null model last.
      sets: Which models are in the set, bool `[n, m + 1]`, null model last.
      order: The models by nonconformity, int `[n, m]`.
      threshold: The threshold of each query, float32 `[n]`.
      reasons: Reason of each decision, `[n]`.
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
        is_called, threshold = self.sets[i].tolist(), float(self.threshold[i])
        models = tuple(self.pool[j] for j in self.order[i].tolist() if is_called[j])
        # A model that a cap leaves out has E = +inf, and is left out at an infinite threshold too.
        margins = [-inf if e == inf else threshold - e for e in self.nonconformity[i].tolist()]
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


def reasons(
    sets: np.ndarray, infinite: np.ndarray, unknown: np.ndarray, policy: str = "all"
) -> tuple[Reason, ...]:
    """The reason of each query.

    Use this when sets and thresholds are there.

    Args:
      sets: Its set, bool `[n, m + 1]`.
      infinite: Whether its threshold is infinite, bool `[n]`.
      unknown: Whether its group is unknown, bool `[n]`.
      policy: What a query of an unknown group gets.
    """
    code = np.logical_not(sets[:, :-1].any(axis=1)).astype(np.int64)
    code[infinite] = 2
    code[unknown] = 3
    of_unknown = Reason.POOLED_GROUP if policy == "pooled" else Reason.UNKNOWN_GROUP
    names = (Reason.OK, Reason.ABSTAIN, Reason.INFEASIBLE, of_unknown)
    return tuple(names[c] for c in code.tolist())


class Rule(NamedTuple):
    """What decides, beside the query.

    Use this when you call `decide`.

    Attributes:
      calibration: The thresholds.
      pool: Names of the models.
      cost: Mean dollars of each model, float64 `[m]`, or None.
      group_is_needed: Whether the nonconformity goes by group, so that a query that does not say
        its group is one of an unknown group.
    """

    calibration: Calibration
    pool: tuple[str, ...]
    cost: np.ndarray | None
    group_is_needed: bool


# Scores and ties are compared as one key of 64 bits, the same that calibration sorted: a query is
# in the set exactly where the calibration query with its score and tie would have been. Comparing
# the float and then the tie would be the same rule written a second time.
def decide(
    rule: Rule,
    model_scores: ModelScores,
    ties: np.ndarray | None,
    groups: Sequence[str | None] | None,
) -> Decisions:
    """Compares the nonconformity of queries with the thresholds of their groups.

    Use this when scores are measured already; `Racer.route` measures them.

    Args:
      rule: The thresholds, and what else the racer holds.
      model_scores: Scores and nonconformity of the queries.
      ties: Second keys of the queries, uint32 `[n, m + 1]`; None where ties are not broken.
      groups: The group of each, `[n]`, or None.
    """
    calibration = rule.calibration
    num, num_groups = len(model_scores.scores), len(calibration.threshold)
    code = calibration.codes(groups, num)
    if rule.group_is_needed:
        absent = np.ones(num, bool)
        if groups is not None:
            absent = np.array([name is None for name in groups])
        code = np.where(absent, num_groups, code)
    calibration.handle_unknown(code, groups)
    nonconformity = limited(
        model_scores.nonconformity, ties, calibration.max_models, calibration.min_models
    )
    keys = entry_keys(nonconformity, ties)
    is_limited = nonconformity is not model_scores.nonconformity
    plausible = entry_keys(model_scores.nonconformity, ties) if is_limited else keys
    sets = keys <= calibration.threshold_key[code][:, None]
    threshold = calibration.threshold_value[code]
    return Decisions(
        pool=rule.pool,
        scores=model_scores.scores,
        nonconformity=nonconformity,
        sets=sets,
        order=np.argsort(plausible[:, :-1], axis=1, kind="stable"),
        threshold=threshold,
        reasons=reasons(sets, threshold == inf, code == num_groups, calibration.unknown_group),
        alpha=calibration.alpha,
        groups=groups,
        cost=rule.cost,
    )


def aggregate(
    decision: Decision,
    answers: Mapping[str, str | None],
    weighting: str,
    temperature: float,
    confidence: Mapping[str, float] | None,
) -> str | None:
    """One answer, voted from those of the called models; see `Racer.aggregate`.

    Use this when you have a decision and no racer; `Racer.aggregate` does the same.
    """
    if set(answers) != set(decision.models):
        raise ValueError(
            f"answers must be of the called models {decision.models}, got {tuple(answers)}"
        )
    if weighting not in WEIGHTINGS:
        raise ValueError(
            f"weighting must be majority, score, log_odds or confidence, got {weighting!r}"
        )
    if not decision.models:
        return None
    in_order = [answers[model] for model in decision.models]
    codes = answer_codes([in_order])[0]
    scores = np.array([decision.scores[model] for model in decision.models], np.float32)
    everyone = np.append(np.ones(len(in_order), bool), False)
    if weighting == "majority":
        answer = int(majority_vote(everyone, codes, scores))
    else:
        weights: ArrayLike = scores
        if weighting == "log_odds":
            weights = log_odds(scores)
        elif weighting == "confidence":
            if confidence is None or set(confidence) != set(decision.models):
                raise ValueError(
                    f"confidence must be of the called models {decision.models}, got {confidence}"
                )
            weights = np.array([confidence[model] for model in decision.models], np.float32)
        answer = int(weighted_vote(everyone, codes, scores, weights, temperature))
    return None if answer == NO_ANSWER else in_order[codes.tolist().index(answer)]
