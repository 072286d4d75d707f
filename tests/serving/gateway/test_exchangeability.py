"""The test of exchangeability: one for each group, begun with the calibration, alike everywhere."""

from dataclasses import replace

import numpy as np
import pytest

from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway._monitoring import Monitors
from racer_jax.serving.gateway._records import DecisionRow
from racer_jax.serving.gateway._references import Reference, begun, reference_of, seed_of
from racer_jax.serving.gateway._store import Store
from racer_jax.serving.gateway.settings import Monitors as Settings
from racer_jax.serving.monitor import ExchangeabilityMonitor

ARTEFACT = "0123456789ab"


@pytest.fixture(scope="module")
def racer(artefacts):
    return Racer.load(artefacts / "my.racer")


@pytest.fixture
def opened(tmp_path):
    """Makes replicas of one state."""
    stores = []

    def make(**options):
        store = Store(str(tmp_path / "state.db"), 1e6)
        monitors = Monitors(Settings(share=1.0, **options), b"key")
        store.ask(monitors.load).result()
        store.on_commit = monitors.on_commit
        stores.append(store)
        return store, monitors

    yield make
    for store in stores:
        store.close()


def row(number, group, top_score, question=None):
    question = number if question is None else question
    return DecisionRow(
        f"d{number}", 0.0, "my", ARTEFACT, group=group, top_score=top_score, fingerprint=question
    )


def entered(store, monitors, reference):
    work = lambda c: monitors.enter(c, "my", ARTEFACT, "paper", reference)  # noqa: E731
    store.ask(work).result()


def added(store, rows):
    for one in rows:
        store.add(one)
    store.ask(lambda connection: None).result()


def test_the_reference_is_of_the_calibration(racer):
    reference = reference_of(racer, ARTEFACT)
    record = racer.calibration.record
    for code, group in enumerate(record.groups):
        own = record.scores[record.code == code].max(axis=1)
        kept = reference.bins[group] + reference.first[group]
        assert np.allclose(sorted(kept), sorted(own))
    assert reference == reference_of(racer, ARTEFACT)
    assert reference.bins != reference_of(racer, "other").bins
    bare = replace(racer, calibration=replace(racer.calibration, record=None))
    assert reference_of(bare, ARTEFACT) == Reference(list(racer.calibration.groups))


def test_a_change_before_the_first_query_is_seen_and_named(opened, racer):
    """Live queries are all alike: among themselves nothing has changed, and the group is named."""
    reference = reference_of(racer, ARTEFACT)
    store, monitors = opened(level=0.4)
    entered(store, monitors, reference)
    rng = np.random.default_rng(0)
    same = rng.choice(reference.bins["a"] + reference.first["a"], 60)
    added(store, [row(i, "a", float(score)) for i, score in enumerate(same)])
    added(store, [row(100 + i, "b", 0.99 + i * 1e-4) for i in range(60)])
    added(store, [row(200 + i, "tools", 0.99) for i in range(60)])
    watched = monitors.of("my", ARTEFACT)
    assert set(watched.top_scores) == {"a", "b"}
    assert watched.top_scores["a"].num == 60 + len(reference.first["a"])
    assert watched.top_scores["a"].alarm is None
    (words,) = watched.alarms
    assert words.startswith("queries of the group 'b' have changed since tested decision ")
    # 0.4 / 2 of the first artefact; half of it is for tests of the risk; two groups share the rest.
    assert [test.level for test in watched.top_scores.values()] == [0.05, 0.05]


def test_scores_that_are_all_the_same_are_not_kept_for_ever(opened):
    """They choose no bins, and the next different one begins the test as it would have before."""
    store, monitors = opened()
    monitors._settings = Settings(share=1.0, reference=4)
    entered(store, monitors, Reference())
    added(store, [row(i, None, 0.5) for i in range(100)])
    watched = monitors.of("my", ARTEFACT)
    assert (watched.live, watched.top_scores) == ({"all": [0.5] * 3}, {})
    added(store, [row(200 + i, None, 0.25 * (i % 4)) for i in range(20)])
    assert watched.top_scores["all"].num == 19


