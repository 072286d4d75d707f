"""A racer's calibration: the critical scores of each group, from which any alpha follows.

The thresholds are those of `racer_jax.risk_control.group_scores`. Here stands what a racer adds:
the alpha in use, the label rule, who calibrated, and what all this promises, in words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import Any, cast

import numpy as np

from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.risk_levels import Level, level_name
from racer_jax.core.scalar_checks import check_count, check_min_models
from racer_jax.core.sort_keys import critical_places, entry_keys, ordered_keys
from racer_jax.racer.calibration_facts import CalibrationFacts
from racer_jax.racer.limits import limited
from racer_jax.racer.loss_promises import loss_thresholds
from racer_jax.racer.losses import CalibratedLoss
from racer_jax.racer.promises import guarantee, warnings_of
from racer_jax.racer.record import CalibrationRecord
from racer_jax.racer.serialization import Arrays, digest
from racer_jax.racer.unknown_groups import check_unknown_group, handle_unknown
from racer_jax.risk_control.group_scores import (
    FALLBACKS,
    Fallback,
    group_codes,
    group_scores,
)
from racer_jax.risk_control.high_probability_budgets import check_delta

_TOP = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True, eq=False)
class Calibration(CalibrationFacts):
    """Calibration queries, each as one number, in order; and the alpha in use.

    The attributes are those of `CalibrationFacts`.

    Raises:
      ValueError: If alpha, delta or the number of models is out of range, or the fallback or the
        policy for unknown groups is not known.

    Use this when you want to look at the thresholds of a racer: `racer.calibration`.
    """

    def __post_init__(self) -> None:
        if self.fallback not in FALLBACKS:
            raise ValueError(f"fallback must be one of {FALLBACKS}, got {self.fallback!r}")
        if self.delta is not None:
            check_delta(self.delta)
        check_unknown_group(self.unknown_group)
        if self.max_models is not None:
            check_count("max_models", self.max_models)
        check_min_models(self.min_models, self.max_models, self.accuracy.shape[1])
        value, tie = self.thresholds([self.alpha])
        edge = self._unknown_thresholds([self.alpha])
        object.__setattr__(self, "threshold", value[:, 0])
        object.__setattr__(self, "threshold_tie", None if tie is None else tie[:, 0])
        object.__setattr__(self, "threshold_key", _keys_with_unknown((value, tie), edge)[:, 0])
        object.__setattr__(self, "threshold_value", np.concatenate([value, edge[0]])[:, 0])

    def at(self, alpha: Level) -> "Calibration":
        """The same calibration at another alpha; no data is needed.

        Use this when you have the calibration by itself; `Racer.at` does it for a racer.
        """
        return replace(self, alpha=level_name(alpha))

    def options(self) -> dict[str, Any]:
        """The options it was made with, alpha aside, by their names in `Racer.calibrate`.

        Use this when another calibration shall have the same options.
        """
        return {
            "by_group": self.groups is not None,
            "fallback": self.fallback,
            "delta": self.delta,
            "unknown_group": self.unknown_group,
            "max_models": self.max_models,
            "min_models": self.min_models,
        }

    def thresholds(self, alphas: Sequence[Level]) -> tuple[np.ndarray, np.ndarray | None]:
        """Thresholds of each group and alpha, float32 `[g, a]`, and their second keys.

        Use this when you want the thresholds of several alphas.
        """
        if self.loss is not None:
            value, tie = loss_thresholds(self, alphas)
            return value[:-1], None if tie is None else tie[:-1]
        return self.scores.thresholds(alphas, self.delta, cast(Fallback, self.fallback))

    def threshold_keys(self, alphas: Sequence[Level]) -> np.ndarray:
        """Keys of the thresholds of each group and alpha, and of unknown groups, `[g + 1, a]`.

        Use this when queries are compared with thresholds of several alphas.
        """
        return _keys_with_unknown(self.thresholds(alphas), self._unknown_thresholds(alphas))

    def _unknown_thresholds(self, alphas: Sequence[Level]) -> tuple[np.ndarray, np.ndarray | None]:
        """Thresholds of a group without calibration queries, `[1, a]`, and their second keys."""
        if self.unknown_group == "pooled" and self.loss is not None:
            value, tie = loss_thresholds(self, alphas)
            return value[-1:], None if tie is None else tie[-1:]
        if self.unknown_group == "pooled":
            return self.scores.pooled().thresholds(alphas, self.delta)
        edge = np.full((1, len(alphas)), inf, np.float32)
        return edge, None if self.tie is None else np.full(edge.shape, _TOP)

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

    def handle_unknown(self, code: np.ndarray, groups: Sequence[str | None] | None) -> None:
        """Warns once of each group without calibration queries, or refuses it: see `unknown_group`.

        Use this when queries have names of groups, before they are decided.

        Args:
          code: The place of each query's group, as of `codes`.
          groups: The group of each, or None.

        Raises:
          UnknownGroupError: If such a group is an error.
        """
        is_unknown = code == len(self.threshold)
        if not is_unknown.any():
            return
        known = self.groups or ()
        unknown = np.flatnonzero(is_unknown).tolist()
        names = [None if groups is None else groups[i] for i in unknown]
        handle_unknown(self, self.unknown_group, known, names)

    def feasible(self) -> np.ndarray:
        """Whether each group has a finite threshold at alpha, bool `[g]`.

        Use this when you want to know which groups have too few queries.
        """
        return np.asarray(self.threshold < inf)

    def guarantee(self, null: str) -> str:
        """What is promised under a null mode, in a sentence, with its assumption.

        Use this when you have the calibration by itself; `Racer.guarantee` does it for a racer.
        """
        return guarantee(self, null)

    def warnings(self) -> tuple[str, ...]:
        """What a user must know of this calibration, one sentence each.

        Use this when you have the calibration by itself; `Racer.warnings` does it for a racer.
        """
        return warnings_of(self)

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
        record = self.record
        arrays |= {} if record is None else record.to_arrays()
        arrays |= {} if self.loss is None else self.loss.to_arrays()
        record_groups = None
        if record is not None and record.groups is not None:
            record_groups = list(record.groups)
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
        loss_name = {} if self.loss is None else {"loss": self.loss.name}
        description = {
            "alpha": self.alpha,
            "n": int(self.num_queries.sum()),
            "thresholds": thresholds,
            "groups": None if self.groups is None else list(self.groups),
            "delta": self.delta,
            "fallback": self.fallback,
            "unknown_group": self.unknown_group,
            "max_models": self.max_models,
            "min_models": self.min_models,
            "record_groups": record_groups,
            **loss_name,
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
        # What an older format does not state is what was done then.
        record = CalibrationRecord.from_arrays(description.get("record_groups"), arrays)
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
            unknown_group=description.get("unknown_group", "all"),
            max_models=description.get("max_models"),
            min_models=description.get("min_models", 0),
            record=record,
            loss=CalibratedLoss.from_arrays(description.get("loss"), arrays),
        )


def _keys_with_unknown(
    thresholds: tuple[np.ndarray, np.ndarray | None], unknown: tuple[np.ndarray, np.ndarray | None]
) -> np.ndarray:
    """Keys of thresholds `[g, a]`, and at the end those of a group without any, `[1, a]`.

    Each a pair of thresholds and their second keys.
    """
    value = np.concatenate([thresholds[0], unknown[0]])
    if thresholds[1] is None or unknown[1] is None:
        return ordered_keys(value, np.zeros(value.shape, np.uint32))
    return ordered_keys(value, np.concatenate([thresholds[1], unknown[1]]))


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
    record: CalibrationRecord,
    ties: np.ndarray | None,
    options: Mapping[str, Any],
    *,
    num_overlap: int,
    label_rule: str,
    loss: CalibratedLoss | None = None,
) -> Calibration:
    """Calibrates on labelled queries.

    Use this when nonconformity and labels are there; `Racer.calibrate` computes them.

    Args:
      record: The queries as they were measured.
      ties: Their second keys, uint32 `[n, m + 1]`; None to leave ties.
      options: `alpha`, `by_group`, `fallback`, `delta`, `unknown_group`, `max_models` and
        `min_models`, as of `Racer.calibrate`.
      num_overlap: Rows whose question was trained on.
      label_rule: How right and wrong were decided.
      loss: The loss to calibrate for; None for a miss.
    """
    num_models = record.nonconformity.shape[1] - 1
    check_min_models(options["min_models"], options["max_models"], num_models)
    nonconformity = limited(
        record.nonconformity, ties, options["max_models"], options["min_models"]
    )
    columns = critical_places(entry_keys(nonconformity, ties), record.correct)
    rows = np.arange(len(record))
    critical: Any = nonconformity[rows, columns]
    if ties is not None:
        critical = TieBroken(critical, ties[rows, columns])
    names = record.groups if options["by_group"] else None
    scores = group_scores(critical, None if names is None else record.group, names)
    code = record.code if names else np.zeros(len(rows), np.int32)
    shares = [record.correct[code == i].mean(axis=0) for i in range(len(names or ("",)))]
    return Calibration(
        alpha=level_name(options["alpha"]),
        value=scores.value,
        tie=scores.tie,
        code=scores.code,
        groups=names,
        delta=options["delta"],
        fallback=options["fallback"],
        accuracy=np.stack(shares),
        questions=np.unique(record.questions),
        label_rule=label_rule,
        num_overlap=num_overlap,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        unknown_group=options["unknown_group"],
        max_models=options["max_models"],
        min_models=options["min_models"],
        record=record,
        loss=loss,
    )
