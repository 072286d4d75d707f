r"""The two contrastive losses of RouterDC (Chen et al., "RouterDC", NeurIPS 2024).

Sample-LLM: a query is drawn to the K+ models that answered it best and away from the K- that
answered it worst,

  L(x) = sum over positives p of -log( exp(z_p) / (exp(z_p) + sum over negatives q of exp(z_q)) ),

with z the cosines of query and models over the temperature. Sample-sample: a query is drawn to
another of its cluster and away from H of other clusters, by the same formula over cosines of
queries.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from racer_jax.encoders.arithmetic import inner_products

# In the place of -inf: exp of it is zero, and no gradient becomes NaN.
_NEVER = -1e30


def cosines(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosines of the rows of `a` `[n, d]` with the rows of `b` `[m, d]`, float32 `[n, m]`.

    0 for a zero row.

    Use this when vectors of queries are compared with vectors of models.
    """

    def unit(x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        square = jnp.square(x).sum(axis=-1, keepdims=True)
        # Under the root, so that the gradient of a zero row is zero and not NaN.
        return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))

    return inner_products(unit(a), unit(b))


class Contrast(NamedTuple):
    """Which models pull a query and which push it away.

    Use this when you read what `contrast` returns.

    Attributes:
      positive: bool `[b, m]`.
      negative: bool `[b, m]`.
    """

    positive: jax.Array
    negative: jax.Array


def contrast(
    scores: jax.Array, num_positive: int = 3, num_negative: int = 3, key: jax.Array | None = None
) -> Contrast:
    """The best and the worst models of each query.

    Models with score 0 are never positives, models with a score above 0.5 never negatives.

    Use this when a contrastive loss needs its positive and negative models.

    Args:
      scores: How well each model answered, in [0, 1]; graded or 0/1; floating `[b, m]`.
      num_positive: K+.
      num_negative: K-.
      key: Breaks ties of the scores at random; without a key the earlier model counts as the better
        one.

    Returns:
      The two masks.

    >>> contrast(jnp.array([[0.9, 0.0, 0.6, 0.2]]), 2, 2).negative.tolist()
    [[False, True, False, True]]
    """
    b, m = scores.shape
    if key is None:
        tie = -jnp.broadcast_to(jnp.arange(m, dtype=jnp.float32)[None], (b, m))
    else:
        tie = jax.random.uniform(key, (b, m))
    # The rank of a model by counting those before it: cheaper than a sort for a pool of models.
    before = scores[:, :, None] > scores[:, None, :]
    before |= (scores[:, :, None] == scores[:, None, :]) & (tie[:, :, None] > tie[:, None, :])
    rank = before.sum(axis=1)
    return Contrast(
        positive=(rank < num_positive) & (scores > 0),
        negative=(rank >= m - num_negative) & (scores <= 0.5),
    )


def sample_llm_loss(logits: jax.Array, pairs: Contrast) -> jax.Array:
    """The sample-LLM loss, a mean over the queries.

    Use this when you train a router by the first loss of RouterDC alone.

    Args:
      logits: Cosines over the temperature, `[b, m]`.
      pairs: Masks from `contrast`.

    Returns:
      A float32 scalar.
    """
    push = jax.nn.logsumexp(jnp.where(pairs.negative, logits, _NEVER), axis=-1, keepdims=True)
    losses = jnp.logaddexp(logits, push) - logits
    return jnp.where(pairs.positive, losses, 0).sum(axis=-1).mean()


class Neighbors(NamedTuple):
    """For each query of a batch one other of its cluster, and some of other clusters.

    Use this when you read what `draw_neighbors` returns.

    Attributes:
      positive: int32 `[b]`.
      negative: int32 `[b, h]`.
      valid: bool `[b]`; False where the batch has no other query of the cluster or fewer than h of
        other clusters.
    """

    positive: jax.Array
    negative: jax.Array
    valid: jax.Array


def draw_neighbors(key: jax.Array, clusters: jax.Array, num_negative: int = 3) -> Neighbors:
    """Draws them uniformly, the negatives without replacement.

    Use this when a batch needs partners for the second loss of RouterDC.

    Args:
      key: A typed PRNG key.
      clusters: Cluster of each query of the batch, int `[b]`.
      num_negative: H.

    Returns:
      The draw.
    """
    b = clusters.shape[0]
    same = clusters[:, None] == clusters[None, :]
    partners = same & ~jnp.eye(b, dtype=bool)
    order = jax.random.uniform(key, (b, b))
    positive = jnp.where(partners, order, -1).argmax(axis=1)
    rest = jnp.where(same, -1, order)
    negative = []
    # A few maxima cost far less than a sort.
    for _ in range(num_negative):
        index = rest.argmax(axis=1)
        negative.append(index)
        rest = jnp.where(jnp.arange(b)[None, :] == index[:, None], -1, rest)
    valid = partners.any(axis=1) & ((~same).sum(axis=1) >= num_negative)
    return Neighbors(
        positive.astype(jnp.int32), jnp.stack(negative, axis=1).astype(jnp.int32), valid
    )


def sample_sample_loss(
    hidden: jax.Array, neighbors: Neighbors, temperature: float = 1.0
) -> jax.Array:
    """The sample-sample loss, a mean over the queries that have partners; 0 where none has.

    Use this when you train a router by the second loss of RouterDC alone.

    Args:
      hidden: Vectors of the queries, `[b, d]`.
      neighbors: From `draw_neighbors`.
      temperature: Divides the cosines.

    Returns:
      A float32 scalar.
    """
    similar = cosines(hidden, hidden) / temperature
    columns = jnp.concatenate([neighbors.positive[:, None], neighbors.negative], axis=1)
    similarity = jnp.take_along_axis(similar, columns, axis=1)
    losses = jax.nn.logsumexp(similarity, axis=1) - similarity[:, 0]
    return jnp.where(neighbors.valid, losses, 0).sum() / jnp.maximum(neighbors.valid.sum(), 1)
