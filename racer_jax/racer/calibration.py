"""What calibration leaves behind: the sorted critical scores of each group, from which any alpha follows."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np

from racer_jax.core.risk_levels import Level, level_name, miss_budget
from racer_jax.core.sort_keys import ordered_keys
from racer_jax.risk_control.bounds import smallest_calibration_size
from racer_jax.risk_control.high_probability import check_delta, high_probability_budget
from racer_jax.risk_control.mondrian import FALLBACKS

_TOP = np.uint32(0xFFFFFFFF)


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
      label_rule: How right and wrong were told apart.
      num_overlap: Calibration rows whose question was trained on, let in by the user.
      date: When, as ISO 8601.

    Raises:
      ValueError: If alpha or delta is out of range, or the fallback unknown.
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
    _start: np.ndarray = field(init=False)
    threshold: np.ndarray = field(init=False)
    threshold_tie: np.ndarray | None = field(init=False)
    threshold_key: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        if self.fallback not in FALLBACKS:
            raise ValueError(f"fallback must be one of {FALLBACKS}, got {self.fallback!r}")
        if self.delta is not None:
            check_delta(self.delta)
        num_groups = 1 if self.groups is None else len(self.groups)
        object.__setattr__(self, "_start", np.searchsorted(self.code, np.arange(num_groups + 1)))
        value, tie = self.thresholds([self.alpha])
        object.__setattr__(self, "threshold", value[:, 0])
        object.__setattr__(self, "threshold_tie", None if tie is None else tie[:, 0])
        # The last entry is that of a group nobody calibrated on: every model.
        at = np.append(value[:, 0], np.float32(inf))
        ties = np.append(np.zeros(num_groups, np.uint32) if tie is None else tie[:, 0], _TOP)
        object.__setattr__(self, "threshold_key", ordered_keys(at, ties))

    @property
    def num_queries(self) -> np.ndarray:
        """Calibration queries of each group, int64 `[g]`."""
        return np.diff(self._start)

    def at(self, alpha: Level) -> "Calibration":
        """The same calibration at another alpha; no data is needed."""
        return replace(self, alpha=level_name(alpha))

    def budgets(self, alphas: Sequence[Level]) -> np.ndarray:
        """Misses each group may make on its calibration queries, int64 `[g, a]`; -1 where no threshold is safe."""

        def budget(num: int) -> Any:
            if self.delta is None:
                return miss_budget(list(alphas), num)
            return high_probability_budget(list(alphas), num, self.delta)

        return np.stack([budget(int(num)) for num in self.num_queries])

    def thresholds(self, alphas: Sequence[Level]) -> tuple[np.ndarray, np.ndarray | None]:
        """Thresholds of each group and alpha, float32 `[g, a]`, and their second keys."""
        budgets, num = self.budgets(alphas), self.num_queries[:, None]
        at = self._start[:-1, None] + num - budgets - 1
        rows = np.minimum(at, len(self.value) - 1)
        value = np.where(budgets < 0, np.float32(inf), self.value[rows])
        tie = None if self.tie is None else np.where(budgets < 0, _TOP, self.tie[rows])
        if self.groups is not None and self.fallback == "pooled" and (budgets < 0).any():
            pooled = replace(self, code=np.zeros_like(self.code), groups=None, **self._resorted())
            own, own_tie = pooled.thresholds(alphas)
            value = np.where(budgets < 0, own, value)
            if tie is not None and own_tie is not None:
                tie = np.where(budgets < 0, own_tie, tie)
        return value, tie

    def _resorted(self) -> dict[str, Any]:
        """The critical scores of all groups in one order."""
        keys = (self.value,) if self.tie is None else (self.tie, self.value)
        order = np.lexsort(keys)
        return {"value": self.value[order], "tie": None if self.tie is None else self.tie[order]}

    def threshold_keys(self, alphas: Sequence[Level]) -> np.ndarray:
        """Keys of the thresholds of each group and alpha, and of unknown groups, uint64 `[g + 1, a]`."""
        value, tie = self.thresholds(alphas)
        tie = np.zeros(value.shape, np.uint32) if tie is None else tie
        edge = np.full((1, value.shape[1]), inf, np.float32)
        return ordered_keys(
            np.concatenate([value, edge]), np.concatenate([tie, np.full(edge.shape, _TOP)])
        )

    def codes(self, groups: Sequence[str | None] | None, num: int) -> np.ndarray:
        """The place of each query's group, int `[n]`; that after the last for a group nobody calibrated on."""
        if self.groups is None:
            return np.zeros(num, np.int64)
        if groups is None:
            return np.full(num, len(self.groups))
        if len(groups) != num:
            raise ValueError(
                f"groups must name one group for each of the {num} queries, got {len(groups)}"
            )
        place: dict[str | None, int] = {name: i for i, name in enumerate(self.groups)}
        return np.array([place.get(name, len(place)) for name in groups], np.int64)

    def feasible(self) -> np.ndarray:
        """Whether each group has a finite threshold at alpha, bool `[g]`."""
        return np.asarray(self.threshold < inf)

    def warnings(self) -> tuple[str, ...]:
        """What a user must know of this calibration, one sentence each."""
        found = []
        budgets = self.budgets([self.alpha])[:, 0]
        names = (
            ("all queries",)
            if self.groups is None
            else tuple(f"group {name!r}" for name in self.groups)
        )
        needed = smallest_calibration_size(self.alpha)
        for name, num, budget, value in zip(
            names, self.num_queries, budgets, self.threshold, strict=True
        ):
            if budget < 0 and self.delta is None:
                what = (
                    "every model is called"
                    if value == inf
                    else "the pooled threshold is used, with no promise"
                )
                found.append(
                    f"{name}: alpha = {self.alpha} takes at least {needed} calibration queries, "
                    f"got {num}; {what}"
                )
            elif budget < 0:
                found.append(
                    f"{name}: {num} calibration queries cannot promise alpha = {self.alpha}, "
                    f"delta = {self.delta}"
                )
            elif value == inf:
                found.append(
                    f"{name}: more calibration queries than alpha = {self.alpha} allows have no model that is right, "
                    f"and null mode 'never' counts each as a miss; every model is called, and the risk is higher"
                )
        if self.num_overlap:
            found.append(
                f"{self.num_overlap} calibration questions were trained on: the risk is not "
                "promised"
            )
        return tuple(found)
