"""Levels as they are written: read at once or refused at once; budgets beside them."""

import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from racer_jax.core.risk_levels import budget_of, exact_alpha, level_name, miss_budget, parse_alphas
from racer_jax.core.scalar_checks import check_chance, check_count

LONG = "3" * 400
HUGE = [
    ("1e-9999999", "alpha must have at most 100 digits, got 1e-9999999"),
    ("1e9999999", "alpha must have at most 100 digits, got 1e9999999"),
    (Decimal("1e-9999999"), "alpha must have at most 100 digits, got 1E-9999999"),
    (f"0.{LONG}", "alpha must have at most 100 digits, got 0.333333333333333333... of 402"),
    (LONG, "alpha must have at most 100 digits, got 33333333333333333333... of 400 characters"),
    (f"1/{LONG}", "alpha must have at most 100 digits, got 1/333333333333333333... of 402"),
    (f"1/{LONG * 20}", "alpha must be in (0, 1), got 1/333333333333333333... of 8002 characters"),
    (Fraction(1, 10**100 + 1), "alpha must have at most 100 digits, got 1/1000"),
    (10**5000, "alpha must be in (0, 1), got an integer of 16610 bits"),
    (1e-300, "alpha must have at most 100 digits, got 1e-300"),
    ("1/0", "alpha must be in (0, 1), got 1/0"),
    ("1/2/3", "alpha must be in (0, 1), got 1/2/3"),
    ("1/-2", "alpha must be in (0, 1), got 1/-2"),
    ("0/1", "alpha must be in (0, 1), got 0/1"),
    ("inf", "alpha must be in (0, 1), got inf"),
    ("nan", "alpha must be in (0, 1), got nan"),
    ("", "alpha must be in (0, 1), got "),
    (1, "alpha must be in (0, 1), got 1"),
    (0, "alpha must be in (0, 1), got 0"),
]


@pytest.mark.parametrize(("alpha", "message"), HUGE, ids=range(len(HUGE)))
def test_a_level_nobody_can_mean_is_one_clear_error(alpha, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        exact_alpha(alpha)
    with pytest.raises(ValueError, match=re.escape(message)):
        miss_budget(alpha, 10)


@pytest.mark.parametrize("alpha", [f"0.{'3' * 100}", f"1e-{100}", Fraction(1, 10**100), "1/3"])
def test_a_hundred_digits_are_read_exactly(alpha):
    assert exact_alpha(alpha) == Fraction(alpha)
    assert level_name(alpha) == str(alpha)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1e-9999999", "at most 100 digits"),
        ("0.1,1e-9999999", "at most 100 digits"),
        ("1e-9999999:0.5:0.1", "at most 100 digits"),
        ("0.1:0.9:1e-9999999", "at most 100 digits"),
        ("0.1:0.9:1e-9", "alphas must be at most 10000, got '0.1:0.9:1e-9'"),
        (",".join(["0.1"] * 10_001), "alphas must be at most 10000, got"),
        ("0.1:0.9:0", "alphas must be like"),
        ("0.1:0.9:-0.1", "alphas must be like"),
        ("0.1:0.9:nan", "alphas must be like"),
        ("0.1:0.9:inf", "alphas must be like"),
        ("0.9:0.1:0.1", "alphas must be like"),
        ("0.1:0.9", "alphas must be like"),
        ("0.1:0.2:0.1:0.1", "alphas must be like"),
        ("x", "alphas must be like 0.05,0.1 or 0.01:0.99:0.01, got 'x'"),
        ("0.1,0.10", "alphas must differ from each other, got '0.1,0.10'"),
        ("0:1:0.1", "alpha must be in (0, 1), got 0"),
        ("0.1,1", "alpha must be in (0, 1), got 1"),
        ("nan", "alpha must be in (0, 1), got NaN"),
    ],
)
def test_a_list_of_levels_that_cannot_be_is_one_clear_error(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_alphas(text)


def test_ranges_hold_both_ends_and_ten_thousand_levels():
    assert parse_alphas("0.01:0.99:0.01") == tuple(str(i / 100) for i in range(1, 100))
    assert parse_alphas("0.1:0.9:5") == ("0.1",)
    assert parse_alphas("0.1:0.1:0.1") == ("0.1",)
    assert parse_alphas("0.1:0.25:0.1") == ("0.1", "0.2")
    assert len(parse_alphas("0.00001:0.1:0.00001")) == 10_000


def test_a_budget_stands_for_an_alpha():
    assert budget_of("0.1", 99) == budget_of(None, 99, 9) == 9
    assert budget_of(None, 5, -1) == -1
    assert budget_of(None, 5, np.int32(4)) == 4
    several = budget_of(None, 5, [-1, 4])
    assert several.dtype == np.int64
    assert several.tolist() == [-1, 4]
    assert budget_of(["0.1", "0.5"], 9).tolist() == [0, 4]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: budget_of(None, 9), TypeError, "one of alpha and budget must be given, got nei"),
        (lambda: budget_of(0.1, 9, 0), TypeError, "one of alpha and budget must be given, got bo"),
        (lambda: budget_of(None, 9, 9), ValueError, "from -1 to n - 1 = 8, got 9"),
        (lambda: budget_of(None, 9, [0, -2]), ValueError, "from -1 to n - 1 = 8, got -2"),
        (lambda: budget_of(None, 9, 0.0), TypeError, "budget must be an integer or integers"),
        (lambda: budget_of(None, 9, True), TypeError, "budget must be an integer or integers"),
        (lambda: budget_of(None, 9, []), TypeError, "budget must be an integer or integers"),
        (lambda: budget_of(None, 9, [[1]]), TypeError, "budget must be an integer or integers"),
        (lambda: budget_of(None, 0, 0), ValueError, "n must be at least 1, got 0"),
        (lambda: check_count("n", 1.0), TypeError, "n must be an integer, got 1.0 of type float"),
        (lambda: check_count("n", True), TypeError, "n must be an integer, got True"),
        (lambda: check_count("n", np.True_), TypeError, "n must be an integer, got"),
        (lambda: check_count("n", 4, 5), ValueError, "n must be at least 5, got 4"),
        (lambda: check_chance("delta", 1), ValueError, "delta must be in (0, 1), got 1"),
        (lambda: check_chance("delta", 0.0), ValueError, "delta must be in (0, 1), got 0.0"),
        (lambda: check_chance("delta", float("nan")), ValueError, "delta must be in (0, 1), got"),
        (lambda: check_chance("delta", "0.1"), TypeError, "delta must be a number in (0, 1)"),
        (lambda: check_chance("delta", False), TypeError, "delta must be a number in (0, 1)"),
    ],
)
def test_bad_numbers_are_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_numbers_come_back_as_python_s_own():
    assert type(check_count("n", np.int32(5), 5)) is int
    assert type(check_chance("delta", np.float32(0.5))) is float
