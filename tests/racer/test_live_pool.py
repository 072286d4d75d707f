"""Models that are down for a while: the thresholds of `without`, and nothing compiled for them."""

import logging
import pickle
from dataclasses import replace

import jax
import numpy as np
import pytest

from racer_jax.core import nonconformity as scores_by_name
from racer_jax.data import RoutingTable
from racer_jax.encoders import HashedNgrams, ReducedEncoder
from racer_jax.racer.errors import NoRecordError
from racer_jax.racer.live_pool import without_for_now
from racer_jax.racer.racer import Racer
from racer_jax.routers import KNNConfig
from tests.racer.test_racer import WORDS

pytestmark = pytest.mark.long
MODELS = ("a", "b", "c")
# Each set of models that may be down.
PARTS = [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")]
# Nonconformity, null mode, and whether the groups have thresholds and orders of their own.
KINDS = [
    ("inverse_probability", "paper", True),
    ("inverse_probability", "free", False),
    ("gap", "paper", False),
    ("gap", "never", True),
    ("static", "free", True),
    ("J", "paper", False),
    ("J_learned", "free", True),
]
EXACT = ("inverse_probability", "gap")
QUERIES = ["sum of prime river", "poem verb atom", "tax king graph law", "cell note sum"]


def table_of(num, start, grouped):
    rng = np.random.default_rng(start)
    return RoutingTable(
        ids=[f"q{start + i}" for i in range(num)],
        texts=[f"{' '.join(rng.choice(WORDS, 5))} {start + i}" for i in range(num)],
        models=MODELS,
        correct=rng.random((num, 3)) < [0.4, 0.5, 0.6],
        group=["x" if i % 3 else "y" for i in range(num)] if grouped else None,
        cost=np.tile([0.001, 0.002, 0.01], (num, 1)),
    )


@pytest.fixture(scope="module")
def encoder():
    texts = table_of(256, 0, False).texts
    return ReducedEncoder.fit(jax.random.key(0), texts, 6, HashedNgrams(dim=64))


@pytest.fixture(scope="module")
def racers(encoder):
    """A racer of each kind, made where it is first asked for."""
    made = {}

    def racer_of(name, null, grouped):
        kind = (name, null, grouped)
        if kind not in made:
            train, calibration = table_of(256, 0, grouped), table_of(64, 500, grouped)
            weight = 0.5 if name in ("static", "J") else 0.0
            how = {"nonconformity": name, "null": null, "cost_weight": weight}
            key = jax.random.key(1)
            racer = Racer.fit(key, train, KNNConfig(k=7), encoder, **how)
            made[kind] = racer.calibrate(calibration, 0.25)
        return made[kind]

    return racer_of


def check_thresholds(live, wanted, exact):
    """Thresholds are those of `without`."""
    assert live.models == wanted.models
    one, other = live.calibration, wanted.calibration
    correct = one.record.correct
    np.testing.assert_array_equal(correct, other.record.correct)
    if exact:
        np.testing.assert_array_equal(one.threshold_key, other.threshold_key)
        np.testing.assert_array_equal(one.threshold_tie, other.threshold_tie)
        np.testing.assert_array_equal(one.record.nonconformity, other.record.nonconformity)
        return
    # Sums in another order: of queries that are equal but for it, any may be at the threshold.
    values = one.record.nonconformity
    np.testing.assert_allclose(one.threshold, other.threshold, atol=2e-6)
    np.testing.assert_allclose(values, other.record.nonconformity, rtol=0, atol=2e-6)
    truth = np.concatenate([correct, ~correct.any(axis=1, keepdims=True)], axis=1)
    critical = np.where(truth, values, np.inf).min(axis=1)
    num_equal = (np.abs(critical - one.threshold[:, None]) <= 4e-6).sum(axis=1)
    differs = one.threshold_tie != other.threshold_tie
    assert (num_equal[differs] > 1).all()


def check_decisions(live, wanted, exact):
    """Decisions are those of `without`."""
    groups = ["x", "y", "x", "y"]
    got, expected = live.route(QUERIES, groups), wanted.route(QUERIES, groups)
    assert got.reasons == expected.reasons
    np.testing.assert_array_equal(got.sets, expected.sets)
    np.testing.assert_array_equal(got.order, expected.order)
    difference = 0 if exact else 2e-6
    np.testing.assert_allclose(got.nonconformity, expected.nonconformity, rtol=0, atol=difference)


@pytest.mark.parametrize(("name", "null", "grouped"), KINDS)
def test_every_part_of_a_pool_has_the_thresholds_of_without(racers, name, null, grouped):
    racer, exact = racers(name, null, grouped), name in EXACT
    for dead in PARTS:
        live, wanted = without_for_now(racer, *dead), racer.without(*dead)
        check_thresholds(live, wanted, exact)
        if dead in PARTS[:1] + PARTS[-1:]:  # what `without` compiles takes its time
            check_decisions(live, wanted, exact)


@pytest.mark.parametrize(("name", "null", "grouped"), KINDS)
def test_after_the_first_part_nothing_is_compiled(racers, caplog, name, null, grouped):
    racer = racers(name, null, grouped)
    groups = ["x", "y", "x", "y"]
    racer.route(QUERIES, groups)
    without_for_now(racer, *PARTS[0]).route(QUERIES, groups)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        jax.jit(lambda x: x + 1)(np.float32(0))  # the check sees what it looks for
        seen = len(caplog.records)
        for dead in PARTS[1:]:
            without_for_now(racer, *dead).route(QUERIES, groups)
    assert seen
    assert [record.getMessage() for record in caplog.records[seen:]] == []


def test_an_own_nonconformity_sees_the_live_models_alone(monkeypatch, encoder):
    def mean_gap(scores, null):  # which a further model with score 0 would change
        whole = scores_by_name.gap(scores, null)
        return whole - scores.mean(axis=-1, keepdims=True)

    monkeypatch.setitem(scores_by_name.NONCONFORMITIES, "mean_gap", mean_gap)
    how = {"nonconformity": "mean_gap", "null": "paper"}
    key = jax.random.key(1)
    racer = Racer.fit(key, table_of(256, 0, False), KNNConfig(k=7), encoder, **how)
    racer = racer.calibrate(table_of(64, 500, False), 0.25)
    live, wanted = without_for_now(racer, "b"), racer.without("b")
    check_thresholds(live, wanted, exact=True)
    check_decisions(live, wanted, exact=True)


def test_further_models_may_be_down_and_the_rest_can_be_sent_to_another_process(racers):
    racer = racers(*KINDS[0])
    twice = without_for_now(racer, "a").without("c")
    at_once = without_for_now(racer, "a", "c")
    assert twice.models == at_once.models == ("b",)
    key = at_once.calibration.threshold_key
    np.testing.assert_array_equal(twice.calibration.threshold_key, key)
    copy = pickle.loads(pickle.dumps(at_once))
    copied, sent = copy.route(QUERIES, "x"), at_once.route(QUERIES, "x")
    np.testing.assert_array_equal(copied.sets, sent.sets)


def test_what_cannot_be_had_is_refused(racers):
    racer = racers(*KINDS[0])
    with pytest.raises(ValueError, match="'e' is not a model of the pool"):
        without_for_now(racer, "e")
    with pytest.raises(ValueError, match="must leave at least one model"):
        without_for_now(racer, *MODELS)
    with pytest.raises(ValueError, match="no router of its own"):
        without_for_now(Racer.from_scores(MODELS), "a")
    calibration = replace(racer.calibration, record=None)  # of an artefact of an older format
    with pytest.raises(NoRecordError):
        without_for_now(replace(racer, calibration=calibration), "a")
