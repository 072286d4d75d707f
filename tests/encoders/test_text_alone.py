"""A text alone goes another way than texts together, to the same vector."""

import numpy as np
import pytest

from racer_jax.encoders.compound import ReducedEncoder
from racer_jax.encoders.hashing import HashedNgrams

TEXTS = ["a", "aa aa aa", "What is 2 + 2?", "二加二等于几?", "a long question " * 9]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_alone_has_the_vector_that_it_has_among_others(text):
    ngrams, rng = HashedNgrams(dim=64), np.random.default_rng(0)
    weights = rng.uniform(0.5, 2, 64).astype(np.float32)
    projection = rng.normal(size=(64, 8)).astype(np.float32)
    front = ReducedEncoder(ngrams, weights, projection).stages().front
    (alone,) = front([text])
    np.testing.assert_allclose(alone, front([*TEXTS, text])[-1], rtol=1e-5, atol=1e-6)
    expected = (ngrams.encode([text])[0] * weights) @ projection
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-5)
