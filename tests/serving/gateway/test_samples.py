"""What counts as a sample of the traffic: audits that recalibrate, and labels that test."""

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from racer_jax.cli.main import main
from racer_jax.data.errors import DataError
from racer_jax.racer.artefact import read
from racer_jax.racer.errors import UnknownGroupWarning
from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway import GatewayError
from racer_jax.serving.gateway._batcher import Routed
from racer_jax.serving.gateway._identifiers import signed
from racer_jax.serving.gateway._loaded import Loaded
from racer_jax.serving.gateway._management import _monitor_status
from racer_jax.serving.gateway._monitoring import Monitors
from racer_jax.serving.gateway._planning import Planner, Situation
from racer_jax.serving.gateway._recalibration import audited, recalibrated
from racer_jax.serving.gateway._records import AuditRow, DecisionRow, Feedback
from racer_jax.serving.gateway._references import Reference
from racer_jax.serving.gateway._since import shown_time, time_of
from racer_jax.serving.gateway._store import Store
from racer_jax.serving.gateway._tables import opened
from racer_jax.serving.gateway.settings import Monitors as Settings
from racer_jax.serving.gateway.settings import Route
from tests.racer.test_racer import MODELS, table_of

ARTEFACT = "0123456789ab"


@pytest.fixture(scope="module")
def racer(artefacts):
    return Racer.load(artefacts / "my.racer")


class State:
    """A state with monitors, written without a gateway."""

    def __init__(self, path, artefact=ARTEFACT, **options):
        self._path, self.artefact = path, artefact
        self.store = Store(str(path), 1e12)
        self.monitors = Monitors(Settings(**options), b"key")
        self.store.ask(self.monitors.load).result()
        self.store.on_commit = self.monitors.on_commit
        self.enter(artefact)
        self.num = 0

    def enter(self, artefact, route="my"):
        work = lambda c: self.monitors.enter(c, route, artefact, "paper", Reference(["a", "b"]))  # noqa: E731
        self.store.ask(work).result()

    def audit(
        self, correct=None, question=None, scores=(0.2, 0.5, 0.8), at=100.0, route="my", **facts
    ):
        """An audited request; it is labelled where `correct` says who was right."""
        self.num += 1
        name = f"d{self.num}"
        facts = {"alpha": "0.3", "decided": ("large",), "group": "a", **facts}
        number = signed(self.num if question is None else question)
        row = DecisionRow(
            name, at, route, facts.pop("artefact", self.artefact), fingerprint=number,
            pool=tuple(MODELS), scores=scores, audited=True, **facts,
        )  # fmt: skip
        self.store.add(row)
        nonconformity = np.array([*(1 - np.array(scores)), 0.9], np.float32)
        self.store.add(AuditRow(name, at, b"[]", {}, nonconformity.tobytes(), "c", "paper"))
        if correct is not None:
            self.label(name, correct)
        return name

    def label(self, name, correct, source="audit"):
        label = dict(zip(MODELS, correct, strict=True))
        return self.store.feedback(Feedback(id=name, correct=label, source=source))

    @property
    def path(self):
        """The file, once everything is in it."""
        self.store.ask(lambda connection: None).result()
        return self._path

    @property
    def watched(self):
        self.store.ask(lambda connection: None).result()
        return self.monitors.of("my", self.artefact)


@pytest.fixture
def state(tmp_path):
    states = []

    def make(**options):
        states.append(State(tmp_path / "gateway.db", **options))
        return states[-1]

    yield make
    for one in states:
        one.store.close()


