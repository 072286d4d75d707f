"""Grouped, high-probability and weighted calibration.

Each against a closed form or a loop, and by simulation.
"""

import re
from fractions import Fraction
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import racer_jax as racer
from racer_jax.core.nonconformity import TieBroken
from racer_jax.risk_control import high_probability_budgets
from racer_jax.risk_control.covariate_shift import calibrate_weighted, estimate_density_ratio
from racer_jax.risk_control.high_probability import (
    calibrate_with_probability,
    high_probability_budget,
)
from racer_jax.risk_control.mondrian import calibrate_by_group, calibrate_table, smallest_size

INF = float("inf")
RNG = np.random.default_rng(0)

# --- high probability -----------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [0.01, 0.05, 0.5, 0.9])
@pytest.mark.parametrize("n", [1, 20, 28, 29, 500])
def test_the_budget_is_the_largest_that_can_be_promised(n, delta):
    for alpha in (0.02, 0.1, 0.29, 0.5, 0.9):
        chances = [stats.beta.cdf(alpha, b + 1, n - b) for b in range(n)]
        expected = max((b for b, chance in enumerate(chances) if chance >= 1 - delta), default=-1)
        assert high_probability_budget(alpha, n, delta) == expected
        # The same in the language of coins: b misses or fewer of n would be too few by chance with
        # probability delta.
        assert expected == -1 or stats.binom.cdf(expected, n, alpha) <= delta + 1e-12


def chance_of_failure(budget, alpha, n):
    """P(Binomial(n, alpha) <= b) = P(Beta(b + 1, n - b) > alpha), in rationals."""
    p = Fraction(alpha)
    return sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(budget + 1))


@pytest.mark.long
@pytest.mark.parametrize("delta", ["0.3", "1e-10", "1e-16", "1e-40", "1e-300"])
@pytest.mark.parametrize("n", [10, 100, 1000])
def test_the_budget_is_safe_for_the_smallest_deltas_and_no_smaller_than_need_be(n, delta):
    for alpha in ("0.05", "0.5", "0.97"):
        budget = high_probability_budget(alpha, n, float(delta))
        if budget >= 0:
            assert chance_of_failure(budget, alpha, n) <= Fraction(delta)
        assert chance_of_failure(budget + 1, alpha, n) > Fraction(delta)


@pytest.mark.parametrize(
    ("alpha", "n", "delta", "budget"),
    [
        (0.5, 1, 0.5, 0),
        (0.5, 3, 0.125, 0),
        (0.5, 3, 0.5, 1),
        (0.9, 17, 1e-17, 0),
        (0.9, 17, 0.9999999999e-17, -1),
        (0.9, 20, 1.81e-18, 1),  # 1e-20 + 20 * 9e-20
        (0.9, 20, 1.80999e-18, 0),
    ],
)
def test_a_delta_that_is_met_exactly_is_met(alpha, n, delta, budget):
    assert high_probability_budget(alpha, n, delta) == budget


def test_where_rationals_would_take_long_a_doubt_is_resolved_to_the_safe_side(monkeypatch):
    monkeypatch.setattr(high_probability_budgets, "_MOST_EXACT", 2)
    assert high_probability_budget(0.5, 3, 0.125) == -1
    assert high_probability_budget(0.5, 3, 0.1250001) == 0


def test_budgets_are_monotone_and_never_above_the_plain_one():
    alphas = [i / 100 for i in range(1, 100)]
    budgets = high_probability_budget(alphas, 400, 0.1)
    assert (np.diff(budgets) >= 0).all()
    assert (budgets <= racer.miss_budget(alphas, 400)).all()
    assert (high_probability_budget(alphas, 400, 0.01) <= budgets).all()


