"""Choosing alpha, caps, budgets and selective risk: against loops and by simulation."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import racer_jax as racer
from racer_jax import choosing
from racer_jax.exact import split_law

INF = float("inf")
RNG = np.random.default_rng(0)


def problem(num, num_models=4, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.random((num, num_models)).astype(np.float32)
    return scores, rng.random((num, num_models)) < scores


def test_the_knee_is_the_corner():
    alpha = np.linspace(0.05, 0.5, 10)
    assert choosing.knee(alpha, np.maximum(1, 6 - 40 * (alpha - 0.05))) == 3
    assert choosing.knee(alpha, np.ones(10)) == 0


def test_budget_and_error_pick_what_they_say():
    assert choosing.within_budget([0.3, 0.1, 0.2], [1.0, 3.0, 2.0], 2.0) == 2
    assert choosing.within_error([0.7, 0.72, 0.71], [0.02, 0.01, 0.05], [3.0, 5.0, 1.0]) == 2


def test_uniform_thresholds_hold_for_the_worst_choice():
    n, delta, num = 150, 0.1, 1500
    alphas = [i / 50 for i in range(1, 50)]
    critical = jax.random.uniform(jax.random.key(0), (num, n))
    risk = 1 - np.asarray(choosing.calibrate_uniform(critical, alphas, delta))
    worst = (risk > np.array(alphas)).any(axis=1).mean()
    assert worst <= delta + 4 * np.sqrt(delta * (1 - delta) / num)
    plain = 1 - np.asarray(racer.calibrate(critical, alphas))
    assert (plain > np.array(alphas)).any(axis=1).mean() > 0.5
    assert (choosing.uniform_budget(alphas, n, delta) < racer.miss_budget(alphas, n)).all()
    assert choosing.uniform_budget(0.5, 200, 0.5) == int(200 * (0.5 - np.sqrt(np.log(2) / 400)))


@pytest.mark.parametrize("broken", [False, True])
def test_a_cap_keeps_the_guarantee_down_to_what_is_attainable(broken):
    scores, correct = problem(300)
    nonconformity = racer.gap((scores * 4).round() / 4, "free")
    ties = racer.tie_break(jax.random.key(1), nonconformity.shape) if broken else None
    capped = choosing.cap_models(nonconformity, 2, ties)
    order = np.lexsort((np.asarray(ties)[:, :-1] if broken else np.zeros((300, 4)), np.asarray(nonconformity)[:, :-1]))
    for row, first in zip(np.asarray(capped), order[:, :2], strict=True):
        assert set(np.flatnonzero(row[:-1] < INF)) == set(first)
    critical = racer.critical_scores(capped, correct)
    attainable = choosing.attainable_alpha(critical)
    assert attainable.misses == int(np.isposinf(critical).sum())
    law = split_law(capped, correct, num_calibration=150, alpha=[attainable.alpha + 0.08, 0.6], tie_break=ties)
    assert (law.risk_mean <= np.array([attainable.alpha + 0.08, 0.6]) + 1e-9).all()
    assert (law.size_mean <= 2).all()
    assert attainable.alpha < attainable.upper < attainable.alpha + 0.1


def test_clopper_pearson_is_the_binomial_inverse():
    from scipy.stats import binom

    for misses, n in ((0, 10), (3, 50), (49, 50)):
        upper = choosing.clopper_pearson(misses, n, 0.05)
        assert binom.cdf(misses, n, upper) == pytest.approx(0.05, rel=1e-6)
    assert choosing.clopper_pearson(5, 5, 0.05) == 1


def test_the_budget_is_kept_in_expectation_and_nothing_larger_would_fit():
    scores, _ = problem(40)
    cost, budget = np.array([1.0, 2.0, 4.0, 8.0]), 5.0
    nonconformity = np.asarray(racer.gap(scores, "free"))
    found = choosing.calibrate_budget(nonconformity, cost, budget)

    def total(threshold):
        return float((np.asarray(racer.prediction_sets(nonconformity, threshold))[:, :-1] * cost).sum())

    assert found.mean_cost == pytest.approx(total(found.threshold) / 40)
    candidates = np.unique(nonconformity[:, :-1])
    fits = [c for c in candidates if (total(float(c)) + 15) / 41 <= budget]
    assert found.threshold == float(fits[-1])
    assert choosing.calibrate_budget(nonconformity, cost, 0.1).threshold == -INF
    costs = []
    for seed in range(200):
        rows = np.asarray(racer.gap(problem(21, seed=seed)[0], "free"))
        threshold = choosing.calibrate_budget(rows[:20], cost, budget).threshold
        costs.append((np.asarray(racer.prediction_sets(rows[20], threshold))[:-1] * cost).sum())
    assert np.mean(costs) <= budget + 4 * np.std(costs) / np.sqrt(200)


def test_selective_risk_is_certified_as_often_as_promised():
    grid = np.linspace(0, 1, 21).astype(np.float32)
    population, right = problem(20_000, seed=9)
    nonconformity = np.asarray(racer.inverse_probability(population, "paper"))
    true = {}
    for threshold in grid:
        sets = racer.prediction_sets(nonconformity, float(threshold))
        answered = ~np.asarray(racer.abstains(sets))
        true[float(threshold)] = (np.asarray(racer.misrouted(sets, right)) & answered).sum() / max(answered.sum(), 1)
    failures, certified = 0, 0
    for seed in range(60):
        scores, correct = problem(200, seed=100 + seed)
        found = choosing.calibrate_selective(
            np.asarray(racer.inverse_probability(scores, "paper")), correct, grid, 0.15, 0.1
        )
        certified += found.threshold is not None
        failures += found.threshold is not None and true[found.threshold] > 0.15
        assert found.threshold is None or (found.misrouted < 0.15 and found.upper <= 0.15 + 1e-9)
    assert certified > 40
    assert failures <= 14  # 6 expected at most; more than 14 has a chance of 0.1%


def test_nothing_certified_is_said():
    found = choosing.calibrate_selective(jnp.array([[0.5, -INF]]), [[0]], np.array([0.9], np.float32), 0.1, 0.1)
    assert found.threshold is None
    assert found.num_tested == 1


E = np.array([[0.1, 0.5, 0.3]], np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: choosing.knee([0.1, 0.2], [1, 2]), ValueError, "at least three increasing levels"),
        (lambda: choosing.knee([0.1, 0.2, 0.3], [1, 2]), ValueError, "alpha, size must have one shape [a]"),
        (lambda: choosing.knee([0.1, 0.2, 0.3], [1, np.nan, 2]), ValueError, "size must be finite, got nan at [1]"),
        (
            lambda: choosing.within_budget([0.1], [3.0], 1),
            ValueError,
            "no alpha is within the budget of 1: the least cost",
        ),
        (lambda: choosing.within_error([0.1], [-1.0], [1.0]), ValueError, "error must not be negative, got -1"),
        (lambda: choosing.uniform_budget(0.1, 10, 0.6), ValueError, "delta must be in (0, .5]"),
        (lambda: choosing.uniform_budget(0.1, 10, 2), ValueError, "delta must be in (0, 1), got 2"),
        (lambda: choosing.cap_models(E, 0), ValueError, "most must be at least 1, got 0"),
        (lambda: choosing.cap_models(E, 1.5), TypeError, "most must be an integer, got 1.5"),
        (lambda: choosing.attainable_alpha(E), ValueError, "critical_scores must have shape [n]"),
        (lambda: choosing.calibrate_budget(E, [1.0], 1), ValueError, "cost must have shape [2] or [1, 2], got (1,)"),
        (lambda: choosing.calibrate_budget(E, [1.0, -1.0], 1), ValueError, "not negative, got -1.0 at [1]"),
        (
            lambda: choosing.calibrate_budget(E, [1.0, np.nan], 1),
            ValueError,
            "cost must be known and not negative, got nan",
        ),
        (lambda: choosing.calibrate_budget(E, ["a", "b"], 1), TypeError, "cost must be numeric"),
        (lambda: choosing.calibrate_budget(E, [1.0, 1.0], 0), ValueError, "budget must be positive and finite, got 0"),
        (
            lambda: choosing.calibrate_selective(E, [[1, 0]], [1, 2], 0.1, 0.1),
            ValueError,
            "thresholds must be floating [l]",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
