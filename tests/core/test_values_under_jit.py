"""Values that are refused where they can be seen must not become a licence to miss under `jit`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import calibrate, critical_scores, gap, misrouted, prediction_sets
from racer_jax.core.conformal_training import soft_threshold
from racer_jax.core.loss_calibration import calibrate_loss
from racer_jax.core.losses import grade_loss, loss_at, set_loss, weighted_loss
from racer_jax.core.risk_levels import miss_budget

LEVELS = [0.05, 0.1, 0.2, 0.29, 0.3, 0.7]


@pytest.fixture(scope="module")
def pool():
    """Scores that are divided by their sum, which is 0 in every twentieth row, and labels."""
    rng = np.random.default_rng(0)
    raw = rng.random((2000, 3)).astype(np.float32)
    raw[::20] = 0
    return raw, rng.random((2000, 3)) < 0.6


def test_scores_of_0_by_0_are_misses_and_not_hits(pool):
    raw, correct = pool

    @jax.jit
    def risk(raw, correct):
        scores = raw / raw.sum(axis=-1, keepdims=True)
        nonconformity = gap(scores, "free")
        threshold = calibrate(critical_scores(nonconformity[:1000], correct[:1000]), 0.1)
        sets = prediction_sets(nonconformity[1000:], threshold)
        return threshold, misrouted(sets, correct[1000:]).mean()

    threshold, seen = risk(raw, correct)
    clean = np.where(raw.any(axis=1, keepdims=True), raw / (raw.sum(1, keepdims=True) + 1e-30), 0)
    entries = np.array(gap(jnp.asarray(clean, jnp.float32), "free"))
    entries[::20, :-1] = np.inf
    expected = calibrate(critical_scores(entries[:1000], correct[:1000]), 0.1)
    assert float(threshold) == pytest.approx(float(expected), abs=1e-6)
    assert seen < 0.13  # .1 and three standard deviations; .2 where NaN with a sign counts as a hit


@pytest.mark.long
@pytest.mark.parametrize("sign", [1, -1])
def test_nan_is_above_every_number(sign):
    nan = np.copysign(np.float32(np.nan), sign)
    scores = jnp.array([0.5, nan, 0.25, nan])
    assert jax.jit(lambda c: calibrate(c, LEVELS[-1]))(scores) == calibrate(
        jnp.array([0.5, np.inf, 0.25, np.inf]), LEVELS[-1]
    )
    entries = jnp.array([[0.5, nan, 0.9]])
    assert jax.jit(prediction_sets)(entries, nan).tolist() == [[True, False, True]]
    assert jax.jit(critical_scores)(entries, jnp.array([[False, True]])).tolist() == [np.inf]
    loss = jax.jit(lambda e: loss_at(grade_loss(e, jnp.array([[0.0, 1.0]])), 5.0))(entries)
    assert loss.tolist() == [1.0]
    loss = jax.jit(lambda g: loss_at(grade_loss(jnp.array([[0.5, 0.1, 0.9]]), g), 5.0))
    assert loss(jnp.array([[0.5, nan]])).tolist() == [1.0]


@pytest.mark.parametrize("label", [np.nan, -1.0, 2.0, 0.3])
def test_a_row_with_a_label_of_another_value_is_a_miss(label):
    entries = jnp.array([[0.1, 0.5, -jnp.inf], [0.1, 0.5, -jnp.inf]])
    labels = jnp.array([[label, 1.0], [0.0, 1.0]])
    assert jax.jit(critical_scores)(entries, labels).tolist() == [np.inf, 0.5]
    with pytest.raises(ValueError, match="must be 0/1"):
        critical_scores(entries, labels)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_traced_alpha_never_allows_a_miss_too_many(dtype):
    scores = jnp.arange(1.0, 2000.0)
    at = jax.jit(lambda level: calibrate(scores, level))(jnp.array(LEVELS, dtype))
    exact = [1999 - int(miss_budget(level, 1999)) for level in LEVELS]
    assert (np.asarray(at) >= exact).all()
    assert (np.asarray(at) <= np.array(exact) + 20).all()


@pytest.mark.long
def test_a_traced_alpha_out_of_range_calls_every_model():
    alpha = jnp.array([np.nan, np.inf, -0.1, 0.0, 1.0, 1.5, 10.0])
    scores = jnp.arange(1.0, 100.0)
    assert jax.jit(lambda level: calibrate(scores, level))(alpha).tolist() == [np.inf] * 7
    weighted = jax.jit(lambda level: calibrate(scores, level, weights=jnp.ones(99)))
    assert weighted(alpha).tolist() == [np.inf] * 7
    loss = grade_loss(jnp.tile(jnp.array([0.1, 0.2, 0.9]), (99, 1)), np.ones((99, 2)))
    assert jax.jit(lambda level: calibrate_loss(loss, level))(alpha).tolist() == [np.inf] * 7


def test_a_traced_alpha_of_integers_is_refused():
    with pytest.raises(TypeError, match="floating where it is traced"):
        jax.jit(lambda level: calibrate(jnp.arange(1.0, 100.0), level))(1)


@pytest.mark.long
def test_small_weights_do_not_vanish():
    """4,000 weights of less than half a step beside one of 1: sums in double precision."""
    weights = np.full(4001, 9e-8, np.float32)
    weights[0] = 1
    scores = np.random.default_rng(0).random(4001, np.float32)
    scores[0] = 0
    threshold = float(calibrate(scores, 1e-4, weights=weights, query_weight=9e-8))
    exact = weights.astype(np.float64)
    missed = exact[scores > threshold].sum() + 9e-8
    assert 0 < missed <= 1e-4 * (exact.sum() + 9e-8)


def test_more_weights_than_sums_can_hold_are_refused():
    scores = jnp.ones((1 << 23) + 1)
    with pytest.raises(ValueError, match="at most 8,388,608 calibration queries, got 8,388,609"):
        calibrate(scores, 0.1, weights=scores)


def test_leading_axes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"that broadcast, got shapes \(2, 3\) and \(3, 2\)"):
        misrouted(jnp.ones((2, 3), bool), jnp.ones((3, 2), bool))


def test_a_number_is_read_in_the_precision_of_what_it_is_compared_with():
    entries = np.full((1, 2), 0.1, np.float32)
    with jax.enable_x64(True):
        assert prediction_sets(entries, 0.1).all()


@pytest.mark.long
def test_a_soft_threshold_takes_no_infinite_score_and_counts_the_rows_that_count():
    scores = jnp.concatenate([jnp.full(10, -jnp.inf), jnp.linspace(0, 1, 39)])
    with pytest.raises(ValueError, match=r"must be finite, got -inf at \[0\]; leave such rows out"):
        soft_threshold(scores, 0.1, 0.01)
    is_finite = jnp.isfinite(scores)
    with jax.debug_nans(True):
        masked = soft_threshold(scores, 0.1, 1e-4, is_finite)
        assert jnp.isfinite(
            jax.grad(lambda c: soft_threshold(c, 0.1, 0.1, is_finite))(scores)
        ).all()
    assert masked == pytest.approx(float(calibrate(scores[10:], 0.1)), abs=1e-3)
    with pytest.raises(ValueError, match="at least 1 / "):
        soft_threshold(scores, 0.1, 0.01, jnp.arange(49) > 43)
    levels = jnp.array([0.1, 0.2])
    both = jax.vmap(lambda level: soft_threshold(scores[10:], level, 1e-4))(levels)
    assert both[0] == pytest.approx(float(masked))


@pytest.mark.long
@pytest.mark.parametrize("grade", [5.0, -1.0, np.inf, -np.inf])
def test_a_grade_out_of_range_pays_for_no_other_query(grade):
    entries = jnp.array([[0.5, 0.1, 0.9]] * 20)
    grades = jnp.zeros((20, 2)).at[:, 0].set(1.0)

    @jax.jit
    def calibrated(wrong):
        loss = grade_loss(entries, grades.at[0].set(jnp.array([wrong, 1.0])))
        return calibrate_loss(loss, [0.04, 0.1]), loss_at(loss, 5.0)

    thresholds, losses = calibrated(grade)
    # One loss of 1 among 20 queries leaves no budget at .04, and all of it at .1.
    assert thresholds.tolist() == [np.inf, 0.5]
    assert losses.tolist() == [1.0, *[0.0] * 19]


@pytest.mark.long
def test_losses_and_weights_out_of_range_count_as_the_largest():
    entries = jnp.array([[0.1, 0.3, 0.6]])

    @jax.jit
    def lost(values, weight):
        loss = set_loss(lambda sets: values[sets.sum(axis=-1)], entries)
        weighted = weighted_loss(grade_loss(entries, jnp.array([[0.0, 1.0]])), weight, 10)
        at = [0.0, 0.1, 0.3, 0.6]
        return [loss_at(loss, t)[0] for t in at], [loss_at(weighted, t)[0] for t in at]

    def shown(values, weight):
        result = lost(jnp.array(values), jnp.array([weight]))
        return [[float(number) for number in column] for column in result]

    assert shown([1.0, 0.5, 0.25, 0.0], 5.0) == [[1, 0.5, 0.25, 0], [5, 5, 0, 0]]
    assert shown([1.0, -3.0, 0.25, 0.0], 50.0) == [[1, 1, 0.25, 0], [10, 10, 0, 0]]
    assert shown([9.0, 0.25, 0.5, 0.0], -5.0) == [[1, 0.5, 0.5, 0], [10, 10, 0, 0]]
