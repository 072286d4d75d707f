"""Wherever a threshold is made, it is one of the scores it was made of, or infinite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import calibrate, tie_break
from racer_jax.core.calibration import threshold_at_budget
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.risk_levels import miss_budget
from racer_jax.risk_control.costs import calibrate_budget
from racer_jax.risk_control.covariate_shift import calibrate_weighted
from racer_jax.risk_control.high_probability import calibrate_uniform, calibrate_with_probability
from racer_jax.risk_control.mondrian import calibrate_by_group
from racer_jax.risk_control.selective import calibrate_selective
from tests.parameters import few_by_default

ALPHAS = ["0.001", "0.05", "0.1", "0.3", "0.5"]
# Long enough for a sample to be looked at, with the ties of ten neighbours.
SIZE = 1 << 14
RNG = np.random.default_rng(0)
CRITICAL = (RNG.integers(0, 11, SIZE) / 10).astype(np.float32)
TIES = np.asarray(tie_break(jax.random.key(0), (SIZE,)))
GROUPS = RNG.choice(["a", "b"], SIZE).tolist()

MAKERS = {
    "calibrate": lambda c: calibrate(c, ALPHAS),
    "by mask": lambda c: calibrate(c, ALPHAS, np.array(GROUPS) == "a"),
    "budget": lambda c: threshold_at_budget(c, [-1, 0, 5, SIZE // 2, SIZE - 1]),
    "probability": lambda c: calibrate_with_probability(c, ALPHAS, 0.05),
    "uniform": lambda c: calibrate_uniform(c, ALPHAS, 0.05),
    "group": lambda c: calibrate_by_group(c, GROUPS, "0.1", "pooled").threshold,
}


@pytest.mark.parametrize("name", few_by_default(MAKERS))
def test_of_the_critical_scores(name):
    plain = np.asarray(MAKERS[name](jnp.asarray(CRITICAL)))
    assert np.isin(plain, [*np.unique(CRITICAL), np.inf]).all()
    pair = MAKERS[name](TieBroken(jnp.asarray(CRITICAL), jnp.asarray(TIES)))
    scores = {*zip(CRITICAL.tolist(), TIES.tolist(), strict=True), (np.inf, 2**32 - 1)}
    assert {*zip(pair.value.tolist(), pair.tie.tolist(), strict=True)} <= scores
    # A tie-break moves a threshold within its run of equal values, not to another.
    np.testing.assert_array_equal(pair.value, plain)


def test_of_weighted_scores_of_entries_and_of_the_grid():
    weighted = calibrate_weighted(CRITICAL, RNG.random(SIZE) + 0.5, 0.1).threshold([0.5, 1e9])
    assert weighted[0] in CRITICAL
    assert weighted[1] == np.inf
    nonconformity = np.stack([CRITICAL, CRITICAL[::-1], np.full(SIZE, -np.inf)], 1)
    nonconformity = nonconformity.astype(np.float32)
    for budget in (0.5, 2.0, 100.0):
        threshold = calibrate_budget(nonconformity, [1.0, 2.0], budget).threshold
        assert threshold == -np.inf or np.float32(threshold) in CRITICAL
    grid = np.float32([0.1, 0.35, 0.8])
    correct = np.ones((SIZE, 2), bool)
    assert calibrate_selective(nonconformity, correct, grid, 0.1, 0.1).threshold in grid


def test_equal_weights_are_the_plain_calibration_of_a_hundred_thousand():
    """A slack of 1e-4 would let ten more misses pass."""
    n = 99_999
    critical = np.arange(n, dtype=np.float32)
    for alpha in ("0.1", "0.29", "0.5"):
        at = calibrate_weighted(critical, np.ones(n), alpha).threshold([1.0])[0]
        assert at == n - miss_budget(alpha, n) - 1


def test_a_budget_in_dollars_is_not_exceeded_by_a_ten_thousandth():
    n = 99_999
    nonconformity = np.stack([np.arange(n), np.full(n, -np.inf)], axis=1).astype(np.float32)
    # k queries call their one model, and (k + 1) / (n + 1) <= budget.
    at = calibrate_budget(nonconformity, [1.0], 0.5)
    assert at.threshold == 50_000 - 2
    assert calibrate_budget(nonconformity, [1.0], 0.5 - 1e-6).threshold == 50_000 - 3


def test_selective_counts_equal_the_sets():
    from racer_jax import abstains, misrouted, prediction_sets

    values = np.float32([-np.inf, 0.0, 0.25, 0.5, np.inf])
    nonconformity = RNG.choice(values, (200, 4))
    correct = RNG.random((200, 3)) < 0.9
    for threshold in (0.0, 0.25, 0.5, 1.0):
        sets = prediction_sets(nonconformity, threshold)
        answered = ~np.asarray(abstains(sets))
        misses = int((np.asarray(misrouted(sets, correct)) & answered).sum())
        one = calibrate_selective(nonconformity, correct, np.float32([threshold]), 0.999, 0.999)
        assert one.threshold == threshold
        assert one.answered == answered.mean()
        assert one.misrouted == misses / answered.sum()
