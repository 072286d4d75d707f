"""A calibration for graded answers: the grades it keeps, its thresholds, and what it promises.

The loss of a set is what its best answer lacks, and its mean is at most alpha (conformal risk
control, `racer_jax.core.loss_calibration`), in the place of the chance of a miss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.core.loss_calibration import calibrate_loss
from racer_jax.core.losses import Against, SetLoss, grade_loss
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.risk_levels import Level
from racer_jax.racer.limits import limited
from racer_jax.racer.serialization import Arrays

if TYPE_CHECKING:
    from racer_jax.racer.calibration import Calibration

LossName = Literal["grade", "shortfall"]
LOSS_NAMES: tuple[str, ...] = get_args(LossName)
_AGAINST: Mapping[str, Against] = {"grade": "perfect", "shortfall": "pool"}
_WORDS = {
    "grade": "1 - the best grade among the called models",
    "shortfall": "the best grade of the pool minus the best among the called models",
}


@dataclass(frozen=True, eq=False)
class CalibratedLoss:
    """The loss of a calibration, and the grades of its queries in the order of its record.

    Attributes:
      name: `grade`, 1 - the best grade called; or `shortfall`, by how much that is below the best
        grade of the pool.
      graded: How good each answer is, float32 `[n, m]` in [0, 1].
      tie: Second keys of the nonconformity, uint32 `[n, m + 1]`; None where ties are not broken.

    Raises:
      ValueError: If the name is unknown, or a grade is missing or out of range.

    Use this when you want to look at the grades a racer was calibrated on.
    """

    name: str
    graded: np.ndarray
    tie: np.ndarray | None

    def __post_init__(self) -> None:
        if self.name not in LOSS_NAMES:
            raise ValueError(f"loss must be one of {LOSS_NAMES}, got {self.name!r}")
        if not ((self.graded >= 0) & (self.graded <= 1)).all():
            bad = int((~((self.graded >= 0) & (self.graded <= 1))).sum())
            raise ValueError(
                f"loss {self.name!r} needs grades in [0, 1] of every answer; {bad} are missing or "
                "out of range"
            )

    def to_arrays(self) -> Arrays:
        """The arrays by name; the name of the loss stands in the description."""
        arrays = {"loss.graded": self.graded}
        return arrays if self.tie is None else arrays | {"loss.tie": self.tie}

    @classmethod
    def from_arrays(
        cls, name: str | None, arrays: Mapping[str, np.ndarray]
    ) -> "CalibratedLoss | None":
        """The loss of `to_arrays`; None where there is no name."""
        if name is None:
            return None
        return cls(name, arrays["loss.graded"], arrays.get("loss.tie"))


def calibrated_loss(
    name: str, graded: np.ndarray | None, ties: np.ndarray | None
) -> CalibratedLoss:
    """The loss of a table's grades.

    Raises:
      ValueError: If the table has no grades, or the loss is unknown.
    """
    if name not in LOSS_NAMES:
        raise ValueError(f"loss must be one of {LOSS_NAMES}, got {name!r}")
    if graded is None:
        raise ValueError(f"loss {name!r} needs a table with graded scores; this one has none")
    return CalibratedLoss(name, np.asarray(graded, np.float32), ties)


def loss_thresholds(
    calibration: "Calibration", alphas: Sequence[Level]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Thresholds of each group and alpha, and of all queries together last, `[g + 1, a]`.

    Args:
      calibration: The calibration, with a loss and a record.
      alphas: The levels.
    """
    loss, record = calibration.loss, calibration.record
    if loss is None or record is None:
        raise ValueError("a calibration for a loss needs its grades and its record")
    tie = None if loss.tie is None else jnp.asarray(loss.tie)
    most, least = calibration.max_models, calibration.min_models
    entries = limited(record.nonconformity, loss.tie, most, least)
    steps = grade_loss(entries, loss.graded, tie, against=_AGAINST[loss.name])
    num = 1 if calibration.groups is None else len(calibration.groups)
    code = record.code if calibration.groups is not None else np.zeros(len(record), np.int32)
    masks = np.concatenate([code == np.arange(num)[:, None], np.ones((1, len(record)), bool)])
    value, second = _thresholds(steps, list(alphas), masks, calibration.delta)
    if calibration.groups is not None and calibration.fallback == "pooled":
        lost = value[:-1] == inf
        value[:-1] = np.where(lost, value[-1:], value[:-1])
        if second is not None:
            second[:-1] = np.where(lost, second[-1:], second[:-1])
    return value, second


def _thresholds(
    steps: SetLoss, alphas: list[Level], masks: np.ndarray, delta: float | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Thresholds of each mask and alpha, `[k, a]`, and their second keys."""
    result: jax.Array | TieBroken
    if delta is None:
        result = calibrate_loss(steps, alphas, masks)
    else:
        # SciPy is loaded where a delta is asked for, and not with `Racer`.
        from racer_jax.risk_control.loss_guarantees import calibrate_loss_with_probability

        parts = [
            calibrate_loss_with_probability(steps.rows(np.flatnonzero(mask)), alphas, delta)
            for mask in masks
        ]
        result = jax.tree.map(lambda *rows: jnp.stack(rows), *parts)
    if isinstance(result, TieBroken):
        return np.array(result.value), np.array(result.tie)
    return np.array(result), None


def loss_guarantee(calibration: "Calibration", who: str, where: str, how: str) -> str:
    """What a calibration for a loss promises, in a sentence."""
    words = _WORDS[calibration.loss.name] if calibration.loss is not None else ""
    if calibration.num_overlap:
        return (
            f"Nothing is promised: {calibration.num_overlap} calibration questions were trained "
            f"on. The threshold was set for a mean of at most {calibration.alpha} of {words}."
        )
    if not (calibration.threshold < inf).any():
        return (
            f"Nothing is promised: no threshold reaches a mean of at most {calibration.alpha} of "
            f"{words}."
        )
    return (
        f"If the queries to come are exchangeable with {who}, the mean of {words} is at most "
        f"{calibration.alpha}{where}, {how}."
    )


def loss_warnings(calibration: "Calibration", names: Sequence[str]) -> list[str]:
    """The groups in which no threshold reaches alpha, one sentence each."""
    rows = zip(names, calibration.num_queries.tolist(), calibration.threshold, strict=True)
    return [
        f"{name}: no threshold reaches alpha = {calibration.alpha} on {num} calibration queries; "
        "every model is called"
        for name, num, threshold in rows
        if threshold == inf
    ]
