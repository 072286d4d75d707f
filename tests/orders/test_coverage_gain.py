"""RACER-J: equal to a plain greedy, nested, blind to the order of models, and with the guarantee of every score."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import racer_jax as racer
from racer_jax.montecarlo.exact import split_law
from racer_jax.orders.coverage_gain import coverage_gain, distinct_patterns, static_order
from racer_jax.orders.joint_laws import factor, fit_loadings, pattern_law, tilt, tilted
from racer_jax.risk_control import bounds as guarantees
from tests.strategies import NULLS

RNG = np.random.default_rng(0)
INF = float("inf")


def plain_greedy(weights, correct, discount=None):
    """RACER-J of one query, model by model; ties go to the first."""
    num_models = correct.shape[1]
    discount = np.ones(num_models) if discount is None else discount
    uncovered, level, result = weights.astype(float).copy(), 0.0, np.full(num_models, np.nan)
    left = list(range(num_models))
    while left:
        gains = [
            discount[m] * sum(u for u, y in zip(uncovered, correct[:, m], strict=True) if y)
            for m in left
        ]
        best = left.pop(int(np.argmax(gains)))
        level = max(level, 1 - max(gains))
        result[best] = level
        uncovered = [0.0 if y else u for u, y in zip(uncovered, correct[:, best], strict=True)]
    return result


def null_column(nonconformity, weights, correct, null):
    """What the null model's column must be."""
    return {"paper": max(weights @ correct), "free": -INF, "never": INF}[null]


@st.composite
def supports(draw):
    """Weights in 64ths, so that float32 sums are exact, and correct.

    Few shapes, since each one compiles.
    """
    s, m = draw(st.sampled_from([(1, 1), (5, 3), (16, 5)]))
    cuts = sorted(draw(st.lists(st.integers(0, 64), min_size=s - 1, max_size=s - 1)))
    weights = np.diff([0, *cuts, 64]) / 64
    right = draw(st.lists(st.booleans(), min_size=s * m, max_size=s * m))
    return weights.astype(np.float32), np.array(right).reshape(s, m)


# --- the greedy order -----------------------------------------------------------------------------


@pytest.mark.long
@given(supports(), NULLS)
@settings(deadline=None, max_examples=80)
def test_equals_the_plain_greedy(problem, null):
    weights, correct = problem
    actual = np.asarray(coverage_gain(weights, correct, null))
    assert actual[:-1].tolist() == plain_greedy(weights, correct).tolist()
    assert actual[-1] == null_column(actual, weights, correct, null)


