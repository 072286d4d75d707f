"""Platt scaling against SciPy's optimum; the scores of a black box."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from racer_jax.routers import KNNR, Platt, PlattScaled, Router, Scores


def make(n=400, m=3, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.random((n, m)).astype(np.float32)
    logit = np.log(scores / (1 - scores))
    truth = 1 / (1 + np.exp(-(np.array([0.3, 1.0, 2.5]) * logit + np.array([-1.0, 0.0, 1.0]))))
    return scores, rng.random((n, m)) < truth


@pytest.mark.long
def test_equals_the_optimum_of_scipy():
    scores, correct = make()
    platt = Platt.fit(scores, correct)
    for j in range(3):
        s = np.clip(scores[:, j].astype(np.float64), 1e-3, 1 - 1e-3)
        z, y = np.log(s / (1 - s)), correct[:, j]
        target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))

        def loss(ab, z=z, target=target):
            logits = ab[0] * z + ab[1]
            return (np.logaddexp(0, logits) - target * logits).sum() + 0.5 * 1e-2 * (ab[0] - 1) ** 2

        expected = minimize(loss, [1.0, 0.0], tol=1e-10).x
        np.testing.assert_allclose(
            [platt.slope[j], platt.intercept[j]], expected, rtol=2e-3, atol=2e-3
        )


@pytest.mark.long
def test_calibrated_means_equal_the_observed():
    scores, correct = make()
    np.testing.assert_allclose(
        Platt.fit(scores, correct)(scores).mean(0), correct.mean(0), atol=0.01
    )


@pytest.mark.long
@pytest.mark.parametrize("right", [True, False])
def test_one_class_and_constant_scores_stay_finite(right):
    platt = Platt.fit(np.full((30, 2), 1.0, np.float32), np.full((30, 2), right))
    expected = 31 / 32 if right else 1 / 32
    np.testing.assert_allclose(platt(np.ones((1, 2), np.float32)), expected, atol=1e-3)


def test_one_row():
    assert bool(
        jnp.isfinite(
            Platt.fit(np.array([[0.5]], np.float32), [[1]])(np.array([[0.9]], np.float32))
        ).all()
    )


@pytest.mark.long
def test_scaled_router():
    router = KNNR.fit(np.eye(4, dtype=np.float32), np.eye(4)[:, :2], k=2)
    platt = Platt.fit(router(np.eye(4, dtype=np.float32)), np.eye(4)[:, :2])
    scaled = PlattScaled(router, platt)
    assert isinstance(scaled, Router)
    queries = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(scaled(queries), platt(router(queries)))


def test_bad_platt():
    with pytest.raises(
        ValueError,
        match=r"scores and correct must have the same shape .* got \(2, 2\) and \(2, 1\)",
    ):
        Platt.fit(np.full((2, 2), 0.5), np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"scores must be in \[0, 1\], got 2.0"):
        Platt.fit(np.full((2, 2), 2.0), np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"scores must have shape \[n, 2\], got \(1, 3\)"):
        Platt.fit(np.full((2, 2), 0.5), np.ones((2, 2)))(np.full((1, 3), 0.5))


def test_scores_of_a_black_box():
    scores = Scores(np.array([[0.25, 0.75], [1, 0]], np.float64), ["a", "b"])
    assert scores.values.dtype == jnp.float32
    assert scores.models == ("a", "b")
    assert len(scores) == 2
    assert scores.of("b").tolist() == [0.75, 0.0]
    assert scores.take([1]).values.tolist() == [[1.0, 0.0]]
    with pytest.raises(KeyError, match="no model 'c'; the models are a, b"):
        scores.of("c")


@pytest.mark.parametrize(
    ("values", "models", "error", "message"),
    [
        (np.ones((1, 2), int), ["a", "b"], TypeError, "scores must be floating"),
        (np.full((1, 2), np.nan), ["a", "b"], ValueError, "scores must be finite"),
        (
            np.ones(2),
            ["a", "b"],
            ValueError,
            r"values must have shape \[n, m\] with n, m >= 1, got \(2,\)",
        ),
        (np.ones((1, 2)), ["a"], ValueError, r"models must hold 2 different names, got \('a',\)"),
        (np.ones((1, 2)), ["a", "a"], ValueError, "models must hold 2 different names"),
    ],
)
def test_bad_scores(values, models, error, message):
    with pytest.raises(error, match=message):
        Scores(values, models)