@pytest.mark.long
def test_the_promise_fails_on_a_share_delta_of_the_calibration_sets():
    n, alpha, delta, num = 200, 0.1, 0.1, 4000
    # the risk of a threshold is 1 - threshold
    critical = jax.random.uniform(jax.random.key(0), (num, n))
    above = float((1 - calibrate_with_probability(critical, alpha, delta) > alpha).mean())
    budget = high_probability_budget(alpha, n, delta)
    exact = stats.beta.sf(alpha, budget + 1, n - budget)
    assert exact <= delta
    assert abs(above - exact) < 5 * np.sqrt(delta * (1 - delta) / num)
    plain = float((1 - racer.calibrate(critical, alpha) > alpha).mean())
    assert plain > 3 * delta  # on average is not with high probability


@pytest.mark.long
def test_shapes_ties_and_infinity():
    critical = jnp.asarray(RNG.random((3, 50)), jnp.float32)
    assert calibrate_with_probability(critical, 0.2, 0.1).shape == (3,)
    assert calibrate_with_probability(critical, [0.2, 0.3], 0.1).shape == (3, 2)
    assert calibrate_with_probability(critical[0], 0.01, 0.1) == INF
    pair = TieBroken(jnp.zeros(50), racer.tie_break(jax.random.key(0), (50,)))
    budget = high_probability_budget(0.2, 50, 0.1)
    assert (
        int(calibrate_with_probability(pair, 0.2, 0.1).tie)
        == np.sort(np.asarray(pair.tie))[50 - budget - 1]
    )


# --- by group -------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("fallback", ["pooled", "all"])
@pytest.mark.parametrize("broken", [False, True])
def test_groups_equal_a_loop(fallback, broken):
    groups = RNG.permutation(["a"] * 120 + ["b"] * 75 + ["c"] * 5).tolist()
    critical = jnp.asarray(RNG.integers(0, 9, 200), jnp.float32)
    ties = racer.tie_break(jax.random.key(1), (200,)) if broken else None
    scores = TieBroken(critical, ties) if broken else critical
    grouped = calibrate_by_group(scores, groups, 0.1, fallback)
    per_query = grouped.of(groups)
    assert grouped.too_small == ("c",)
    for name in "abc":
        rows = np.array(groups) == name
        mine = jax.tree.map(lambda x, rows=rows: x[rows], scores)
        expected = racer.calibrate(mine if name != "c" or fallback == "all" else scores, 0.1)
        result = jax.tree.map(lambda x, rows=rows: x[int(np.flatnonzero(rows)[0])], per_query)
        assert jax.tree.map(float, result) == jax.tree.map(float, expected)
    if fallback == "all":
        value = grouped.threshold.value if broken else grouped.threshold
        assert value[grouped.groups.index("c")] == INF
    assert "'c' (n = " in grouped.warning()
    assert "takes n >= 9" in grouped.warning()


@pytest.mark.long
def test_the_risk_is_bounded_in_every_group_where_the_pooled_one_is_not():
    num, per_group, alpha = 2000, 39, 0.1
    keys = jax.random.split(jax.random.key(2))
    spread = jnp.array([1.0, 3.0])  # the second group is harder
    critical = jax.random.uniform(keys[0], (num, 2, per_group)) * spread[None, :, None]
    fresh = jax.random.uniform(keys[1], (num, 2)) * spread[None]
    pooled = racer.calibrate(critical.reshape(num, -1), alpha)
    assert float((fresh > pooled[:, None]).mean(axis=0)[1]) > 1.5 * alpha
    names = ["easy"] * per_group + ["hard"] * per_group
    mine = np.stack(
        [calibrate_by_group(row.reshape(-1), names, alpha).threshold for row in critical[:10]]
    )
    expected = jax.vmap(jax.vmap(lambda c: racer.calibrate(c, alpha)))(critical)
    assert mine.tolist() == expected[:10].tolist()
    risks = (fresh > expected).mean(axis=0)
    assert (np.abs(risks - alpha) < 5 * np.sqrt(alpha * (1 - alpha) / num)).all()


def test_no_warning_where_every_group_is_large_enough():
    assert calibrate_by_group(jnp.arange(20.0), ["a", "b"] * 10, 0.1).warning() == ""


