import re
from decimal import Decimal
from fractions import Fraction
from math import floor, inf

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racer_jax import (
    calibrate,
    critical_scores,
    gap,
    inverse_probability,
    miss_budget,
    reference,
    tie_break,
)
from racer_jax.core.calibration import _at_rank, threshold_at_rank
from racer_jax.core.miss_ranks import _floor_multiples, _traced_rank
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.risk_levels import exact_alpha
from tests.strategies import ALPHAS, NULLS, problems

FLOATS = st.floats(width=32, allow_nan=False)
PERCENTS = [i / 100 for i in range(1, 100)]
RNG = np.random.default_rng(0)


# --- the miss budget ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha", "n", "budget"),
    [
        (0.29, 99, 28),  # 0.29 * 100 = 28.999999999999996
        (0.18, 149, 26),  # ceil(150 * (1 - 0.18)) is one too large in float64
        (0.16, 74, 11),  # and here in float32
        (0.57, 99, 56),
        (0.1, 9, 0),
        (0.1, 8, -1),
        (0.01, 98, -1),
        (0.01, 99, 0),
        (0.99, 1, 0),
        (0.5, 1, 0),
        (0.49, 1, -1),
        (0.999, 10**6, 998_999),
        (1e-9, 10**9 - 1, 0),
        (1e-9, 10**9 - 2, -1),
    ],
)
def test_miss_budget_where_floats_fail(alpha, n, budget):
    assert miss_budget(alpha, n) == budget


def test_miss_budget_equals_a_rational_search_of_the_inequality():
    for n in range(1, 301):
        # The left side of Eq. 6 grows with the misses, so the budget of the next alpha starts where
        # the last stopped.
        expected, misses = [], -1
        for percent in range(1, 100):
            level = Fraction(percent, 100)
            while Fraction(n, n + 1) * Fraction(misses + 1, n) + Fraction(1, n + 1) <= level:
                misses += 1
            expected.append(misses)
        assert miss_budget(PERCENTS, n).tolist() == expected


def test_reference_budget_is_the_same_search():
    for n in (1, 2, 9, 74, 99, 149, 300):
        assert [reference.miss_budget(a, n) for a in PERCENTS] == miss_budget(PERCENTS, n).tolist()


@pytest.mark.parametrize(
    "alpha",
    [
        0.29,
        "0.29",
        Decimal("0.29"),
        Fraction(29, 100),
        np.float64(0.29),
        np.float32(0.29),
        jnp.float32(0.29),
    ],
)
def test_every_way_to_write_an_alpha_is_the_same_decimal(alpha):
    assert miss_budget(alpha, 99) == 28
    assert float(calibrate(jnp.arange(99.0), alpha)) == 70


def test_alpha_arrays_keep_the_precision_they_were_written_in():
    assert miss_budget(np.array([0.29, 0.57], np.float32), 99).tolist() == [28, 56]
    assert miss_budget(jnp.array([0.29, 0.57]), 99).tolist() == [28, 56]
    assert miss_budget(np.array([0.29, 0.57]), 99).dtype == np.int64


@pytest.mark.long
@given(
    st.fractions(0, 1).filter(lambda f: 0 < f < 1),
    st.integers(1, 2**29),
    st.lists(st.floats(0, 1), min_size=5, max_size=5),
)
@settings(deadline=None, max_examples=30)
def test_traced_counts_keep_the_budget_exact_in_int32(alpha, limit, shares):
    counts = [0, 1, limit - 1, limit, *(int(share * limit) for share in shares)]
    both = _floor_multiples([alpha, alpha / 3], jnp.asarray(counts, jnp.int32), limit)
    assert both.tolist() == [[floor(alpha * t), floor(alpha / 3 * t)] for t in counts]


@pytest.mark.long
def test_a_traced_alpha_is_never_one_miss_too_many():
    n = 99
    critical = jnp.arange(float(n))
    traced = jax.jit(calibrate)(critical, jnp.asarray(PERCENTS))
    exact = calibrate(critical, PERCENTS)
    assert bool((traced >= exact).all())
    assert bool((traced - exact <= 1).all() | jnp.isinf(traced).any())
    assert float(jax.jit(calibrate)(critical, jnp.float32(0.333))) == float(
        calibrate(critical, 0.333)
    )
    assert float(jax.jit(calibrate)(critical, jnp.float32(jnp.nan))) == inf
    assert (
        jax.vmap(lambda a: calibrate(critical, a))(jnp.asarray(PERCENTS)).tolist()
        == traced.tolist()
    )


