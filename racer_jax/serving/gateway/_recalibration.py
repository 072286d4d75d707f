"""Calibrates again, on labelled audits: a random sample of the traffic, every model's result."""

from collections import Counter
from collections.abc import Mapping
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
from racer_jax.serving.gateway._databases import Connection, reading, shown
from racer_jax.serving.gateway._records import TRUSTED
from racer_jax.serving.gateway._rows import (
    UnreadableError,
    all_unreadable,
    left_out,
    models_of,
    said_of,
)
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
      routes: How many of the labelled ones came by each route.
      lost_groups: Groups that the artefact was calibrated on and no labelled audit is of.
      num_without_group: Labelled audits that are left out, since they name no group and the
        artefact has a threshold for each group.
      unreadable: Labels that are left out, for they or their decision cannot be read, and why.
    """

    record: CalibrationRecord
    sources: tuple[str, ...]
    num_audited: int
    routes: Mapping[str, int]
    lost_groups: tuple[str, ...] = ()
    num_without_group: int = 0
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.record.correct)

    def notes(self) -> tuple[str, ...]:
        """What to know of the audits, a sentence each."""
        notes = []
        if len(self.routes) > 1:
            notes.append(
                f"{len(self):,} audits of several routes: {_counted(self.routes)}. The promise is "
                "that of their requests together, and no promise for each of them: --route ROUTE "
                "takes those of one"
            )
        if self.lost_groups:
            notes.append(
                f"no labelled audit is of {', '.join(map(repr, self.lost_groups))}: the new "
                "artefact has no threshold for such a group, and takes its requests for those of "
                "an unknown group"
            )
        if self.num_without_group:
            notes.append(
                "labelled audits of requests that named no group are left out "
                f"({self.num_without_group:,}): there is a threshold for each group, and none for "
                "such requests"
            )
        if self.unreadable:
            words = left_out(self.unreadable, "labels")
            notes.append(f"{words}; they count as audits without a label")
        lacking = self.num_audited - len(self) - self.num_without_group
        if lacking:
            share = lacking / self.num_audited
            notes.append(
                f"{lacking:,} of {self.num_audited:,} audited requests ({share:.1%}) have no label "
                "of every model: a model failed or was down, who labels could not decide, or it is "
                "still to come. If that depends on the question, the promise is that of the "
                "requests with a label; counted as missed, the others add at most "
                f"{share:.3g} to the risk"
            )
        return tuple(notes)


def audited(
    state: str | Path, checksum: str, racer: Racer, since: Since = None, route: str | None = None
) -> Audited:
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
      route: Only requests, and alarms, of this route; of all that use the artefact where None.

    Returns:
      The audits with a label of every model, the first label of each request, without those of a
      pool that had lost a model.

    Raises:
      DataError: If it is no state of a gateway, or holds no such audit; if the artefact, or the
        route with it, has decided nothing; or if a monitor has raised an alarm and `since` says
        nothing.
    """
    artefact = checksum[:_DIGITS]
    with reading(state) as connection:
        _check_used(connection, artefact, route, shown(str(state)))
        first = first_time(connection, artefact, since, shown(str(state)), route)
        rows = connection.execute(
            "select d.id, f.source, f.content, a.nonconformity, d.scores, d.grp, d.fingerprint, "
            "d.pool, d.route from feedback f join audit a on a.decision = f.decision "
            "join decision d on d.id = f.decision where d.audited = 1 and d.artefact = ? "
            "and d.at > ? and (? is null or d.route = ?) order by f.seq",
            [artefact, first, route, route],
        ).fetchall()
        (num_audited,) = connection.execute(
            "select count(*) from decision where audited = 1 and artefact = ? and at > ? "
            "and (? is null or route = ?)",
            [artefact, first, route, route],
        ).fetchone()
        labelled, unreadable = {}, Counter[str]()
        for name, source, content, nonconformity, scores, group, number, pool, way in rows:
            try:
                correct, whole = said_of(content).correct, tuple(models_of(pool)) == racer.models
                if source not in TRUSTED or correct is None or not whole:
                    continue
                measured = _measured(nonconformity, scores, len(racer.models))
                number = msgspec.convert(number, int) % (1 << 64)
            except (UnreadableError, msgspec.MsgspecError) as error:
                unreadable[f"{name}: {error}"] += 1
                continue
            if name not in labelled and set(racer.models) <= set(correct):
                labelled[name] = (source, correct, *measured, group, number, way)
    if unreadable and not labelled:
        raise all_unreadable(unreadable, shown(str(state)))
    if not labelled:
        of_then = "" if first < 0 else f" made after {shown_time(first)}"
        by = "" if route is None else f" on the route {route!r}"
        raise DataError(
            f"holds no labelled audit of the artefact {artefact}{by}{of_then}; label those that "
            "GET /audit of the management port lists",
            path=shown(str(state)),
        )
    known = None if racer.calibration is None else racer.calibration.groups
    # A threshold of theirs would be that of a group which no request can name.
    named = {name: row for name, row in labelled.items() if row[4] is not None or known is None}
    if not named:
        raise DataError(
            f"holds labelled audits of the artefact {artefact} ({len(labelled):,}), but none of a "
            "request that named a group, and there is a threshold for each group alone",
            path=shown(str(state)),
        )
    columns = zip(*named.values(), strict=True)
    sources, labels, nonconformity, scores, groups, questions, routes = columns
    # Conversations, tools and the like are of groups that only some artefacts know.
    names, lost = None, set[str]()
    if known is not None:
        names = tuple(sorted({str(group) for group in groups}))
        lost = set(known) - set(names)
    record = CalibrationRecord(
        scores=np.array(scores, np.float32),
        nonconformity=np.stack(nonconformity),
        correct=np.array([[label[m] for m in racer.models] for label in labels], bool),
        questions=np.array(questions, np.uint64),
        code=_codes(groups, names),
        groups=names,
    )
    return Audited(
        record=record,
        sources=tuple(sorted(set(sources))),
        num_audited=num_audited,
        routes=Counter(routes),
        lost_groups=tuple(sorted(lost)),
        num_without_group=len(labelled) - len(named),
        unreadable=tuple(unreadable),
    )


