"""Encoders made of others.

A truncated SVD fitted on the training texts, and several encoders side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.encoders.base import Encoder
from racer_jax.encoders.hashing import HashedNgrams

# The range of the matrix is found from this many more random directions than are kept, over this
# many passes.
_OVERSAMPLING = 32
_NUM_PASSES = 2


@partial(jax.jit, static_argnames="dim")
def right_singular_vectors(key: jax.Array, x: jax.Array, dim: int) -> jax.Array:
    """The leading right singular vectors of a matrix, by randomised subspace iteration.

    Args:
      key: A typed PRNG key.
      x: float32 `[n, d]`.
      dim: How many, at most the smaller side of the matrix.

    Returns:
      float32 `[d, dim]`, orthonormal columns, largest singular value first.

    References:
      Halko, Martinsson and Tropp, "Finding structure with randomness", 2011, Algorithms 4.4 and
      5.1.
    """
    product = partial(jnp.matmul, precision="highest")
    width = min(dim + _OVERSAMPLING, *x.shape)
    basis = jnp.linalg.qr(product(x, jax.random.normal(key, (x.shape[1], width))))[0]
    for _ in range(_NUM_PASSES):
        basis = jnp.linalg.qr(product(x.T, basis))[0]
        basis = jnp.linalg.qr(product(x, basis))[0]
    # The SVD of a tall matrix by that of its small triangular factor.
    tall, triangle = jnp.linalg.qr(product(x.T, basis))
    vectors = product(tall, jnp.linalg.svd(triangle)[0])
    return vectors[:, :dim]


@dataclass(frozen=True, eq=False)
class ReducedEncoder:
    """An encoder followed by a projection, its vectors scaled to length 1.

    Attributes:
      encoder: The encoder that comes first.
      weights: How much each of its columns counts, float32 `[d]`.
      projection: float32 `[d, dim]`.
    """

    encoder: Encoder
    weights: np.ndarray
    projection: np.ndarray

    @classmethod
    def fit(
        cls, key: jax.Array, texts: Sequence[str], dim: int = 256, encoder: Encoder | None = None
    ) -> "ReducedEncoder":
        """Fits the projection: a truncated SVD of the training texts' vectors.

        Columns are first weighted by their inverse document frequency, log((1 + n) / (1 + f)), f
        the number of texts in which a column is not zero.

        Args:
          key: A typed PRNG key.
          texts: The training texts.
          dim: Columns kept; fewer where there are fewer texts.
          encoder: What comes first; hashed n-grams where None.

        Raises:
          TypeError: If `texts` is a single string, or holds anything but strings.
          ValueError: If `dim` is below 1, `texts` is empty, or a text is empty or only white space.
        """
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        encoder = encoder or HashedNgrams()
        x = encoder.encode(texts)
        frequency = (x != 0).sum(axis=0)
        weights = np.log((1 + len(x)) / (1 + frequency)).astype(np.float32)
        weighted = _unit(x * weights[None])
        projection = right_singular_vectors(key, jnp.asarray(weighted), min(dim, *x.shape))
        return cls(encoder, weights, np.asarray(projection))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of the texts, float32 `[n, dim]`, of length 1.

        Zero for a text that shares nothing.
        """
        return _unit(_unit(self.encoder.encode(texts) * self.weights[None]) @ self.projection)


def _unit(x: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norms > 0, norms, 1), np.float32)


@dataclass(frozen=True)
class JoinedEncoder:
    """Several encoders side by side.

    The cosine of joined vectors is the mean of the cosines where lengths are 1.

    Attributes:
      encoders: At least one.

    Raises:
      ValueError: If there is none.
    """

    encoders: tuple[Encoder, ...]

    def __post_init__(self) -> None:
        if not self.encoders:
            raise ValueError("encoders must hold at least one encoder, got none")

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of the texts, float32 `[n, sum of the encoders' dimensions]`."""
        return np.concatenate([encoder.encode(texts) for encoder in self.encoders], axis=1)