@pytest.mark.long
@given(supports(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_blind_to_the_order_of_models_and_rows(problem, random):
    weights, correct = problem
    models, rows = list(range(correct.shape[1])), list(range(correct.shape[0]))
    random.shuffle(models)
    random.shuffle(rows)
    actual = np.asarray(coverage_gain(weights, correct))[:-1]
    shuffled = np.asarray(coverage_gain(weights[rows], correct[rows][:, models]))[:-1]
    # Where gains tie, the first model is taken, and what is left to gain depends on which that was.
    assume(every_step_has_one_best(weights, correct))
    assert shuffled.tolist() == actual[models].tolist()


def every_step_has_one_best(weights, correct):
    """Whether no two models tie for the largest gain at any step of the greedy order."""
    uncovered, left = weights.astype(float), list(range(correct.shape[1]))
    while left:
        gains = np.array([uncovered @ correct[:, m] for m in left])
        if (gains == gains.max()).sum() > 1:
            return False
        uncovered = uncovered * ~correct[:, left.pop(int(gains.argmax()))]
    return True


@pytest.mark.long
@given(supports())
@settings(deadline=None, max_examples=40)
def test_sets_are_nested_and_the_loss_is_monotone(problem):
    weights, correct = problem
    nonconformity = coverage_gain(weights, correct)
    levels = jnp.sort(jnp.append(nonconformity[:-1], 2.0))
    sets = np.asarray(jnp.stack([racer.prediction_sets(nonconformity, level) for level in levels]))
    assert (sets[:-1] <= sets[1:]).all()
    covered = [(weights @ (correct[:, s[:-1]].any(axis=1))) for s in sets]
    assert (np.diff(covered) >= 0).all()
    assert covered[-1] == weights @ correct.any(axis=1)


@pytest.mark.long
def test_patterns_stand_for_their_rows():
    correct = RNG.random((300, 4)) < 0.5
    weights = RNG.dirichlet(np.ones(300), 20).astype(np.float32)
    patterns = distinct_patterns(correct)
    assert (patterns.correct[patterns.of_row] == correct).all()
    assert patterns.num_rows.sum() == 300
    gathered = np.zeros((20, len(patterns.correct)), np.float32)
    np.add.at(gathered.T, patterns.of_row, weights.T)
    np.testing.assert_allclose(
        coverage_gain(gathered, patterns.correct),
        coverage_gain(weights, correct),
        atol=1e-6,
        rtol=0,
    )


@pytest.mark.long
def test_uniform_weights_are_the_static_order():
    correct = RNG.random((64, 5)) < 0.6
    expected = coverage_gain(np.full(64, 1 / 64, np.float32), correct)
    assert static_order(correct).tolist() == expected.tolist()
    assert (
        static_order(correct)[:-1].tolist() == plain_greedy(np.full(64, 1 / 64), correct).tolist()
    )


@pytest.mark.long
def test_jit_vmap_and_blocks_agree_with_a_loop(transform, monkeypatch):
    correct = RNG.random((32, 4)) < 0.5
    weights = (RNG.multinomial(64, np.ones(32) / 32, size=11) / 64).astype(np.float32)
    expected = np.array([plain_greedy(row, correct) for row in weights])
    actual = transform(lambda w: coverage_gain(w, correct))(weights)
    assert actual[:, :-1].tolist() == expected.tolist()
    # Blocks of three queries, the last of two.
    monkeypatch.setattr("racer_jax.orders.coverage_gain._BLOCK_ENTRIES", 3 * 32)
    jax.clear_caches()
    assert coverage_gain(weights, correct)[:, :-1].tolist() == expected.tolist()
    assert coverage_gain(weights.reshape(11, 1, 32), correct).shape == (11, 1, 5)


def test_many_models():
    correct = RNG.random((40, 200)) < 0.5
    actual = np.asarray(coverage_gain(np.full(40, 1 / 64, np.float32) * 64 / 40, correct))
    assert np.isfinite(actual[:-1]).all()
    assert (actual[:-1] < 1).sum() == (plain_greedy(np.full(40, 1 / 40), correct) < 1 - 1e-6).sum()


# --- costs ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_costs_discount_the_gains():
    weights, correct = (
        np.full(4, 0.25, np.float32),
        np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]], bool),
    )
    cost = np.array([4.0, 1.0, 1.0])
    actual = coverage_gain(weights, correct, cost=cost, gamma=0.5)
    assert (
        actual[:-1].tolist()
        == plain_greedy(weights, correct, discount=np.array([0.5, 1, 1])).tolist()
    )
    assert actual.tolist() == [
        0.75,
        1.0,
        0.5,
        -INF,
    ]  # the third first; the first, at half its gain, ties with the second
    assert (
        coverage_gain(weights, correct, cost=cost, gamma=0).tolist()
        == coverage_gain(weights, correct).tolist()
    )
    # the unit does not matter
    assert coverage_gain(weights, correct, cost=7 * cost).tolist() == actual.tolist()
    per_query = coverage_gain(
        np.stack([weights, weights]), correct, cost=np.stack([cost, np.ones(3)])
    )
    assert per_query[0].tolist() == actual.tolist()
    assert per_query[1].tolist() == coverage_gain(weights, correct).tolist()


# --- black boxes ----------------------------------------------------------------------------------


@pytest.mark.long
def test_the_tilted_law_has_the_routers_marginals_and_the_training_odds():
    correct = RNG.random((400, 5)) < RNG.random((400, 1))
    law = pattern_law(correct, smoothing=20.0)
    assert float(law.probability.sum()) == pytest.approx(1, abs=1e-6)
    scores = np.concatenate([RNG.random((200, 5)), np.zeros((1, 5)), np.ones((1, 5))]).astype(
        np.float32
    )
    q = np.asarray(tilted(scores, law), np.float64)
    np.testing.assert_allclose(
        q @ np.asarray(law.patterns), np.clip(scores, 0.005, 0.995), atol=2e-4
    )
    # log q - log b is linear in the pattern: it has no part beyond constant and main effects.
    design = np.concatenate([np.ones((32, 1)), np.asarray(law.patterns)], axis=1)
    ratio = np.log(q[:200]) - np.log(np.asarray(law.probability))
    residual = ratio - ratio @ np.linalg.pinv(design).T @ design.T
    assert np.abs(residual).max() < 1e-3


@pytest.mark.long
def test_the_base_laws_own_marginals_leave_it_alone():
    law = pattern_law(RNG.random((300, 4)) < 0.5, smoothing=30.0)
    marginals = np.asarray(law.probability) @ np.asarray(law.patterns)
    np.testing.assert_allclose(tilted(marginals, law), law.probability, atol=1e-5)
    np.testing.assert_allclose(
        tilt(marginals, law), coverage_gain(law.probability, law.patterns), atol=1e-5
    )