@pytest.mark.parametrize("n", [1, 2, 9, 50, 999])
def test_the_rank_of_a_traced_alpha_is_exact_away_from_where_it_changes(n):
    """Halfway between two levels at which one more miss is allowed no rounding can matter."""
    misses = np.arange(min(n, 200))
    alphas = jnp.asarray((misses + 0.5) / (n + 1), jnp.float32)
    rank = jax.jit(_traced_rank)(alphas, jnp.full((1,), n, jnp.int32))
    assert rank.tolist() == (n - (misses - 1)).tolist()


@pytest.mark.parametrize("n", [999, 65_535, 1_000_000, 1 << 20])
def test_the_budget_of_a_traced_alpha_is_never_above_the_exact_one(n):
    """Alphas at, just below and just above those where one more miss is allowed."""
    rng = np.random.default_rng(n)
    at = (rng.integers(1, n // 2, 3000) / (n + 1)).astype(np.float32)
    decimals = (rng.integers(1, 9999, 2000) / 10_000).astype(np.float32)
    alphas = np.concatenate([at, np.nextafter(at, 0), np.nextafter(at, 1), decimals])
    rank = jax.jit(_traced_rank)(jnp.asarray(alphas), jnp.full((1,), n, jnp.int32))
    budget, exact = n - np.asarray(rank), miss_budget(alphas, n)
    assert (budget <= exact).all()
    # float32 knows neither alpha nor n + 1 to more than 24 digits.
    assert (exact - budget <= 2 + n * 2.0**-20).all()


# --- critical scores ------------------------------------------------------------------------------


@pytest.mark.long
@given(problems(), NULLS, st.booleans())
@settings(deadline=None, max_examples=60)
def test_critical_scores_equal_the_reference(problem, null, broken):
    scores, correct = problem
    nonconformity = gap(scores, null)
    ties = tie_break(jax.random.key(0), nonconformity.shape) if broken else None
    actual = critical_scores(nonconformity, correct, ties)
    rows, right = np.asarray(nonconformity, float).tolist(), correct.astype(int).tolist()
    keys = [None] * len(rows) if ties is None else np.asarray(ties).tolist()
    expected = [reference.critical_score(*row) for row in zip(rows, right, keys, strict=True)]
    if broken:
        assert [*zip(actual.value.tolist(), actual.tie.tolist(), strict=True)] == expected
    else:
        assert actual.tolist() == [value for value, _ in expected]


# --- the threshold --------------------------------------------------------------------------------


@given(
    problems(),
    st.lists(ALPHAS, min_size=12, max_size=12),
    st.sampled_from([1, 2, 12]),
    NULLS,
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_threshold_equals_the_reference_bit_for_bit(problem, alphas, num_alphas, null, broken):
    alphas = alphas[:num_alphas]
    scores, correct = problem
    nonconformity = inverse_probability(scores, null)
    ties = tie_break(jax.random.key(3), nonconformity.shape) if broken else None
    critical = critical_scores(nonconformity, correct, ties)
    threshold = calibrate(critical, alphas)
    pairs = [*zip(*(np.asarray(a).tolist() for a in critical), strict=True)] if broken else None
    plain = [(c, 0) for c in np.asarray(critical).tolist()] if not broken else pairs
    for i, alpha in enumerate(alphas):
        expected = reference.threshold(plain, alpha)
        if broken:
            assert float(threshold.value[i]) == expected[0]
            assert expected[0] == inf or int(threshold.tie[i]) == expected[1]
        else:
            assert float(threshold[i]) == expected[0]


@pytest.mark.long
@pytest.mark.parametrize("num_alphas", [1, 8, 9, 99])
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_every_path_is_the_order_statistic(num_alphas, broken, masked, transform):
    n, alphas = 57, PERCENTS[:num_alphas]
    value = RNG.integers(-3, 4, n).astype(np.float32)
    tie = RNG.integers(0, 2**32, n, dtype=np.uint32)
    mask = RNG.random(n) < 0.6 if masked else np.ones(n, bool)

    def run(value, tie, mask):
        return calibrate(
            value, alphas, mask=mask if masked else None, tie_break=tie if broken else None
        )

    actual = transform(run)(value, tie, mask)
    order = np.lexsort((tie if broken else np.zeros(n), value))
    order = order[mask[order]]
    ranks = len(order) - miss_budget(alphas, len(order))
    value_expected = np.array([value[order[k - 1]] if k <= len(order) else inf for k in ranks])
    if broken:
        assert actual.value.tolist() == value_expected.tolist()
        tie_expected = [tie[order[k - 1]] if k <= len(order) else 2**32 - 1 for k in ranks]
        assert actual.tie.tolist() == tie_expected
    else:
        assert actual.tolist() == value_expected.tolist()


@pytest.mark.long
@pytest.mark.parametrize("alpha", [0.1, [0.05, 0.29], PERCENTS])
def test_vmap_over_masks_equals_a_loop(alpha):
    masks = RNG.random((25, 40)) < 0.5
    masks[0] = False
    masks[0, 3] = True
    critical = jnp.asarray(RNG.random(40), jnp.float32)
    batched = jax.jit(jax.vmap(lambda mask: calibrate(critical, alpha, mask=mask)))(masks)
    looped = jnp.stack([calibrate(critical, alpha, mask=mask) for mask in masks])
    dropped = jnp.stack([calibrate(critical[mask], alpha) for mask in masks[:5]])
    assert batched[:5].tolist() == dropped.tolist()
    assert batched.tolist() == looped.tolist()


def test_ten_thousand_masks():
    critical = jnp.asarray(RNG.random(200), jnp.float32)
    masks = RNG.random((10_000, 200)) < 0.5
    batched = jax.jit(jax.vmap(lambda mask: calibrate(critical, 0.1, mask=mask)))(masks)
    ordered = np.sort(np.where(masks, np.asarray(critical), inf), axis=1)
    ranks = np.array([k - miss_budget(0.1, int(k)) for k in masks.sum(1)])
    np.testing.assert_array_equal(batched, ordered[np.arange(10_000), ranks - 1])


@pytest.mark.long
def test_leading_axes_of_scores_and_masks():
    critical = jnp.asarray(RNG.random((3, 4, 25)), jnp.float32)
    for alpha, shape in ((0.2, (3, 4)), ([0.1, 0.2], (3, 4, 2)), (PERCENTS, (3, 4, 99))):
        threshold = calibrate(critical, alpha)
        assert threshold.shape == shape
        assert threshold[1, 2].tolist() == calibrate(critical[1, 2], alpha).tolist()
        mask = RNG.random((4, 25)) < 0.7
        masked = calibrate(critical, alpha, mask=mask)
        assert masked.shape == shape
        assert masked[2, 1].tolist() == calibrate(critical[2, 1][mask[1]], alpha).tolist()


@given(
    st.sampled_from([1, 2, 40]).flatmap(lambda n: st.lists(FLOATS, min_size=n, max_size=n)), ALPHAS
)
@settings(deadline=None, max_examples=150)
def test_any_floats_infinities_and_signed_zeros_included(values, alpha):
    critical = np.array(values, np.float32)
    threshold = float(calibrate(critical, alpha))
    rank = len(values) - miss_budget(alpha, len(values))
    assert threshold == (inf if rank > len(values) else np.sort(critical)[rank - 1])
    assert threshold == inf or threshold in critical


@pytest.mark.long
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_dtype_is_kept(dtype):
    critical = jnp.asarray(RNG.random(50), dtype)
    for alpha in (0.1, PERCENTS):
        threshold = calibrate(critical, alpha)
        assert threshold.dtype == dtype
        assert np.isin(
            np.asarray(threshold[..., None] if threshold.ndim == 0 else threshold[1:], np.float32),
            np.asarray(critical, np.float32),
        ).all()


@pytest.mark.long
@given(problems())
@settings(deadline=None, max_examples=40)
def test_order_of_queries_is_irrelevant_and_alpha_is_monotone(problem):
    scores, correct = problem
    critical = critical_scores(gap(scores), correct)
    threshold = calibrate(critical, PERCENTS)
    assert calibrate(critical[::-1], PERCENTS).tolist() == threshold.tolist()
    assert bool((threshold[1:] <= threshold[:-1]).all())


def test_one_query():
    assert float(calibrate(jnp.array([0.3]), 0.5)) == pytest.approx(0.3)
    assert float(calibrate(jnp.array([0.3]), 0.49)) == inf


def test_infeasible_alpha_is_infinite_and_neither_raises_nor_warns():
    threshold = calibrate(TieBroken(jnp.arange(5.0), jnp.arange(5, dtype=jnp.uint32)), [0.1, 0.2])
    assert threshold.value.tolist() == [inf, 4.0]
    assert threshold.tie.tolist() == [2**32 - 1, 4]


def test_ranks_beyond_both_ends():
    assert threshold_at_rank(jnp.arange(3.0), jnp.array([-1, 0, 1, 3, 4])).tolist() == [
        -inf,
        -inf,
        0,
        2,
        inf,
    ]


def test_a_new_alpha_does_not_recompile():
    critical = jnp.asarray(RNG.random(123), jnp.float32)
    calibrate(critical, 0.1), calibrate(critical, [0.1, 0.2])
    before = _at_rank._cache_size()
    for alpha in (0.2, 0.3, "0.123456"):
        calibrate(critical, alpha)
    calibrate(critical + 1, [0.05, 0.07])
    assert _at_rank._cache_size() == before


def test_the_pair_and_the_separate_tie_break_agree():
    value, tie = (
        jnp.asarray(RNG.integers(0, 3, 30), jnp.float32),
        tie_break(jax.random.key(0), (30,)),
    )
    assert jax.tree.map(
        jnp.array_equal, calibrate(TieBroken(value, tie), 0.3), calibrate(value, 0.3, tie_break=tie)
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: miss_budget(0.0, 10), ValueError, "alpha must be in (0, 1), got 0.0"),
        (lambda: miss_budget(1.0, 10), ValueError, "alpha must be in (0, 1), got 1.0"),
        (lambda: miss_budget(float("nan"), 10), ValueError, "alpha must be in (0, 1), got nan"),
        (lambda: miss_budget(inf, 10), ValueError, "alpha must be in (0, 1), got inf"),
        (lambda: miss_budget([0.1, -0.1], 10), ValueError, "alpha must be in (0, 1), got -0.1"),
        (lambda: miss_budget("ten", 10), ValueError, "alpha must be in (0, 1), got ten"),
        (lambda: miss_budget([], 10), ValueError, "alpha must hold at least one risk level"),
        (
            lambda: miss_budget(True, 10),
            TypeError,
            "alpha must be a number in (0, 1), got True of type bool",
        ),
        (
            lambda: miss_budget(None, 10),
            TypeError,
            "alpha must be a number in (0, 1), got None of type NoneType",
        ),
        (
            lambda: miss_budget(np.zeros((2, 2)), 10),
            ValueError,
            "alpha must be a scalar or have shape [a]",
        ),
        (lambda: miss_budget(0.1, 0), ValueError, "n must be at least 1, got 0"),
        (lambda: miss_budget(0.1, 9.5), TypeError, "n must be an integer, got 9.5 of type float"),
        (lambda: calibrate(jnp.zeros(0), 0.1), ValueError, "n >= 1, got (0,)"),
        (lambda: calibrate(jnp.float32(1), 0.1), ValueError, "n >= 1, got ()"),
        (
            lambda: calibrate(jnp.arange(3), 0.1),
            TypeError,
            "critical_scores must be floating, got dtype int32",
        ),
        (
            lambda: calibrate(jnp.array([0, jnp.nan]), 0.1),
            ValueError,
            "critical_scores must not be NaN, got NaN at [1]",
        ),
        (lambda: calibrate(jnp.zeros(3), 1.5), ValueError, "alpha must be in (0, 1), got 1.5"),
        (
            lambda: calibrate(jnp.zeros(3), 0.5, mask=[0, 0, 0]),
            ValueError,
            "mask must select at least one",
        ),
        (
            lambda: calibrate(jnp.zeros(3), 0.5, mask=[0, 1]),
            ValueError,
            "mask must have shape [..., 3]",
        ),
        (
            lambda: calibrate(jnp.zeros(3), 0.5, mask=[0, 1, 3]),
            ValueError,
            "mask must be 0/1, got 3.0 at [2]",
        ),
        (
            lambda: calibrate(jnp.zeros(3), 0.5, tie_break=jnp.zeros(3)),
            TypeError,
            "tie_break must be uint32",
        ),
        (
            lambda: calibrate(jnp.zeros(3), 0.5, tie_break=jnp.zeros(2, jnp.uint32)),
            ValueError,
            "tie_break must have shape (3,), got (2,)",
        ),
        (
            lambda: calibrate(
                TieBroken(jnp.zeros(3), jnp.zeros(3, jnp.uint32)), 0.5, tie_break=jnp.zeros(3)
            ),
            ValueError,
            "a TieBroken pair already",
        ),
        (
            lambda: jax.jit(calibrate)(jnp.zeros(3), jnp.zeros((2, 2))),
            ValueError,
            "alpha must be a scalar or have",
        ),
        (
            lambda: critical_scores(jnp.zeros((3, 2)), jnp.zeros((3, 2), bool)),
            ValueError,
            "[..., m + 1]",
        ),
        (
            lambda: critical_scores(jnp.zeros((3, 3)), jnp.full((3, 2), 2)),
            ValueError,
            "correct must be 0/1",
        ),
        (
            lambda: critical_scores(jnp.full((1, 2), jnp.nan), [[1]]),
            ValueError,
            "nonconformity must not be NaN",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.long
def test_exact_alpha_reads_the_decimal():
    assert exact_alpha(0.1) == Fraction(1, 10)
    assert exact_alpha("1/3") == Fraction(1, 3)
