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

import shlex
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from racer_jax.serving.gateway._databases import Connection
from racer_jax.serving.gateway._identifiers import draw
from racer_jax.serving.gateway._records import TRUSTED
from racer_jax.serving.gateway._references import Reference, begun, seed_of
from racer_jax.serving.gateway._since import ALARM, ALARM_TIME
from racer_jax.serving.gateway.settings import Monitors as Settings
from racer_jax.serving.misses import miss_of
from racer_jax.serving.monitor import ExchangeabilityMonitor, RiskMonitor

_ROWS = 1000
_SAVE_SECONDS = 10.0
# 2 has a test of exchangeability for each group, 3 counts each request and shares the level.
_FORMAT = 3
_REFERENCE = "reference {} {}"
_RECALIBRATE = (
    "recalibrate on labels of requests since then (racer-jax recalibrate STATE --artefact FOLDER "
    "-o NEW --since-alarm --route {})"
)
# Older versions did not keep whether the set of a decision had a promise.
_PROMISED = (
    "coalesce(promised, case when reason = 'unknown_group' and guarantee = 'void' then 0 else 1 "
    "end)"
)


@dataclass
class Watched:
    """What is tested of one artefact of one route.

    Attributes:
      route: Name of the route.
      artefact: The artefact's checksum.
      level: Chance that any of its monitors ever raises a false alarm.
      null: The null mode, which says what a miss is.
      risk: The test of the risk, by alpha.
      reference: Top scores of the calibration.
      live: Top scores that will choose the bins of a group without any in the calibration.
      top_scores: The test of exchangeability, by group, as soon as it has bins.
      labels: Audited requests whose set had a promise, and those of them with a label; misses;
        wrong answers though the set held a right one; answers shown, and the wrong ones of them;
        and, apart from all these, audited requests whose set had no promise.
      alarm_times: Seconds since 1970 of the request or label that raised an alarm, by its kind.
      users: What users said: number, and how many were wrong. It feeds no test.
    """

    route: str
    artefact: str
    level: float
    null: str = "paper"
    risk: dict[str, RiskMonitor] = field(default_factory=dict)
    reference: Reference = field(default_factory=Reference)
    live: dict[str, list[float]] = field(default_factory=dict)
    top_scores: dict[str, ExchangeabilityMonitor] = field(default_factory=dict)
    labels: dict[str, int] = field(
        default_factory=lambda: {
            "audited": 0,
            "num": 0,
            "misses": 0,
            "judged": 0,
            "judge_errors": 0,
            "without_promise": 0,
        }
    )
    alarm_times: dict[str, float] = field(default_factory=dict)
    users: dict[str, int] = field(default_factory=lambda: {"num": 0, "wrong": 0})

    @property
    def alarms(self) -> list[str]:
        """The tests that have raised an alarm, in words."""
        return list(self.alarms_by_kind.values())

    @property
    def alarms_by_kind(self) -> dict[str, str]:
        """The tests that have raised an alarm, in words, by what they say."""
        remedy = _RECALIBRATE.format(shlex.quote(self.route))
        words = {
            risk_kind(alpha): f"{risk_kind(alpha)} since label {monitor.alarm} (evidence "
            f"{monitor.evidence:.3g}): {remedy}"
            for alpha, monitor in self.risk.items()
            if monitor.alarm is not None
        }
        for group, top in self.top_scores.items():
            if top.alarm is not None:
                kind = self.change_kind(group)
                live = max(top.alarm - len(self.reference.first.get(group, ())), 0)
                words[kind] = (
                    f"{kind} since tested decision {live} (evidence {top.evidence:.3g}): {remedy}"
                )
        return words

    def change_kind(self, group: str) -> str:
        """What the alarm of the test of exchangeability of a group says."""
        which = "" if self.reference.groups is None else f" of the group {group!r}"
        return f"queries{which} have changed"

    @property
    def level_of_groups(self) -> float:
        """Chance of a false alarm of the test of exchangeability of each group, ever."""
        return self.level / 2 / max(len(self.reference.groups or ()), 1)

    @property
    def level_of_next_risk(self) -> float:
        """Chance of a false alarm of the test of the risk at one more alpha, ever.

        How many there will be is not known, so the j-th, from 0, has 1 / ((j + 1) (j + 2)) of half
        of the level: all of them together have that half, however many there are.
        """
        num = len(self.risk)
        return self.level / 2 / ((num + 1) * (num + 2))


def risk_kind(alpha: str) -> str:
    """What the alarm of the test of the risk says."""
    return f"risk above {alpha}"


