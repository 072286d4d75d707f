"""Verdicts, notes and histograms of a check against what they say, and a check that is exact."""

from fractions import Fraction
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from racer_jax.montecarlo.bound_check import (
    ScoredPool,
    _histogram_at,
    check_bounds_exactly,
    infeasible_note,
    standardised,
    verdicts,
)
from racer_jax.montecarlo.exact import split_law
from racer_jax.montecarlo.measured_splits import RiskLaws, SplitMetrics, exact_splits, risk_laws
from racer_jax.risk_control.bounds import split_risk_law


def means(**changes):
    one = {"risk": 0.1, "risk_error": 0.01, "exact": 0.1, "lower": 0.08, "upper": 0.12}
    return SimpleNamespace(
        **{
            name: np.array([value])
            for name, value in ({**one, "lower_applies": True} | changes).items()
        }
    )


@pytest.mark.parametrize(
    ("changes", "null", "expected"),
    [
        ({}, "paper", "PASS"),
        ({"risk": 0.1301, "exact": 0.12}, "paper", "PASS"),  # within 3 errors of both
        ({"risk": 0.1501, "exact": 0.13}, "paper", "FAIL"),  # above the upper bound
        ({"risk": 0.1499, "exact": 0.13}, "paper", "PASS"),
        ({"risk": 0.0499, "exact": 0.06}, "paper", "FAIL"),  # below the lower
        ({"risk": 0.0501, "exact": 0.06}, "paper", "PASS"),
        ({"risk": 0.0499, "exact": 0.06, "lower_applies": False}, "paper", "PASS"),
        ({"risk": 0.1, "exact": 0.1301}, "paper", "FAIL"),  # off the law
        ({"risk": 0.1, "exact": 0.0699}, "paper", "FAIL"),
        ({"risk": 0.1, "exact": 0.0701}, "paper", "PASS"),
        ({"risk": 0.5, "exact": 0.5}, "never", "infeasible"),
        ({"risk": 0.5, "exact": 0.5}, "free", "FAIL"),
        ({"risk": 0.12, "exact": 0.12, "risk_error": 0.0}, "never", "PASS"),
    ],
)
def test_verdicts(changes, null, expected):
    assert verdicts(means(**changes), 3.0, null) == [expected]


def test_distances_in_standard_errors():
    distances = standardised(np.array([0.0, 2.0, -1.0, 0.0]), np.array([0.0, 0.5, 0.0, 1.0]))
    assert distances.tolist() == [0.0, 4.0, -np.inf, 0.0]


@pytest.mark.parametrize(("n", "note"), [(8, "threshold +inf: needs n >= 9"), (9, ""), (10, "")])
def test_an_alpha_that_is_not_feasible_says_what_it_needs(n, note):
    assert infeasible_note(Fraction(1, 10), n) == note


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    scores = rng.random((24, 2)).astype(np.float32)
    return ScoredPool("small", scores, rng.random((24, 2)) < scores)


def test_an_exact_check_is_the_exact_law(pool):
    alphas = ("0.05", "0.1", "0.5")
    check = check_bounds_exactly(
        jax.random.key(0), pool, "gap", num_calibration=14, alphas=alphas, z_limit=4.0
    )
    assert (check.pool, check.nonconformity) == ("small", "gap")
    assert (check.num_calibration, check.num_test, check.num_splits) == (14, 10, 0)
    assert check.alpha.tolist() == [0.05, 0.1, 0.5]
    np.testing.assert_allclose(check.sharp, [0, 1 / 15, 7 / 15])
    np.testing.assert_allclose(check.risk, check.sharp, atol=1e-12)  # ties are broken
    np.testing.assert_array_equal(check.risk, check.exact)
    np.testing.assert_array_equal(check.size, check.exact_size)
    np.testing.assert_allclose(check.upper, [0.05, 0.1, 0.5])
    np.testing.assert_allclose(check.upper - check.lower, 2 / 15)
    assert check.lower_applies.all()
    assert (check.risk_error == 0).all()
    assert (check.z == 0).all()
    laws = [split_risk_law(Fraction(alpha), 14, 10) for alpha in alphas]
    np.testing.assert_allclose(check.exact_std, [law.std for law in laws], atol=1e-12)
    assert check.verdict == ["PASS"] * 3
    assert check.note == ["threshold +inf: needs n >= 19", "", ""]
    shown = check.histogram
    assert shown.mean == check.risk[1]
    np.testing.assert_allclose(shown.share, shown.law, atol=1e-12)
    np.testing.assert_allclose(shown.share.sum(), 1)
    np.testing.assert_allclose(np.diff(shown.edges), 0.1)
    assert len(shown.edges) == len(shown.share) + 1
    without = check_bounds_exactly(
        jax.random.key(0), pool, "gap", num_calibration=14, alphas=("0.2",), z_limit=4.0
    )
    assert without.histogram is None


