"""Choices, budgets in dollars, selective risk and density ratios against trying every candidate."""

from fractions import Fraction
from math import inf

import jax
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binom

from racer_jax.core.proportions import clopper_pearson_upper
from racer_jax.core.risk_levels import miss_budget
from racer_jax.risk_control import (
    attainable_alpha,
    calibrate_budget,
    calibrate_selective,
    calibrate_uniform,
    calibrate_with_probability,
    call_at_least,
    cap_models,
    estimate_density_ratio,
    high_probability,
    high_probability_budget,
    knee,
    uniform_budget,
    within_budget,
    within_error,
)
from racer_jax.risk_control.costs import BudgetThreshold
from racer_jax.risk_control.selective import _selective_steps

# --- one of several levels ------------------------------------------------------------------------


def test_the_knee_is_the_point_furthest_below_the_chord():
    rng = np.random.default_rng(0)
    for num in (3, 4, 9):
        levels = np.cumsum(rng.random(num) + 0.01)
        steps = -np.sort(rng.random(num - 1))[::-1] * np.diff(levels)  # less and less steep
        sizes = num + np.append(0, np.cumsum(steps))
        slope = (sizes[-1] - sizes[0]) / (levels[-1] - levels[0])
        below = sizes[0] + slope * (levels - levels[0]) - sizes
        assert knee(levels, sizes) == int(np.argmax(below))
    assert knee([0.1, 0.2, 0.3], [1.0, 5.0, 1.0]) == 0  # no range


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([], []), r"alpha, size must have one shape \[a\], got \(0,\)"),
        (([[0.1, 0.2]], [[1.0, 2.0]]), r"must have one shape \[a\], got \(1, 2\)"),
        (([0.1, 0.2, 0.3], [1.0, 2.0]), r"must have one shape \[a\], got"),
        ((0.1, 1.0), r"must have one shape \[a\], got \(\)"),
        (([0.1, 0.2], [2.0, 1.0]), "at least three increasing levels"),
        (([0.1, 0.2, 0.2], [3.0, 2.0, 1.0]), "at least three increasing levels"),
        (([0.1, 0.2, np.inf], [3.0, 2.0, 1.0]), r"alpha must be finite, got inf at \[2\]"),
        (([0.1, 0.2, 0.3], [3.0, np.nan, 1.0]), r"size must be finite, got nan at \[1\]"),
    ],
)
def test_a_curve_that_is_none_is_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        knee(*columns)


def test_a_cost_that_is_the_budget_is_within_it():
    assert within_budget([0.3, 0.1, 0.2], [1.0, 4.0, 2.0], 2.0) == 2
    assert within_budget([0.3, 0.1, 0.2], [1.0, 4.0, 2.0], 4.0) == 1
    assert within_budget([0.3], [1.0], 1.0) == 0


def test_an_accuracy_one_error_below_the_best_is_within_it():
    accuracy, size = [0.5, 0.75, 0.625], [1.0, 3.0, 2.0]
    assert within_error(accuracy, [9.0, 0.25, 9.0], size) == 0
    assert within_error(accuracy, [0.0, 0.125, 0.0], size) == 2
    assert within_error(accuracy, [0.0, 0.0, 0.0], size) == 1
    with pytest.raises(ValueError, match=r"error must not be negative, got -0\.1"):
        within_error(accuracy, [0.0, 0.0, -0.1], size)


# --- with high probability ------------------------------------------------------------------------


def test_budgets_are_for_the_queries_of_a_row_whatever_stands_before(monkeypatch):
    asked = []

    def threshold(value, budget, tie_break):
        asked.append((value.shape, np.asarray(budget).tolist(), tie_break))
        return "threshold"

    monkeypatch.setattr(high_probability, "threshold_at_budget", threshold)
    critical = np.zeros((3, 40), np.float32)
    assert calibrate_with_probability(critical, [0.3, 0.5], 0.1) == "threshold"
    assert calibrate_uniform(critical, 0.5, 0.1) == "threshold"
    expected = [high_probability_budget([0.3, 0.5], 40, 0.1).tolist(), uniform_budget(0.5, 40, 0.1)]
    assert asked == [((3, 40), budget, None) for budget in expected]
    assert expected[0] != high_probability_budget([0.3, 0.5], 3, 0.1).tolist()
    assert expected[1] == 13  # floor(40 (.5 - sqrt(log(10) / 80)))
    with pytest.raises(ValueError, match=r"delta must be in \(0, .5\]"):
        uniform_budget(0.5, 40, 0.51)
    assert uniform_budget(0.5, 40, 0.5) == 16


