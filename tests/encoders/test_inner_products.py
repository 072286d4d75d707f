"""Products of the rows of two matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.encoders.arithmetic import inner_products


@pytest.mark.parametrize("num", [1, 2, 9])
def test_inner_products_are_those_of_numpy(num):
    rng = np.random.default_rng(num)
    a, b = rng.standard_normal((num, 48)), rng.standard_normal((130, 48))
    expected = a @ b.T
    found = jax.jit(inner_products)(jnp.float32(a), jnp.float32(b))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_inner_products_read_the_rows_where_they_lie():
    text = str(jax.make_jaxpr(inner_products)(jnp.ones((1, 8)), jnp.ones((5, 8))))
    assert "dot_general" in text
    assert "transpose" not in text
