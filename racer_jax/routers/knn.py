r"""KNNR: a model's score is the share of the k nearest training queries it got right.

Distance is cosine. The k-th largest similarity is the bar, and the rows above it enter as weights
of one matrix product with `correct`. The similarities exist for one block of queries at a time,
never as an n x n matrix.

Ties. Rows whose similarity equals the k-th one up to 1e-6 (the rounding of a float32
inner product) share the remaining votes equally: the score is its mean over all ways to break the
tie. So it depends neither on the order of the training rows nor on the size of the blocks, and
duplicated training queries need no special care.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax.core.order_statistics import counts
from racer_jax.encoders.arithmetic import inner_products
from racer_jax.encoders.base import Parts, Read, Save, array_of
from racer_jax.routers.base import check_embeddings, check_training

TIE_TOLERANCE = 1e-6


def unit_rows(embeddings: jax.Array) -> jax.Array:
    """The rows scaled to length 1, in float32.

    A zero row stays zero, at similarity 0 to everything.

    Use this when cosines are computed by a matrix product.
    """
    embeddings = embeddings.astype(jnp.float32)
    # Scaling by the largest entry first keeps the squares of very large and very small rows finite.
    largest = jnp.abs(embeddings).max(axis=-1, keepdims=True)
    embeddings = embeddings / jnp.where(largest > 0, largest, 1)
    norms = jnp.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / jnp.where(norms > 0, norms, 1)


def _weights(similarities: jax.Array, k: int) -> jax.Array:
    """Votes of each training row, `[b, n]`, k in all: 1 for the nearest, equal shares for ties."""
    # The smallest of the k, not the last: XLA turns a slice of top_k into a sort of the whole row,
    # 90 times slower.
    kth = lax.top_k(similarities, k)[0].min(axis=1, keepdims=True)
    above, at_least = similarities > kth + TIE_TOLERANCE, similarities >= kth - TIE_TOLERANCE
    # What is tied follows from two counts; as a third it makes them quick.
    num_above, _, num_tied = counts([above, at_least, at_least & ~above], (1,))
    share = (k - num_above).astype(jnp.float32) / num_tied.astype(jnp.float32)
    return jnp.where(above, 1, jnp.where(at_least, share[:, None], 0))


@partial(jax.jit, static_argnames="k")
def _neighbor_weights(queries: jax.Array, train: jax.Array, k: int) -> jax.Array:
    weights: jax.Array = _weights(inner_products(unit_rows(queries), unit_rows(train)), k)
    return weights / k


def neighbor_weights(queries: ArrayLike, train: ArrayLike, k: int) -> jax.Array:
    """Weights W(x) over the training rows: 1 / k on each of the k nearest, ties sharing equally.

    It handles one block of queries: the result is as large as the similarities, so call it block by
    block.

    Use this when you want to see which training queries a `KNNR` relies on for a query.

    Args:
      queries: Embeddings, floating `[b, d]`.
      train: Embeddings of the training queries, floating `[n, d]`.
      k: Number of neighbours, between 1 and n.

    Returns:
      float32 `[b, n]`, non-negative, rows sum to 1.

    Raises:
      TypeError: If an array is not floating.
      ValueError: If the shapes do not fit, or k is not between 1 and n.

    >>> neighbor_weights(jnp.eye(2), jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]), k=2).tolist()
    [[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]]
    """
    train = check_embeddings("train", train)
    queries = check_embeddings("queries", queries, train.shape[1])
    _check_k(k, train.shape[0])
    weights: jax.Array = _neighbor_weights(queries, train, k)
    return weights


@partial(jax.jit, static_argnames=("k", "block_size"))
def _scores(
    queries: jax.Array, train: jax.Array, correct: jax.Array, k: int, block_size: int
) -> jax.Array:
    def block(queries: jax.Array) -> jax.Array:
        votes = jnp.matmul(
            _weights(inner_products(unit_rows(queries), train), k), correct, precision="highest"
        )
        return jnp.clip(votes / k, 0, 1)

    n, d = queries.shape
    num_blocks = -(-n // block_size)
    blocks = jnp.pad(queries, ((0, num_blocks * block_size - n), (0, 0)))
    scores: jax.Array = lax.map(block, blocks.reshape(num_blocks, block_size, d))
    return scores.reshape(num_blocks * block_size, -1)[:n]


def _check_k(k: int, n: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k must be an integer, got {k!r} of type {type(k).__name__}")
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the number of training rows, {n}, got {k}")


@partial(jax.jit, static_argnames="k")
def _held_out_losses(
    queries: jax.Array,
    rows: jax.Array,
    train: jax.Array,
    correct: jax.Array,
    targets: jax.Array,
    k: int,
) -> jax.Array:
    """Log-loss of each query, itself left out of its neighbours, `[b]`.

    `rows` are the places of the queries.
    """
    near = inner_products(queries, train)
    near = jnp.where(rows[:, None] == jnp.arange(train.shape[0])[None, :], -jnp.inf, near)
    right = jnp.matmul(_weights(near, k), correct, precision="highest")
    # no score of 0 or 1, which a single surprise would make infinitely wrong
    p = (right + 0.5) / (k + 1)
    return -(targets * jnp.log(p) + (1 - targets) * jnp.log1p(-p)).mean(axis=1)


def choose_neighbors(embeddings: ArrayLike, correct: ArrayLike, *, block_size: int = 512) -> int:
    """Chooses the number of neighbours k from the training queries alone.

    The candidates are 25, 50, 100, ... below the number of training queries. The choice is the
    largest k whose leave-one-out log-loss is within one standard error of the best; it is the
    standard error of the paired differences, query by query. Scores from few neighbours are noisy,
    and the noise changes the order of the models, which makes votes worse; so the smoothest router
    that the data do not contradict is taken.

    Use this when you do not know a good `k` for `KNNR.fit`.

    Args:
      embeddings: Embeddings of the training queries, one row a question, floating `[n, d]`.
      correct: Whether each model got each query right, bool or 0/1 `[n, m]`.
      block_size: Queries held out at once, at least 1.

    Returns:
      k; it is n - 1, all other queries, where there are 25 queries or fewer.

    Raises:
      TypeError: If embeddings are not floating, or `correct` neither boolean nor numeric.
      ValueError: If the shapes do not fit, there are fewer than two queries, a value is not finite
        or not 0/1, or `block_size` is less than 1.

    >>> import numpy as np
    >>> topic = np.repeat(np.arange(4), 30)  # four topics of 30 queries, one model for each
    >>> angle = topic * np.pi / 2
    >>> choose_neighbors(np.stack([np.cos(angle), np.sin(angle)], 1), np.eye(4)[topic])
    25
    """
    embeddings, correct = check_training(embeddings, correct)
    num = embeddings.shape[0]
    if num < 2:
        raise ValueError(f"embeddings must hold at least two queries to leave one out, got {num}")
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    candidates = [k for k in (25 * 2**i for i in range(num.bit_length())) if k < num]
    if len(candidates) < 2:
        return candidates[0] if candidates else num - 1
    train, labels = unit_rows(embeddings), correct.astype(jnp.float32)
    blocks = [np.arange(start, min(start + block_size, num)) for start in range(0, num, block_size)]
    losses = [
        np.concatenate(
            [_held_out_losses(train[rows], rows, train, labels, labels[rows], k) for rows in blocks]
        )
        for k in candidates
    ]
    behind = np.array(losses) - min(losses, key=np.mean)
    error = behind.std(axis=1, ddof=1) / np.sqrt(num)
    return int(candidates[np.flatnonzero(behind.mean(axis=1) <= error)[-1]])


@dataclass(frozen=True)
class KNNConfig:
    """How a KNNR is built.

    Use this when `fit` or `Racer.fit` shall build a k-nearest-neighbour router with a k of your
    choice.

    Attributes:
      k: Number of neighbours.
      block_size: Queries scored at once.
    """

    k: int = 100
    block_size: int = 512


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("train", "correct"),
    meta_fields=("k", "block_size"),
)
@dataclass(frozen=True)
class KNNR:
    """The k-nearest-neighbour router.

    Use this when you want a router that needs no training; `MLPR` and `RouterDC` are trained.

    Attributes:
      train: Embeddings of the training queries, scaled to length 1, float32 `[n, d]`.
      correct: Whether each model got each training query right, 0 or 1, float32 `[n, m]`.
      k: Number of neighbours.
      block_size: Queries scored at once; the similarities take `block_size * n` floats.

    >>> router = KNNR.fit(jnp.eye(3), jnp.array([[1, 0], [1, 1], [0, 1]]), k=2)
    >>> router(jnp.array([[1.0, 0.5, 0.0]])).tolist()
    [[1.0, 0.5]]
    """

    train: jax.Array
    correct: jax.Array
    k: int = 100
    block_size: int = 512

    @classmethod
    def fit(
        cls, embeddings: ArrayLike, correct: ArrayLike, k: int = 100, block_size: int = 512
    ) -> "KNNR":
        """Keeps the training queries; there is nothing to learn.

        Use this when embeddings and labels are there; `fit` takes texts.

        Args:
          embeddings: Floating `[n, d]`.
          correct: Whether each model got each query right, bool or 0/1 `[n, m]`.
          k: Number of neighbours, between 1 and n.
          block_size: Queries scored at once, at least 1.

        Raises:
          TypeError: If embeddings are not floating, `correct` neither boolean nor numeric, or k not
            an integer.
          ValueError: If the shapes do not fit, a value is not finite or not 0/1, or k is not
            between 1 and n.
        """
        embeddings, correct = check_training(embeddings, correct)
        _check_k(k, embeddings.shape[0])
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1, got {block_size}")
        return cls(unit_rows(embeddings), correct.astype(jnp.float32), k, block_size)

    def as_pure(self, pure_router: Callable[[Any], Any]) -> tuple[Any, "KNNR"]:
        """The router as a pure function of its arrays and embeddings, and its arrays.

        Use this when the router is compiled together with an encoder.
        """
        return lambda router, x: router(x), self

    def to_parts(self, prefix: str, save: Save) -> Parts:
        """The router in pieces.

        Use this when you store the router in a format of your own; `Racer.save` does so for you.
        """
        arrays = {
            f"{prefix}.train": np.asarray(self.train),
            # Labels are 0 or 1: a byte each.
            f"{prefix}.correct": np.asarray(self.correct, np.uint8),
        }
        return {"kind": "knn", "k": self.k, "block_size": self.block_size}, arrays

    @classmethod
    def from_parts(
        cls,
        description: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        prefix: str,
        read: Read,
    ) -> "KNNR":
        """The router of `to_parts`. Use this when you read what `to_parts` gave."""
        train, correct = (array_of(arrays, f"{prefix}.{name}") for name in ("train", "correct"))
        labels = jnp.asarray(correct, jnp.float32)
        return cls(
            jnp.asarray(train), labels, int(description["k"]), int(description["block_size"])
        )

    def __call__(self, embeddings: ArrayLike) -> jax.Array:
        """Scores s(x, m), the share of the k nearest training queries model m got right.

        Args:
          embeddings: Floating `[n, d]`.

        Returns:
          float32 `[n, m]`, in [0, 1].

        Raises:
          TypeError: If embeddings are not floating.
          ValueError: If the shape does not fit, or a value is not finite.
        """
        queries = check_embeddings("embeddings", embeddings, self.train.shape[1])
        block_size = min(self.block_size, queries.shape[0])
        scores: jax.Array = _scores(
            queries.astype(jnp.float32), self.train, self.correct, self.k, block_size
        )
        return scores