# --- numbers of models ----------------------------------------------------------------------------


def test_caps_and_floors_keep_the_first_models_of_each_query():
    rng = np.random.default_rng(0)
    entries = (rng.integers(0, 3, (20, 4)) / 2).astype(np.float32)
    keys = rng.integers(0, 2, entries.shape).astype(np.uint32)

    @jax.jit
    def every(entries, keys):
        return cap_models(entries, 2, keys), call_at_least(entries, 2)

    capped, called = map(np.asarray, every(entries, keys))
    for i, row in enumerate(entries.tolist()):
        tie = keys[i].tolist()
        first = sorted(range(3), key=lambda m, row=row, tie=tie: (row[m], tie[m], m))[:2]
        assert capped[i].tolist() == [row[m] if m in first or m == 3 else inf for m in range(4)]
        first = sorted(range(3), key=lambda m, row=row: (row[m], m))[:2]
        assert called[i].tolist() == [-inf if m in first else row[m] for m in range(4)]
    for rule, most, message in (
        (cap_models, 0, "most must be at least 1"),
        (call_at_least, 0, "least must be at least 1"),
        (call_at_least, 4, "least must be at most the 3 models, got 4"),
    ):
        with pytest.raises(ValueError, match=message):
            rule(entries, most)
    with pytest.raises(ValueError, match=r"must have shape \[..., m \+ 1\] with m >= 1"):
        cap_models(entries[:, :1], 1)


# --- dollars --------------------------------------------------------------------------------------


def best_within(entries, costs, budget, bound):
    """The largest entry at which the costs, with the bound for one query to come, are within."""
    num, best = len(entries), BudgetThreshold(-inf, 0.0, float(bound))
    for threshold in np.unique(entries[:, :-1]):
        called = entries[:, :-1] <= threshold
        total = sum(Fraction(c) for c in costs[called].tolist())
        if threshold < inf and (total + Fraction(bound)) / (num + 1) <= Fraction(budget):
            best = BudgetThreshold(float(threshold), float(total / num), float(bound))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_a_budget_in_dollars_is_the_largest_threshold_that_keeps_it(seed):
    rng = np.random.default_rng(seed)
    entries = rng.integers(0, 5, (9, 4)).astype(np.float32)
    entries[rng.random((9, 4)) < 0.15] = inf
    costs = rng.integers(0, 5, (9, 3)) / 4
    prices = costs[0]
    rows = np.broadcast_to(prices, (9, 3))
    for budget in (0.25, 0.5, 1.0, 1.25, 2.0, 8.0):
        assert calibrate_budget(entries, prices, budget) == best_within(
            entries, rows, budget, prices.sum()
        )
        assert calibrate_budget(entries, costs, budget, most=[1, 1.0, 1.25]) == best_within(
            entries, costs, budget, 3.25
        )
        assert calibrate_budget(entries, costs, budget, most=3.5) == best_within(
            entries, costs, budget, 3.5
        )


ENTRIES = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((ENTRIES[0], [1, 1], 1), {}, ValueError, r"nonconformity must have shape \[n, m \+ 1\]"),
        ((ENTRIES[:0], [1, 1], 1), {}, ValueError, r"nonconformity must have shape \[n, m \+ 1\]"),
        ((ENTRIES[:, :1], [], 1), {}, ValueError, r"nonconformity must have shape \[n, m \+ 1\]"),
        ((ENTRIES, ["a", "b"], 1), {}, TypeError, "cost must be numeric, got dtype <U1"),
        ((ENTRIES, [1, 1, 1], 1), {}, ValueError, r"cost must have shape \[2\] or \[2, 2\]"),
        ((ENTRIES, [1, -1], 1), {}, ValueError, r"known and not negative, got -1 at \[1\]"),
        ((ENTRIES, [1, np.nan], 1), {}, ValueError, r"known and not negative, got nan at \[1\]"),
        ((ENTRIES, [1, np.inf], 1), {}, ValueError, r"known and not negative, got inf at \[1\]"),
        ((ENTRIES, [1, 1], 0), {}, ValueError, "budget must be positive and finite, got 0"),
        ((ENTRIES, [1, 1], inf), {}, ValueError, "budget must be positive and finite, got inf"),
        ((ENTRIES, np.ones((2, 2)), 1), {}, ValueError, "most must be given where costs vary"),
        ((ENTRIES, [1, 2], 1), {"most": [1, 1]}, ValueError, r"got 2 at \[1\], declared \[1, 1\]"),
        ((ENTRIES, [1, 2], 1), {"most": 2.5}, ValueError, "the cost of all models must be at most"),
        ((ENTRIES, [1, 2], 1), {"most": [3]}, ValueError, r"most must have shape \[\] or \[2\]"),
    ],
)
def test_costs_that_are_none_are_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        calibrate_budget(*arguments, **options)


