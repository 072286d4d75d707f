"""Totals counted where they are; `test_streams_of_known_trials` sums streams of them."""

import jax.numpy as jnp
import numpy as np

from racer_jax.montecarlo import value_counts


def test_the_first_totals_of_each_row_are_counted():
    totals = np.array([[5, 7, 5, 100], [-3, -3, 0, -90]], np.int32)
    counts = value_counts.value_counts(jnp.asarray(totals), jnp.int32(3), width=4)
    np.testing.assert_array_equal(counts.least, [5, -3])
    np.testing.assert_array_equal(counts.most, [7, 0])
    np.testing.assert_array_equal(counts.times, [[2, 0, 1, 0], [2, 0, 0, 1]])
    assert counts.fits()
    assert not value_counts.value_counts(jnp.asarray(totals), jnp.int32(3), width=3).fits()
    assert not value_counts.value_counts(jnp.asarray(totals), jnp.int32(4), width=95).fits()
    assert value_counts.value_counts(jnp.asarray(totals), jnp.int32(4), width=96).fits()
