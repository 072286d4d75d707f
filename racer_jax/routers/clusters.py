"""Clusters of queries.

K-means on their embeddings, seeded by k-means++ and improved by Lloyd's steps.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax.core.keys import check_key
from racer_jax.encoders.arithmetic import inner_products
from racer_jax.routers.base import check_embeddings

# Runs from independent starts, of which the best is kept, and Lloyd's steps of each at most.
_NUM_STARTS = 8
_MAX_STEPS = 300


def cluster_queries(key: jax.Array, embeddings: ArrayLike, num_clusters: int = 5) -> np.ndarray:
    """Clusters of queries by k-means on their embeddings; deterministic for a key.

    The best of eight starts, each seeded by greedy k-means++ (Arthur and Vassilvitskii 2007) and
    improved until no query changes its cluster. Use this when RouterDC's sample-sample loss needs
    clusters and the queries have no known topics.

    Args:
      key: A typed PRNG key.
      embeddings: Floating `[n, d]`.
      num_clusters: Clusters, at most n. Fewer are used where fewer rows differ.

    Returns:
      int32 `[n]`, in [0, num_clusters).

    Raises:
      TypeError: If embeddings are not floating.
      ValueError: If their shape does not fit, a value is not finite, or there are fewer queries
        than clusters.
    """
    check_key(key)
    embeddings = check_embeddings("embeddings", embeddings)
    if not 1 <= num_clusters <= embeddings.shape[0]:
        raise ValueError(
            f"num_clusters must be between 1 and the {embeddings.shape[0]} queries, got "
            f"{num_clusters}"
        )
    return np.asarray(_best_clusters(key, embeddings.astype(jnp.float32), num_clusters))


@partial(jax.jit, static_argnames="num_clusters")
def _best_clusters(key: jax.Array, points: jax.Array, num_clusters: int) -> jax.Array:
    """Labels of the start with the smallest inertia."""
    # Distances are differences of squared norms: they lose least where the mean is zero.
    points = points - points.mean(axis=0, keepdims=True)
    # One start after another: under vmap all would step until the slowest has converged.
    labels, inertia = lax.map(
        lambda start: _lloyd(points, _plus_plus(start, points, num_clusters)),
        jax.random.split(key, _NUM_STARTS),
    )
    best: jax.Array = labels[jnp.argmin(inertia)]
    return best


def _squared_distances(points: jax.Array, centres: jax.Array) -> jax.Array:
    """`[n, k]`, never below zero."""
    products = inner_products(points, centres)
    norms = (points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)[None]
    return jnp.maximum(norms - 2 * products, 0)


def _plus_plus(key: jax.Array, points: jax.Array, num_clusters: int) -> jax.Array:
    """Greedy k-means++: of a few rows drawn by squared distance, the one that lowers the sum most.

    Returns:
      Centres, rows of `points`, `[k, d]`.
    """
    num = points.shape[0]
    num_candidates = 2 + int(np.log(num_clusters))  # as in scikit-learn
    first_key, rest_key = jax.random.split(key)
    first = points[jax.random.randint(first_key, (), 0, num)]

    def add(nearest: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows = jax.random.categorical(key, jnp.log(nearest), shape=(num_candidates,))
        distances = jnp.minimum(_squared_distances(points, points[rows]), nearest[:, None])
        best = jnp.argmin(distances.sum(axis=0))
        return distances[:, best], points[rows[best]]

    nearest = _squared_distances(points, first[None])[:, 0]
    _, others = lax.scan(add, nearest, jax.random.split(rest_key, num_clusters - 1))
    return jnp.concatenate([first[None], others])


class _State(NamedTuple):
    """Where Lloyd's steps stand: centres `[k, d]`, labels `[n]`, whether any label has changed."""

    centres: jax.Array
    labels: jax.Array
    changed: jax.Array
    num_steps: jax.Array


def _lloyd(points: jax.Array, centres: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Labels `[n]` and inertia once no label changes, or after `_MAX_STEPS`."""

    def step(state: _State) -> _State:
        distances = _squared_distances(points, state.centres)
        labels = jnp.argmin(distances, axis=1).astype(jnp.int32)
        any_change = (labels != state.labels).any()
        centres = _means(points, labels, distances.min(axis=1), state.centres.shape[0])
        return _State(centres, labels, any_change, state.num_steps + 1)

    start = _State(centres, jnp.full(points.shape[0], -1, jnp.int32), jnp.array(True), jnp.array(0))
    end = lax.while_loop(lambda state: state.changed & (state.num_steps < _MAX_STEPS), step, start)
    offsets = points - end.centres[end.labels]
    return end.labels, (offsets**2).sum()


def _means(
    points: jax.Array, labels: jax.Array, nearest: jax.Array, num_clusters: int
) -> jax.Array:
    """The mean of every cluster, `[k, d]`; an empty one moves to one of the farthest points."""
    members = jax.nn.one_hot(labels, num_clusters, dtype=points.dtype)
    sizes = members.sum(axis=0)
    sums = jnp.matmul(members.T, points, precision=lax.Precision.HIGHEST)
    empty = sizes == 0
    # The first empty cluster takes the farthest point, the second the next, and so on.
    farthest = points[lax.top_k(nearest, num_clusters)[1]]
    places = jnp.maximum(jnp.cumsum(empty) - 1, 0)
    return jnp.where(empty[:, None], farthest[places], sums / jnp.maximum(sizes, 1)[:, None])