def test_free_models_and_costs_that_equal_what_was_declared():
    assert calibrate_budget(ENTRIES, [0, 0], 0.1) == BudgetThreshold(0.0, 0.0, 0.0)
    assert calibrate_budget(ENTRIES, [1, 2], 9, most=[1, 2]).bound == 3
    assert calibrate_budget(ENTRIES, [1, 2], 9, most=3).bound == 3


def test_the_smallest_level_counts_what_no_model_answers():
    result = attainable_alpha(np.float32([0.5, inf, inf, -inf]))
    assert result == (3 / 5, clopper_pearson_upper(2, 4, 0.05), 2)
    assert attainable_alpha(np.float32([0.5]), 0.2) == (0.5, clopper_pearson_upper(0, 1, 0.2), 0)
    for wrong in (np.zeros((1, 2)), np.zeros(0), np.float32(1)):
        with pytest.raises(ValueError, match=r"critical_scores must have shape \[n\] with n >= 1"):
            attainable_alpha(wrong)


def test_the_smallest_level_has_a_threshold():
    # 2 / 3 as a float is a little less than 2 / 3, and would leave one miss fewer.
    for num in range(1, 31):
        for misses in range(num):
            scores = np.append(np.linspace(0, 1, num - misses), [inf] * misses)
            result = attainable_alpha(scores.astype(np.float32))
            exact = Fraction(misses + 1, num + 1)
            assert exact <= Fraction(str(result.alpha)) < exact + Fraction(1, 10**15)
            assert miss_budget(result.alpha, num) == misses


# --- selective risk -------------------------------------------------------------------------------


def certified(answered_from, missed_until, grid, alpha, delta):
    """The thresholds from the largest down, until the first that is not certified."""
    result, num = (None, 0.0, 0.0, 1.0), len(answered_from)
    for tested, at in enumerate(sorted(grid, reverse=True), start=1):
        answered = [i for i in range(num) if answered_from[i] <= at and answered_from[i] < inf]
        misses = sum(not (missed_until[i] <= at and missed_until[i] < inf) for i in answered)
        if not answered or binom.cdf(misses, len(answered), alpha) > delta:
            return (*result, tested)
        upper = clopper_pearson_upper(misses, len(answered), delta)
        result = (at, len(answered) / num, misses / len(answered), upper)
    return (*result, len(grid))


def test_selective_thresholds_are_tested_from_the_largest_down(monkeypatch):
    rng = np.random.default_rng(0)
    tested = set()
    for seed in range(30):
        num = 40
        answered_from = rng.integers(0, 8, num).astype(np.float32)
        missed_until = np.maximum(answered_from, rng.integers(0, 9, num)).astype(np.float32)
        missed_until[rng.random(num) < 0.02] = inf
        answered_from[rng.random(num) < 0.05] = inf
        monkeypatch.setattr(
            "racer_jax.risk_control.selective._selective_steps",
            lambda *_, steps=(answered_from, missed_until): steps,
        )
        grid = rng.permutation(np.array([-1, 0, 1, 3, 5, 7, 8, inf][seed % 2 :]))
        alpha = [0.2, 0.5][seed % 3 == 0]
        result = calibrate_selective(None, None, grid, alpha, 0.1)
        assert result == certified(answered_from, missed_until, grid.tolist(), alpha, 0.1)
        tested.add(result.num_tested)
    assert len(tested) > 3


