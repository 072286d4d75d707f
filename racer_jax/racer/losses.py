"""A calibration for graded answers: the loss and the grades that it keeps.

The loss of a set is what its best answer lacks, and its mean is at most alpha (conformal risk
control, `racer_jax.core.loss_calibration`), in the place of the chance of a miss.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from racer_jax.racer.serialization import Arrays

LossName = Literal["grade", "shortfall"]
LOSS_NAMES: tuple[str, ...] = get_args(LossName)


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

    def to_arrays(self) -> "Arrays":
        """The arrays by name; the name of the loss stands in the description.

        Use this when a calibration is saved.
        """
        arrays = {"loss.graded": self.graded}
        return arrays if self.tie is None else arrays | {"loss.tie": self.tie}

    @classmethod
    def from_arrays(
        cls, name: str | None, arrays: Mapping[str, np.ndarray]
    ) -> "CalibratedLoss | None":
        """The loss of `to_arrays`; None where there is no name.

        Use this when a calibration is loaded.
        """
        if name is None:
            return None
        return cls(name, arrays["loss.graded"], arrays.get("loss.tie"))


def check_graded(name: str, graded: np.ndarray | None) -> None:
    """Refuses a table without grades. Use this when a loss is one of graded answers.

    Raises:
      ValueError: If it has none.
    """
    if graded is None:
        raise ValueError(f"loss {name!r} needs a table with graded scores; this one has none")


def calibrated_loss(
    name: str, graded: np.ndarray | None, ties: np.ndarray | None
) -> CalibratedLoss:
    """The loss of a table's grades.

    Use this when `Racer.calibrate` is asked for another loss than a miss.

    Raises:
      ValueError: If the table has no grades, or the loss is unknown.
    """
    if name not in LOSS_NAMES:
        raise ValueError(f"loss must be one of {LOSS_NAMES}, got {name!r}")
    check_graded(name, graded)
    return CalibratedLoss(name, np.asarray(graded, np.float32), ties)