def test_smoothing_weighs_the_product_law():
    law = pattern_law([[1, 0], [1, 1], [0, 0], [1, 0]], smoothing=4.0)
    rows = {
        tuple(map(int, p)): float(q) for p, q in zip(law.patterns, law.probability, strict=True)
    }
    assert rows[1, 0] == pytest.approx((2 + 4 * 0.75 * 0.75) / 8)
    assert rows[0, 1] == pytest.approx((0 + 4 * 0.25 * 0.25) / 8)


def test_independent_factor_multiplies_the_misses():
    scores = np.array([[0.5, 0.4, 0.3], [0.9, 0.2, 0.1]], np.float32)
    actual = np.asarray(factor(scores, np.zeros(3, np.float32)))
    np.testing.assert_allclose(actual[0, :3], [0.5, 1 - 0.5 * 0.4, 1 - 0.5 * 0.6 * 0.3], atol=1e-5)
    np.testing.assert_allclose(actual[1, :3], [0.1, 1 - 0.1 * 0.2, 1 - 0.1 * 0.8 * 0.1], atol=1e-5)


def simulated_factor(key, num, loadings):
    """Marginals and patterns of the factor model itself."""
    rng = np.random.default_rng(key)
    intercept = rng.normal(0, 1, (num, len(loadings)))
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    chance = 1 / (1 + np.exp(-(intercept[:, None] + nodes[:, None] * loadings)))
    marginal = np.einsum("z,nzm->nm", weights / weights.sum(), chance)
    z = rng.normal(size=(num, 1))
    return marginal.astype(np.float32), rng.random((num, len(loadings))) < 1 / (
        1 + np.exp(-(intercept + z * loadings))
    )


@pytest.mark.long
def test_loadings_are_found_again():
    loadings = np.array([0.5, 1.5, 2.5, 0.0])
    scores, correct = simulated_factor(0, 6000, loadings)
    np.testing.assert_allclose(fit_loadings(scores, correct), loadings, atol=0.35)


def test_factor_gains_are_those_of_the_model():
    loadings = np.array([1.0, 2.0], np.float32)
    scores, _ = simulated_factor(1, 1, loadings)
    first, second = np.argsort(-scores[0])
    nonconformity = np.asarray(factor(scores, loadings))[0]
    assert nonconformity[first] == pytest.approx(1 - scores[0, first], abs=1e-4)
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)

    def chance(m):  # sigmoid(b + sigma z) with mean s, b by a fine grid
        grid = np.linspace(-10, 10, 4001)
        p = 1 / (1 + np.exp(-(grid[:, None] + loadings[m] * nodes)))
        return p[np.abs(p @ weights / weights.sum() - scores[0, m]).argmin()]

    gain = (weights * (1 - chance(first)) * chance(second)).sum() / weights.sum()
    assert 1 - nonconformity[second] == pytest.approx(gain, abs=2e-3)


# --- the guarantee --------------------------------------------------------------------------------


def scores_and_orders():
    """Nonconformity of test queries by every score, learned from train rows alone."""
    rng = np.random.default_rng(5)
    easiness = rng.normal(size=(700, 1))
    correct = easiness + rng.normal(size=(700, 4)) > [-0.4, -0.2, 0.0, 0.4]
    scores = (1 / (1 + np.exp(-0.8 * easiness - rng.normal(0, 0.5, (700, 4))))).astype(np.float32)
    train, test = slice(300), slice(300, None)
    law, loadings = pattern_law(correct[train]), fit_loadings(scores[train], correct[train])
    near = np.abs(easiness[test] - easiness[train].T).argsort(axis=1)[:, :30]
    weights = np.full((400, 300), 0.7 / 300, np.float32)
    np.put_along_axis(
        weights, near, np.take_along_axis(weights, near, axis=1) + np.float32(0.01), axis=1
    )
    methods = {
        "gap": lambda null: racer.gap(scores[test], null),
        "inverse_probability": lambda null: racer.inverse_probability(scores[test], null),
        "static": lambda null: jnp.broadcast_to(static_order(correct[train], null), (400, 5)),
        "blend": lambda null: coverage_gain(weights, correct[train], null),
        "tilt": lambda null: tilt(scores[test], law, null),
        "factor": lambda null: factor(scores[test], loadings, null),
        "cost": lambda null: coverage_gain(
            weights, correct[train], null, cost=[1.0, 3.0, 9.0, 27.0]
        ),
    }
    return methods, correct[test]


