"""The parts of the exact laws, one by one: the position of the threshold, tails, and what is cut."""

import itertools
from math import comb, inf

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import norm

from racer_jax.montecarlo.exact import (
    Mixture,
    _by_value,
    _infeasible_misses,
    _log_chooser,
    _position_law,
    _window,
    pool_law,
    split_law,
)
from racer_jax.montecarlo.step_functions import pool_steps


def log_choose(a, b):
    return gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1)


def every_position(rank, num, size):
    """P(J = j) = C(j, k - 1) C(N - 1 - j, n - k) / C(N, n) of every position, by its logarithm."""
    j = np.arange(rank - 1, size - num + rank)
    logs = log_choose(j, rank - 1) + log_choose(size - 1 - j, num - rank) - log_choose(size, num)
    law = np.zeros(size)
    law[j] = np.exp(logs)
    return law


@pytest.mark.parametrize(
    ("size", "num"), [(2, 1), (7, 6), (40, 3), (900, 300), (900, 899), (5000, 2)]
)
def test_the_law_of_the_position_is_the_negative_hypergeometric(size, num):
    ranks = np.unique([1, 2, num // 3, num // 2, num - 1, num])
    ranks = ranks[(ranks >= 1) & (ranks <= num)]
    first, law = _position_law(ranks, num, size)
    assert first.dtype == np.int64
    for row, rank in enumerate(ranks):
        expected = every_position(int(rank), num, size)
        whole = np.zeros(size)
        whole[first[row] : first[row] + law.shape[1]] = law[row]
        np.testing.assert_allclose(whole, expected, rtol=1e-8, atol=1e-18)
        assert law[row].sum() == pytest.approx(1, abs=1e-14)
    low, high = _window(ranks, num, size)
    assert (low >= ranks - 1).all()
    assert (high <= size - num + ranks).all()
    for row, rank in enumerate(ranks):
        expected = every_position(int(rank), num, size)
        outside = expected[: low[row]].sum() + expected[high[row] :].sum()
        assert outside < 1e-19
        # And no wider than need be: ten deviations to either side, or all there is.
        j = np.arange(size)
        mean = (expected * j).sum()
        spread = np.sqrt((expected * (j - mean) ** 2).sum())
        if num > 100 and 10 < rank < num - 10:
            assert high[row] - low[row] < 30 * spread + 10


def test_tails_of_a_mixture_are_normal_or_sharp():
    law = Mixture(
        np.array([[0.25, 0.75], [0.5, 0.5]]),
        np.array([[0.0, 1.0], [2.0, 3.0]]),
        np.array([[1.0, 0.5], [0.0, 0.0]]),
    )
    for value in (-1.0, 0.0, 0.75, 2.0, 2.5, 3.0):
        first = 0.25 * norm.cdf(value) + 0.75 * norm.cdf((value - 1) / 0.5)
        second = 0.5 * (value >= 2) + 0.5 * (value >= 3)
        np.testing.assert_allclose(law.cdf(value), [first, second], atol=1e-12)
        np.testing.assert_allclose(law.cdf([value, 2.0])[1], 0.5)


def test_logarithms_of_binomial_coefficients():
    choose = _log_chooser(30)
    a, b = np.meshgrid(np.arange(31), np.arange(-1, 32), indexing="ij")
    expected = [[comb(int(x), int(y)) if y >= 0 else 0 for y in b[0]] for x in a[:, 0]]
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(
            choose(a, b).astype(float), np.log(np.array(expected, float)), atol=1e-12
        )
    assert choose(3, 4) == -inf


def test_probabilities_are_summed_by_value():
    misses = np.array([[3, 1, 1, 9], [2, 2, 4, 0]])
    chance = np.array([[0.5, 0.25, 0.25, 0.0], [0.0, 0.5, 0.5, 0.0]])
    values, probability = _by_value(misses, chance)
    assert values.tolist() == [[1, 2, 3], [2, 3, 4]]
    assert probability.tolist() == [[0.5, 0, 0.5], [0.5, 0, 0.5]]


def pool(num_covered, size):
    """A pool whose last queries no threshold covers."""
    entries = np.zeros((size, 2), np.float32)
    entries[:, 1] = 1
    entries[:num_covered, 0] = np.arange(num_covered)
    entries[num_covered:] = inf
    return pool_steps(entries, np.ones((size, 1), bool))


@pytest.mark.parametrize(("num_covered", "num_test"), [(6, 3), (3, 5), (2, 1), (1, 5), (8, 3)])
def test_what_no_threshold_covers_is_hypergeometric(num_covered, num_test):
    size = 8
    misses, chance = _infeasible_misses(pool(num_covered, size), num_test)
    left = size - num_covered
    possible = [m for m in range(9) if m <= left and 0 <= num_test - m <= num_covered]
    assert misses.tolist() == possible
    expected = [
        comb(left, m) * comb(num_covered, num_test - m) / comb(size, num_test) for m in possible
    ]
    np.testing.assert_allclose(chance, expected, rtol=1e-12)


def test_levels_that_are_feasible_and_not_side_by_side():
    rng = np.random.default_rng(0)
    entries = rng.random((30, 3)).astype(np.float32)
    correct = rng.random((30, 2)) < 0.5
    both = split_law(entries, correct, num_calibration=9, budget=[-1, 4, 8])
    for column, budget in enumerate((-1, 4, 8)):
        alone = split_law(entries, correct, num_calibration=9, budget=budget)
        for name in ("risk", "size", "abstention", "avoidable_miss"):
            for what in ("mean", "std"):
                ours, theirs = (getattr(law, f"{name}_{what}") for law in (both, alone))
                assert ours[column] == pytest.approx(theirs[0], abs=1e-13)
        mean = (both.risk_support[column] * both.risk_probability[column]).sum()
        assert mean == pytest.approx(both.risk_mean[column], abs=1e-12)
        positive = both.risk_probability[column] > 0
        own = alone.risk_probability[0] > 0
        np.testing.assert_allclose(both.risk_support[column][positive], alone.risk_support[0][own])
        tail = both.mixture["size"].cdf(1.0)[column]
        assert tail == pytest.approx(alone.mixture["size"].cdf(1.0)[0], abs=1e-12)
    assert both.extra_mean == {}
    assert both.risk_probability.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(
    ("num", "error", "message"),
    [
        (30, ValueError, "must leave at least one of the 30 queries for the test, got 30"),
        (0, ValueError, "n must be at least 1"),
        (2.0, TypeError, "n must be an integer"),
    ],
)
def test_numbers_of_calibration_queries_at_their_limits(num, error, message):
    with pytest.raises(error, match=message):
        pool_law(pool(20, 30), num_calibration=num, alpha=0.5)
    assert pool_law(pool(20, 30), num_calibration=29, alpha=0.5).risk_support.shape[0] == 1


def test_a_metric_of_any_values_has_the_mean_and_spread_of_all_splits():
    rng = np.random.default_rng(2)
    entries = (rng.integers(0, 4, (7, 3)) / 4).astype(np.float32)
    correct, table = rng.random((7, 2)) < 0.5, rng.normal(2, 3, (7, 3))
    budgets = [-1, 0, 1]
    law = split_law(entries, correct, num_calibration=3, budget=budgets, metrics={"own": table})
    truth = np.concatenate([correct, ~correct.any(1, keepdims=True)], axis=1)
    critical = np.where(truth, entries, inf).min(axis=1)
    for column, budget in enumerate(budgets):
        means = []
        for split in itertools.combinations(range(7), 3):
            ordered = np.sort(critical[list(split)])
            limit = inf if budget < 0 else ordered[2 - budget]
            rest = [i for i in range(7) if i not in split]
            called = (entries[rest, :-1] <= limit).sum(axis=1)
            means.append(table[rest, called].mean())
        assert law.extra_mean["own"][column] == pytest.approx(np.mean(means), abs=1e-12)
        assert law.extra_std["own"][column] == pytest.approx(np.std(means), abs=1e-10)


def test_metrics_of_ones_own_and_those_a_pool_does_not_hold():
    rng = np.random.default_rng(1)
    entries, correct = rng.random((12, 3)).astype(np.float32), rng.random((12, 2)) < 0.5
    table = np.cumsum(rng.random((12, 3)), axis=1)
    law = split_law(entries, correct, num_calibration=5, alpha=0.5, metrics={"dollars": table})
    assert list(law.extra_mean) == list(law.extra_std) == ["dollars"]
    only = pool_steps(entries, correct, metrics={"dollars": table}).only("risk", "dollars")
    part = pool_law(only, num_calibration=5, alpha=0.5)
    assert part.size_mean is None
    assert part.size_std is None
    assert part.extra_std["dollars"] == law.extra_std["dollars"]
    assert part.risk_mean == law.risk_mean
