"""Order statistics by counting against a sort, on rows long enough that a sample tells where to look."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.core import order_statistics
from racer_jax.core.order_statistics import select, select_sorted

SIZE = 20_000


def rows():
    rng = np.random.default_rng(0)
    uniform = rng.random(SIZE).astype(np.float32)
    misleading = uniform.copy()
    misleading[::64] = -5  # the sample sees nothing else
    tiny = np.full(SIZE, 1e-45, np.float32) * rng.integers(-3, 4, SIZE)
    return {
        "uniform": uniform,
        "sorted": np.sort(uniform),
        "normal": rng.normal(size=SIZE).astype(np.float32) * 1e30,
        "misleading": misleading,
        "constant": np.full(SIZE, -2.5, np.float32),
        "few values": rng.integers(-2, 3, SIZE).astype(np.float32),
        "subnormal": tiny.astype(np.float32),
        "infinite": np.where(
            uniform < 0.3, -np.inf, np.where(uniform < 0.8, np.inf, uniform)
        ).astype(np.float32),
    }


@pytest.mark.long
@pytest.mark.parametrize("masked", [False, True])
def test_select_equals_a_sort(masked):
    value = np.stack(list(rows().values()))
    mask = np.random.default_rng(1).random(value.shape) < 0.5
    mask[1::2, ::64] = False  # of every other row the mask leaves no sample
    tie = np.random.default_rng(2).integers(2**32 - 3, 2**32, value.shape, dtype=np.uint32)
    num = mask.sum(axis=1) if masked else np.full(len(value), SIZE)
    run = jax.jit(
        lambda value, tie, rank: select(value, tie, jnp.asarray(mask) if masked else None, rank)
    )
    for rank in (np.ones_like(num), num // 3, num):
        plain, _ = run(value, None, jnp.asarray(rank, jnp.int32))
        at, second = run(value, jnp.asarray(tie), jnp.asarray(rank, jnp.int32))
        np.testing.assert_array_equal(plain, at)
        for i, name in enumerate(rows()):
            order = np.lexsort((tie[i], value[i]))
            order = order[mask[i, order]] if masked else order
            expected = order[rank[i] - 1]
            assert np.asarray(at)[i].tobytes() == (value[i, expected] + np.float32(0)).tobytes(), (
                name
            )
            assert int(second[i]) == tie[i, expected], name


@pytest.mark.long
@pytest.mark.parametrize("size", [1, 64, 500])
def test_sorted_ranks_under_a_mask(size):
    rng = np.random.default_rng(size)
    value = rng.integers(-4, 5, size).astype(np.float32)
    tie = rng.integers(0, 3, size, dtype=np.uint32)
    num = max(1, size // 2)
    masks = rng.permuted(np.tile(np.arange(size) < num, (4, 1)), axis=1)
    rank = jnp.arange(1, num + 1, dtype=jnp.int32)
    run = jax.jit(
        jax.vmap(
            lambda mask, tie: select_sorted(jnp.asarray(value), tie, mask, rank), in_axes=(0, None)
        )
    )
    at, second = run(masks, jnp.asarray(tie))
    plain, _ = run(masks, None)
    for i, mask in enumerate(masks):
        order = np.lexsort((tie, value))
        order = order[mask[order]]
        np.testing.assert_array_equal(at[i], value[order])
        np.testing.assert_array_equal(second[i], tie[order])
        np.testing.assert_array_equal(plain[i], value[order])


def test_a_row_in_memory_is_read_in_wider_steps(monkeypatch):
    monkeypatch.setattr(order_statistics, "_CACHED", 100)
    value = rows()["normal"]
    got = jax.jit(lambda value, rank: select(value, None, None, rank)[0])(
        value, jnp.int32(SIZE // 5)
    )
    assert float(got) == np.partition(value, SIZE // 5 - 1)[SIZE // 5 - 1]


def test_nothing_as_large_as_the_row_is_kept():
    value = jax.ShapeDtypeStruct((1 << 17,), jnp.float32)
    compiled = (
        jax.jit(lambda value: select(value, None, None, jnp.int32(77))[0]).lower(value).compile()
    )
    assert compiled.memory_analysis().temp_size_in_bytes < (1 << 17)
