"""What calibration of a stop leaves behind: the critical scores, from which any alpha follows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import jax.numpy as jnp
import numpy as np

from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.risk_levels import Level, level_name
from racer_jax.risk_control.mondrian import GroupedThreshold, calibrate_by_group
from racer_jax.risk_control.stopping import Loss
from racer_jax.sequential.stop_levels import check_level

_TOP = 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class StopCalibration:
    """Calibration queries, each as its critical score, and the level in use.

    Use this when you look at the threshold of a cascade.

    Attributes:
      alpha: The level, as it was written.
      loss: The loss whose chance is at most alpha.
      value: Critical scores, float32 `[n]`.
      tie: Their second keys, uint32 `[n]`.
      code: The group of each, int32 `[n]`; all 0 where there is one threshold for all.
      groups: Names of the groups; None for one threshold for all.
      delta: Chance over calibration sets that the risk exceeds alpha; None where the risk is
        bounded on average.
      questions: Fingerprints of the calibration questions, uint64, sorted.
      num_overlap: Calibration rows whose question was trained on, let in by the user.
      label_rule: How right and wrong were decided.
      date: When, as ISO 8601.

    Raises:
      ValueError: If alpha or delta is out of range, the rows are too few for alpha, or more of them
        than alpha allows lose after the last call too, so that no threshold keeps it.
    """

    alpha: str
    loss: Loss
    value: np.ndarray
    tie: np.ndarray
    code: np.ndarray
    groups: tuple[str, ...] | None
    delta: float | None
    questions: np.ndarray
    num_overlap: int
    label_rule: str
    date: str

    def __post_init__(self) -> None:
        check_level(self.alpha, self.delta, self.loss, self.value, self.code, self.groups)

    @cached_property
    def grouped(self) -> GroupedThreshold:
        """The thresholds, from `calibrate_by_group` as it is."""
        names = None if self.groups is None else [self.groups[code] for code in self.code]
        critical = TieBroken(jnp.asarray(self.value), jnp.asarray(self.tie))
        return calibrate_by_group(critical, names, self.alpha, delta=self.delta)

    @cached_property
    def _by_name(self) -> dict[str | None, tuple[float, int]]:
        pair = self.grouped.threshold
        value, tie = np.asarray(pair.value).tolist(), np.asarray(pair.tie).tolist()  # type: ignore[union-attr]
        names = (None,) if self.groups is None else self.grouped.groups or ()
        return dict(zip(names, zip(value, tie, strict=True), strict=True))

    def threshold(self, group: str | None) -> tuple[float, int]:
        """The threshold of a query of a group and its second key.

        (inf, ...) for a group without calibration queries.

        Use this when one query is to be compared.
        """
        name = None if self.groups is None else group
        return self._by_name.get(name, (np.inf, _TOP))

    def thresholds(self, groups: Sequence[str] | None, num: int) -> TieBroken:
        """The threshold of each of `num` queries, a pair of `[n]`.

        Use this when many queries are to be compared.
        """
        names: Sequence[str | None] = [None] * num if groups is None else groups
        pairs = [self.threshold(name) for name in names]
        value = np.array([value for value, _ in pairs], np.float32)
        return TieBroken(jnp.asarray(value), jnp.asarray([tie for _, tie in pairs], jnp.uint32))

    def at(self, alpha: Level) -> "StopCalibration":
        """The same calibration at another level; no data is needed.

        Use this when you have the calibration by itself; `Cascade.at` does it for a cascade.
        """
        return replace(self, alpha=level_name(alpha))
