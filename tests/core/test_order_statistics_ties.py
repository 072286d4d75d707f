"""Order statistics where scores tie, on both sides of every length that decides how they are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import calibrate
from racer_jax.core import calibration, miss_ranks, order_statistics
from racer_jax.core.nonconformity import TieBroken
from tests.core.order_cells import SAMPLED, STRIDE, count_cells, expected, rows
from tests.parameters import few_by_default

AROUND_THE_SAMPLE = [
    pytest.param(SAMPLED - 1, marks=pytest.mark.long),
    SAMPLED,
    pytest.param(SAMPLED + 1, marks=pytest.mark.long),
]


def test_the_boundaries_are_those_the_sizes_here_go_around():
    assert order_statistics._SAMPLED == SAMPLED
    assert order_statistics._STRIDE == STRIDE
    assert order_statistics._CACHED == 1 << 19
    assert calibration._MAX_SELECTED == 8


@pytest.mark.long
@pytest.mark.parametrize("size", AROUND_THE_SAMPLE)
def test_around_the_sample(size):
    rng = np.random.default_rng(size)
    assert count_cells(size, rng, repeats=8) >= 800
    assert count_cells(size, rng, repeats=8, broken=True, masked=True) >= 800


@pytest.mark.long
@pytest.mark.parametrize("size", few_by_default([33, 1], 1))
def test_short_rows(size):
    rng = np.random.default_rng(size)
    assert count_cells(size, rng, num=8, repeats=4, broken=True, masked=True) >= 400
    assert count_cells(size, rng, num=9, repeats=4, broken=True, masked=True) >= 400


@pytest.mark.long
@pytest.mark.parametrize("num", [8, 9])
def test_around_the_number_of_ranks_that_is_sorted(num):
    rng = np.random.default_rng(num)
    assert count_cells(200, rng, num=num, repeats=2) >= 100
    assert count_cells(200, rng, num=num, repeats=2, masked=True) >= 100


@pytest.mark.long
def test_a_row_that_leaves_the_cache_is_read_in_more_parts(monkeypatch):
    monkeypatch.setattr(order_statistics, "_CACHED", SAMPLED)
    assert count_cells(SAMPLED, np.random.default_rng(3), repeats=3, broken=True) >= 300


@pytest.mark.parametrize("num", few_by_default([8, 9], 1))
def test_halves(num):
    rng = np.random.default_rng(num)
    assert count_cells(300, rng, num=num, repeats=3, dtype=np.float16, broken=True) >= 300


@pytest.mark.long
@pytest.mark.parametrize("num", [8, 9])
def test_doubles(num):
    rng = np.random.default_rng(num)
    with jax.enable_x64(True):
        assert count_cells(300, rng, num=num, repeats=3, dtype=np.float64, masked=True) >= 300


@pytest.mark.long
def test_the_sample_is_not_believed_where_it_misses_by_one():
    """As many entries as the rank less one are up to the largest value that the sample suggests."""
    size, few = SAMPLED, 700
    value = np.ones(size, np.float32)
    value[::STRIDE] = 0  # all that the sample sees
    value[1 : 2 * few : 2] = 0
    num = int((value == 0).sum())
    at = order_statistics.select(jnp.asarray(value), None, None, jnp.int32(num + 1))[0]
    assert float(at) == 1
    # And the same from below.
    at = order_statistics.select(jnp.asarray(1 - value), None, None, jnp.int32(size - num))[0]
    assert float(at) == 0


# The last that is selected and the first that is sorted; those before as well in CI.
@pytest.mark.parametrize("num_alphas", few_by_default([8, 9, *range(1, 8)]))
def test_every_number_of_alphas(num_alphas, transform):
    size, rng = 100, np.random.default_rng(num_alphas)
    alphas = [(i + 1) / (num_alphas + 1) for i in range(num_alphas)]
    value = rows(size, rng)["5 levels"]
    tie = rng.integers(0, 2, size).astype(np.uint32)
    ranks = np.array([size - int(a * (size + 1) + 1e-9) + 1 for a in alphas])
    reference = expected(value, tie, np.ones(size, bool), ranks)
    got = transform(lambda v, t: calibrate(TieBroken(v, t), alphas))(value, tie)
    np.testing.assert_array_equal(got.value, reference[0])
    np.testing.assert_array_equal(got.tie, reference[1])


def test_a_traced_alpha_never_allows_a_miss_more_than_its_decimal_does():
    """A million queries and levels of six digits: alpha (n + 1) is below a whole number by 1e-6."""
    rng = np.random.default_rng(0)
    millionths = rng.integers(1, 10**6, 200_000)
    n = rng.integers(10**6 - 1000, 10**6 + 1000, 200_000)
    # Near a whole number from below, where a slack that is too small rounds up.
    close = (millionths * (n + 1)) % 10**6 > 10**6 - 2000
    millionths, n = millionths[close], n[close]
    exact = n - ((millionths * (n + 1)) // 10**6 - 1)
    alpha = jnp.asarray((millionths / 10**6).astype(np.float32))
    rank = np.asarray(
        jax.jit(jax.vmap(lambda a, n: miss_ranks._traced_rank(a[None], n[None])))(
            alpha, jnp.asarray(n, jnp.int32)
        )
    )[:, 0]
    assert close.sum() > 300
    assert (rank >= exact).all()
    assert (rank <= exact + 2).all()


# --- the slow suite -------------------------------------------------------------------------------

POWERS = sorted({size for k in range(1, 21) for size in (2**k - 1, 2**k, 2**k + 1)})


@pytest.mark.slow
@pytest.mark.parametrize("size", POWERS)
def test_around_every_power_of_two(size):
    rng = np.random.default_rng(size)
    repeats = 12 if size < 2**15 else 2
    cells = count_cells(size, rng, repeats=repeats)
    cells += count_cells(size, rng, repeats=repeats, broken=True, masked=True)
    cells += count_cells(size, rng, num=9, repeats=repeats, broken=True, masked=True)
    # 46 sizes below 2**15 and 15 above: 150,000 cells in all.
    assert cells >= (3000 if size < 2**15 else 600)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2**k + j for k in (10, 14, 17) for j in (-1, 0, 1)])
def test_halves_and_doubles_around_powers_of_two(size):
    rng = np.random.default_rng(size)
    assert count_cells(size, rng, repeats=4, dtype=np.float16, broken=True, masked=True) >= 400
    with jax.enable_x64(True):
        assert count_cells(size, rng, repeats=4, dtype=np.float64, broken=True, masked=True) >= 400
