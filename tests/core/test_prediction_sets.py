import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import racer_jax as racer
from racer_jax import reference
from racer_jax.core.nonconformity import NULL_MODES, TieBroken
from racer_jax.core.prediction_sets import avoidably_missed
from tests.strategies import ALPHAS, NULLS, problems

RNG = np.random.default_rng(0)
PERCENTS = [i / 100 for i in range(1, 100)]
TIES = jnp.zeros((3, 2), jnp.uint32)


def sets_and_reference(problem, null, broken, threshold_row):
    """Sets at the critical score of one query, by the package and by the reference."""
    scores, correct = problem
    nonconformity = racer.gap(scores, null)
    ties = racer.tie_break(jax.random.key(5), nonconformity.shape) if broken else None
    critical = racer.critical_scores(nonconformity, correct, ties)
    row = threshold_row % len(scores)
    threshold = jax.tree.map(lambda c: c[row], critical)
    sets = racer.prediction_sets(nonconformity, threshold, ties)
    pair = (float(threshold.value), int(threshold.tie)) if broken else (float(threshold), np.inf)
    rows = np.asarray(nonconformity).tolist()
    keys = [None] * len(rows) if ties is None else np.asarray(ties).tolist()
    expected = [reference.prediction_set(e, pair, u) for e, u in zip(rows, keys, strict=True)]
    return correct, sets, np.array(expected)


@given(problems(), NULLS, st.booleans(), st.integers(0, 10))
@settings(deadline=None, max_examples=60)
def test_sets_equal_the_reference_ties_included(problem, null, broken, row):
    correct, sets, expected = sets_and_reference(problem, null, broken, row)
    np.testing.assert_array_equal(sets, expected)
    called = expected[:, :-1]
    assert racer.set_size(sets).tolist() == called.sum(1).tolist()
    assert racer.abstains(sets).tolist() == (~called.any(1)).tolist()
    truth = [reference.truth_set(y.tolist()) for y in correct]
    assert racer.misrouted(sets, correct).tolist() == [
        not e[t].any() for e, t in zip(expected, truth, strict=True)
    ]
    avoidable = [y.any() and not (y & c).any() for y, c in zip(correct, called, strict=True)]
    assert avoidably_missed(sets, correct).tolist() == avoidable


