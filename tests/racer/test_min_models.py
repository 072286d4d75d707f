"""Sets of at least some models: who is called, what it costs, and that the promise is the same."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import calibrate, critical_scores, inverse_probability, misrouted, prediction_sets
from racer_jax.core.prediction_sets import set_size
from racer_jax.racer.racer import Racer
from racer_jax.risk_control.bounds import sharp_risk
from racer_jax.risk_control.costs import call_at_least
from tests.racer.test_racer import MODELS, table_of

NULL = "free"


@pytest.fixture(scope="module")
def part():
    return table_of(np.random.default_rng(12), 64)


@pytest.fixture(scope="module")
def plain(part):
    racer = Racer.from_scores(MODELS, null=NULL, seed=3)
    return racer.calibrate(part.table, "0.3", scores=part.scores, by_group=False)


def test_the_first_models_are_in_every_set():
    rng = np.random.default_rng(0)
    nonconformity = (rng.integers(0, 3, (40, 5)) / 2).astype(np.float32)
    ties = rng.integers(0, 2**32, nonconformity.shape, dtype=np.uint32)
    for broken in (False, True):
        raised = np.asarray(call_at_least(nonconformity, 2, jnp.asarray(ties) if broken else None))
        for before, after, tie in zip(nonconformity, raised, ties, strict=True):
            second = tie if broken else np.arange(5)
            first = sorted(range(4), key=lambda m: (before[m], second[m]))[:2]
            assert sorted(np.flatnonzero(after == -np.inf)) == sorted(first)
            rest = np.setdiff1d(np.arange(5), first)
            assert (after[rest] == before[rest]).all()
    assert int(set_size(prediction_sets(jnp.asarray(raised), -1.0)).min()) == 2
    for bad, error in ((0, "at least 1"), (5, "at most the 4 models")):
        with pytest.raises(ValueError, match=error):
            call_at_least(nonconformity, bad)


@pytest.mark.long
def test_the_risk_has_the_same_law_by_enumeration():
    """Over all splits of eight queries the mean risk is that of the exact law, as without it."""
    rng = np.random.default_rng(4)
    scores = rng.random((8, 3)).astype(np.float32)
    correct = rng.random((8, 3)) < 0.45 * scores
    correct[:, 0] |= ~correct.any(axis=1)  # somebody is right, the most plausible or another
    raised = call_at_least(inverse_probability(scores, NULL), 1)
    critical = np.asarray(critical_scores(raised, correct))
    # The law holds while more queries than the budget lose at every threshold.
    assert (critical > -np.inf).sum() > 5
    inside = np.zeros((70, 8), bool)
    for split, rows in enumerate(itertools.combinations(range(8), 4)):
        inside[split, list(rows)] = True
    pick = jax.jit(jax.vmap(lambda mask: calibrate(jnp.asarray(critical), "0.4", mask=mask)))
    sets = prediction_sets(raised, pick(jnp.asarray(inside)))
    assert int(set_size(sets).min()) >= 1
    lost = np.asarray(misrouted(sets, correct))
    assert (lost & ~inside).sum(axis=1).mean() / 4 == pytest.approx(float(sharp_risk("0.4", 4)))


def test_decisions_have_a_model_and_say_so(part, plain):
    racer = plain.recalibrate(min_models=1)
    again = Racer.from_scores(MODELS, null=NULL, seed=3).calibrate(
        part.table, "0.3", scores=part.scores, by_group=False, min_models=1
    )
    assert racer.calibration.threshold == again.calibration.threshold
    before = plain.route_scores(part.scores, ids=part.table.texts)
    after = racer.route_scores(part.scores, ids=part.table.texts)
    assert (before.called.sum(axis=1) == 0).any()
    assert (after.called.sum(axis=1) >= 1).all()
    assert {decision.reason.value for decision in after} == {"ok"}
    empty = int(np.flatnonzero(before.called.sum(axis=1) == 0)[0])
    assert after[empty].models[0] == MODELS[int(part.scores[empty].argmax())]
    assert "Every query calls at least 1 model." in racer.guarantee()
    # The threshold of all others may only fall: who is right at once is no miss any more.
    assert racer.calibration.threshold[0] <= plain.calibration.threshold[0]
    price = after.called.sum(axis=1).mean() - before.called.sum(axis=1).mean()
    assert racer.added_models() == pytest.approx(price)
    assert plain.added_models() == 0


def test_two_models_stay_in_the_order_of_their_plausibility(part, plain):
    racer = plain.recalibrate("0.9", min_models=2)
    for decision in racer.route_scores(part.scores, ids=part.table.texts):
        called = [decision.scores[model] for model in decision.models]
        assert called == sorted(called, reverse=True)
        assert len(called) >= 2
        assert min(called) >= max(
            [s for m, s in decision.scores.items() if m not in decision.models], default=0
        )


def test_evaluation_and_artefact(part, plain, tmp_path):
    racer = plain.recalibrate(min_models=1)
    figures = racer.evaluate(part.table, ["0.3", "0.6"], scores=part.scores).groups[0]
    assert figures.abstention.tolist() == [0, 0]
    decisions = racer.route_scores(part.scores, ids=part.table.texts)
    assert figures.size[0] == pytest.approx(decisions.called.sum(axis=1).mean())
    lost = ~(decisions.called & part.table.correct).any(axis=1) & part.table.correct.any(axis=1)
    assert figures.risk[0] == pytest.approx(lost.mean())
    racer.save(tmp_path / "a")
    loaded = Racer.load(tmp_path / "a")
    assert loaded.calibration.min_models == 1
    assert loaded.guarantee() == racer.guarantee()
    assert loaded.recalibrate(min_models=0).calibration.threshold == plain.calibration.threshold


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_models": -1}, "min_models must be at least 1, got -1"),
        ({"min_models": 9}, "min_models must be at most 3, the number of models, got 9"),
        ({"min_models": 2, "max_models": 1}, "min_models must be at most 1, max_models, got 2"),
        ({"min_models": 1.5}, "min_models must be an integer"),
    ],
)
def test_numbers_that_cannot_be(plain, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        plain.recalibrate(**options)