@pytest.mark.long
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("delta", [None, 0.2])
def test_a_table_is_calibrated_by_group_where_it_has_groups(broken, delta):
    nonconformity = jnp.asarray(RNG.integers(0, 5, (90, 4)) / 4, jnp.float32)
    correct, groups = RNG.random((90, 3)) < 0.5, RNG.permutation(["a"] * 60 + ["b"] * 30)
    ties = racer.tie_break(jax.random.key(3), (90, 4)) if broken else None
    result = calibrate_table(
        nonconformity, correct, 0.2, groups.tolist(), tie_break=ties, delta=delta, unseen="pooled"
    )
    per_query = result.of([*"ab", "new"])
    plain = (
        racer.calibrate
        if delta is None
        else lambda c, alpha: calibrate_with_probability(c, alpha, delta)
    )
    for i, rows in enumerate([groups == "a", groups == "b", np.ones(90, bool)]):
        mine = racer.critical_scores(
            nonconformity[rows], correct[rows], None if ties is None else ties[rows]
        )
        expected = plain(mine, 0.2)
        assert jax.tree.map(lambda x, i=i: float(x[i]), per_query) == jax.tree.map(float, expected)
    whole = calibrate_table(nonconformity, correct, 0.2, tie_break=ties, delta=delta)
    assert jax.tree.map(float, whole.of(None)) == jax.tree.map(float, result.pooled)
    assert (whole.groups, whole.num_rows, whole.warning()) == (None, (90,), "")
    everything = calibrate_table(
        nonconformity, correct, 0.2, groups.tolist(), tie_break=ties, unseen="all"
    ).of(["new"])
    sets = racer.prediction_sets(nonconformity[:1], everything, None if ties is None else ties[:1])
    assert bool(sets.all())


@pytest.mark.long
@pytest.mark.parametrize("delta", [None, 0.01, 0.05, 0.5, 0.97])
@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.29, 0.5, 0.9])
def test_the_smallest_size_is_where_a_finite_threshold_begins(alpha, delta):
    sizes = range(1, 700)
    budgets = [
        racer.miss_budget(alpha, n) if delta is None else high_probability_budget(alpha, n, delta)
        for n in sizes
    ]
    assert smallest_size(alpha, delta) == next(
        n for n, b in zip(sizes, budgets, strict=True) if b >= 0
    )


def test_the_warning_says_what_a_promise_with_high_probability_takes():
    grouped = calibrate_by_group(jnp.arange(49.0), ["a"] * 29 + ["b"] * 20, 0.1, delta=0.05)
    assert grouped.warning() == (
        "groups too small for alpha = 0.1 and delta = 0.05, which takes n >= 29: 'b' (n = 20); "
        "they get every model"
    )


# --- weighted -------------------------------------------------------------------------------------


def literal_threshold(critical, weights, own, alpha):
    """The definition in rationals.

    The smallest lambda at which the weighted misses are within the budget.
    """
    weights, own = [Fraction(float(w)) for w in weights], Fraction(float(own))
    budget = Fraction(str(alpha)) * (sum(weights) + own)
    for candidate in sorted(set(critical.tolist())):
        if sum(w for c, w in zip(critical, weights, strict=True) if c > candidate) + own <= budget:
            return candidate
    return INF


@pytest.mark.long
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 8)), min_size=1, max_size=25),
    st.integers(1, 20),
    st.integers(1, 99),
)
@settings(deadline=None, max_examples=80)
def test_equals_the_definition_in_rationals(pairs, own, percent):
    critical = np.array([c for c, _ in pairs], np.float32)
    weights = [w / 8 for _, w in pairs]
    result = calibrate_weighted(critical, weights, percent / 100).threshold([own / 8])
    assert result.tolist() == [literal_threshold(critical, weights, own / 8, percent / 100)]


@pytest.mark.long
def test_equal_weights_are_the_plain_calibration():
    percents = [i / 100 for i in range(1, 100)]
    for n in (1, 9, 74, 99, 149):
        critical = RNG.random(n).astype(np.float32)
        plain = racer.calibrate(critical, percents).tolist()
        for weight in (1.0, 0.1, 3.7):
            weights = np.full(n, weight)
            result = [
                calibrate_weighted(critical, weights, alpha).threshold([weight])[0]
                for alpha in percents
            ]
            assert result == plain


