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


def test_counts_of_a_table_are_those_of_its_totals():
    rng = np.random.default_rng(0)
    low = np.array([-(2**31), 7, 2**31 - 9], np.int32)
    for width, num in ((1, 4), (9, 1), (9, 3), (9, 500)):
        totals = low[:, None].astype(np.int64) + rng.integers(0, width, (3, num))
        table = np.stack([np.bincount(row, minlength=width) for row in totals - low[:, None]])
        counts = value_counts.counts_of_table(low, table)
        np.testing.assert_array_equal(counts.least, totals.min(axis=1))
        np.testing.assert_array_equal(counts.most, totals.max(axis=1))
        assert counts.fits()
        assert counts.times.shape[1] == np.ptp(totals, axis=1).max() + 1
        for row, least, times in zip(totals, counts.least, counts.times, strict=True):
            values = least + np.arange(len(times))
            np.testing.assert_array_equal(times, [(row == value).sum() for value in values])
