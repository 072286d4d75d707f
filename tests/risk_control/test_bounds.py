import re
from itertools import combinations
from math import comb, inf, sqrt

import jax
import numpy as np
import pytest

import racer_jax as racer
from racer_jax import reference
from racer_jax.risk_control import bounds as guarantees
from racer_jax.risk_control.mondrian import smallest_size

PERCENTS = [i / 100 for i in range(1, 100)]


def test_bounds_are_the_papers():
    bounds = guarantees.risk_bounds([0.1, 0.29], 99)
    np.testing.assert_allclose(bounds.lower, [0.08, 0.27], atol=1e-15)
    np.testing.assert_allclose(bounds.upper, [0.1, 0.29], atol=1e-15)
    assert guarantees.risk_bounds(0.1, 99) == pytest.approx((0.08, 0.1))


@pytest.mark.parametrize("n", [1, 2, 9, 74, 99, 149, 4000])
def test_the_sharp_law_lies_within_its_own_bounds(n):
    sharp = guarantees.sharp_risk(PERCENTS, n)
    bounds = guarantees.risk_bounds(PERCENTS, n)
    assert (sharp <= bounds.upper + 1e-15).all()
    assert (sharp > bounds.upper - 1 / (n + 1) - 1e-15).all()
    assert (sharp > bounds.lower).all()


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.29, 0.5, 0.999, "1/3"])
def test_smallest_calibration_size_is_the_first_feasible(alpha):
    n = guarantees.smallest_calibration_size(alpha)
    assert racer.miss_budget(alpha, max(n, 1)) >= 0
    assert n <= 1 or racer.miss_budget(alpha, n - 1) == -1


@pytest.mark.parametrize(("num", "n"), [(6, 3), (8, 3), (9, 6)])
@pytest.mark.parametrize("alpha", [0.1, 0.25, 0.3, 0.5, 0.75, 0.9])
def test_split_law_equals_enumeration_of_every_split(num, n, alpha):
    rng = np.random.default_rng(num)
    # ties on purpose: the tie-break makes the law exact all the same
    scores = rng.integers(0, 3, (num, 2)) / 2
    correct = rng.random((num, 2)) < 0.5
    nonconformity = np.array([reference.gap(row) for row in scores.tolist()])
    ties = rng.permutation(num * 3).reshape(num, 3)
    risks = []
    for rows in combinations(range(num), n):
        calibration = np.isin(np.arange(num), rows)
        risks.append(
            reference.split_metrics(nonconformity, correct, calibration, alpha, ties)["risk"]
        )
    law = guarantees.split_risk_law(alpha, n, num - n)
    assert np.mean(risks) == pytest.approx(law.mean, abs=1e-12)
    assert np.std(risks) == pytest.approx(law.std, abs=1e-12)
    counts = [np.isclose(risks, value, atol=1e-12).mean() for value in law.risk]
    np.testing.assert_allclose(law.probability, counts, atol=1e-12)
    assert law.mean == guarantees.sharp_risk(alpha, n)


@pytest.mark.parametrize(
    ("alpha", "n", "num_test"), [(0.1, 40, 60), (0.29, 99, 7), (0.05, 4000, 4000), (0.9, 10, 1)]
)
def test_split_law_is_the_beta_binomial_seen_from_a_finite_pool(alpha, n, num_test):
    law = guarantees.split_risk_law(alpha, n, num_test)
    misses = np.rint(law.risk * num_test)
    np.testing.assert_allclose(
        law.probability, guarantees.miss_law(alpha, n, num_test).pmf(misses), rtol=1e-7, atol=1e-12
    )
    assert law.probability.sum() == pytest.approx(1, abs=1e-12)
    assert law.probability @ law.risk == pytest.approx(law.mean, abs=1e-10)
    assert sqrt(law.probability @ (law.risk - law.mean) ** 2) == pytest.approx(law.std, rel=1e-6)
    assert (np.diff(law.risk) > 0).all()


def test_split_law_by_binomial_coefficients():
    alpha, n, num_test = 0.3, 9, 4
    rank, pool = n - racer.miss_budget(alpha, n), n + num_test
    law = guarantees.split_risk_law(alpha, n, num_test)
    ranks = pool - racer.miss_budget(alpha, n) - np.rint(law.risk * num_test).astype(int)
    expected = [
        comb(j - 1, rank - 1) * comb(pool - j, n - rank) / comb(pool, n) for j in ranks.tolist()
    ]
    np.testing.assert_allclose(law.probability, expected, rtol=1e-10)


