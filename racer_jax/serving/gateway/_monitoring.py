"""Tests of the promise on live traffic: a fold over what the state holds, in its order.

- Risk: labels of audited decisions alone. What users say is counted apart and tests nothing, since
  users choose which answers they rate.
- Exchangeability: the router's highest score, of a share of the questions that a keyed hash draws;
  one test for each group, which begins with the calibration queries of the group. A question that
  comes again counts once: what many ask, or one client asks in a loop, is no change of the queries.

Each artefact of a route has monitors of its own. The k-th, from 0, has the level / 2^(k + 1), so
that the chance of a false alarm over all of them stays below the level; the groups share it. Which
artefact is the k-th stands in the state too: replicas that share one fold the same rows in the same
order, each for itself, and whoever holds the lock of those who write may save what it has folded.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from racer_jax.serving.gateway._databases import Connection
from racer_jax.serving.gateway._identifiers import draw
from racer_jax.serving.gateway._records import TRUSTED
from racer_jax.serving.gateway._references import Reference, begun, seed_of
from racer_jax.serving.gateway.settings import Monitors as Settings
from racer_jax.serving.misses import miss_of
from racer_jax.serving.monitor import ExchangeabilityMonitor, RiskMonitor

_ROWS = 1000
_SAVE_SECONDS = 10.0
# 2 has a test of exchangeability for each group.
_FORMAT = 2
_REFERENCE = "reference {} {}"
_ASKED_BEFORE = (
    "select 1 from decision where fingerprint = ? and route = ? and artefact = ? and seq < ? "
    "and top_score is not null limit 1"
)


@dataclass
class Watched:
    """What is tested of one artefact of one route.

    Attributes:
      route: Name of the route.
      artefact: The artefact's checksum.
      level: Chance of a false alarm of each monitor, ever.
      null: The null mode, which says what a miss is.
      risk: The test of the risk, by alpha.
      reference: Top scores of the calibration.
      live: Top scores that will choose the bins of a group without any in the calibration.
      top_scores: The test of exchangeability, by group, as soon as it has bins.
      seen: Fingerprints of the questions whose label was counted: a repeat counts once.
      labels: Labels of audited decisions; misses; wrong answers though the set held a right one.
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
    seen: set[int] = field(default_factory=set)
    labels: dict[str, int] = field(
        default_factory=lambda: {"num": 0, "misses": 0, "judged": 0, "judge_errors": 0}
    )
    users: dict[str, int] = field(default_factory=lambda: {"num": 0, "wrong": 0})

    @property
    def alarms(self) -> list[str]:
        """The tests that have raised an alarm, in words."""
        words = [
            f"risk above {alpha} since label {monitor.alarm} (evidence {monitor.evidence:.3g}): "
            "recalibrate on labelled queries of now"
            for alpha, monitor in self.risk.items()
            if monitor.alarm is not None
        ]
        for group, top in self.top_scores.items():
            if top.alarm is not None:
                which = "" if self.reference.groups is None else f" of the group {group!r}"
                live = max(top.alarm - len(self.reference.first.get(group, ())), 0)
                words.append(
                    f"queries{which} have changed since tested decision {live} (evidence "
                    f"{top.evidence:.3g}): recalibrate on labelled queries of now"
                )
        return words

    @property
    def level_of_groups(self) -> float:
        """Chance of a false alarm of the test of exchangeability of each group, ever."""
        return self.level / max(len(self.reference.groups or ()), 1)


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
        # That of an older version is made anew from the rows, which are all still there.
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
        self.fold(connection)
        now = time.monotonic()
        if now - self._saved_at > _SAVE_SECONDS:
            self._saved_at = now
            self.save(connection)

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
            "select seq, route, artefact, top_score, grp, fingerprint from decision where seq > ? "
            "order by seq limit ?"
        )
        while rows := connection.execute(query, [self._last_decision, _ROWS]).fetchall():
            for seq, route, artefact, top_score, group, fingerprint in rows:
                self._last_decision = seq
                watched = self._watched.get((route, artefact))
                if watched is None or top_score is None:
                    continue
                tested = watched.reference.group_of(group)
                drawn = draw(self._key, str(fingerprint), "monitor") < self._settings.share
                if tested is None or not drawn:
                    continue
                question = [fingerprint, route, artefact, seq]
                if connection.execute(_ASKED_BEFORE, question).fetchone() is None:
                    self._add_top_score(watched, tested, top_score)

    def _add_top_score(self, watched: Watched, group: str, top_score: float) -> None:
        test = watched.top_scores.get(group)
        if test is not None:
            watched.top_scores[group] = test.update([top_score])
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
            "select f.seq, f.source, f.content, d.route, d.artefact, d.alpha, d.decided, "
            "d.answered, d.null_in_set, d.pool, d.audited, d.fingerprint "
            "from feedback f join decision d on d.id = f.decision "
            "where f.seq > ? order by f.seq limit ?"
        )
        while rows := connection.execute(query, [self._last_label, _ROWS]).fetchall():
            for seq, source, content, route, artefact, *rest in rows:
                self._last_label = seq
                watched = self._watched.get((route, artefact))
                if watched is not None:
                    self._add_label(watched, source, msgspec.json.decode(content), *rest)

    def _add_label(
        self,
        watched: Watched,
        source: str,
        content: Mapping[str, Any],
        alpha: str,
        decided: str,
        answered: str,
        null_in_set: int,
        pool: str,
        audited: int,
        fingerprint: int,
    ) -> None:
        if source not in TRUSTED or not audited:
            watched.users["num"] += 1
            wrong = content.get("answer_correct") == 0 or content.get("missed") == 1
            watched.users["wrong"] += wrong
            return
        if fingerprint in watched.seen:
            return
        missed = miss_of(
            content,
            set(msgspec.json.decode(decided)),
            set(msgspec.json.decode(pool)),
            bool(null_in_set),
            watched.null,
        )
        if missed is None:
            return
        watched.seen.add(fingerprint)
        watched.labels["num"] += 1
        watched.labels["misses"] += missed
        correct = content.get("correct")
        if correct is not None and answered in correct:
            covered = any(correct.get(model) for model in msgspec.json.decode(decided))
            watched.labels["judged"] += 1
            watched.labels["judge_errors"] += covered and not correct[answered]
        monitor = watched.risk.get(alpha)
        if monitor is None:
            monitor = RiskMonitor(alpha=float(alpha), level=watched.level)
        watched.risk[alpha] = monitor.update([missed])

    def _note_alarms(self, connection: Connection) -> None:
        """Raises each alarm once, whichever replica folds it first."""
        for (route, artefact), watched in self._watched.items():
            words = watched.alarms
            if self._active.get(route) == artefact:
                self.alarms[route] = bool(words)
            for word in words:
                kind = (route, artefact, word.partition(" since ")[0])
                if kind not in self._raised:
                    self._raised.add(kind)
                    first = connection.execute(
                        "insert into meta values (?, ?) on conflict (name) do nothing",
                        [f"alarm {' '.join(kind)}", word],
                    ).rowcount
                    if first and self._on_alarm is not None:
                        self._on_alarm(route, artefact, word)


def upper_bound(num_events: int, num: int, confidence: float = 0.95) -> float:
    """The one-sided Clopper-Pearson upper bound of a share; 1 where nothing was counted.

    >>> upper_bound(0, 0), round(upper_bound(0, 58), 3)
    (1.0, 0.05)
    """
    from scipy.special import betaincinv

    if num == 0 or num_events >= num:
        return 1.0
    return float(np.asarray(betaincinv(num_events + 1, num - num_events, confidence)))
