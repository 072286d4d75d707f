"""Calibrates again, on labelled audits: a random sample of the traffic, every model's result."""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.racer.calibration import calibration_of
from racer_jax.racer.fingerprints import question_ties
from racer_jax.racer.racer import Racer
from racer_jax.racer.record import CalibrationRecord
from racer_jax.risk_control.group_scores import group_codes
from racer_jax.serving.gateway._databases import reading, shown
from racer_jax.serving.gateway._records import TRUSTED

_DIGITS = 12
_LABEL_RULE = "labels of audits: {}"


@dataclass(frozen=True, eq=False)
class Audited:
    """Labelled audits of one artefact, each question once.

    Attributes:
      record: What a calibration needs of them.
      sources: Who labelled them.
    """

    record: CalibrationRecord
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.record.correct)


def audited(state: str | Path, checksum: str, racer: Racer) -> Audited:
    """Reads the labelled audits that an artefact decided on.

    Use this when the monitors say that the traffic has changed, or labels have come together.

    Args:
      state: The SQLite file of a gateway.
      checksum: The checksum of the artefact.
      racer: The artefact.

    Returns:
      The audits with a label of every model, the first for each question, without those of a pool
      that had lost a model, and without questions that were trained on.

    Raises:
      DataError: If it is no state of a gateway, or holds no such audit.
    """
    with reading(state) as connection:
        rows = connection.execute(
            "select f.source, f.content, a.nonconformity, d.scores, d.grp, d.fingerprint, d.pool "
            "from feedback f join audit a on a.decision = f.decision "
            "join decision d on d.id = f.decision where d.audited = 1 and d.artefact = ? "
            "order by f.seq",
            [checksum[:_DIGITS]],
        ).fetchall()
    labelled = {}
    trained = set(racer.trained_on.tolist())
    for source, content, nonconformity, scores, group, number, pool in rows:
        correct = msgspec.json.decode(content).get("correct")
        question = number % (1 << 64)
        whole = tuple(msgspec.json.decode(pool)) == racer.models
        if source not in TRUSTED or correct is None or not whole:
            continue
        if (
            question not in labelled
            and question not in trained
            and set(racer.models) <= set(correct)
        ):
            labelled[question] = (
                source,
                correct,
                nonconformity,
                msgspec.json.decode(scores),
                group,
            )
    if not labelled:
        raise DataError(
            f"holds no labelled audit of the artefact {checksum[:_DIGITS]}; label those that "
            "GET /audit of the management port lists",
            path=shown(str(state)),
        )
    sources, labels, nonconformity, scores, groups = zip(*labelled.values(), strict=True)
    # Conversations, tools and the like are of groups that only some artefacts know.
    names = None
    if racer.calibration is not None and racer.calibration.groups is not None:
        names = tuple(sorted({str(group) for group in groups}))
    record = CalibrationRecord(
        scores=np.array(scores, np.float32),
        nonconformity=np.stack([np.frombuffer(row, np.float32) for row in nonconformity]),
        correct=np.array([[label[m] for m in racer.models] for label in labels], bool),
        questions=np.fromiter(labelled, np.uint64),
        code=_codes(groups, names),
        groups=names,
    )
    return Audited(record, tuple(sorted(set(sources))))


def _codes(groups: tuple[str | None, ...], names: tuple[str, ...] | None) -> np.ndarray:
    if names is None:
        return np.zeros(len(groups), np.int32)
    return np.asarray(group_codes([str(group) for group in groups], names), np.int32)


def recalibrated(racer: Racer, audits: Audited, alpha: str | None = None) -> Racer:
    """The racer with a calibration on audits, its options as before.

    Use this when `audited` has read enough labels: 1 / alpha - 1 of each group at least.

    Args:
      racer: The artefact that was in use.
      audits: Its labelled audits.
      alpha: Another risk level; None for its own.

    Raises:
      ValueError: If alpha is out of range.
    """
    record, before = audits.record, racer.calibration
    assert before is not None
    ties = None
    if racer.seed is not None:
        ties = question_ties(record.questions, racer.seed, record.nonconformity.shape[1])
    options = {
        "alpha": before.alpha if alpha is None else alpha,
        "by_group": before.groups is not None,
        "fallback": before.fallback,
        "delta": before.delta,
        "unknown_group": before.unknown_group,
        "max_models": before.max_models,
        "min_models": before.min_models,
    }
    rule = _LABEL_RULE.format(", ".join(audits.sources))
    calibration = calibration_of(record, ties, options, num_overlap=0, label_rule=rule)
    return replace(racer, calibration=calibration)