@pytest.mark.parametrize("num", [0, 24])
def test_each_part_needs_a_query(pool, num):
    with pytest.raises(ValueError, match=f"pool 'small' of 24 queries is too small: {num} would"):
        check_bounds_exactly(
            jax.random.key(0), pool, "gap", num_calibration=num, alphas=("0.2",), z_limit=4.0
        )


def test_a_histogram_shows_the_law_in_the_bins_of_the_splits():
    edges = np.array([[0.0, 0.1, 0.2, 0.3, 0.4, 0.5]])
    share = np.array([[0.0, 0.5, 0.5, 0.0, 0.0]])
    metrics = SplitMetrics(8, {"risk": np.array([0.15])}, np.zeros(1), edges, share)
    support, probability = np.array([0.05, 0.2, 0.35]), np.array([0.0, 0.75, 0.25])
    laws = RiskLaws(np.zeros(1), [(support, probability)])
    shown = _histogram_at(Fraction(1, 10), [Fraction(1, 10)], metrics, laws)
    assert shown.edges.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert shown.share.tolist() == [0.5, 0.5, 0.0]
    assert shown.law.tolist() == [0.75, 0.0, 0.25]  # 0.2, an edge, is of the bin below it
    assert shown.mean == 0.15
    # What lies beyond the last edge, or at the first, is of the bin beside it.
    far = RiskLaws(np.zeros(1), [(np.array([0.0, 0.9]), np.array([0.25, 0.75]))])
    beyond = _histogram_at(Fraction(1, 10), [Fraction(1, 10)], metrics, far)
    assert beyond.edges.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert beyond.law.tolist() == [0.25, 0, 0, 0, 0.75]
    unknown = _histogram_at(
        Fraction(1, 10), [Fraction(1, 10)], metrics, RiskLaws(np.zeros(1), [None])
    )
    assert unknown.law.tolist() == [0.0, 0.0]
    assert _histogram_at(Fraction(1, 5), [Fraction(1, 10)], metrics, laws) is None


def test_laws_with_and_without_a_validation_part(pool):
    matrix = 1 - np.concatenate([pool.scores, 1 - pool.scores.max(1, keepdims=True)], 1)
    law = split_law(matrix, pool.correct, num_calibration=14, alpha=[0.1, 0.5])
    levels = [Fraction(1, 10), Fraction(1, 2)]
    whole = risk_laws(levels, law, np.array([True, False]), 14, 0, 10)
    np.testing.assert_array_equal(whole.std, law.risk_std)
    np.testing.assert_array_equal(whole.laws[1][0], law.risk_support[1])
    np.testing.assert_array_equal(whole.laws[1][1], law.risk_probability[1])
    smaller = risk_laws(levels, law, np.array([True, False]), 14, 3, 7)
    expected = split_risk_law(levels[0], 14, 7)
    assert smaller.std[0] == expected.std
    assert np.isnan(smaller.std[1])
    assert smaller.laws[1] is None
    np.testing.assert_array_equal(smaller.laws[0][0], expected.risk)
    np.testing.assert_array_equal(smaller.laws[0][1], expected.probability)
    all_splits = exact_splits(law, 10)
    assert all_splits.num_splits == 0
    np.testing.assert_array_equal(all_splits.mean["size"], law.size_mean)
    np.testing.assert_array_equal(all_splits.mean["abstention"], law.abstention_mean)
    np.testing.assert_array_equal(all_splits.mean["avoidable_miss"], law.avoidable_miss_mean)
    np.testing.assert_allclose(all_splits.edges[:, :-1], law.risk_support - 0.05)
    np.testing.assert_allclose(all_splits.edges[:, -1], law.risk_support[:, -1] + 0.05)
