"""The truncated SVD against NumPy's, and encoders side by side."""

import jax
import numpy as np
import pytest

from racer_jax.encoders import Encoder, HashedNgrams, JoinedEncoder, ReducedEncoder, compound
from racer_jax.encoders.compound import right_singular_vectors

TEXTS = [f"{noun} number {i} 火车" for i, noun in enumerate(["train", "car", "ship", "plane"] * 5)]


@pytest.mark.long
def test_right_singular_vectors_equal_numpy():
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, 30)))[0] for n in (90, 70))
    x = ((left * 0.7 ** np.arange(30)) @ right.T).astype(np.float32)
    vectors = np.asarray(right_singular_vectors(jax.random.key(0), x, 5))
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=1e-5)
    # Each singular vector is unique up to its sign.
    np.testing.assert_allclose(np.abs((vectors * right[:, :5]).sum(axis=0)), 1, atol=1e-4)


@pytest.mark.long
def test_reduced_encoder_keeps_the_cosines():
    encoder = HashedNgrams(dim=512)
    reduced = ReducedEncoder.fit(jax.random.key(0), TEXTS, dim=64, encoder=encoder)
    embeddings = reduced.encode(TEXTS)
    assert embeddings.shape == (20, 20)  # no more columns than texts
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    weighted = encoder.encode(TEXTS) * reduced.weights
    weighted /= np.linalg.norm(weighted, axis=1, keepdims=True)
    np.testing.assert_allclose(embeddings @ embeddings.T, weighted @ weighted.T, atol=1e-4)
    np.testing.assert_array_equal(
        ReducedEncoder.fit(jax.random.key(0), TEXTS, 64, encoder).encode(TEXTS), embeddings
    )
    assert isinstance(reduced, Encoder)


def test_joined_encoder():
    a, b = HashedNgrams(dim=64), HashedNgrams(dim=32, sizes=(1,))
    np.testing.assert_array_equal(
        JoinedEncoder((a, b)).encode(TEXTS), np.hstack([a.encode(TEXTS), b.encode(TEXTS)])
    )
    with pytest.raises(ValueError, match="encoders must hold at least one encoder, got none"):
        JoinedEncoder(())


def test_bad_dim():
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        ReducedEncoder.fit(jax.random.key(0), TEXTS, dim=0)


@pytest.mark.long
def test_many_texts_and_few_are_embedded_alike(monkeypatch):
    # SciPy's product for many, row by row for few: on both sides of the number between them, and
    # for a text without any n-gram of the others, the same bits.
    encoder = ReducedEncoder.fit(jax.random.key(0), TEXTS, dim=16, encoder=HashedNgrams(256))
    repeats = compound._MANY_TEXTS // len(TEXTS) + 1
    texts = [*(TEXTS * repeats)[: compound._MANY_TEXTS - 1], "?"]
    front = encoder.stages().front
    many, few = front(texts), front(texts[:-1])
    np.testing.assert_array_equal(many[:-1], few)
    np.testing.assert_array_equal(many[-1:], front(texts[-1:]))
    np.testing.assert_allclose(many, encoder.encode(texts), atol=1e-6)
    seen = []
    monkeypatch.setattr(compound, "_many_rows", lambda *how: seen.append(1) or many)
    front(texts)
    front(texts[:-1])
    assert seen == [1]


class Counting:
    """Hashed n-grams that note how many texts they were asked for at once."""

    def __init__(self):
        self.nums = []

    def encode(self, texts):
        self.nums.append(len(texts))
        return HashedNgrams(64).encode(texts)


@pytest.mark.long
def test_many_texts_are_encoded_in_parts_and_some_of_them_fit(monkeypatch):
    """What a text becomes does not depend on how many others there are."""
    whole = ReducedEncoder.fit(jax.random.key(0), TEXTS, 4, HashedNgrams(64))
    embeddings = whole.encode(TEXTS)
    monkeypatch.setattr(compound, "_MOST_TEXTS", 8)
    counting = Counting()
    some = ReducedEncoder.fit(jax.random.key(0), TEXTS, 4, counting)
    assert counting.nums == [8]
    assert some.projection.shape == whole.projection.shape
    assert some.encode(TEXTS).shape == embeddings.shape
    assert counting.nums == [8, 8, 8, 4]
    np.testing.assert_allclose(whole.encode(TEXTS), embeddings, atol=1e-6)
