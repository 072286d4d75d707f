"""Which questions of a table an artefact has used: in training, or only in its calibration."""

from typing import NamedTuple

import numpy as np

from racer_jax.data.table import RoutingTable
from racer_jax.racer.fingerprints import question_fingerprints


class Usage(NamedTuple):
    """What was done with each question of a table.

    Use this when rows are left out because an artefact knows them.

    Attributes:
      trained: Whether it was trained on, bool `[n]`.
      calibrated: Whether it was calibrated on and not trained on, bool `[n]`.
    """

    trained: np.ndarray
    calibrated: np.ndarray

    def unseen(self, calibrated: bool = True) -> np.ndarray:
        """The questions that were neither trained nor calibrated on, bool `[n]`.

        Use this when rows are left out of a table.

        Args:
          calibrated: Whether those that were only calibrated on are left out too.
        """
        return ~(self.trained | self.calibrated) if calibrated else ~self.trained

    def notes(self, recalibrating: bool = False) -> list[str]:
        """What `unseen` leaves out, in words; nothing where that is nothing.

        Use this when rows are left out and a user shall know which.

        Args:
          recalibrating: Whether the questions of the old calibration stay in.
        """
        trained_on, calibrated_on = int(self.trained.sum()), int(self.calibrated.sum())
        left_out, notes = trained_on, []
        parts = [f"{trained_on:,} trained on"]
        if not recalibrating:
            left_out += calibrated_on
            parts.append(f"{calibrated_on:,} calibrated on")
        if left_out:
            of_all = f"{left_out:,} of {len(self.trained):,} questions"
            notes.append(f"--unseen left out {of_all}: {', '.join(parts)}")
        if recalibrating and calibrated_on:
            notes.append(
                f"{calibrated_on:,} questions were calibrated on before and may be used again: the "
                "new calibration takes the place of the old one"
            )
        return notes


def optimistic_notes(used: np.ndarray, owner: str) -> list[str]:
    """What to know of figures on used questions, in words; nothing where there are none.

    Use this when an artefact is measured on a table that may hold questions it knows.

    Args:
      used: Whether a question was trained or calibrated on, bool `[n]`.
      owner: The class of the artefact.
    """
    if not used.any():
        return []
    return [
        f"optimistic: {int(used.sum()):,} of these {len(used):,} questions were used for training "
        f"or calibration; pass --unseen (in Python: {owner}.unseen) to leave them out"
    ]


def usage(table: RoutingTable, trained_on: np.ndarray, calibrated_on: np.ndarray | None) -> Usage:
    """Which questions of a table were trained and calibrated on.

    Use this when you know the fingerprints of an artefact's questions.

    Args:
      table: A table.
      trained_on: Fingerprints of the training questions.
      calibrated_on: Those of the calibration questions; None before a calibration.
    """
    questions = question_fingerprints(table)
    trained = np.isin(questions, trained_on)
    if calibrated_on is None:
        return Usage(trained, np.zeros(len(questions), bool))
    return Usage(trained, np.isin(questions, calibrated_on) & ~trained)