@pytest.mark.long
@pytest.mark.parametrize("null", ["paper", "free", "never"])
def test_the_guarantee_holds_for_every_score(null):
    methods, correct = scores_and_orders()
    alphas, num = ["0.05", "0.1", "0.29", "0.5"], 199
    nobody = (~correct.any(axis=1)).mean()
    for name, method in methods.items():
        nonconformity = method(null)
        ties = racer.tie_break(jax.random.key(1), nonconformity.shape)
        law = split_law(nonconformity, correct, num_calibration=num, alpha=alphas, tie_break=ties)
        sharp = np.array([guarantees.sharp_risk(alpha, num) for alpha in alphas])
        reachable = (
            np.array([float(alpha) for alpha in alphas]) > nobody + 0.1
            if null == "never"
            else np.ones(4, bool)
        )
        np.testing.assert_allclose(
            law.risk_mean[reachable], sharp[reachable], atol=1e-9, err_msg=name
        )
        assert (law.size_mean <= 4).all()


# --- bad input ------------------------------------------------------------------------------------

ROWS = np.array([[1, 0], [0, 1]])
HALVES = np.array([0.5, 0.5], np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: coverage_gain(np.array([1, 0]), ROWS), TypeError, "weights must be floating"),
        (
            lambda: coverage_gain(np.ones(3, np.float32), ROWS),
            ValueError,
            "weights must have shape [..., 2], one for",
        ),
        (
            lambda: coverage_gain(np.array([-0.5, 1.5]), ROWS),
            ValueError,
            "not negative, got -0.5 at [0]",
        ),
        (lambda: coverage_gain(np.array([[INF, 0.5]]), ROWS), ValueError, "weights must be finite"),
        (
            lambda: coverage_gain(np.zeros((2, 2)), ROWS),
            ValueError,
            "weights must sum to 1 for each query, got 0 at [0]",
        ),
        (
            lambda: coverage_gain(np.zeros(2), ROWS),
            ValueError,
            "weights must sum to 1 for each query, got 0",
        ),
        (lambda: coverage_gain(HALVES, ROWS, "none"), ValueError, "null must be one of"),
        (
            lambda: coverage_gain(HALVES, ROWS * 2),
            ValueError,
            "correct must be 0/1, got 2.0 at [0, 0]",
        ),
        (lambda: coverage_gain(HALVES, ROWS[0]), ValueError, "correct must have shape [n, m]"),
        (
            lambda: coverage_gain(HALVES, ROWS, cost=[1.0]),
            ValueError,
            "cost must have shape [..., 2]",
        ),
        (
            lambda: coverage_gain(HALVES, ROWS, cost=[1.0, -1.0]),
            ValueError,
            "above 0 for every model, got -1.0 at [1]",
        ),
        (
            lambda: coverage_gain(HALVES, ROWS, cost=[1.0, 0.0]),
            ValueError,
            "above 0 for every model, got 0.0 at [1]",
        ),
        (
            lambda: coverage_gain(HALVES, ROWS, cost=[1.0, np.nan]),
            ValueError,
            "cost must be known, finite",
        ),
        (
            lambda: coverage_gain(HALVES, ROWS, cost=np.array([True, True])),
            TypeError,
            "cost must be numeric",
        ),
        (
            lambda: coverage_gain(HALVES, ROWS, cost=[1.0, 2.0], gamma=-1),
            ValueError,
            "gamma must be in [0, 4], got -1",
        ),
        (
            lambda: static_order(np.zeros((0, 2))),
            ValueError,
            "correct must have shape [n, m] with n, m >= 1",
        ),
        (lambda: pattern_law(np.ones((2, 13))), ValueError, "at most 12 models"),
        (
            lambda: pattern_law(ROWS, smoothing=0),
            ValueError,
            "smoothing must be positive and finite, got 0",
        ),
        (
            lambda: tilt(np.ones((1, 3), np.float32), pattern_law(ROWS)),
            ValueError,
            "scores must have 2 models",
        ),
        (
            lambda: tilt(np.array([0.5, 1.5]), pattern_law(ROWS)),
            ValueError,
            "scores must be in [0, 1]",
        ),
        (lambda: factor(HALVES, np.zeros(3)), ValueError, "loadings must have shape (2,)"),
        (
            lambda: factor(HALVES, np.array([0.0, np.nan])),
            ValueError,
            "loadings must be finite and within [-8, 8]",
        ),
        (lambda: factor(HALVES, np.array([0, 1])), TypeError, "loadings must be floating"),
        (
            lambda: fit_loadings(np.ones((3, 2)), ROWS),
            ValueError,
            "scores must have the shape of correct, (2, 2)",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