def test_audits_keep_questions_as_often_as_they_come(state, racer):
    """A hard question is 40% of the traffic: alpha = 0.3 of all requests must allow for it."""
    traffic = state()
    for i in range(60):
        traffic.audit((0, 0, 1))
        if i % 3 != 2:  # only the model with the lowest score is right
            traffic.audit((1, 0, 0), question=2**64 - 5)
    trained = replace(racer, trained_on=np.array([2**64 - 5], np.uint64))
    audits = audited(traffic.path, ARTEFACT, trained)
    assert (len(audits), audits.num_audited) == (100, 100)
    assert (audits.record.questions == 2**64 - 5).sum() == 40
    calibration = recalibrated(trained, audits).calibration
    # In every set of the traffic: 40 of 100 need the model whose E is 0.8.
    assert calibration.threshold.tolist() == pytest.approx([0.8])
    assert calibration.num_overlap == 0


def test_a_group_without_a_labelled_audit_is_named(state, racer):
    """The new artefact has no threshold for it, which would show only when a request comes."""
    traffic = state()
    for _ in range(30):
        traffic.audit((0, 0, 1))
    traffic.audit(None, group="b")
    audits = audited(traffic.path, ARTEFACT, racer)
    assert audits.lost_groups == ("b",)
    assert recalibrated(racer, audits).calibration.groups == ("a",)
    assert audits.notes()[0].startswith("no labelled audit is of 'b': the new artefact has no")
    traffic.audit((0, 0, 1), group="b")
    assert audited(traffic.path, ARTEFACT, racer).lost_groups == ()


def test_after_an_alarm_somebody_says_which_audits_are_meant(state, racer, artefacts, capsys):
    traffic = state()
    for _ in range(30):
        traffic.audit((0, 0, 1))
    assert len(audited(traffic.path, ARTEFACT, racer)) == 30
    with pytest.raises(DataError, match="holds no alarm of the artefact"):
        audited(traffic.path, ARTEFACT, racer, "alarm")
    for _ in range(25):
        traffic.audit((1, 0, 0), at=200.0)
    (words,) = traffic.watched.alarms
    remedy = "racer-jax recalibrate STATE --artefact FOLDER -o NEW --since-alarm --route my"
    assert remedy in words
    with pytest.raises(DataError, match=r"--since-alarm .*--since TIME .*--all "):
        audited(traffic.path, ARTEFACT, racer)
    num_then = traffic.num - 30
    assert len(audited(traffic.path, ARTEFACT, racer, "all")) == 30 + num_then
    assert len(audited(traffic.path, ARTEFACT, racer, 150.0)) == num_then
    with pytest.raises(DataError, match=r"holds no labelled audit of the artefact .* made after"):
        audited(traffic.path, ARTEFACT, racer, "alarm")
    for _ in range(7):
        traffic.audit((1, 0, 0), at=1e11)
    assert len(audited(traffic.path, ARTEFACT, racer, "alarm")) == 7
    command = ["recalibrate", str(traffic.path), "--artefact", str(artefacts / "my.racer")]
    assert main([*command, "-o", "no.racer", "--since", "yesterday"]) != 0
    assert "--since must be a time such as" in capsys.readouterr().err


