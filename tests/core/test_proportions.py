"""Clopper-Pearson bounds against their definition.

Tails of the binomial law, in exact rationals.
"""

import re
from fractions import Fraction
from math import comb

import pytest

from racer_jax.core.proportions import clopper_pearson_upper


def tail(successes, n, p):
    """P(Binomial(n, p) <= successes)."""
    p = Fraction(p)
    return float(sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(successes + 1)))


@pytest.mark.parametrize("delta", [0.5, 0.05, 1e-6, 1e-17, 1e-200])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (0, 10), (3, 10), (9, 10), (40, 300)])
def test_at_the_upper_bound_so_few_successes_have_chance_delta(successes, n, delta):
    upper = clopper_pearson_upper(successes, n, delta)
    # To what one unit in the last place of the bound, which may be close to 1, makes of the tail.
    left, right = (tail(successes, n, min(1.0, upper * (1 + e))) for e in (-1e-12, 1e-12))
    assert right * (1 - 1e-9) <= delta <= left * (1 + 1e-9)


def test_every_trial_a_success_bounds_nothing():
    assert clopper_pearson_upper(10, 10, 0.1) == clopper_pearson_upper(0, 0, 0.1) == 1.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: clopper_pearson_upper(2, 1, 0.1),
            ValueError,
            "successes must be at most n = 1, got 2",
        ),
        (
            lambda: clopper_pearson_upper(-1, 1, 0.1),
            ValueError,
            "successes must be at least 0, got -1",
        ),
        (lambda: clopper_pearson_upper(0, -1, 0.1), ValueError, "n must be at least 0, got -1"),
        (lambda: clopper_pearson_upper(0, 1, 0), ValueError, "delta must be in (0, 1), got 0"),
        (
            lambda: clopper_pearson_upper(0.5, 1, 0.1),
            TypeError,
            "successes must be an integer, got 0.5",
        ),
        (lambda: clopper_pearson_upper(0, 1, 1.0), ValueError, "delta must be in (0, 1), got 1.0"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