@pytest.mark.parametrize("short", [1e-9, 1e-6, 1e-4, 1e-2])
def test_an_alpha_just_short_of_one_more_miss_does_not_allow_it(short):
    """The room left for rounding is far smaller than any difference of levels that matters."""
    n, weight = 99, 0.7
    critical = RNG.random(n).astype(np.float32)
    for misses in (2, 10, 50):
        alpha = misses / (n + 1) * (1 - short)
        result = calibrate_weighted(critical, np.full(n, weight), alpha).threshold([weight])[0]
        assert result == np.sort(critical)[n - misses + 1]  # misses - 2 above it, not misses - 1


def shifted(rng, num, shift):
    """A covariate whose law moves, and critical scores that grow with it."""
    x = rng.normal(shift, 1.0, num)
    return x, (x + rng.normal(0, 0.5, num)).astype(np.float32)


def test_a_shift_breaks_the_plain_method_and_not_the_weighted_one():
    rng, alpha, risks = (
        np.random.default_rng(3),
        0.1,
        {"plain": [], "weighted": [], "estimated": []},
    )
    for _ in range(60):
        x, critical = shifted(rng, 300, 0.0)
        fresh, fresh_critical = shifted(rng, 200, 0.7)
        ratio = np.exp(0.7 * x - 0.245)  # of N(.7, 1) to N(0, 1)
        fresh_ratio = np.exp(0.7 * fresh - 0.245)
        risks["plain"].append((fresh_critical > float(racer.calibrate(critical, alpha))).mean())
        weighted = calibrate_weighted(critical, ratio, alpha).threshold(fresh_ratio)
        risks["weighted"].append((fresh_critical > weighted).mean())
        estimate = estimate_density_ratio(x[:, None], fresh[:, None])
        estimated = calibrate_weighted(critical, estimate.calibration, alpha).threshold(
            estimate.to_come
        )
        risks["estimated"].append((fresh_critical > estimated).mean())
    mean = {name: np.mean(values) for name, values in risks.items()}
    error = {name: np.std(values) / np.sqrt(len(values)) for name, values in risks.items()}
    assert mean["plain"] > alpha + 10 * error["plain"]
    assert mean["weighted"] < alpha + 4 * error["weighted"]
    assert mean["weighted"] > alpha / 2
    assert mean["estimated"] < alpha + 0.02


def test_the_classifier_finds_the_ratio_and_says_what_it_is():
    rng = np.random.default_rng(4)
    x, z = rng.normal(0, 1, (4000, 2)), rng.normal([0.5, 0.0], 1, (4000, 2))
    result = estimate_density_ratio(x, z)
    true = np.exp(0.5 * x[:, 0] - 0.125)
    np.testing.assert_allclose(np.log(result.calibration), np.log(true / true.mean()), atol=0.25)
    assert result.calibration.mean() == pytest.approx(1, abs=1e-3)
    assert result.effective_size == pytest.approx(4000 / np.exp(0.25), rel=0.15)
    assert "estimated by a classifier" in result.caveat
    same = estimate_density_ratio(x, rng.normal(0, 1, (4000, 2)))
    assert same.effective_size > 3900


# --- bad input ------------------------------------------------------------------------------------

