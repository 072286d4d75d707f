"""Ticks, pairs and budgets of bounded losses against Python's own integers: one compiled program."""

from fractions import Fraction
from math import floor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.core.loss_calibration import (
    MOST_DENOMINATOR,
    cumulative,
    divided,
    first_within,
    loss_budget,
    pair_of_ticks,
    total,
)
from racer_jax.core.loss_steps import product
from racer_jax.core.losses import TICKS, SetLoss, _check_range
from racer_jax.core.weighted_calibration import _level, _share

RNG = np.random.default_rng(0)
NUM = np.array([1, 7, 99, 1000])
LEVELS = np.array([0.1, 0.29, 1 / 3, 0.999, np.nan, 0.0], np.float32)
SHARES = [Fraction("0.1"), Fraction("0.29"), Fraction(1, 3), Fraction("0.999")]
TOTALS = np.array([0, 1, 65535, 65536, 400 * TICKS, 1_000_000 * TICKS])
LOSSES = RNG.integers(0, TICKS + 1, (4, 500)).astype(np.int32)
LOSSES[0], LOSSES[1] = TICKS, 0
FACTORS = np.concatenate([RNG.integers(0, TICKS + 1, (2, 40)), [[0, TICKS], [TICKS, TICKS]]], 1)
FACTORS = np.concatenate([FACTORS, [[1, TICKS // 2, 1], [TICKS // 2, 1, TICKS - 1]]], 1)


# Sums that stand still, budgets at, just below and just above them.
_SIZES = np.array([1, 65535, 65536, TICKS])
DROPS = RNG.integers(0, 3, (5, 8)) * RNG.choice(_SIZES, (5, 8))
DROPS[0] = 0
START = DROPS.sum(axis=1) + np.array([0, 0, 1, TICKS, 70000])
SUMS = START[:, None] - np.cumsum(DROPS, axis=1)
SUMS = np.concatenate([START[:, None], SUMS], axis=1)
BUDGETS = np.unique(np.maximum(np.concatenate([SUMS - 1, SUMS, SUMS + 1], None), -1))

LOSS = SetLoss(
    start=np.int32([TICKS, TICKS // 2]),
    step=np.float32([[0.1, np.inf], [-np.inf, 0.2]]),
    drop=np.int32([[TICKS // 4, TICKS // 2], [0, TICKS // 2]]),
    model=np.zeros((2, 2), np.int32),
    tie=None,
    bound=Fraction(2),
)


def whole(pair):
    """A pair as integers of the host."""
    high, low = (np.asarray(part, np.int64) for part in pair)
    assert ((low >= 0) & (low < 2**16)).all()
    return high * 2**16 + low


@pytest.fixture(scope="module")
def computed():
    """Everything that is compared below."""

    @jax.jit
    def everything(losses, factors, num, levels, high, low, loss, search):
        left, right = factors
        return {
            "total": total(losses),
            "cumulative": cumulative(losses),
            "product": product(left, right),
            "divided": divided(left, right, np.int32(TICKS), TICKS.bit_length()),
            "carried on": divided(left, right & 0xFF, np.int32(TICKS), 8, right % TICKS),
            "known": loss_budget(SHARES, num, Fraction(1))[0],
            "traced": loss_budget(levels, num, Fraction(1))[0],
            "traced, bound 5": loss_budget(levels * 5, num, Fraction(5))[0],
            "share": _share(_level(SHARES)[0], high, low),
            "traced share": _share(_level(levels)[0], high, low),
            "first": first_within(*search),
            "loss": (loss.full, loss.largest_drop),
        }

    high, low = np.divmod(TOTALS[:, None], 2**16)
    arguments = (LOSSES, FACTORS.astype(np.int32), NUM.astype(np.int32), LEVELS)
    search = [pair_of_ticks(x) for x in (START, START[:, None] - SUMS[:, 1:], BUDGETS)]
    return everything(*arguments, high.astype(np.int32), low.astype(np.int32), LOSS, search)


def test_sums_are_exact(computed):
    assert whole(computed["total"]).tolist() == LOSSES.sum(axis=1, dtype=np.int64).tolist()
    np.testing.assert_array_equal(
        whole(computed["cumulative"]), np.cumsum(LOSSES, axis=1, dtype=np.int64)
    )


def test_products_are_those_of_whole_numbers(computed):
    left, right = FACTORS.astype(object)
    nearest = (2 * left * right + TICKS) // (2 * TICKS)
    assert np.asarray(computed["product"]).tolist() == nearest.tolist()
    quotient, remainder = computed["divided"]
    assert np.asarray(quotient).tolist() == (left * right // TICKS).tolist()
    assert np.asarray(remainder).tolist() == (left * right % TICKS).tolist()
    # A remainder that is passed on stands before the bits.
    number = (right % TICKS) * 2**8 + left * (right & 0xFF)
    quotient, remainder = computed["carried on"]
    assert np.asarray(quotient).tolist() == (number // TICKS).tolist()
    assert np.asarray(remainder).tolist() == (number % TICKS).tolist()


def test_budgets_of_known_and_traced_levels(computed):
    exact = [[floor((s * (int(n) + 1) - 1) * TICKS) for s in SHARES] for n in NUM]
    exact = np.maximum(np.array(exact), -1)
    on_host = whole(loss_budget(SHARES, NUM, Fraction(1))[0])
    np.testing.assert_array_equal(on_host, exact)
    known = whole(computed["known"])
    np.testing.assert_array_equal(np.maximum(known, -1), exact)
    for name in ("traced", "traced, bound 5"):
        traced = np.maximum(whole(computed[name]), -1)
        missing = exact - traced[:, :4]
        assert (missing >= 0).all(), name
        assert (missing <= TICKS * (NUM[:, None] + 1) * 2e-6 + 2).all(), name
        assert (traced[:, 4:] == -1).all(), name  # NaN and 0 are no licence to lose
    assert loss_budget(0.1, 9, Fraction(1))[1]
    assert not loss_budget([0.1], 9, Fraction(1))[1]


def test_shares_of_a_sum_of_weights(computed):
    share = whole(computed["share"])
    exact = np.array([[floor(s * int(t)) for s in SHARES] for t in TOTALS])
    np.testing.assert_array_equal(share, exact)
    high, low = (np.asarray(part, np.int64) for part in computed["traced share"])
    traced = high * 2**16 + low
    missing = exact - traced[:, :4]
    assert (missing >= 0).all()
    assert (missing <= TOTALS[:, None] * 2e-6 + 2).all()
    assert (traced[:, 4:] == 0).all()
    with pytest.raises(ValueError, match=r"alpha must be a scalar or have shape \[a\], got shape"):
        jax.eval_shape(lambda a: _level(a)[0], jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"alpha must be a scalar or have shape \[a\], got shape"):
        jax.eval_shape(lambda a: loss_budget(a, 3, Fraction(1))[0], jnp.zeros((2, 2)))
    # A denominator that leaves no room for the division is read as a little less.
    assert MOST_DENOMINATOR * 3 < 2**31


def test_the_first_step_within_a_budget_is_that_of_a_search(computed):
    index, free = map(np.asarray, computed["first"])
    for row in range(5):
        for column, budget in enumerate(BUDGETS.tolist()):
            places = [i for i, left in enumerate(SUMS[row]) if left <= budget]
            assert bool(free[row, column]) == (bool(places) and places[0] == 0)
            if not free[row, column]:
                expected = places[0] - 1 if places else 8
                assert int(index[row, column]) == expected


def test_pairs_of_ticks():
    ticks = np.array([-(2**40), -2, -1, 0, 1, 65535, 65536, 3 * TICKS], object)
    assert whole(pair_of_ticks(ticks)).tolist() == [-1, -1, -1, 0, 1, 65535, 65536, 3 * TICKS]


def test_a_number_at_the_end_of_its_range_is_in_it():
    bound = Fraction(5, 2)
    for inside in (0.0, 2.5, 2.5 * (1 + 5e-7)):
        assert _check_range("x", np.float64([inside]), bound) is None
    for outside in (-1e-9, 2.5 * (1 + 2e-6)):
        with pytest.raises(ValueError, match=r"x must be in \[0, 5/2\], got .* at \[0\]"):
            _check_range("x", np.float64([outside]), bound)


def test_what_every_model_loses_and_the_largest_drop(computed):
    full, largest = computed["loss"]
    # A CPU divides to the last bit, a GPU to the last two.
    tolerance = 0 if jax.default_backend() == "cpu" else 2.4e-7
    np.testing.assert_allclose(full, [1.5, 0.0], rtol=tolerance)
    assert full.dtype == np.float32
    np.testing.assert_allclose(largest, 1.0, rtol=tolerance)
    assert LOSS.num_queries == 2
    assert LOSS.rows(np.array([1])).start.tolist() == [TICKS // 2]
