"""Tests of the promise on live traffic: a fold over what the state holds, in its order.

- Risk: labels of audited decisions alone, and of those whose set had a promise. What users say is
  counted apart and tests nothing, since users choose which answers they rate.
- Exchangeability: the router's highest score, of a share of the requests that a keyed hash draws;
  one test for each group, which begins with the calibration queries of the group.

Both count every request, and a question as often as it comes. The promise is one for the traffic,
in which questions come again. Those that come for the first time are other traffic, and no stream
of equal chances: what is asked often comes first. For the same reason the hash draws requests by
their names, and not by their questions.

Each artefact of a route has monitors of its own. The k-th, from 0, may use the level / 2^(k + 1),
and its monitors share that, so that the chance that any monitor of the route ever raises a false
alarm is at most the level. Which artefact is the k-th stands in the state too: replicas that share
one fold the same rows in the same order, each for itself, and whoever holds the lock of those who
write may save what it has folded.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from racer_jax.serving.gateway._databases import Connection
from racer_jax.serving.gateway._identifiers import draw
from racer_jax.serving.gateway._records import TRUSTED
from racer_jax.serving.gateway._references import Reference, begun, seed_of
from racer_jax.serving.gateway._rows import (
    SHOWN_MODEL,
    Decided,
    Label,
    Said,
    UnreadableError,
    activated_of,
    decided_of,
    label_of,
    models_of,
    said_of,
)
from racer_jax.serving.gateway._since import ALARM, ALARM_TIME
from racer_jax.serving.gateway._watched import Watched, risk_kind
from racer_jax.serving.gateway.settings import Monitors as Settings
from racer_jax.serving.monitor import ExchangeabilityMonitor, RiskMonitor

_ROWS = 1000
_SAVE_SECONDS = 10.0
# 2 has a test of exchangeability for each group, 3 counts each request and shares the level.
_FORMAT = 3
_REFERENCE = "reference {} {}"
_LOG = logging.getLogger("racer_jax.serving.gateway")
_MOST_NAMED = 20
# Older versions did not keep whether the set of a decision had a promise.
_PROMISED = (
    "coalesce(promised, case when reason = 'unknown_group' and guarantee = 'void' then 0 else 1 "
    "end)"
)


@dataclass
class _Saved:
    """The state of all tests."""

    last_decision: int
    last_label: int
    watched: list[Watched]
    raised: list[tuple[str, str, str]]
    last_activation: int = 0
    format: int = _FORMAT
    unreadable: int = 0
    unplaced: int = 0
    lost_activations: int = 0


class _Format(msgspec.Struct):
    """What is read first of a state."""

    format: int = 1


class Monitors:
    """All tests of a gateway; `fold` runs in the thread that writes the state.

    Args:
      settings: Their settings.
      key: The key of the draw.
      on_alarm: Called once for each alarm, with route, artefact and words.
    """

    def __init__(
        self,
        settings: Settings,
        key: bytes,
        on_alarm: Callable[[str, str, str], None] | None = None,
    ) -> None:
        self._settings, self._key, self._on_alarm = settings, key, on_alarm
        self._watched: dict[tuple[str, str], Watched] = {}
        self._active: dict[str, str] = {}
        self._last_decision = self._last_label = self._last_activation = 0
        self._saved_at = 0.0
        self._raised: set[tuple[str, str, str]] = set()
        self._raised_before: set[tuple[str, str, str]] = set()
        self._lost_activations = 0
        self._is_broken = False
        self._lock = threading.Lock()
        self.alarms: dict[str, bool] = {}
        # Rows that cannot be read; decisions among them that may be of any route.
        self.unreadable = self.unplaced = 0

    def enter(
        self,
        connection: Connection,
        route: str,
        artefact: str,
        null: str,
        reference: Reference | None = None,
    ) -> None:
        """Writes that an artefact comes into use; one that was in use before stays where it is.

        Its tests begin with the next `fold`: what is written here may yet be undone.

        Args:
          connection: The state.
          route: Name of the route.
          artefact: The artefact's checksum.
          null: The null mode.
          reference: The top scores of its calibration.
        """
        name = _REFERENCE.format(route, artefact)
        content = msgspec.json.encode(reference or Reference()).decode()
        connection.execute(
            "insert into meta values (?, ?) on conflict (name) do nothing", [name, content]
        )
        if _reference(connection, name) is None:  # it can be said again
            connection.execute("update meta set value = ? where name = ?", [content, name])
        connection.execute(
            "insert into activation (route, artefact, null_mode, at) values (?, ?, ?, ?) "
            "on conflict (route, artefact) do update set null_mode = excluded.null_mode",
            [route, artefact, null, time.time()],
        )

    def activate(self, route: str, artefact: str) -> None:
        """An artefact that was entered answers from now on."""
        with self._lock:
            self._active[route] = artefact
            for (name, checksum), watched in self._watched.items():
                if (name, checksum) == (route, artefact):
                    self.alarms[route] = bool(watched.alarms)

    def of(self, route: str, artefact: str) -> Watched:
        """What is tested of an artefact of a route."""
        return self._watched[route, artefact]

    # --- to disk and back -------------------------------------------------------------------------

    def load(self, connection: Connection) -> None:
        """Takes up what `save` wrote; rows that came after it are folded in by `fold`."""
        row = connection.execute("select state from monitor where name = 'all'").fetchone()
        # That of an older version is made anew from the rows that are kept.
        try:
            if row is None or msgspec.json.decode(row[0], type=_Format).format != _FORMAT:
                return
            saved = msgspec.json.decode(row[0], type=_Saved)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            self._is_broken = True
            _LOG.error(
                "the monitors cannot read what they had saved: %s; they count the rows that are "
                "kept anew, and alarms stay",
                error,
            )
            return
        self._last_decision, self._last_label = saved.last_decision, saved.last_label
        self._last_activation = saved.last_activation
        self._watched = {(one.route, one.artefact): one for one in saved.watched}
        for watched in saved.watched:  # an earlier version counted fewer things
            watched.labels.setdefault("unreadable", 0)
        self._raised = set(saved.raised)
        self.unreadable, self.unplaced = saved.unreadable, saved.unplaced
        self._lost_activations = saved.lost_activations

    def save(self, connection: Connection) -> None:
        """Writes the state of all tests, with the place up to which rows are counted."""
        with self._lock:
            saved = _Saved(
                self._last_decision,
                self._last_label,
                list(self._watched.values()),
                sorted(self._raised),
                self._last_activation,
                unreadable=self.unreadable,
                unplaced=self.unplaced,
                lost_activations=self._lost_activations,
            )
            state = msgspec.json.encode(saved).decode()
        connection.execute(
            "insert into monitor values ('all', ?, ?) on conflict (name) do update "
            "set position = excluded.position, state = excluded.state",
            [self._last_decision, state],
        )

    def on_commit(self, connection: Connection) -> None:
        """Folds, and now and then saves: for the state to call after each group of rows."""
        self._raised_before = set(self._raised)
        self.fold(connection)
        now = time.monotonic()
        if now - self._saved_at > _SAVE_SECONDS:
            self._saved_at = now
            self.save(connection)

    def on_rollback(self) -> None:
        """What `on_commit` wrote is undone: alarms are to be written again, and the state saved."""
        self._raised, self._saved_at = self._raised_before, 0.0

    # --- the fold ---------------------------------------------------------------------------------

    def fold(self, connection: Connection) -> None:
        """Takes in what was written since the last call."""
        with self._lock:
            self._fold_activations(connection)
            self._fold_decisions(connection)
            self._fold_labels(connection)
            self._note_alarms(connection)

    def _skip(self, table: str, row: Sequence[Any], error: UnreadableError) -> None:
        """Counts a row that cannot be read, and names it."""
        self.unreadable += 1
        if self.unreadable <= _MOST_NAMED:
            _LOG.error(
                "the monitors leave out a row of the state that cannot be read, %s %s: %s",
                table,
                row[0],
                error,
            )
        if self.unreadable == _MOST_NAMED:
            _LOG.error("further rows that cannot be read are only counted")

    def _fold_activations(self, connection: Connection) -> None:
        query = "select seq, route, artefact, null_mode from activation where seq > ? order by seq"
        for row in connection.execute(query, [self._last_activation]).fetchall():
            try:
                new = activated_of(row)
            except UnreadableError as error:
                self._skip("activation", row, error)
                self._lost_activations += 1
            else:
                if (new.route, new.artefact) not in self._watched:
                    watched = self._begun(connection, new.route, new.artefact, new.null)
                    self._watched[new.route, new.artefact] = watched
            self._last_activation = row[0]

    def _begun(self, connection: Connection, route: str, artefact: str, null: str) -> Watched:
        """What is tested of an artefact that comes into use."""
        # One that cannot be read may have been of this route.
        num_before = sum(name == route for name, _ in self._watched) + self._lost_activations
        level = self._settings.level / 2 ** (num_before + 1)
        watched = Watched(route, artefact, level, null)
        name = _REFERENCE.format(route, artefact)
        if connection.execute("select 1 from meta where name = ?", [name]).fetchone() is not None:
            reference = _reference(connection, name)
            if reference is None:
                self._skip("meta", [name], UnreadableError("no group is tested for a change"))
                reference = Reference(groups=[])
            watched.reference = reference
        watched.top_scores |= begun(watched.reference, artefact, watched.level_of_groups)
        if self._is_broken:
            watched.kept_alarms = _alarms_in(connection, route, artefact)
        return watched

    def _fold_decisions(self, connection: Connection) -> None:
        query = (
            "select seq, id, at, route, artefact, top_score, grp, reason, audited, "
            f"{_PROMISED} from decision where seq > ? order by seq limit ?"
        )
        while rows := connection.execute(query, [self._last_decision, _ROWS]).fetchall():
            for row in rows:
                self._last_decision = row[0]
                try:
                    self._add_decision(decided_of(row))
                except UnreadableError as error:
                    self._skip("decision", row, error)
                    self._add_unreadable(*row[3:5], *row[8:10])

    def _add_unreadable(self, route: Any, artefact: Any, audited: Any, promised: Any) -> None:
        """A decision that cannot be read: unless it says otherwise, it was audited, and missed."""
        if audited == 0:
            return
        watched = self._watched.get((route, artefact))
        if watched is None:
            self.unplaced += 1
        else:
            watched.labels["without_promise" if promised == 0 else "audited"] += 1

    def _add_decision(self, decided: Decided) -> None:
        watched = self._watched.get((decided.route, decided.artefact))
        if watched is None:
            return
        if decided.audited:
            watched.labels["audited" if decided.promised else "without_promise"] += 1
        # A kind of request without calibration queries is no change of the others.
        tested = watched.reference.group_of(decided.group)
        if decided.top_score is None or tested is None or decided.reason == "unknown_group":
            return
        if draw(self._key, decided.id, "monitor") < self._settings.share:
            self._add_top_score(watched, tested, decided.top_score, decided.at)

    def _add_top_score(self, watched: Watched, group: str, top_score: float, at: float) -> None:
        test = watched.top_scores.get(group)
        if test is not None:
            test = watched.top_scores[group] = test.update([top_score])
            if test.alarm is not None:
                watched.alarm_times.setdefault(watched.change_kind(group), at)
            return
        live = watched.live.setdefault(group, [])
        live.append(top_score)
        enough = len(live) >= self._settings.reference
        if enough and len(set(live)) > 1:
            seed = seed_of(watched.artefact, group)
            watched.top_scores[group] = ExchangeabilityMonitor.over(
                live, level=watched.level_of_groups, seed=seed
            )
        elif enough:  # all are the same: no bins can be chosen, and more of them say no more
            del live[0]

    def _fold_labels(self, connection: Connection) -> None:
        query = (
            "select f.seq, f.decision, f.source, f.content, f.at, d.route, d.artefact, d.alpha, "
            f"d.decided, {SHOWN_MODEL}, d.null_in_set, d.pool, d.audited, {_PROMISED} "
            "from feedback f left join decision d on d.id = f.decision "
            "where f.seq > ? order by f.seq limit ?"
        )
        while rows := connection.execute(query, [self._last_label, _ROWS]).fetchall():
            for row in rows:
                try:
                    label, said = label_of(row)
                except UnreadableError as error:
                    self._skip("feedback", row, error)
                    source, route, artefact = row[2], row[5], row[6]
                    watched = self._watched.get((route, artefact))
                    if watched is not None and source != "user":
                        watched.labels["unreadable"] += 1
                else:
                    watched = self._watched.get((label.route, label.artefact))
                    if watched is not None:
                        self._add_label(connection, watched, label, said)
                self._last_label = row[0]

    def _add_label(
        self, connection: Connection, watched: Watched, label: Label, said: Said
    ) -> None:
        if label.source not in TRUSTED or not label.audited:
            watched.users["num"] += 1
            watched.users["wrong"] += said.answer_correct == 0 or said.missed == 1
            return
        missed = label.missed(said, watched.null)
        if missed is None or not label.promised or _labelled_before(connection, watched, label):
            return
        watched.labels["num"] += 1
        watched.labels["misses"] += missed
        correct = said.correct
        if correct is not None and label.answered in correct:
            covered = any(correct.get(model) for model in models_of(label.decided))
            counts, wrong = watched.labels, not correct[label.answered]
            counts["judged"] += 1
            counts["judge_errors"] += covered and wrong
            # An older version did not count these: they begin where they are first there.
            counts["answers"] = counts.get("answers", 0) + 1
            counts["wrong_answers"] = counts.get("wrong_answers", 0) + wrong
        alpha = label.alpha
        monitor = watched.risk.get(alpha)
        if monitor is None:
            monitor = RiskMonitor(alpha=float(alpha), level=watched.level_of_next_risk)
        monitor = watched.risk[alpha] = monitor.update([missed])
        if monitor.alarm is not None:
            watched.alarm_times.setdefault(risk_kind(alpha), label.at)

    def _note_alarms(self, connection: Connection) -> None:
        """Raises each alarm once, whichever replica folds it first."""
        new = "insert into meta values (?, ?) on conflict (name) do nothing"
        for (route, artefact), watched in self._watched.items():
            words = watched.alarms_by_kind
            if self._active.get(route) == artefact:
                self.alarms[route] = bool(words)
            for kind, word in words.items():
                about = (route, artefact, kind)
                if about not in self._raised:
                    self._raised.add(about)
                    name = " ".join(about)
                    if kind in watched.alarm_times:
                        at = watched.alarm_times[kind]
                        connection.execute(new, [ALARM_TIME.format(name), str(at)])
                    first = connection.execute(new, [ALARM.format(name), word]).rowcount
                    if first and self._on_alarm is not None:
                        self._on_alarm(route, artefact, word)


def _labelled_before(connection: Connection, watched: Watched, label: Label) -> bool:
    """Whether another label of the request said before whether its set was a miss.

    One that cannot be read may have said it, and may have been counted while it could.
    """
    earlier = connection.execute(
        "select source, content from feedback where decision = ? and seq < ?",
        [label.decision, label.seq],
    ).fetchall()
    for source, content in earlier:
        try:
            said = said_of(content)
        except UnreadableError:
            if source != "user":
                return True
            continue
        if source in TRUSTED and label.missed(said, watched.null) is not None:
            return True
    return False


def _reference(connection: Connection, name: str) -> Reference | None:
    """The top scores that were kept of a calibration; None where they cannot be read."""
    row = connection.execute("select value from meta where name = ?", [name]).fetchone()
    try:
        return msgspec.json.decode(row[0], type=Reference)
    except (msgspec.MsgspecError, ValueError, TypeError):
        return None


def _alarms_in(connection: Connection, route: str, artefact: str) -> dict[str, str]:
    """The alarms that were raised of an artefact of a route, in words, by their kind."""
    prefix = ALARM.format(f"{route} {artefact} ")
    rows = connection.execute("select name, value from meta").fetchall()
    return {
        str(name)[len(prefix) :]: str(words) for name, words in rows if str(name).startswith(prefix)
    }


def upper_bound(num_events: int, num: int, confidence: float = 0.95) -> float:
    """The one-sided Clopper-Pearson upper bound of a share; 1 where nothing was counted.

    >>> upper_bound(0, 0), round(upper_bound(0, 58), 3)
    (1.0, 0.05)
    """
    from scipy.special import betaincinv

    if num == 0 or num_events >= num:
        return 1.0
    return float(np.asarray(betaincinv(num_events + 1, num - num_events, confidence)))