@pytest.mark.long
def test_risk_law_is_what_fresh_queries_show():
    # Uniform critical scores: the risk of a threshold is 1 - threshold, whose law is the Beta.
    n, alpha, num = 19, 0.25, 4000
    critical = jax.random.uniform(jax.random.key(0), (num, n))
    risk = 1 - np.asarray(racer.calibrate(critical, alpha), np.float64)
    law = guarantees.risk_law(alpha, n)
    assert abs(risk.mean() - law.mean()) < 5 * law.std() / sqrt(num)
    assert law.mean() == pytest.approx(guarantees.sharp_risk(alpha, n))
    empirical = (np.arange(num) + 0.5) / num
    # Kolmogorov, level 5e-5
    assert np.abs(law.cdf(np.sort(risk)) - empirical).max() < 2.3 / sqrt(num)
    wrong = guarantees.risk_law(0.3, n)
    assert np.abs(wrong.cdf(np.sort(risk)) - empirical).max() > 2.3 / sqrt(num)


def test_risk_std_is_the_large_sample_limit_of_the_exact_one():
    exact = guarantees.split_risk_law(0.1, 20_000, 30_000).std
    assert guarantees.risk_std(0.1, 20_000, 30_000) == pytest.approx(exact, rel=1e-3)
    assert guarantees.risk_std([0.1, 0.5], 4, 4).tolist() == pytest.approx(
        [sqrt(0.045), sqrt(0.125)]
    )


def test_an_infeasible_alpha_has_risk_zero():
    assert guarantees.sharp_risk(0.05, 9) == 0
    law = guarantees.split_risk_law(0.05, 9, 5)
    assert (law.risk.tolist(), law.probability.tolist(), law.mean, law.std) == ([0], [1], 0, 0)


def test_a_budget_stands_for_the_alpha_it_was_read_from():
    for alpha, n in [(0.1, 99), (0.29, 99), ("1/3", 10), (0.5, 1)]:
        budget = racer.miss_budget(alpha, n)
        assert guarantees.sharp_risk(None, n, budget=budget) == guarantees.sharp_risk(alpha, n)
        for law in (guarantees.risk_law, lambda a, n, **b: guarantees.miss_law(a, n, 7, **b)):
            assert law(None, n, budget=budget).args == law(alpha, n).args
        one = guarantees.split_risk_law(None, n, 7, budget=budget)
        other = guarantees.split_risk_law(alpha, n, 7)
        assert (one.mean, one.std) == (other.mean, other.std)
        np.testing.assert_array_equal(one.risk, other.risk)
        np.testing.assert_array_equal(one.probability, other.probability)
    assert guarantees.sharp_risk(None, 9, budget=[-1, 0, 8]).tolist() == [0, 0.1, 0.9]
    assert guarantees.split_risk_law(None, 9, 3, budget=-1).mean == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: guarantees.risk_law(0.05, 9),
            ValueError,
            "infeasible with n = 9: the threshold is +inf",
        ),
        (lambda: guarantees.miss_law(0.05, 9, 5), ValueError, "it takes n >= 19"),
        (lambda: guarantees.miss_law(0.5, 9, 0), ValueError, "num_test must be at least 1, got 0"),
        (
            lambda: guarantees.split_risk_law(0.5, 9, 0),
            ValueError,
            "num_test must be at least 1, got 0",
        ),
        (
            lambda: guarantees.risk_law(None, 9, budget=-1),
            ValueError,
            "budget must be at least 0: with -1 the threshold is +inf",
        ),
        (
            lambda: guarantees.risk_law(None, 9, budget=[0, 1]),
            TypeError,
            "alpha or budget must be a single one, got 2",
        ),
        (
            lambda: guarantees.sharp_risk(0.5, 9, budget=4),
            TypeError,
            "one of alpha and budget must be given, got both",
        ),
        (lambda: guarantees.risk_std(0.5, 0, 1), ValueError, "n must be at least 1, got 0"),
        (lambda: guarantees.risk_bounds(0.5, 2.5), TypeError, "n must be an integer, got 2.5"),
        (lambda: guarantees.sharp_risk(inf, 5), ValueError, "alpha must be in (0, 1), got inf"),
        (
            lambda: guarantees.smallest_calibration_size(0),
            ValueError,
            "alpha must be in (0, 1), got 0",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_a_single_query_may_be_enough_at_a_large_alpha():
    assert smallest_size(0.99, 0.5) == 1
    assert smallest_size(0.5, 0.5) == 1
    assert smallest_size(0.5, 0.4) == 2