@dataclass
class _Saved:
    """The state of all tests."""

    last_decision: int
    last_label: int
    watched: list[Watched]
    raised: list[tuple[str, str, str]]
    last_activation: int = 0
    format: int = _FORMAT


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
        self._lock = threading.Lock()
        self.alarms: dict[str, bool] = {}

    def enter(
        self,
        connection: Connection,
        route: str,
        artefact: str,
        null: str,
        reference: Reference | None = None,
    ) -> None:
        """Writes that an artefact comes into use; one that was in use before stays where it is.

        Args:
          connection: The state.
          route: Name of the route.
          artefact: The artefact's checksum.
          null: The null mode.
          reference: The top scores of its calibration.
        """
        content = msgspec.json.encode(reference or Reference()).decode()
        connection.execute(
            "insert into meta values (?, ?) on conflict (name) do nothing",
            [_REFERENCE.format(route, artefact), content],
        )
        connection.execute(
            "insert into activation (route, artefact, null_mode, at) values (?, ?, ?, ?) "
            "on conflict (route, artefact) do nothing",
            [route, artefact, null, time.time()],
        )
        with self._lock:
            self._fold_activations(connection)

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
        if row is not None and msgspec.json.decode(row[0], type=_Format).format == _FORMAT:
            saved = msgspec.json.decode(row[0], type=_Saved)
            self._last_decision, self._last_label = saved.last_decision, saved.last_label
            self._last_activation = saved.last_activation
            self._watched = {(one.route, one.artefact): one for one in saved.watched}
            self._raised = set(saved.raised)

    def save(self, connection: Connection) -> None:
        """Writes the state of all tests, with the place up to which rows are counted."""
        with self._lock:
            saved = _Saved(
                self._last_decision,
                self._last_label,
                list(self._watched.values()),
                sorted(self._raised),
                self._last_activation,
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

    def _fold_activations(self, connection: Connection) -> None:
        query = "select seq, route, artefact, null_mode from activation where seq > ? order by seq"
        rows = connection.execute(query, [self._last_activation]).fetchall()
        for seq, route, artefact, null in rows:
            self._last_activation = seq
            if (route, artefact) not in self._watched:
                num_before = sum(name == route for name, _ in self._watched)
                level = self._settings.level / 2 ** (num_before + 1)
                watched = Watched(route, artefact, level, null)
                name = _REFERENCE.format(route, artefact)
                row = connection.execute("select value from meta where name = ?", [name]).fetchone()
                if row is not None:
                    watched.reference = msgspec.json.decode(row[0], type=Reference)
                watched.top_scores |= begun(watched.reference, artefact, watched.level_of_groups)
                self._watched[route, artefact] = watched

    def _fold_decisions(self, connection: Connection) -> None:
        query = (
            "select seq, id, at, route, artefact, top_score, grp, reason, audited, "
            f"{_PROMISED} from decision where seq > ? order by seq limit ?"
        )
        while rows := connection.execute(query, [self._last_decision, _ROWS]).fetchall():
            for seq, name, at, route, artefact, top_score, group, reason, audited, promised in rows:
                self._last_decision = seq
                watched = self._watched.get((route, artefact))
                if watched is None:
                    continue
                if audited:
                    watched.labels["audited" if promised else "without_promise"] += 1
                # A kind of request without calibration queries is no change of the others.
                tested = watched.reference.group_of(group)
                if top_score is None or tested is None or reason == "unknown_group":
                    continue
                if draw(self._key, name, "monitor") < self._settings.share:
                    self._add_top_score(watched, tested, top_score, at)

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

    def _fold_labels(self, connection: Connection) -> None:
        query = (
            "select f.seq, f.decision, f.source, f.content, f.at, d.route, d.artefact, d.alpha, "
            f"d.decided, d.answered, d.null_in_set, d.pool, d.audited, {_PROMISED} "
            "from feedback f join decision d on d.id = f.decision "
            "where f.seq > ? order by f.seq limit ?"
        )
        while rows := connection.execute(query, [self._last_label, _ROWS]).fetchall():
            for row in rows:
                label = _Label(*row)
                self._last_label = label.seq
                watched = self._watched.get((label.route, label.artefact))
                if watched is not None:
                    self._add_label(connection, watched, label)

    def _add_label(self, connection: Connection, watched: Watched, label: "_Label") -> None:
        content = msgspec.json.decode(label.content)
        if label.source not in TRUSTED or not label.audited:
            watched.users["num"] += 1
            wrong = content.get("answer_correct") == 0 or content.get("missed") == 1
            watched.users["wrong"] += wrong
            return
        missed = label.missed(content, watched.null)
        if missed is None or not label.promised or _labelled_before(connection, watched, label):
            return
        watched.labels["num"] += 1
        watched.labels["misses"] += missed
        correct = content.get("correct")
        if correct is not None and label.answered in correct:
            covered = any(correct.get(model) for model in msgspec.json.decode(label.decided))
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


class _Label(NamedTuple):
    """A label, with what is needed of its decision."""

    seq: int
    decision: str
    source: str
    content: str
    at: float
    route: str
    artefact: str
    alpha: str
    decided: str
    answered: str
    null_in_set: int
    pool: str
    audited: int
    promised: int

    def missed(self, content: Mapping[str, Any], null: str) -> bool | None:
        """Whether the set was a miss; None where a label does not say it."""
        decided = set(msgspec.json.decode(self.decided))
        pool = set(msgspec.json.decode(self.pool))
        return miss_of(content, decided, pool, bool(self.null_in_set), null)


def _labelled_before(connection: Connection, watched: Watched, label: _Label) -> bool:
    """Whether another label of the request said before whether its set was a miss."""
    earlier = connection.execute(
        "select source, content from feedback where decision = ? and seq < ?",
        [label.decision, label.seq],
    ).fetchall()
    return any(
        source in TRUSTED and label.missed(msgspec.json.decode(content), watched.null) is not None
        for source, content in earlier
    )


def upper_bound(num_events: int, num: int, confidence: float = 0.95) -> float:
    """The one-sided Clopper-Pearson upper bound of a share; 1 where nothing was counted.

    >>> upper_bound(0, 0), round(upper_bound(0, 58), 3)
    (1.0, 0.05)
    """
    from scipy.special import betaincinv

    if num == 0 or num_events >= num:
        return 1.0
    return float(np.asarray(betaincinv(num_events + 1, num - num_events, confidence)))
