"""The bets of the monitors: fair to the last digit, and none of the wealth is made or lost."""

from fractions import Fraction
from math import exp, log, log2

import numpy as np
import pytest

from racer_jax.serving.betting import (
    _JUMP,
    DRIFTS,
    RESERVE,
    RISK_RATIOS,
    bets,
    log_bets,
    log_capital_after,
    log_released,
    log_sum,
    log_total,
    reserve,
    tie_break,
)


def test_what_is_betted_on():
    """The evidence of saved states depends on these."""
    assert RISK_RATIOS == (1.2, 1.5, 2.0, 3.0, 5.0)
    assert DRIFTS == (-1.0, -1 / 3, 0.0, 1 / 3, 1.0)
    assert (_JUMP, RESERVE) == (0.001, 0.5)


@pytest.mark.parametrize("alpha", [1e-9, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_bets_are_fair_at_alpha_and_pay_for_the_risk_they_bet_on(alpha):
    miss, hit = bets(alpha)
    risks = miss * alpha
    np.testing.assert_allclose(alpha * miss + (1 - alpha) * hit, 1, rtol=1e-12)
    np.testing.assert_allclose(hit, (1 - risks) / (1 - alpha), rtol=1e-9)
    expected = np.minimum(alpha * np.array(RISK_RATIOS), alpha + (1 - alpha) / 4)
    np.testing.assert_allclose(risks, expected, rtol=1e-9)
    assert (miss > 1).all()
    assert (hit < 1).all()
    assert (hit > 0).all()
    logs = log_bets(alpha)
    np.testing.assert_array_equal(logs, np.log([miss, hit]))


def test_a_bet_on_a_risk_of_one_is_never_made():
    miss, hit = bets(float(np.nextafter(1, 0)))
    assert (hit > 0).all()
    assert np.isfinite(miss).all()


def test_the_reserve_shrinks_for_ever_and_what_is_released_is_the_difference():
    assert reserve(0) == 0.5
    assert reserve(1) == 0.25
    assert reserve(3) == pytest.approx(0.5 / 3)
    nums = np.array([0, 1, 2, 10, 1000])
    np.testing.assert_allclose(reserve(nums), [0.5 / (1 + log2(1 + n)) for n in nums])
    for num in nums.tolist():
        expected = 0.5 / (1 + log2(num + 1)) - 0.5 / (1 + log2(num + 2))
        assert exp(log_released(num)) == pytest.approx(expected, rel=1e-9)
    # No cancellation: the slope of the reserve at large numbers.
    for num in (10**12, 10**15):
        slope = 0.5 / (1 + log2(num)) ** 2 / (num * log(2))
        assert exp(log_released(num)) == pytest.approx(slope, rel=1e-6)


def test_sums_of_logarithms():
    assert log_sum([0.0]) == 0.0
    assert log_sum([log(1.0), log(2.0), log(5.0)]) == pytest.approx(log(8.0))
    assert log_sum([1000.0, 1000.0]) == pytest.approx(1000 + log(2))
    assert log_sum([-2000.0, -2000.0]) == pytest.approx(-2000 + log(2))
    assert log_sum(value for value in (3.0, -1e9)) == 3.0
    assert log_total([log(0.25), log(0.25)], 0) == pytest.approx(0.0)
    assert log_total([log(0.5)], 1) == pytest.approx(log(0.75))


def test_tie_breaks_depend_on_seed_and_query_alone():
    values = [tie_break(seed, num) for seed in range(3) for num in range(40)]
    assert len(set(values)) == 120
    assert all(0 <= value < 1 for value in values)
    assert tie_break(2, 3) == values[2 * 40 + 3] == tie_break(2, 3)
    assert tie_break(0, 5) == np.random.default_rng((0, 5)).random()


@pytest.mark.parametrize("num", [0, 1, 17, 10_000])
@pytest.mark.parametrize("rank", [0.0, 0.3, 0.5, 1.0])
def test_one_query_of_the_bets_on_drift(num, rank):
    """Jump, take from the reserve, be paid: in fractions, and the mean over ranks makes nothing."""
    capital = [0.1, 0.05, 0.2, 0.02, 0.08]
    after = log_capital_after([log(value) for value in capital], num, rank)
    released = exp(log_released(num))
    for value, drift, wealth in zip(capital, DRIFTS, after, strict=True):
        kept = (1 - 0.001) * value + 0.001 * sum(capital) / 5 + released / 5
        assert exp(wealth) == pytest.approx(kept * (1 + drift * (rank - 0.5)), rel=1e-9)
    halves = [
        sum(map(exp, log_capital_after([log(value) for value in capital], num, half)))
        for half in (0.0, 1.0)
    ]
    total = sum(capital) + float(reserve(num))
    assert sum(halves) / 2 + float(reserve(num + 1)) == pytest.approx(total, rel=1e-9)


def test_alpha_in_fractions():
    """At alpha of 1/10 the bets are these, to the digit."""
    miss, hit = bets(0.1)
    alpha = Fraction(1, 10)
    risks = [alpha * Fraction(str(ratio)) for ratio in RISK_RATIOS]
    risks = [min(risk, (1 + 3 * alpha) / 4) for risk in risks]
    np.testing.assert_allclose(miss, [float(risk / alpha) for risk in risks], rtol=1e-12)
    np.testing.assert_allclose(hit, [float((1 - risk) / (1 - alpha)) for risk in risks], rtol=1e-12)