def _measured(nonconformity: bytes, scores: str, num_models: int) -> tuple[np.ndarray, list[float]]:
    """The nonconformity and the scores of a request.

    Raises:
      UnreadableError: If they are not those of so many models, and the null model.
    """
    try:
        numbers = np.frombuffer(nonconformity, np.float32)
        known = msgspec.json.decode(scores, type=list[float])
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise UnreadableError(str(error)) from None
    if len(numbers) != num_models + 1 or len(known) != num_models:
        raise UnreadableError(f"scores must be those of {num_models} models")
    return numbers, known


def _check_used(connection: Connection, artefact: str, route: str | None, place: str) -> None:
    """Refuses an artefact, or a route with it, that has decided nothing, and names those that have.

    Raises:
      DataError: If there is no decision.
    """
    of_route = "select route, count(*) from decision where artefact = ? group by route"
    counts = dict(connection.execute(of_route, [artefact]).fetchall())
    if not counts:
        of_all = "select artefact, count(*) from decision where artefact != '' group by artefact"
        others = dict(connection.execute(of_all).fetchall())
        known = f"; its decisions are of {_counted(others)}" if others else ""
        raise DataError(
            f"holds no decision of the artefact {artefact}, which --artefact names{known}",
            path=place,
        )
    if route is not None and route not in counts:
        raise DataError(
            f"holds no decision of --route {route!r} with the artefact {artefact}; its routes are "
            f"{_counted(counts)}",
            path=place,
        )


def _counted(numbers: Mapping[str, int]) -> str:
    """Names, each with its number of requests."""
    return ", ".join(f"{name!r} ({num:,})" for name, num in sorted(numbers.items()))


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