C = np.arange(5, dtype=np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: high_probability_budget(0.1, 10, 0), ValueError, "delta must be in (0, 1), got 0"),
        (
            lambda: high_probability_budget(0.1, 10, 1.0),
            ValueError,
            "delta must be in (0, 1), got 1.0",
        ),
        (
            lambda: high_probability_budget(0.1, 10, float("nan")),
            ValueError,
            "delta must be in (0, 1), got nan",
        ),
        (
            lambda: high_probability_budget(0.1, 10, "a"),
            TypeError,
            "delta must be a number in (0, 1), got 'a'",
        ),
        (lambda: high_probability_budget(0.1, 0, 0.1), ValueError, "n must be at least 1, got 0"),
        (
            lambda: calibrate_with_probability(jnp.float32(1), 0.1, 0.1),
            ValueError,
            "n >= 1, got ()",
        ),
        (
            lambda: calibrate_by_group(C, ["a"] * 4, 0.1),
            ValueError,
            "one group for each of the 5 queries, got 4",
        ),
        (
            lambda: calibrate_by_group(C, "aaaaa", 0.1),
            TypeError,
            "groups must be a sequence of names, got the one",
        ),
        (
            lambda: calibrate_by_group(C, ["a"] * 5, 0.1, "none"),
            ValueError,
            "fallback must be one of ('pooled', 'all')",
        ),
        (
            lambda: calibrate_by_group(C, ["a"] * 5, 0.1, unseen="x"),
            ValueError,
            "unseen must be one of ('error',",
        ),
        (
            lambda: calibrate_by_group(C, ["a"] * 5, 0.1, delta=2),
            ValueError,
            "delta must be in (0, 1), got 2",
        ),
        (
            lambda: calibrate_by_group(C * np.nan, ["a"] * 5, 0.1),
            ValueError,
            "critical_scores must not be NaN",
        ),
        (
            lambda: calibrate_by_group(C[None], ["a"], 0.1),
            ValueError,
            "critical_scores must have shape [n] with n >= 1, got (1, 5)",
        ),
        (
            lambda: calibrate_by_group(C, None, 0.5).of(["a"]),
            ValueError,
            "got some, calibrated on none",
        ),
        (
            lambda: calibrate_by_group(C, ["a"] * 5, 0.5).of(None),
            ValueError,
            "got none, calibrated on ('a',)",
        ),
        (
            lambda: calibrate_by_group(C, ["a"] * 5, 0.5).of("a"),
            TypeError,
            "groups must be a sequence of names",
        ),
        (
            lambda: calibrate_by_group(C, ["a"] * 5, 0.5).of(["a", "new"]),
            ValueError,
            "groups must be among those of the calibration queries, ('a',), got 'new' at [1]",
        ),
        (
            lambda: calibrate_weighted(C, np.ones(4), 0.1),
            ValueError,
            "must both be [n], got (5,) and (4,)",
        ),
        (
            lambda: calibrate_weighted(C, [1, 1, 0, 1, 1], 0.1),
            ValueError,
            "weights must be finite and above 0, got 0.0 at [2]",
        ),
        (
            lambda: calibrate_weighted(C, [1, 1, INF, 1, 1], 0.1),
            ValueError,
            "above 0, got inf at [2]",
        ),
        (
            lambda: calibrate_weighted(C, [1, 1, -1.0, 1, 1], 0.1),
            ValueError,
            "above 0, got -1.0 at [2]",
        ),
        (lambda: calibrate_weighted(C, ["a"] * 5, 0.1), TypeError, "weights must be numeric"),
        (
            lambda: calibrate_weighted(C, np.ones(5), 0.1).threshold([INF]),
            ValueError,
            "above 0, got inf at [0]",
        ),
        (
            lambda: calibrate_weighted(C * np.nan, np.ones(5), 0.1),
            ValueError,
            "critical_scores must not be NaN",
        ),
        (
            lambda: estimate_density_ratio(np.ones((2, 2)), np.ones((2, 3))),
            ValueError,
            "to_come must have shape [n, d]",
        ),
        (
            lambda: estimate_density_ratio(np.ones((2, 2), int), np.ones((2, 2))),
            TypeError,
            "calibration must be floating",
        ),
        (
            lambda: estimate_density_ratio(np.ones((2, 2)), np.full((2, 2), np.nan)),
            ValueError,
            "to_come must be finite",
        ),
        (
            lambda: estimate_density_ratio(np.ones((2, 2)), np.ones((2, 2)), 0),
            ValueError,
            "ridge must be above 0",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
