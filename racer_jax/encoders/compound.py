"""Encoders made of others.

A truncated SVD fitted on the training texts, and several encoders side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.encoders.base import Encoder, Parts, Read, Save, Stages, array_of
from racer_jax.encoders.hashing import HashedNgrams

# The range of the matrix is found from this many more random directions than are kept, over this
# many passes.
_OVERSAMPLING = 32
_NUM_PASSES = 2
# A projection is fitted to this many texts at most, and more are encoded in parts: their vectors
# before the projection, of thousands of columns, would fill gigabytes.
_MOST_TEXTS = 20_000
# From this many texts on, SciPy's sparse product is worth its import.
_MANY_TEXTS = 64


@partial(jax.jit, static_argnames="dim")
def right_singular_vectors(key: jax.Array, x: jax.Array, dim: int) -> jax.Array:
    """The leading right singular vectors of a matrix, by randomised subspace iteration.

    Use this when a sparse matrix is too large for an exact decomposition.

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

    Use this when the vectors of an encoder are long, as those of `HashedNgrams` are, and training
    texts are at hand; make one with `fit`.

    Attributes:
      encoder: The encoder that comes first.
      weights: Weight of each of its columns, float32 `[d]`.
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
        the number of texts in which a column is not zero. Of more than 20,000 texts so many are
        drawn at random.

        Use this when training texts are at hand; `encode` then serves any texts.

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
        if not isinstance(texts, str) and len(texts) > _MOST_TEXTS:
            key, draw = jax.random.split(key)
            rows = jax.random.choice(draw, len(texts), (_MOST_TEXTS,), replace=False)
            texts = [texts[row] for row in np.sort(np.asarray(rows)).tolist()]
        x = encoder.encode(texts)
        frequency = (x != 0).sum(axis=0)
        weights = np.log((1 + len(x)) / (1 + frequency)).astype(np.float32)
        weighted = _unit(x * weights[None])
        projection = right_singular_vectors(key, jnp.asarray(weighted), min(dim, *x.shape))
        return cls(encoder, weights, np.asarray(projection))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of the texts, float32 `[n, dim]`, of length 1.

        The zero vector for a text that has no column in common with the training texts.

        Use this when you need vectors of texts.
        """
        if not isinstance(texts, str) and len(texts) > _MOST_TEXTS:
            starts = range(0, len(texts), _MOST_TEXTS)
            parts = [self.encode(texts[start : start + _MOST_TEXTS]) for start in starts]
            return np.concatenate(parts)
        return _unit(_unit(self.encoder.encode(texts) * self.weights[None]) @ self.projection)

    def stages(self) -> Stages:
        """`encode` in two steps.

        What is done on the host, and what can be compiled with a router.

        Use this when the encoder is compiled together with a router.
        """
        if isinstance(self.encoder, HashedNgrams):
            return Stages(_sparse_ngrams(self, self.encoder))
        return Stages(self.encoder.encode, (self.weights, self.projection), _reduced)

    def to_parts(self, prefix: str, save: Save) -> Parts:
        """The encoder in pieces, with the one that comes first.

        Use this when you store the encoder in a format of your own; `Racer.save` does so for you.
        """
        inner, arrays = save(self.encoder, f"{prefix}.inner")
        fit_arrays = {f"{prefix}.weights": self.weights, f"{prefix}.projection": self.projection}
        return {"kind": "reduced", "encoder": inner}, {**arrays, **fit_arrays}

    @classmethod
    def from_parts(
        cls,
        description: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        prefix: str,
        read: Read,
    ) -> "ReducedEncoder":
        """The encoder of `to_parts`. Use this when you read what `to_parts` gave."""
        inner = read(description["encoder"], f"{prefix}.inner")
        weights, projection = (
            array_of(arrays, f"{prefix}.{name}") for name in ("weights", "projection")
        )
        return cls(inner, weights, projection)


def _sparse_ngrams(
    encoder: ReducedEncoder, ngrams: HashedNgrams
) -> Callable[[Sequence[str]], np.ndarray]:
    """`encoder.encode`, up to rounding, for hashed n-grams.

    A text has some hundred of the thousands of buckets, so only their rows of the projection are
    added up. SciPy's sparse product does it for many texts; for a few, text by text is as fast and
    spares the fifth of a second that SciPy takes to import. Both add in the same order, so their
    results are equal bit for bit. (BLAS would share so small a product among threads.)

    Args:
      encoder: A reduced encoder of hashed n-grams.
      ngrams: Its first encoder.

    Returns:
      A function of texts, as checked by `check_texts`.
    """
    projection = np.ascontiguousarray(
        np.asarray(encoder.weights)[:, None] * np.asarray(encoder.projection), np.float32
    )

    def encode(texts: Sequence[str]) -> np.ndarray:
        places, counts = ngrams.sparse_counts(texts)
        # Lengths along the way do not matter: the last step scales to length 1.
        values = counts.astype(np.float32)
        values = np.copysign(np.sqrt(np.abs(values)), values)
        if len(texts) == 1:  # as a server has them: places are columns
            reduced = _few_rows(values, places, np.array([0, len(places)]), projection)
        else:
            starts = np.searchsorted(places, np.arange(len(texts) + 1) * ngrams.dim)
            columns = places % places.dtype.type(ngrams.dim)
            product = _few_rows if len(texts) < _MANY_TEXTS else _many_rows
            reduced = product(values, columns, starts, projection)
        norms = np.sqrt(np.einsum("nd,nd->n", reduced, reduced))[:, None]
        norms[norms == 0] = 1
        return np.asarray(reduced / norms, np.float32)

    return encode


def _few_rows(
    values: np.ndarray, columns: np.ndarray, starts: np.ndarray, projection: np.ndarray
) -> np.ndarray:
    """A sparse matrix `[n, d]`, row i from `starts[i]` on, times `projection`, row by row."""
    reduced = np.empty((len(starts) - 1, projection.shape[1]), np.float32)
    for i, (first, last) in enumerate(pairwise(starts.tolist())):
        rows = projection.take(columns[first:last], axis=0)
        np.einsum("k,kd->d", values[first:last], rows, out=reduced[i])
    return reduced


def _many_rows(
    values: np.ndarray, columns: np.ndarray, starts: np.ndarray, projection: np.ndarray
) -> np.ndarray:
    """The same by SciPy."""
    from scipy.sparse import csr_array  # takes a fifth of a second to import

    shape = (len(starts) - 1, len(projection))
    rows = csr_array((values, columns.astype(np.int32), starts.astype(np.int32)), shape=shape)
    return np.asarray(rows @ projection)


def _reduced(arrays: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    """What `ReducedEncoder.encode` does after its first encoder."""
    weights, projection = arrays

    def unit(x: jax.Array) -> jax.Array:
        norms = jnp.linalg.norm(x, axis=1, keepdims=True)
        return x / jnp.where(norms > 0, norms, 1)

    return unit(jnp.matmul(unit(x * weights[None]), projection, precision="highest"))


def _unit(x: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norms > 0, norms, 1), np.float32)


@dataclass(frozen=True)
class JoinedEncoder:
    """Several encoders side by side.

    The cosine of joined vectors is the mean of the cosines where lengths are 1.

    Use this when a router shall see what several encoders show, such as `HashedNgrams` and
    `SurfaceEncoder`.

    Attributes:
      encoders: The encoders, at least one; their vectors stand in this order.

    Raises:
      ValueError: If there is none.
    """

    encoders: tuple[Encoder, ...]

    def __post_init__(self) -> None:
        if not self.encoders:
            raise ValueError("encoders must hold at least one encoder, got none")

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of the texts, float32 `[n, sum of the encoders' dimensions]`.

        Use this when you need vectors of texts.
        """
        return np.concatenate([encoder.encode(texts) for encoder in self.encoders], axis=1)

    def to_parts(self, prefix: str, save: Save) -> Parts:
        """The encoders in pieces.

        Use this when you store the encoder in a format of your own; `Racer.save` does so for you.
        """
        parts = [save(encoder, f"{prefix}.{i}") for i, encoder in enumerate(self.encoders)]
        arrays = {name: array for _, inner in parts for name, array in inner.items()}
        return {"kind": "joined", "encoders": [description for description, _ in parts]}, arrays

    @classmethod
    def from_parts(
        cls,
        description: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        prefix: str,
        read: Read,
    ) -> "JoinedEncoder":
        """The encoder of `to_parts`. Use this when you read what `to_parts` gave."""
        inner = description["encoders"]
        return cls(tuple(read(part, f"{prefix}.{i}") for i, part in enumerate(inner)))
