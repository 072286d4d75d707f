"""What `calibrate` computes on an accelerator, held against what it computes on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.core.calibration import _at_rank, _each_selected
from racer_jax.core.order_statistics import select_sorted


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_an_accelerator_sorts_where_a_cpu_counts(platform):
    traced = _at_rank.trace(jnp.ones(64), jnp.ones(1, jnp.int32))
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.sort" in program) == (platform != "cpu")
    assert ("stablehlo.while" in program) == (platform == "cpu")


@pytest.mark.long  # the default tests hold either way against NumPy
def test_both_ways_give_the_same_bits():
    rng = np.random.default_rng(0)
    specials = np.array([-np.inf, -1e-45, -0.0, 0.0, 1e-45, 0.5, np.inf], np.float32)
    value = rng.choice(specials, (3, 40))
    tie = rng.integers(2**32 - 3, 2**32, value.shape, dtype=np.uint32)
    mask = rng.random(value.shape) < 0.5
    mask[:, 0] = True
    for kept in (None, mask):
        num = np.full(3, 40) if kept is None else kept.sum(axis=1)
        rank = np.stack([np.ones(3), (num + 1) // 2, num], axis=-1).astype(np.int32)
        for second in (None, tie):
            counted = jax.jit(_each_selected)(value, second, kept, rank)
            ordered = jax.jit(select_sorted)(value, second, kept, rank)
            for a, b in zip(jax.tree.leaves(counted), jax.tree.leaves(ordered), strict=True):
                assert a.dtype == b.dtype
                assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