def test_routes_that_share_an_artefact_are_taken_together_or_one_of_them(
    state, artefacts, tmp_path, capsys
):
    """An alarm on one route says nothing of the requests of another."""
    racer = Racer.load(artefacts / "my.racer")
    artefact = str(read(artefacts / "my.racer")[0]["checksum"])[:12]
    traffic = state(artefact=artefact)
    traffic.enter(artefact, "late talks")
    for i in range(30):
        traffic.audit((0, 0, 1), group="ab"[i % 2])
    for i in range(20):
        traffic.audit((0, 1, 0), route="late talks", group="ab"[i % 2], decided=("medium",))
    together = audited(traffic.path, artefact, racer)
    assert (len(together), dict(together.routes)) == (50, {"my": 30, "late talks": 20})
    (note,) = together.notes()
    assert note.startswith("50 audits of several routes: 'late talks' (20), 'my' (30).")
    one = audited(traffic.path, artefact, racer, route="late talks")
    assert (len(one), one.num_audited, one.notes()) == (20, 20, ())
    assert one.record.correct.tolist() == [[False, True, False]] * 20
    for _ in range(25):
        traffic.audit((1, 0, 0), route="late talks")
    assert traffic.watched.alarms == []
    (words,) = traffic.monitors.of("late talks", artefact).alarms
    assert words.endswith("-o NEW --since-alarm --route 'late talks')")
    assert len(audited(traffic.path, artefact, racer, route="my")) == 30
    for route in (None, "late talks"):
        with pytest.raises(DataError, match="holds an alarm of the artefact"):
            audited(traffic.path, artefact, racer, route=route)
    with pytest.raises(DataError, match=r"holds no alarm of the artefact .* on the route 'my'"):
        audited(traffic.path, artefact, racer, "alarm", "my")

    command = ["recalibrate", traffic.path, "--artefact", artefacts / "my.racer"]
    command = [*map(str, command), "-o", str(tmp_path / "new.racer"), "--route"]
    assert main([*command, "my", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["n"], said["routes"]) == (30, {"my": 30})
    assert "several routes" not in "".join(said["warnings"])
    assert main([*command, "night", "--overwrite"]) == 1
    error = capsys.readouterr().err
    assert "holds no decision of --route 'night' with the artefact" in error
    assert "its routes are 'late talks' (45), 'my' (30)" in error
    other = ["recalibrate", str(traffic.path), "--artefact", str(artefacts / "other.racer")]
    assert main([*other, "-o", str(tmp_path / "new.racer"), "--overwrite", "--since-alarm"]) == 1
    error = capsys.readouterr().err
    assert "which --artefact names" in error
    assert f"its decisions are of '{artefact}' (75)" in error
    replay = ["replay", str(traffic.path), "--artefact", str(artefacts / "my.racer")]
    assert main([*replay, "--route", "night"]) == 1
    assert "holds no decision of --route 'night'" in capsys.readouterr().err


def test_times_are_in_utc_or_those_of_a_decision():
    assert time_of("2026-03-31T12:00") == time_of("2026-03-31T14:00+02:00")
    assert shown_time(time_of("2026-03-31T12:00")) == "2026-03-31T12:00:00+00:00"
    assert time_of(f"chatcmpl-{1000 * 1000:012x}7{'0' * 19}") == 1000.0


def test_audits_without_a_label_are_counted(state, racer):
    traffic = state()
    for i in range(20):
        traffic.audit((0, 0, 1) if i % 4 else None, group="ab"[i % 2])
    traffic.audit((0, 0, 1), promised=False)
    (note,) = audited(traffic.path, ARTEFACT, racer).notes()
    assert note.startswith("5 of 21 audited requests (23.8%) have no label of every model")
    labels = traffic.watched.labels
    assert [labels[name] for name in ("audited", "num", "without_promise")] == [20, 15, 1]
    said = _monitor_status(traffic.watched)["labels"]
    assert (said["without_label"], said["share_without_label"]) == (5, 0.25)
    assert (said["misses"], said["missed_at_most"]) == (0, 0.25)


def test_an_artefact_for_a_loss_is_not_made_one_for_misses(state, racer):
    traffic = state()
    traffic.audit((0, 0, 1))
    graded = SimpleNamespace(calibration=SimpleNamespace(loss=SimpleNamespace(name="grade")))
    with pytest.raises(ValueError, match="calibrated for the loss 'grade'"):
        recalibrated(graded, audited(traffic.path, ARTEFACT, racer))


def test_only_sets_with_a_promise_count_against_it(state):
    traffic = state()
    for _ in range(40):
        traffic.audit((1, 0, 0), promised=False, guarantee="void")
    assert (traffic.watched.risk, traffic.watched.alarms) == ({}, [])
    # A call that was lost, or an answer that a judge wrote, leaves the promise of the set.
    traffic.audit((1, 0, 0), guarantee="void")
    assert traffic.watched.risk["0.3"].misses == 1


def test_the_monitors_of_a_route_share_its_level(state):
    """Whatever comes: further alphas, groups and artefacts."""
    traffic = state(level=0.08, reference=2, share=1.0)
    levels = []
    for place, artefact in enumerate(("a" * 12, "b" * 12, "c" * 12)):
        traffic.enter(artefact)
        for alpha in ("0.1", "0.2", "0.3", "0.4"):
            traffic.audit((0, 0, 1), alpha=alpha, artefact=artefact)
        for i, group in enumerate("aabb"):
            traffic.audit(artefact=artefact, group=group, top_score=0.1 * i)
        traffic.store.ask(lambda connection: None).result()
        watched = traffic.monitors.of("my", artefact)
        tests = [*watched.risk.values(), *watched.top_scores.values()]
        assert len(tests) == 6
        levels += [test.level for test in tests]
        assert watched.level == 0.08 / 2 ** (place + 2)
    assert 0.08 * 0.75 * 7 / 16 <= sum(levels) <= 0.08
    first = traffic.monitors.of("my", "a" * 12)
    assert [t.level for t in first.risk.values()] == pytest.approx(
        [0.01 / k for k in (2, 6, 12, 20)]
    )


def test_a_state_of_an_older_version_is_read_and_goes_on(tmp_path, racer):
    """Its rows have neither the promise of the set nor the experiment; one of them was void."""
    path = tmp_path / "gateway.db"
    opened(str(path)).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for column in ("promised", "experiment", "unit"):
            connection.execute(f"alter table decision drop column {column}")
    for _ in range(2):  # each replica that begins finds the columns there, or adds them
        opened(str(path)).close()
    old = State(path)
    kept = old.audit((1, 0, 0))
    old.audit((1, 0, 0), reason="unknown_group", guarantee="void")
    old.store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for column in ("promised", "experiment", "unit"):
            connection.execute(f"alter table decision drop column {column}")
        connection.execute("delete from monitor")
    assert len(audited(path, ARTEFACT, racer)) == 2  # nothing of a reader changes the file
    again = State(path)
    assert again.watched.risk["0.3"].num == 1
    assert again.watched.labels["without_promise"] == 1
    assert again.store.decision(kept).result()["promised"] is None
    again.store.close()


class Deciding:
    """Decides at once, in the place of the batcher."""

    async def decide(self, racer, text, group):
        return Routed(racer.route(text, group), False, np.zeros(len(racer.models) + 1, np.float32))


class Asked:
    """A request of a group, with no other wish."""

    special, texts, needs = None, ("sum prime ?",), frozenset()

    def __init__(self, group):
        self.options = SimpleNamespace(
            mode=None, alpha=None, group=group, max_models=None, max_cost=None
        )

    def has_text(self, view):
        return True

    def text(self, view):
        return self.texts[0]


def plan_of(racer, group, dead=(), alarm=False, **options):
    """The plan of a route with an artefact, and the racer that decided."""
    loaded = Loaded(
        path="my.racer", checksum=ARTEFACT, models=racer.models, alpha=racer.alpha,
        guarantee=racer.guarantee(), warnings=(), promises=True, racers={racer.alpha: racer},
        cascade=None, form=None, mode="all",
    )  # fmt: skip

    async def calibrate(loaded, alpha, dead):
        loaded.keep_live(alpha, dead, loaded.calibrate_live(alpha, dead))

    planner = Planner("my", Route(artefact="my.racer", **options), loaded, {}, Deciding())
    situation = Situation(frozenset(dead), alarm, calibrate)
    plan = asyncio.run(planner.plan(Asked(group), situation))
    return plan, loaded.live(racer.alpha, frozenset(dead))[1] if dead else racer


@pytest.mark.parametrize("null", [pytest.param("paper", marks=pytest.mark.long), "never"])
def test_the_gateway_promises_what_the_artefact_promises(artefacts, null):
    """Its verdict on a request is the sentence of the racer that decided, group by group."""
    table = table_of(np.random.default_rng(6), 60).table
    bare = replace(Racer.load(artefacts / "bare.racer"), null=null)
    verdicts = set()
    for alpha, most in ((0.02, None), (0.02, 1), (0.2, 1), (0.4, None), (0.6, None)):
        racer = bare.calibrate(table, alpha, max_models=most, allow_overlap=True)
        racer = replace(racer, calibration=replace(racer.calibration, num_overlap=0))
        for dead in ((), ("large",)):
            for group in ("a", "b"):
                plan, decided_by = plan_of(racer, group, dead)
                said = decided_by.guarantee()
                beside = said.partition("nothing is promised")[0].rpartition(". ")[2]
                none = said.startswith("Nothing") or (
                    "nothing is promised" in said and f"group {group} " in f"{beside} "
                )
                assert bool(plan.void) == none == (not plan.promised), (alpha, most, dead, said)
                verdicts.add(none)
    assert verdicts == {True, False}


def test_all_models_keep_no_promise_where_a_hopeless_question_is_a_miss(artefacts):
    racer = Racer.load(artefacts / "my.racer")
    plan, _ = plan_of(racer, "unheard of")
    assert (plan.reason, plan.void) == ("unknown_group", [])
    plan, _ = plan_of(replace(racer, null="never"), "unheard of")
    assert not plan.promised
    assert "no model can answer counts as a miss" in plan.void[0]
    plan, _ = plan_of(racer, "unheard of", on_unknown_group="pooled")
    assert not plan.promised


def test_an_artefact_that_caps_its_sets_is_kept_for_unknown_groups_and_alarms(artefacts):
    """It says that no query calls more than two models; two of three promise nothing."""
    table = table_of(np.random.default_rng(6), 60).table
    bare = Racer.load(artefacts / "bare.racer")
    racer = bare.calibrate(table, 0.6, max_models=2, allow_overlap=True)
    racer = replace(racer, calibration=replace(racer.calibration, num_overlap=0))
    assert "No query calls more than 2 models" in racer.guarantee()
    plan, _ = plan_of(racer, "unheard of")
    assert len(plan.models) == 2
    assert plan.models == plan.decided == plan.routed.decision.models
    with pytest.warns(UnknownGroupWarning, match="no more than 2 models may be called, with no"):
        assert set(plan.models) == set(racer.route("sum prime ?", "unheard of").models)
    assert not plan.promised
    assert "allows 2 of 3 models" in plan.void[0]
    with pytest.raises(GatewayError, match="no calibration query was of the group"):
        plan_of(racer, "unheard of", max_models=1)
    plan, _ = plan_of(racer, "a", alarm=True, on_alarm="call_all")
    assert len(plan.models) == 2


def test_audits_without_a_group_make_no_group(state, racer):
    """They made a group named None, which no request can name, and which may be too small."""
    traffic = state()
    for i in range(40):
        traffic.audit((0, 0, 1), group="ab"[i % 2])
    alone = traffic.audit((1, 0, 0), group=None)
    audits = audited(traffic.path, ARTEFACT, racer)
    assert (len(audits), audits.record.groups, audits.num_without_group) == (40, ("a", "b"), 1)
    (note,) = audits.notes()
    assert note.startswith("labelled audits of requests that named no group are left out (1)")
    assert recalibrated(racer, audits).calibration.feasible().all()
    pooled = replace(
        racer, calibration=replace(racer.calibration, groups=None, code=0 * racer.calibration.code)
    )
    assert len(audited(traffic.path, ARTEFACT, pooled)) == 41
    traffic.store.ask(lambda c: c.execute("delete from feedback where decision != ?", [alone]))
    with pytest.raises(DataError, match=r"holds labelled audits .* \(1\), but none of a request"):
        audited(traffic.path, ARTEFACT, racer)
