"""The rank of the threshold: fractions and multiples against exact ones, on both sides of a limit."""

from fractions import Fraction
from math import floor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.core.miss_ranks import _floor_multiples, _traced_rank, farey_floor, ranks

LIMIT = 2**29


def test_the_fraction_below_is_the_largest_of_all():
    for numerator in range(1, 60):
        for denominator in (7, 59, 60, 61, 1000):
            alpha = Fraction(numerator, denominator)
            for limit in (1, 2, 6, 7, 8, 30, 59, 60, 61):
                expected = max(Fraction(floor(alpha * q), q) for q in range(1, limit + 1))
                assert farey_floor(alpha, limit) == expected


@pytest.mark.parametrize("limit", [40, LIMIT])
def test_multiples_are_exact_in_int32(limit):
    rng = np.random.default_rng(limit)
    alphas = [Fraction(1, 3), Fraction("0.29"), Fraction("0.999999999999"), Fraction(1, 10**12)]
    counts = np.array([0, 1, 2, 3, limit - 1, limit, *rng.integers(0, limit, 6)], np.int32)
    got = np.asarray(jax.jit(lambda t: _floor_multiples(alphas, t, limit))(counts.reshape(4, 3)))
    assert got.shape == (4, 3, 4)
    assert got.dtype == np.int32
    expected = [[floor(alpha * int(t)) for alpha in alphas] for t in counts]
    assert got.reshape(12, 4).tolist() == expected


def test_products_up_to_the_largest_int32_are_not_split():
    """2**31 - 1 = 1 * (2**31 - 1) fits; one more does not."""
    cases = ((1, 2**31 - 1), (2, 2**30))
    every = jax.jit(
        lambda *counts: [
            _floor_multiples([Fraction(numerator, 3)], t, limit)
            for t, (numerator, limit) in zip(counts, cases, strict=True)
        ]
    )
    results = every(*(np.array([limit], np.int32) for _, limit in cases))
    for got, (numerator, limit) in zip(results, cases, strict=True):
        assert got.tolist() == [[numerator * limit // 3]]


def test_ranks_of_known_numbers_of_rows():
    rank, scalar = ranks([0.29, "0.1", Fraction(1, 3)], np.array([99, 8, 2]), 99)
    assert not scalar
    assert rank.dtype == jnp.int32
    assert rank.tolist() == [[71, 90, 67], [7, 9, 6], [3, 3, 2]]
    assert ranks(0.29, 99, 99)[0].tolist() == [71]
    assert ranks(0.29, 99, 99)[1]


def test_the_budget_of_a_traced_level_is_rounded_to_the_safe_side():
    n = np.array([[99], [9]], np.int32)
    rank = jax.jit(_traced_rank)(np.float32([0.25, np.nan, 0.0, -1.0, 0.995]), n)
    # .25 * 100 is a whole number that rounding might have raised: one miss less.
    assert rank.tolist() == [[99 - 23, 100, 100, 100, 99 - 98], [9 - 1, 10, 10, 10, 9 - 8]]
