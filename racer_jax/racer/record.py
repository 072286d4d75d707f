"""What calibration saw of its queries, kept so that other options and smaller pools need no data.

Scores, nonconformity and correctness of every calibration query. From them follow the thresholds of
any option of `Racer.calibrate` (`Racer.recalibrate`) and those of the pool without some of its
models (`Racer.without`), with the promise of a calibration on the same queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from racer_jax.racer.scoring import ModelScores
from racer_jax.racer.serialization import Arrays
from racer_jax.risk_control.group_scores import group_codes

_PREFIX = "record"


@dataclass(frozen=True, eq=False)
class CalibrationRecord:
    """The calibration queries as they were measured, in the order of their table.

    Attributes:
      scores: s(x, m), float32 `[n, m]`.
      nonconformity: E(x, m), float32 `[n, m + 1]`, null model last.
      correct: Whether each model is right, bool `[n, m]`.
      questions: Fingerprints of the questions, uint64 `[n]`.
      code: The group of each, int32 `[n]`; zeros where the table had none.
      groups: Names of the groups of the table; None where it had none.
      embeddings: float32 `[n, d]`, where the order of the models depends on them; else None.

    Raises:
      ValueError: If the arrays do not fit each other.

    Use this when you want to look at what a racer was calibrated on: `racer.calibration.record`.
    """

    scores: np.ndarray
    nonconformity: np.ndarray
    correct: np.ndarray
    questions: np.ndarray
    code: np.ndarray
    groups: tuple[str, ...] | None
    embeddings: np.ndarray | None = None

    def __post_init__(self) -> None:
        num, num_models = self.correct.shape
        expected = {
            "scores": (np.float32, (num, num_models)),
            "nonconformity": (np.float32, (num, num_models + 1)),
            "correct": (np.bool_, (num, num_models)),
            "questions": (np.uint64, (num,)),
            "code": (np.int32, (num,)),
        }
        if self.embeddings is not None:
            expected["embeddings"] = (np.float32, (num, *self.embeddings.shape[1:]))
        for name, (dtype, shape) in expected.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(
                    f"{_PREFIX}.{name} must be {np.dtype(dtype)} {list(shape)}, got {array.dtype} "
                    f"{list(array.shape)}"
                )
        if np.isnan(self.nonconformity).any():
            raise ValueError(f"{_PREFIX}.nonconformity must hold no NaN")
        num_groups = 1 if self.groups is None else len(self.groups)
        if ((self.code < 0) | (self.code >= num_groups)).any():
            raise ValueError(f"{_PREFIX}.code must be from 0 to below {num_groups}")

    @classmethod
    def of(
        cls,
        model_scores: ModelScores,
        correct: np.ndarray,
        questions: np.ndarray,
        groups: Sequence[str] | None,
        names: Sequence[str],
    ) -> "CalibrationRecord":
        """The record of queries that were model_scores.

        Use this when queries were measured and are to be kept.

        Args:
          model_scores: Their scores and nonconformity.
          correct: Whether each model is right, bool `[n, m]`.
          questions: Fingerprints of the questions, uint64 `[n]`.
          groups: The group of each, or None.
          names: All groups, in their order.
        """
        code = np.zeros(len(correct), np.int32) if groups is None else group_codes(groups, names)
        return cls(
            scores=np.asarray(model_scores.scores, np.float32),
            nonconformity=np.asarray(model_scores.nonconformity, np.float32),
            correct=np.asarray(correct, bool),
            questions=questions,
            code=code,
            groups=None if groups is None else tuple(names),
            embeddings=model_scores.embeddings,
        )

    def __len__(self) -> int:
        return len(self.correct)

    @property
    def group(self) -> tuple[str, ...] | None:
        """The group of each query, None where the table had none."""
        if self.groups is None:
            return None
        return tuple(self.groups[i] for i in self.code.tolist())

    def narrowed(self, columns: Sequence[int], model_scores: ModelScores) -> "CalibrationRecord":
        """The same queries for some of the models, measured anew.

        Use this when a model leaves the pool.
        """
        return replace(
            self,
            scores=model_scores.scores,
            nonconformity=model_scores.nonconformity,
            correct=self.correct[:, list(columns)],
        )

    # --- in pieces --------------------------------------------------------------------------------

    def to_arrays(self) -> Arrays:
        """The arrays by name; the names of the groups stand in the description.

        Use this when a record is written; `Racer.save` does it for you.
        """
        names = ["scores", "nonconformity", "correct", "questions", "code"]
        names += [] if self.embeddings is None else ["embeddings"]
        return {f"{_PREFIX}.{name}": getattr(self, name) for name in names}

    @classmethod
    def from_arrays(
        cls, groups: Sequence[str] | None, arrays: Mapping[str, np.ndarray]
    ) -> "CalibrationRecord | None":
        """The record of `to_arrays`; None where the artefact is of a format that kept none.

        Use this when a record is read; `Racer.load` does it for you.

        Raises:
          KeyError: If an array is missing.
          ValueError: If the arrays do not fit each other.
        """
        if f"{_PREFIX}.correct" not in arrays:
            return None
        names = ("scores", "nonconformity", "correct", "questions", "code")
        return cls(
            **{name: arrays[f"{_PREFIX}.{name}"] for name in names},
            groups=None if groups is None else tuple(groups),
            embeddings=arrays.get(f"{_PREFIX}.embeddings"),
        )