def test_steps_of_selective_risk():
    entries = np.float32([[0.5, 0.25, 0.75], [0.5, inf, 0.0]])
    answered_from, missed_until = _selective_steps(entries, np.array([[1, 0], [0, 1]]))
    assert answered_from.tolist() == [0.25, 0.5]
    assert missed_until.tolist() == [0.5, inf]
    with pytest.raises(ValueError, match=r"nonconformity must have shape \[n, m \+ 1\] with n"):
        _selective_steps(entries[None], np.array([[[1, 0], [0, 1]]]))


@pytest.mark.parametrize("grid", [[1], [[0.5]], [], [0.5, np.nan]])
def test_a_grid_that_is_none_is_refused(grid):
    with pytest.raises(ValueError, match=r"thresholds must be floating \[l\] with l >= 1"):
        calibrate_selective(None, None, np.array(grid), 0.1, 0.1)


# --- density ratios -------------------------------------------------------------------------------


def fitted(calibration, to_come, ridge):
    """Ratios of the penalised logistic regression, by a general minimiser."""
    x, n = np.concatenate([calibration, to_come]), len(calibration)
    label = np.arange(len(x)) >= n

    def objective(beta):
        logit = x @ beta[:-1] + beta[-1]
        loss = np.logaddexp(0, logit).sum() - logit[label].sum()
        return loss + ridge / 2 * (beta[:-1] ** 2).sum()

    beta = minimize(objective, np.zeros(x.shape[1] + 1), tol=1e-12).x
    ratio = np.exp(x @ beta[:-1])
    return ratio / ratio[:n].mean()


@pytest.mark.parametrize("ridge", [0.1, 1.0, 30.0])
def test_ratios_are_those_of_the_penalised_regression(ridge):
    rng = np.random.default_rng(1)
    calibration, to_come = rng.normal(0, 1, (40, 2)), rng.normal([1, -0.5], 1, (25, 2))
    ratio = estimate_density_ratio(calibration, to_come, ridge)
    expected = fitted(calibration, to_come, ridge)
    both = np.concatenate([ratio.calibration, ratio.to_come])
    np.testing.assert_allclose(both, np.clip(expected, 1 / 50, 50), rtol=2e-3)
    np.testing.assert_allclose(ratio.calibration.mean(), 1, rtol=0.05)
    size = ratio.calibration.sum() ** 2 / (ratio.calibration**2).sum()
    assert ratio.effective_size == pytest.approx(size)
    assert f"40 calibration queries are worth {size:.0f} equally" in ratio.caveat
    if ridge == 1.0:
        default = estimate_density_ratio(calibration, to_come)
        np.testing.assert_array_equal(default.to_come, ratio.to_come)


def test_parts_that_are_far_apart_are_clipped():
    calibration, to_come = np.linspace(0, 1, 12)[:, None], np.linspace(30, 31, 9)[:, None]
    ratio = estimate_density_ratio(calibration, to_come, ridge=1e-3)
    assert (ratio.to_come == 50).all()
    tight = estimate_density_ratio(calibration, to_come, largest=1.5)
    assert tight.calibration.min() >= 1 / 1.5
    assert tight.to_come.max() == 1.5
    # The same in float32, and where nothing differs.
    halves = estimate_density_ratio(calibration.astype(np.float32), calibration.astype(np.float32))
    np.testing.assert_allclose(halves.calibration, 1)
    assert halves.effective_size == pytest.approx(12)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones((2, 1), int), np.ones((2, 1))), TypeError, "calibration must be floating"),
        ((np.ones((2, 1)), np.ones((2, 1), int)), TypeError, "to_come must be floating"),
        ((np.ones(2), np.ones((2, 1))), ValueError, r"calibration must have shape \[n, d\]"),
        ((np.ones((0, 1)), np.ones((2, 1))), ValueError, r"calibration must have shape \[n, d\]"),
        ((np.ones((2, 1)), np.ones((2, 0))), ValueError, r"to_come must have shape \[n, d\]"),
        ((np.ones((2, 1)), np.ones((2, 2))), ValueError, "with the d of the other, got"),
        ((np.ones((2, 1)), np.full((2, 1), np.inf)), ValueError, "to_come must be finite"),
        ((np.ones((2, 1)), np.ones((2, 1)), 0.0), ValueError, "ridge must be above 0 and largest"),
        ((np.ones((2, 1)), np.ones((2, 1)), 1.0, 1.0), ValueError, "largest above 1, got 1.0"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        estimate_density_ratio(*arguments)
