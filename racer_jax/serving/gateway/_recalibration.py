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
from racer_jax.serving.gateway._since import Since, first_time, shown_time

_DIGITS = 12
_LABEL_RULE = "labels of audits: {}"


@dataclass(frozen=True, eq=False)
class Audited:
    """Labelled audits of one artefact, one row for each request.

    Attributes:
      record: What a calibration needs of them.
      sources: Who labelled them.
      num_audited: Audited requests of the same time, labelled or not.
    """

    record: CalibrationRecord
    sources: tuple[str, ...]
    num_audited: int

    def __len__(self) -> int:
        return len(self.record.correct)

    def notes(self) -> tuple[str, ...]:
        """What is not known of the audits, a sentence each."""
        lacking = self.num_audited - len(self)
        if not lacking:
            return ()
        share = lacking / self.num_audited
        return (
            f"{lacking:,} of {self.num_audited:,} audited requests ({share:.1%}) have no label of "
            "every model: a model failed or was down, who labels could not decide, or it is still "
            "to come. If that depends on the question, the promise is that of the requests with a "
            f"label; counted as missed, the others add at most {share:.3g} to the risk",
        )


def audited(state: str | Path, checksum: str, racer: Racer, since: Since = None) -> Audited:
    """Reads the labelled audits of requests that an artefact decided on.

    Audited requests are a random sample of the traffic. A question that comes again stays in as
    often as it came, and one that was trained on stays in too: future requests repeat them as well,
    and without them the labels would be those of other traffic.

    Use this when the monitors say that the traffic has changed, or labels have come together.

    Args:
      state: The SQLite file of a gateway.
      checksum: The checksum of the artefact.
      racer: The artefact.
      since: Seconds since 1970 after which the requests came; `alarm` for those after the latest
        alarm, `all` for all; None where there was no alarm.

    Returns:
      The audits with a label of every model, the first label of each request, without those of a
      pool that had lost a model.

    Raises:
      DataError: If it is no state of a gateway, or holds no such audit; or if a monitor of the
        artefact has raised an alarm and `since` says nothing.
    """
    artefact = checksum[:_DIGITS]
    with reading(state) as connection:
        first = first_time(connection, artefact, since, shown(str(state)))
        rows = connection.execute(
            "select d.id, f.source, f.content, a.nonconformity, d.scores, d.grp, d.fingerprint, "
            "d.pool from feedback f join audit a on a.decision = f.decision "
            "join decision d on d.id = f.decision where d.audited = 1 and d.artefact = ? "
            "and d.at > ? order by f.seq",
            [artefact, first],
        ).fetchall()
        (num_audited,) = connection.execute(
            "select count(*) from decision where audited = 1 and artefact = ? and at > ?",
            [artefact, first],
        ).fetchone()
    labelled = {}
    for name, source, content, nonconformity, scores, group, number, pool in rows:
        correct = msgspec.json.decode(content).get("correct")
        whole = tuple(msgspec.json.decode(pool)) == racer.models
        if source not in TRUSTED or correct is None or not whole:
            continue
        if name not in labelled and set(racer.models) <= set(correct):
            labelled[name] = (
                source,
                correct,
                nonconformity,
                msgspec.json.decode(scores),
                group,
                number % (1 << 64),
            )
    if not labelled:
        of_then = "" if first < 0 else f" made after {shown_time(first)}"
        raise DataError(
            f"holds no labelled audit of the artefact {artefact}{of_then}; label those that "
            "GET /audit of the management port lists",
            path=shown(str(state)),
        )
    sources, labels, nonconformity, scores, groups, questions = zip(*labelled.values(), strict=True)
    # Conversations, tools and the like are of groups that only some artefacts know.
    names = None
    if racer.calibration is not None and racer.calibration.groups is not None:
        names = tuple(sorted({str(group) for group in groups}))
    record = CalibrationRecord(
        scores=np.array(scores, np.float32),
        nonconformity=np.stack([np.frombuffer(row, np.float32) for row in nonconformity]),
        correct=np.array([[label[m] for m in racer.models] for label in labels], bool),
        questions=np.array(questions, np.uint64),
        code=_codes(groups, names),
        groups=names,
    )
    return Audited(record, tuple(sorted(set(sources))), num_audited)


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
      ValueError: If alpha is out of range, or the artefact keeps a loss of graded answers.
    """
    record, before = audits.record, racer.calibration
    assert before is not None
    if before.loss is not None:
        raise ValueError(
            f"the artefact was calibrated for the loss {before.loss.name!r} of graded answers, and "
            "labels of audits only say right or wrong: alpha would be another promise. Calibrate "
            f"it on a table with grades (racer-jax calibrate --loss {before.loss.name})"
        )
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
