"""The soft threshold: its limit, its gradient against differences, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import calibrate, inverse_probability, prediction_sets, set_size
from racer_jax.core import soft_set_size, soft_threshold

pytestmark = pytest.mark.long

N = 39


def scores(seed):
    return jnp.asarray(np.random.default_rng(seed).permutation(N) / N, jnp.float32)


def test_it_tends_to_the_calibrated_threshold():
    critical = scores(0)
    for alpha in (0.1, 0.25, 0.5):
        soft = soft_threshold(critical, alpha, 1e-3)
        assert float(soft) == pytest.approx(float(calibrate(critical, alpha)), abs=1e-3)


def test_the_gradient_is_that_of_the_root():
    critical = scores(1)
    gradient = jax.jit(jax.grad(lambda c: soft_threshold(c, 0.2, 0.05)))(critical)
    assert float(gradient.sum()) == pytest.approx(1, abs=1e-4)
    assert (gradient >= 0).all()
    step = 1e-2
    for i in (0, 5, 17):
        up, down = (soft_threshold(critical.at[i].add(d), 0.2, 0.05) for d in (step, -step))
        assert float(gradient[i]) == pytest.approx(float(up - down) / 2 / step, abs=2e-2)


def test_rows_outside_the_mask_neither_count_nor_have_a_gradient():
    critical = scores(2)
    mask = jnp.arange(N) % 2 == 0
    alone = soft_threshold(critical[::2], 0.2, 0.05)
    masked, gradient = jax.value_and_grad(lambda c: soft_threshold(c, 0.2, 0.05, mask))(critical)
    assert float(masked) == pytest.approx(float(alone), abs=1e-5)
    assert (gradient[1::2] == 0).all()
    batch = jax.vmap(lambda m: soft_threshold(critical, 0.2, 0.05, m))(jnp.stack([mask, ~mask]))
    assert batch.shape == (2,)


def test_a_soft_size_tends_to_the_size():
    entries = inverse_probability(jnp.asarray(np.random.default_rng(3).random((20, 4))))
    soft = soft_set_size(entries, 0.5, 1e-4)
    np.testing.assert_allclose(soft, set_size(prediction_sets(entries, 0.5)), atol=1e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: soft_threshold(c, 0.01, 0.1), r"at least 1 / \(n \+ 1\) = 0.025, got 0.01"),
        (lambda c: soft_threshold(c, 2.0, 0.1), r"alpha must be in \(0, 1\)"),
        (lambda c: soft_threshold(c, 0.1, 0.0), "temperature must be above 0"),
        (lambda c: soft_threshold(c * jnp.nan, 0.1, 0.1), "must not be NaN"),
        (lambda c: soft_set_size(c, 0.1, 0.0), "temperature must be above 0"),
    ],
)
def test_errors_say_what_would_be_right(call, message):
    with pytest.raises(ValueError, match=message):
        call(scores(0))
