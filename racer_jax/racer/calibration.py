"""A racer's calibration: the critical scores of each group, from which any alpha follows.

The thresholds are those of `racer_jax.risk_control.group_scores`. Here stands what a racer adds:
the alpha in use, the label rule, who calibrated, and what all this promises, in words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import inf
from typing import Any, cast

import numpy as np

from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.risk_levels import Level, level_name
from racer_jax.core.sort_keys import critical_places, entry_keys, ordered_keys
from racer_jax.data.table import RoutingTable
from racer_jax.racer.serialization import Arrays, digest
from racer_jax.risk_control.bounds import smallest_calibration_size
from racer_jax.risk_control.group_scores import (
    FALLBACKS,
    Fallback,
    GroupedScores,
    group_codes,
    group_scores,
)
from racer_jax.risk_control.high_probability import check_delta

_TOP = np.uint32(0xFFFFFFFF)
# What counts as a miss in each null mode.
_MISSES = {
    "paper": "no called model answers rightly (where none of the pool does: that the null model "
    "is left out)",
    "free": "some model of the pool answers rightly and none that is called does",
    "never": "no called model answers rightly",
}


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration queries, each as one number, in order; and the alpha in use.

    Attributes:
      alpha: The risk level in use, as it was written.
      value: Critical scores, sorted within each group, float32 `[n]`.
      tie: Their second keys, uint32 `[n]`; None where ties are not broken.
      code: The group of each, int32 `[n]`, ascending.
      groups: Names of the groups; None for one threshold for all.
      delta: Chance over calibration sets that the risk exceeds alpha; None where the risk is
        promised on average.
      fallback: What groups too small for alpha get: `"all"` models or the `"pooled"` threshold.
      accuracy: Share of the calibration queries each model answers rightly, by group, float64
        `[g, m]`.
      questions: Fingerprints of the calibration questions, uint64, sorted.
      label_rule: How right and wrong were decided.
      num_overlap: Calibration rows whose question was trained on, let in by the user.
      date: When, as ISO 8601.
      threshold: The threshold of each group, float32 `[g]`.
      threshold_tie: Their second keys, uint32 `[g]`; None where ties are not broken.
      threshold_key: Keys of the thresholds, uint64 `[g + 1]`; the last for a group that has no
        calibration queries: every model.

    Raises:
      ValueError: If alpha or delta is out of range, or the fallback unknown.

    Use this when you want to look at the thresholds of a racer: `racer.calibration`.
    """

    alpha: str
    value: np.ndarray
    tie: np.ndarray | None
    code: np.ndarray
    groups: tuple[str, ...] | None
    delta: float | None
    fallback: str
    accuracy: np.ndarray
    questions: np.ndarray
    label_rule: str
    num_overlap: int
    date: str
    threshold: np.ndarray = field(init=False)
    threshold_tie: np.ndarray | None = field(init=False)
    threshold_key: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        if self.fallback not in FALLBACKS:
            raise ValueError(f"fallback must be one of {FALLBACKS}, got {self.fallback!r}")
        if self.delta is not None:
            check_delta(self.delta)
        value, tie = self.thresholds([self.alpha])
        object.__setattr__(self, "threshold", value[:, 0])
        object.__setattr__(self, "threshold_tie", None if tie is None else tie[:, 0])
        object.__setattr__(self, "threshold_key", _keys_with_unknown(value, tie)[:, 0])

    @property
    def scores(self) -> GroupedScores:
        """The critical scores by group."""
        return GroupedScores(self.value, self.tie, self.code, self.groups)

    @property
    def num_queries(self) -> np.ndarray:
        """Calibration queries of each group, int64 `[g]`."""
        return self.scores.num_queries

    def at(self, alpha: Level) -> "Calibration":
        """The same calibration at another alpha; no data is needed.

        Use this when you have the calibration by itself; `Racer.at` does it for a racer.
        """
        return replace(self, alpha=level_name(alpha))

    def budgets(self, alphas: Sequence[Level]) -> np.ndarray:
        """Misses each group may make, int64 `[g, a]`; -1 where no threshold is safe.

        Use this when you want to see how many misses an alpha allows.
        """
        return self.scores.budgets(alphas, self.delta)

    def thresholds(self, alphas: Sequence[Level]) -> tuple[np.ndarray, np.ndarray | None]:
        """Thresholds of each group and alpha, float32 `[g, a]`, and their second keys.

        Use this when you want the thresholds of several alphas.
        """
        return self.scores.thresholds(alphas, self.delta, cast(Fallback, self.fallback))

    def threshold_keys(self, alphas: Sequence[Level]) -> np.ndarray:
        """Keys of the thresholds of each group and alpha, and of unknown groups, `[g + 1, a]`.

        Use this when queries are compared with thresholds of several alphas.
        """
        return _keys_with_unknown(*self.thresholds(alphas))

    def codes(self, groups: Sequence[str | None] | None, num: int) -> np.ndarray:
        """The place of each query's group, int `[n]`; the number of groups for an unknown one.

        Use this when queries have names of groups.
        """
        if self.groups is None:
            return np.zeros(num, np.int64)
        if groups is None:
            return np.full(num, len(self.groups))
        if len(groups) != num:
            raise ValueError(
                f"groups must name one group for each of the {num} queries, got {len(groups)}"
            )
        return group_codes(groups, self.groups)

    def feasible(self) -> np.ndarray:
        """Whether each group has a finite threshold at alpha, bool `[g]`.

        Use this when you want to know which groups have too few queries.
        """
        return np.asarray(self.threshold < inf)

    # --- in words ---------------------------------------------------------------------------------
    # The sentences are part of the format: an artefact whose sentence is not the one of its content
    # is refused. A change of their words needs a new number of the format.

    def guarantee(self, null: str) -> str:
        """What is promised under a null mode, in a sentence, with its assumption.

        Use this when you have the calibration by itself; `Racer.guarantee` does it for a racer.
        """
        num = self.num_queries
        if self.groups is None:
            who, where = f"the {int(num.sum())} calibration queries", ""
        else:
            counts = zip(self.groups, num.tolist(), strict=True)
            sizes = ", ".join(f"{name} {count}" for name, count in counts)
            who, where = f"the calibration queries of their group ({sizes})", ", in each group"
        how = "on average over calibration sets"
        if self.delta is not None:
            how = f"for all calibration sets but a share of {self.delta}"
        if self.num_overlap:
            return (
                f"Nothing is promised: {self.num_overlap} calibration questions were trained on. "
                f"The threshold was set for a chance of at most {self.alpha} that {_MISSES[null]}."
            )
        return (
            f"If the queries to come are exchangeable with {who}, the chance that {_MISSES[null]} "
            f"is at most {self.alpha}{where}, {how}."
        )

    def warnings(self) -> tuple[str, ...]:
        """What a user must know of this calibration, one sentence each.

        Use this when you have the calibration by itself; `Racer.warnings` does it for a racer.
        """
        names: Sequence[str] = ("all queries",)
        if self.groups is not None:
            names = [f"group {name!r}" for name in self.groups]
        budgets = self.budgets([self.alpha])[:, 0]
        rows = zip(names, self.num_queries, budgets, self.threshold, strict=True)
        sentences = [self._warning(*row) for row in rows]
        if self.num_overlap:
            sentences.append(
                f"{self.num_overlap} calibration questions were trained on: the risk is not "
                "promised"
            )
        return tuple(sentence for sentence in sentences if sentence)

    def _warning(self, name: str, num: int, budget: int, threshold: float) -> str:
        """What a user must know of one group; empty where there is nothing."""
        if budget < 0 and self.delta is None:
            smallest = smallest_calibration_size(self.alpha)
            what = "the pooled threshold is used, with no promise"
            if threshold == inf:
                what = "every model is called"
            return (
                f"{name}: alpha = {self.alpha} takes at least {smallest} calibration queries, "
                f"got {num}; {what}"
            )
        if budget < 0:
            return (
                f"{name}: {num} calibration queries cannot promise alpha = {self.alpha}, "
                f"delta = {self.delta}"
            )
        if threshold == inf:
            return (
                f"{name}: more calibration queries than alpha = {self.alpha} allows have no model "
                f"that is right, and null mode 'never' counts each as a miss; every model is "
                f"called, and the risk is higher"
            )
        return ""

    # --- in pieces --------------------------------------------------------------------------------

    def to_parts(self) -> tuple[dict[str, Any], Arrays]:
        """The calibration in pieces: what people read, and arrays by name.

        Use this when you store the calibration in a format of your own; `Racer.save` does so for
        you.
        """
        arrays = {
            "calibration.value": self.value,
            "calibration.code": self.code,
            "calibration.accuracy": self.accuracy,
            "calibration.questions": self.questions,
        }
        if self.tie is not None:
            arrays["calibration.tie"] = self.tie
        names = self.groups or (None,)
        ties = [None] * len(names) if self.threshold_tie is None else self.threshold_tie.tolist()
        rows = zip(names, self.num_queries.tolist(), self.threshold.tolist(), ties, strict=True)
        thresholds = [
            {
                "group": name,
                "n": num,
                "threshold": value if np.isfinite(value) else str(value),
                "tie": tie,
            }
            for name, num, value, tie in rows
        ]
        description = {
            "alpha": self.alpha,
            "n": int(self.num_queries.sum()),
            "thresholds": thresholds,
            "groups": None if self.groups is None else list(self.groups),
            "delta": self.delta,
            "fallback": self.fallback,
            "label_rule": self.label_rule,
            "num_overlap": self.num_overlap,
            "fingerprint": digest(None, arrays),
            "date": self.date,
        }
        return description, arrays

    @classmethod
    def from_parts(
        cls, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "Calibration":
        """The calibration of `to_parts`.

        Use this when you read what `to_parts` gave.

        Raises:
          KeyError: If something is missing.
          ValueError: If the arrays are not those of a calibration.
        """
        groups = None if description["groups"] is None else tuple(description["groups"])
        value, code = arrays["calibration.value"], arrays["calibration.code"]
        tie = arrays.get("calibration.tie")
        _check_arrays(value, tie, code, 1 if groups is None else len(groups))
        return cls(
            alpha=description["alpha"],
            value=value,
            tie=tie,
            code=code,
            groups=groups,
            delta=description["delta"],
            fallback=description["fallback"],
            accuracy=arrays["calibration.accuracy"],
            questions=arrays["calibration.questions"],
            label_rule=description["label_rule"],
            num_overlap=description["num_overlap"],
            date=description["date"],
        )


def _keys_with_unknown(value: np.ndarray, tie: np.ndarray | None) -> np.ndarray:
    """Keys of thresholds `[g, a]`, and at the end those of a group without calibration queries."""
    ties = np.zeros(value.shape, np.uint32) if tie is None else tie
    edge = np.full((1, value.shape[1]), inf, np.float32)
    top = np.full(edge.shape, _TOP)
    return ordered_keys(np.concatenate([value, edge]), np.concatenate([ties, top]))


def _check_arrays(
    value: np.ndarray, tie: np.ndarray | None, code: np.ndarray, num_groups: int
) -> None:
    """Refuses critical scores that are not sorted numbers of known groups."""
    num = len(value)
    if value.dtype != np.float32 or value.ndim != 1 or not num or np.isnan(value).any():
        raise ValueError("calibration.value must be float32 [n], n >= 1, without NaN")
    if tie is not None and (tie.dtype != np.uint32 or tie.shape != value.shape):
        raise ValueError(f"calibration.tie must be uint32 [{num}], got {tie.dtype} {tie.shape}")
    if code.dtype != np.int32 or code.shape != value.shape:
        raise ValueError(f"calibration.code must be int32 [{num}], got {code.dtype} {code.shape}")
    if (np.diff(code) < 0).any() or code[0] < 0 or code[-1] >= num_groups:
        raise ValueError(f"calibration.code must ascend from 0 to below {num_groups}")
    if ((value[1:] < value[:-1]) & (code[1:] == code[:-1])).any():
        raise ValueError("calibration.value must ascend within each group")


def calibration_of(
    table: RoutingTable,
    nonconformity: np.ndarray,
    ties: np.ndarray | None,
    *,
    alpha: str,
    by_group: bool,
    fallback: str,
    delta: float | None,
    questions: np.ndarray,
    num_overlap: int,
    label_rule: str,
) -> Calibration:
    """Calibrates on labelled queries.

    Use this when nonconformity and labels are there; `Racer.calibrate` computes them.

    Args:
      table: The queries, complete.
      nonconformity: E(x, m) of them, float32 `[n, m + 1]`, null model last.
      ties: Their second keys, uint32 of the same shape; None to leave ties.
      alpha: The risk level.
      by_group: Whether a group of the table has its own threshold.
      fallback: As of `Calibration`.
      delta: As of `Calibration`.
      questions: Fingerprints of the questions, uint64 `[n]`.
      num_overlap: Rows whose question was trained on.
      label_rule: How right and wrong were decided.
    """
    columns = critical_places(entry_keys(nonconformity, ties), table.correct)
    rows = np.arange(len(table))
    critical: Any = nonconformity[rows, columns]
    if ties is not None:
        critical = TieBroken(critical, ties[rows, columns])
    names = tuple(table.groups) if by_group and table.group is not None else None
    scores = group_scores(critical, None if names is None else table.group, names)
    code = group_codes(table.group or (), names) if names else np.zeros(len(rows), np.int32)
    shares = [table.correct[code == i].mean(axis=0) for i in range(len(names or ("",)))]
    return Calibration(
        alpha=alpha,
        value=scores.value,
        tie=scores.tie,
        code=scores.code,
        groups=names,
        delta=delta,
        fallback=fallback,
        accuracy=np.stack(shares),
        questions=np.unique(questions),
        label_rule=label_rule,
        num_overlap=num_overlap,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
