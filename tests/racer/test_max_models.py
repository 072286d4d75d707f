"""Sets of at most some models: those of the core, what is promised for them, and when nothing is."""

import jax.numpy as jnp
import numpy as np
import pytest

import racer_jax as core
from racer_jax.racer.decision import Decision, Reason
from racer_jax.racer.errors import UnknownGroupWarning
from racer_jax.racer.fingerprints import question_fingerprints, question_ties
from racer_jax.racer.racer import Racer
from racer_jax.risk_control.costs import attainable_alpha, cap_models
from tests.racer.test_racer import MODELS, table_of


@pytest.fixture(scope="module")
def part():
    return table_of(np.random.default_rng(31), 90, cost=True)


@pytest.fixture(scope="module")
def test_part():
    return table_of(np.random.default_rng(32), 40, start=1000, cost=True)


@pytest.mark.long
@pytest.mark.parametrize("seed", [pytest.param(None, marks=pytest.mark.long), 3])
def test_thresholds_and_sets_are_those_of_the_core(part, test_part, seed):
    for name, most in (("gap", 1), ("inverse_probability", 2), ("gap", 3)):
        racer = Racer.from_scores(MODELS, nonconformity=name, seed=seed, null="free")
        racer = racer.calibrate(
            part.table, "0.45", scores=part.scores, by_group=False, max_models=most
        )
        matrices, ties = [], []
        for some in (part, test_part):
            tie = None
            if seed is not None:
                tie = jnp.asarray(question_ties(question_fingerprints(some.table), seed, 4))
            whole = getattr(core, name)(some.scores, "free")
            matrices.append(cap_models(whole, most, tie))
            ties.append(tie)
        critical = core.critical_scores(matrices[0], part.table.correct, ties[0])
        threshold = core.calibrate(critical, "0.45")
        sets = core.prediction_sets(matrices[1], threshold, ties[1])
        value = threshold if seed is None else threshold.value
        assert racer.calibration.threshold.tolist() == [float(value)]
        routed = racer.route_scores(test_part.scores, ids=test_part.table.texts)
        assert routed.sets.tolist() == sets.tolist()
        assert routed.called.sum(axis=1).max() <= most


def test_no_query_calls_more_even_where_no_threshold_is_safe(part, test_part):
    racer = Racer.from_scores(MODELS, seed=3)
    racer = racer.calibrate(part.table, 0.3, scores=part.scores, max_models=1)
    tiny = racer.at(0.001)
    names = test_part.table.texts
    routed = tiny.route_scores(test_part.scores, test_part.table.group, ids=names)
    assert set(routed.reasons) == {Reason.INFEASIBLE}
    assert routed.called.sum(axis=1).tolist() == [1] * 40
    decision = routed[0]
    first = decision.models[0]
    assert decision.explain().startswith(f"Call {first} (at most 1): no threshold in group")
    assert sorted(decision.margins.values()) == [-np.inf, -np.inf, np.inf]
    assert Decision.from_json(decision.to_json()) == decision
    assert "the first model is called" in tiny.warnings()[0]
    with pytest.warns(UnknownGroupWarning):
        assert len(racer.route_scores(test_part.scores[:1], "new", ids=["x"])[0].models) == 1


def test_a_level_that_so_few_models_cannot_reach_is_not_promised(part, test_part):
    bare = Racer.from_scores(MODELS, seed=3, null="free")
    racer = bare.calibrate(part.table, 0.1, scores=part.scores, by_group=False, max_models=1)
    capped = cap_models(core.inverse_probability(part.scores, "free"), 1)
    least = attainable_alpha(core.critical_scores(capped, part.table.correct)).alpha
    assert 0.1 < least < 0.9
    assert racer.guarantee().startswith("Nothing is promised: no threshold reaches")
    assert (
        "with at most 1 model for a query the risk cannot be brought to alpha = 0.1, which "
        in (racer.warnings()[0])
    )
    assert np.isnan(racer.evaluate(test_part.table, [0.1], scores=test_part.scores).groups[0].upper)
    within = racer.at(round(least + 0.001, 3))
    assert within.warnings() == ()
    assert "No query calls more than 1 model." in within.guarantee()


def test_the_evaluation_is_of_the_capped_sets(part, test_part):
    racer = Racer.from_scores(MODELS, seed=3, nonconformity="gap")
    racer = racer.calibrate(part.table, 0.4, scores=part.scores, by_group=False, max_models=2)
    figures = racer.evaluate(test_part.table, [0.001, 0.4], scores=test_part.scores).groups[0]
    for a, alpha in enumerate(["0.001", "0.4"]):
        sets = racer.at(alpha).route_scores(test_part.scores, ids=test_part.table.texts).sets
        assert figures.size[a] == pytest.approx(sets[:, :-1].sum(axis=1).mean())
        missed = np.asarray(core.misrouted(sets, test_part.table.correct))
        assert figures.risk[a] == pytest.approx(missed.mean())
    assert figures.size[0] == 2
