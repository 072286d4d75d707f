"""Similarities at, just inside and just outside the tolerance within which rows tie."""

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.routers import knn


def test_rows_tie_up_to_the_tolerance_and_share_what_is_left(monkeypatch):
    assert knn.TIE_TOLERANCE == 1e-6
    step = 2.0**-10
    monkeypatch.setattr(knn, "TIE_TOLERANCE", step)  # a float32, so that the border is a number
    at = np.float32(0.5) + np.float32(step) * np.array([4, 2, 1, 0, -1, -2], np.float32)
    rows = np.stack([at, at[::-1], np.float32([0.5] * 6), np.float32([1, 1, 1, 0.5, 0.5, 0])])
    for k, expected in (
        (4, [1, 1, 2 / 3, 2 / 3, 2 / 3, 0]),  # the fourth is 0 above: 1 and -1 tie with it
        (3, [1, 1 / 3 * 2, 1 / 3 * 2, 1 / 3 * 2, 0, 0]),  # the third is 1 above: 2 and 0 tie
        (1, [1, 0, 0, 0, 0, 0]),
    ):
        weights = np.asarray(jax.jit(knn._weights, static_argnums=1)(jnp.asarray(rows), k))
        np.testing.assert_allclose(weights[0], expected, atol=1e-6)
        np.testing.assert_allclose(weights[1], expected[::-1], atol=1e-6)
        np.testing.assert_allclose(weights[2], k / 6, atol=1e-6)
        np.testing.assert_allclose(weights.sum(axis=1), k, atol=1e-5)
        three = {4: [1, 1, 1, 0.5, 0.5, 0], 3: [1] * 3 + [0] * 3, 1: [1 / 3] * 3 + [0] * 3}
        np.testing.assert_allclose(weights[3], three[k], atol=1e-6)