def test_traffic_whose_questions_come_again_is_no_change(opened):
    """Few questions make most of the traffic, and these have high scores: nothing changes.

    Counted once, each would come early or late by how often it is asked: the first scores are high
    and later ones low, and nearly every test would raise an alarm.
    """
    rng = np.random.default_rng(3)
    scores = np.clip(0.9 - 0.5 * np.arange(2000) / 2000 + rng.normal(0, 0.1, 2000), 0, 1)
    chances = 1 / np.arange(1, 2001)
    asked = rng.choice(2000, 2400, p=chances / chances.sum())
    first, live = scores[asked[:400]], asked[400:]
    reference = Reference(None, {"all": first[:200].tolist()}, {"all": first[200:].tolist()})
    store, monitors = opened(level=0.2)
    entered(store, monitors, reference)
    added(store, [row(i, None, float(scores[q]), question=int(q)) for i, q in enumerate(live)])
    watched = monitors.of("my", ARTEFACT)
    assert watched.top_scores["all"].num == len(live) + 200
    assert watched.alarms == []
    _, places = np.unique(live, return_index=True)
    once = live[np.sort(places)]
    others = begun(reference, ARTEFACT, 0.2 / 4)["all"].update(scores[once].tolist())
    assert others.alarm is not None


def test_the_draw_is_of_requests(opened, racer):
    """A question that is asked often is in the sample as often as its share: not all or nothing."""
    store, monitors = opened()
    monitors._settings = Settings(share=0.5)
    reference = reference_of(racer, ARTEFACT)
    entered(store, monitors, reference)
    added(store, [row(i, "a", 0.5, question=1) for i in range(200)])
    num = monitors.of("my", ARTEFACT).top_scores["a"].num - len(reference.first["a"])
    assert 60 < num < 140


def test_replicas_and_a_new_start_say_the_same(opened, racer):
    store, monitors = opened()
    entered(store, monitors, reference_of(racer, ARTEFACT))
    added(store, [row(i, "a", 0.3 + i * 1e-3) for i in range(20)])
    store.ask(monitors.save).result()
    added(store, [row(30 + i, "b", 0.5) for i in range(5)])
    other_store, other = opened()
    entered(other_store, other, None)  # what the first one wrote counts
    assert other.of("my", ARTEFACT).top_scores == monitors.of("my", ARTEFACT).top_scores
    # A state that an older version saved is made anew from the rows.
    other_store.ask(lambda c: c.execute("update monitor set state = '{\"watched\": 1}'")).result()
    third_store, third = opened()
    entered(third_store, third, None)
    third_store.ask(lambda connection: None).result()
    assert third.of("my", ARTEFACT).top_scores == monitors.of("my", ARTEFACT).top_scores


def test_false_alarms_are_as_rare_as_the_level():
    rng = np.random.default_rng(1)
    level, num = 0.2, 60
    alarms = 0
    for i in range(num):
        scores = rng.beta(2, 2, 60 + 60)
        reference = Reference(None, {"all": scores[:20].tolist()}, {"all": scores[20:60].tolist()})
        test = begun(reference, str(i), level)["all"].update(scores[60:].tolist())
        alarms += test.alarm is not None
    assert alarms <= num * level + 3 * (num * level * (1 - level)) ** 0.5


def test_without_a_record_live_queries_choose_the_bins_of_each_group(opened):
    store, monitors = opened(reference=4)
    entered(store, monitors, Reference(["a", "b"]))
    added(store, [row(i, "ab"[i % 2], i / 10) for i in range(10)])
    watched = monitors.of("my", ARTEFACT)
    expected = ExchangeabilityMonitor.over(
        [0.0, 0.2, 0.4, 0.6], level=0.05 / 8, seed=seed_of(ARTEFACT, "a")
    ).update([0.8])
    assert watched.top_scores["a"] == expected
    assert set(watched.top_scores) == {"a", "b"}


@pytest.mark.long
def test_an_outage_is_no_change_of_the_queries(start, upstreams):
    gateway = start(scripted=False, monitors={"share": 1.0})
    options = {"group": "a"}
    name = gateway.chat("sum prime ?", racer=options).json["id"]
    breaker = gateway.gateway.upstreams["large"].breaker
    for _ in range(5):
        breaker.failed()
    degraded = gateway.chat("sum prime river ?", racer=options).json["id"]
    whole, part = (
        gateway.ask("GET", f"/v1/racer/decisions/{one}").json for one in (name, degraded)
    )
    assert part["pool"] == ["small", "medium"]
    assert (whole["top_score"], part["top_score"]) == (pytest.approx(max(whole["scores"])), None)
