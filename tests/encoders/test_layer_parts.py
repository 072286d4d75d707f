"""The parts of an encoder layer whose derivative or random bits are written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.encoders.arithmetic import (
    add_row,
    dense,
    drop,
    dropout,
    dropout_words,
    times_row,
)

pytestmark = pytest.mark.long


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("ours", "plain"), [(add_row, jnp.add), (times_row, jnp.multiply)])
def test_rows_have_the_gradients_of_plain_arithmetic(ours, plain, dtype, transform):
    keys = jax.random.split(jax.random.key(0), 3)
    x, weight = jax.random.normal(keys[0], (2, 5, 7), dtype), jax.random.normal(keys[1], (2, 5, 7))
    row = jax.random.normal(keys[2], (7,), dtype)
    loss = lambda op: lambda x, row: (op(x, row).astype(jnp.float32) * weight).sum()  # noqa: E731
    got = transform(jax.grad(loss(ours), argnums=(0, 1)))(x, row)
    exact = [array.astype(jnp.float32) for array in (x, row)]
    expected = jax.grad(loss(lambda x, row: plain(x, row[None, None])), argnums=(0, 1))(*exact)
    # Sums are taken in float32 and rounded once.
    tolerance = 1e-5 if dtype == jnp.float32 else 2.0**-7
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.1, 0.9, 0.3])
def test_dropout_zeroes_at_its_rate_and_keeps_the_mean(rate):
    n = 200_001  # not a whole number of words
    out = np.asarray(dropout(jax.random.key(3), jnp.ones(n), rate))
    values = np.unique(out)
    assert values[0] == 0
    np.testing.assert_allclose(values[1:], [1 / (1 - rate)], rtol=1e-3)
    zeroed = out == 0
    error = 5 * (rate * (1 - rate) / n) ** 0.5
    assert abs(zeroed.mean() - rate) < error
    # Neighbours, and entries a word or a row of words apart, are independent.
    for step in (1, 2, 16, 32, -(-n // 32), -(-n // 16), -(-n // 2)):
        together = (zeroed[step:] & zeroed[:-step]).mean()
        assert abs(together - rate**2) < 2 * error


@pytest.mark.parametrize("rate", [1e-9, 1 - 1e-9])
def test_dropout_at_the_ends_stays_finite(rate):
    assert bool(jnp.isfinite(dropout(jax.random.key(0), jnp.ones((3, 40)), rate)).all())


def test_dropout_is_the_key_s_and_nothing_without_one():
    x = jnp.arange(1.0, 13).reshape(3, 4)
    np.testing.assert_array_equal(
        dropout(jax.random.key(1), x, 0.5), dropout(jax.random.key(1), x, 0.5)
    )
    assert (dropout(jax.random.key(1), x, 0.5) != dropout(jax.random.key(2), x, 0.5)).any()
    np.testing.assert_array_equal(dropout(None, x, 0.5), x)
    np.testing.assert_array_equal(dropout(jax.random.key(1), x, 0.0), x)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_words_drawn_before_drop_the_same_entries(rate):
    x = jnp.ones((5, 13))
    words = dropout_words(jax.random.key(6), x.size, rate)
    np.testing.assert_array_equal(drop(words, x, rate), dropout(jax.random.key(6), x, rate))
    assert words.size == {0.0: 0, 0.1: 33, 0.5: 3}[rate]


@pytest.mark.parametrize("shape", [(3, 5), (40, 7), (40, 33), (1, 1)])
def test_gradients_of_a_product_are_those_of_a_plain_one(shape):
    rng = np.random.default_rng(0)
    x, kernel = jnp.asarray(rng.normal(size=(2, 6, shape[0]))), jnp.asarray(rng.normal(size=shape))
    grads = [
        jax.jit(jax.grad(lambda x, kernel, f=f: jnp.sin(f(x, kernel)).sum(), argnums=(0, 1)))(
            x, kernel
        )
        for f in (
            dense,
            lambda x, kernel: jnp.einsum("abd,df->abf", x, kernel, precision="highest"),
        )
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *grads)
