"""What a calibration holds: below its promise in words, and below `Calibration`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from racer_jax.core.risk_levels import Level
from racer_jax.racer.losses import CalibratedLoss
from racer_jax.racer.record import CalibrationRecord
from racer_jax.racer.unknown_groups import UnknownGroup
from racer_jax.risk_control.group_scores import GroupedScores


@dataclass(frozen=True, eq=False)
class CalibrationFacts:
    """What a calibration holds: its queries, each as one number, in order; and the alpha in use.

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
      unknown_group: What a query gets whose group is unknown or missing, where thresholds are by
        group: `"all"` models, the `"pooled"` threshold, or an `"error"`.
      max_models: Models that a set holds at most; None for any number.
      min_models: Models that a set holds at least; 0 for none.
      record: The calibration queries as they were measured; None in an artefact of an older format.
      loss: The loss whose mean is at most alpha, with its grades; None for the chance of a miss.
      threshold: The threshold of each group, float32 `[g]`.
      threshold_tie: Their second keys, uint32 `[g]`; None where ties are not broken.
      threshold_key: Keys of the thresholds, uint64 `[g + 1]`; the last for a group that has no
        calibration queries: every model, or the pooled threshold.
      threshold_value: The thresholds themselves in the same order, float32 `[g + 1]`.

    Use this when a function says in words what a calibration promises; a racer has a
    `Calibration`.
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
    unknown_group: UnknownGroup = "all"
    max_models: int | None = None
    min_models: int = 0
    record: CalibrationRecord | None = None
    loss: CalibratedLoss | None = None
    threshold: np.ndarray = field(init=False)
    threshold_tie: np.ndarray | None = field(init=False)
    threshold_key: np.ndarray = field(init=False)
    threshold_value: np.ndarray = field(init=False)

    @property
    def unknown_threshold(self) -> float:
        """The threshold of a group that has no calibration queries."""
        return float(self.threshold_value[-1])

    @property
    def scores(self) -> GroupedScores:
        """The critical scores by group."""
        return GroupedScores(self.value, self.tie, self.code, self.groups)

    @property
    def num_queries(self) -> np.ndarray:
        """Calibration queries of each group, int64 `[g]`."""
        return self.scores.num_queries

    def budgets(self, alphas: Sequence[Level]) -> np.ndarray:
        """Misses each group may make, int64 `[g, a]`; -1 where no threshold is safe.

        Use this when you want to see how many misses an alpha allows.
        """
        return self.scores.budgets(alphas, self.delta)
