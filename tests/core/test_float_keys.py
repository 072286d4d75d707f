"""The integers of floats are in the order of the floats, zeros and subnormal numbers included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.core.float_keys import (
    as_integers,
    common_dtype,
    float_keys,
    from_integers,
    signed_dtype,
    without_sign_of_zero,
)


def numbers(dtype):
    info = np.finfo(dtype)
    positive = [0.0, info.smallest_subnormal, 2 * info.smallest_subnormal, info.tiny, 0.5, 1.0]
    positive += [1 + info.eps, info.max, np.inf]
    return np.array([*(-np.array(positive[::-1], dtype)), *positive], dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_keys_ascend_and_lead_back(dtype):
    values = numbers(dtype)
    keys = np.asarray(as_integers(jnp.asarray(values)))
    assert keys.dtype == signed_dtype(np.dtype(dtype))
    assert (np.diff(keys.astype(np.int64)) > 0).all()  # -0 just below 0
    back = np.asarray(from_integers(jnp.asarray(keys), dtype))
    np.testing.assert_array_equal(back.view(keys.dtype), values.view(keys.dtype))
    assert keys[len(keys) // 2] == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_two_zeros_are_one_and_nothing_else_is(dtype):
    values = numbers(dtype)
    keys = np.asarray(float_keys(jnp.asarray(values))).astype(np.int64)
    steps = np.diff(keys)
    assert (steps == 0).sum() == 1
    assert steps[len(values) // 2 - 1] == 0
    assert (steps >= 0).all()
    cleaned = np.asarray(without_sign_of_zero(jnp.asarray(values)))
    np.testing.assert_array_equal(cleaned, values)
    assert not np.signbit(cleaned[cleaned == 0]).any()
    signs = np.signbit(cleaned) == (values < 0)
    assert signs.all()


def test_unsigned_integers_keep_their_order_too():
    values = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    keys = as_integers(jnp.asarray(values))
    assert (np.diff(np.asarray(keys).astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(from_integers(keys, np.uint32), values)


def test_the_common_dtype_needs_no_implicit_promotion():
    with jax.numpy_dtype_promotion("strict"):
        assert common_dtype(jnp.float16, jnp.float32) == jnp.float32
        assert common_dtype(jnp.bfloat16, jnp.float16) == jnp.float32