@pytest.mark.long
@given(problems(), ALPHAS, st.sampled_from(["paper", "free"]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_misses_on_the_calibration_set_are_within_the_budget(problem, alpha, null, broken):
    scores, correct = problem
    nonconformity = racer.gap(scores, null)
    ties = racer.tie_break(jax.random.key(5), nonconformity.shape) if broken else None
    threshold = racer.calibrate(racer.critical_scores(nonconformity, correct, ties), alpha)
    sets = racer.prediction_sets(nonconformity, threshold, ties)
    misses = int(racer.misrouted(sets, correct).sum())
    budget = racer.miss_budget(alpha, len(scores))
    assert misses <= max(budget, 0)
    if broken and null == "paper":  # no ties, no infinities: the budget is spent to the last miss
        assert misses == max(budget, 0)


@pytest.mark.long
@given(problems(), NULLS, st.booleans())
@settings(deadline=None, max_examples=40)
def test_sets_are_nested_and_risk_is_monotone_in_alpha(problem, null, broken):
    scores, correct = problem
    nonconformity = racer.inverse_probability(scores, null)
    ties = racer.tie_break(jax.random.key(5), nonconformity.shape) if broken else None
    threshold = racer.calibrate(racer.critical_scores(nonconformity, correct, ties), PERCENTS)
    sets = racer.prediction_sets(nonconformity, threshold, ties)
    assert sets.shape == (99, *nonconformity.shape)
    assert bool((sets[1:] <= sets[:-1]).all())
    misses = racer.misrouted(sets, correct).sum(-1)
    assert bool((jnp.diff(misses) >= 0).all())


@pytest.mark.parametrize("null", NULL_MODES)
def test_an_infinite_threshold_calls_every_model(null):
    nonconformity = racer.gap(RNG.random((4, 3)).astype(np.float32), null)
    sets = racer.prediction_sets(nonconformity, jnp.inf)
    assert bool(sets[:, :-1].all())
    assert bool(sets[:, -1].all()) == (null != "never")


def test_null_modes_decide_who_answers_for_an_unanswerable_query():
    scores, correct = jnp.array([[0.9, 0.8]]), jnp.array([[0, 0]])
    for null, at_minus_infinity, at_infinity in (
        ("free", False, False),
        ("never", True, True),
        ("paper", True, False),
    ):
        nonconformity = racer.gap(scores, null)
        for limit, missed in ((-jnp.inf, at_minus_infinity), (jnp.inf, at_infinity)):
            sets = racer.prediction_sets(nonconformity, limit)
            assert bool(racer.misrouted(sets, correct)[0]) == missed
            assert not bool(avoidably_missed(sets, correct)[0])


@pytest.mark.long
def test_transforms(transform):
    scores = RNG.random((30, 3)).astype(np.float32).round(1)
    correct = RNG.random((30, 3)) < 0.4
    ties = racer.tie_break(jax.random.key(0), (30, 4))

    def pipeline(scores, correct, ties):
        nonconformity = racer.gap(scores)
        threshold = racer.calibrate(racer.critical_scores(nonconformity, correct, ties), [0.1, 0.3])
        sets = racer.prediction_sets(nonconformity, threshold, ties)
        return sets, racer.set_size(sets), racer.abstains(sets)

    for actual, expected in zip(
        transform(pipeline)(scores, correct, ties), pipeline(scores, correct, ties), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.long
def test_leading_axes_and_a_single_query():
    nonconformity = racer.gap(RNG.random((5, 6, 3)).astype(np.float32))
    threshold = jnp.linspace(0.1, 0.5, 5)
    sets = racer.prediction_sets(nonconformity, threshold)
    assert sets.shape == (5, 6, 4)
    np.testing.assert_array_equal(sets[2], racer.prediction_sets(nonconformity[2], threshold[2]))
    np.testing.assert_array_equal(
        sets[2, 3], racer.prediction_sets(nonconformity[2, 3], threshold[2])
    )
    assert racer.prediction_sets(nonconformity[0, 0], threshold).shape == (5, 4)
    assert racer.prediction_sets(jnp.array([[0.0, 1.0]]), 1).tolist() == [[True, True]]


@pytest.mark.long
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: racer.prediction_sets(jnp.zeros((2, 1)), 0.5), ValueError, "m >= 1, got (2, 1)"),
        (
            lambda: racer.prediction_sets(jnp.full((2, 2), jnp.nan), 0.5),
            ValueError,
            "nonconformity must not be NaN",
        ),
        (
            lambda: racer.prediction_sets(jnp.zeros((2, 2)), jnp.nan),
            ValueError,
            "threshold must not be NaN",
        ),
        (
            lambda: racer.prediction_sets(jnp.zeros((2, 2), int), 0.5),
            TypeError,
            "nonconformity must be floating",
        ),
        (
            lambda: racer.prediction_sets(jnp.zeros((3, 2)), 0.5, TIES),
            ValueError,
            "threshold and tie_break go together",
        ),
        (
            lambda: racer.prediction_sets(
                jnp.zeros((3, 2)), TieBroken(jnp.float32(0), jnp.uint32(0))
            ),
            ValueError,
            "threshold and tie_break go together",
        ),
        (
            lambda: racer.prediction_sets(
                jnp.zeros((4, 2)), TieBroken(jnp.float32(0), jnp.uint32(0)), TIES
            ),
            ValueError,
            "tie_break must have shape (4, 2), got (3, 2)",
        ),
        (
            lambda: racer.set_size(jnp.zeros((2, 1), bool)),
            ValueError,
            "sets must have shape [..., m + 1]",
        ),
        (
            lambda: racer.set_size(jnp.full((2, 2), 2)),
            ValueError,
            "sets must be 0/1, got 2.0 at [0, 0]",
        ),
        (lambda: racer.abstains(jnp.bool_(True)), ValueError, "sets must have shape [..., m + 1]"),
        (
            lambda: racer.misrouted(jnp.zeros((2, 3), bool), [[1, 0, 0]] * 2),
            ValueError,
            "correct must have shape [..., m]",
        ),
        (
            lambda: avoidably_missed(jnp.zeros((2, 3), bool), [[1, 2]] * 2),
            ValueError,
            "correct must be 0/1, got 2.0",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
