r"""RACER-J for black-box routers.

Marginal scores s(x, m) become a joint law, and that marginal coverage gains.

A score matrix says how likely each model is right, not how the models cover each other; the
training rows do. Two joint laws with the router's marginals:

- tilt: the law of the training patterns, b(y), fitted to the scores: q_x(y) proportional to b(y)
  exp(t . y), with t such that the marginals of q_x are s(x, .). Of all laws with these marginals it
  is the closest to b in the sense of Kullback and Leibler. All 2^m patterns are listed, so m is at
  most 12.
- factor: any number of models; right or wrong independently given one latent easiness z ~ N(0, 1),
  P(y_m = 1 | z) = sigmoid(b_m(x) + sigma_m z), with b_m(x) such that the marginals are s(x, .).

Learn the base law and the loadings from training rows alone: calibration rows must have no part in
them.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import check_floating, check_scores, is_traced
from racer_jax.core.host_threads import one_blas_thread
from racer_jax.core.nonconformity import NullMode, check_null
from racer_jax.orders.coverage_gain import (
    block_size,
    check_training_rows,
    discounts,
    gains_under,
    greedy,
)

MAX_TILTED = 12
# A marginal of 0 or 1 would take an infinite tilt.
_CLIP = 0.005
_NUM_NEWTON = 12
# Step lengths tried along Newton's direction; the best is taken.
_STEPS = (1.0, 0.5, 0.2, 0.04)
_NUM_NODES = 21
_NUM_HALVINGS = 30
_MAX_LOADING = 8.0


class PatternLaw(NamedTuple):
    """A law over all the patterns of right and wrong.

    Attributes:
      patterns: 0 or 1, float32 `[2^m, m]`.
      probability: float32 `[2^m]`, positive, with sum 1.

    Use this when you call `tilt` or `tilted`, which take the law that `pattern_law` learns.
    """

    patterns: jax.Array
    probability: jax.Array


def pattern_law(correct: ArrayLike, smoothing: float = 50.0) -> PatternLaw:
    r"""The base law of `tilted`: b(y) = (count of y + smoothing * p(y)) / (n + smoothing).

    p is the product law of the models' accuracies, which gives every pattern some chance.

    Args:
      correct: Whether each model got each training query right, bool or 0/1 `[n, m]`, m at most
        12.
      smoothing: How many rows p counts for, above 0.

    Returns:
      The patterns of right and wrong, and the chance of each.

    Raises:
      TypeError: If `correct` is neither boolean nor numeric.
      ValueError: If it is not 0/1 `[n, m]`, there are too many models, or the smoothing is not
        positive and finite.

    Use this when you learn the base law once from training rows, for every call of `tilt` on that
    pool.

    >>> float(pattern_law([[1, 0], [1, 1]]).probability.sum())
    1.0
    """
    rows = np.asarray(check_training_rows(correct))
    num, num_models = rows.shape
    if num_models > MAX_TILTED:
        raise ValueError(
            f"correct must have at most {MAX_TILTED} models, since the law lists all 2^m patterns, "
            f"got {num_models}; "
            f"use factor, which takes any number"
        )
    if not 0 < smoothing < float("inf"):
        raise ValueError(f"smoothing must be positive and finite, got {smoothing}")
    place = 1 << np.arange(num_models)
    patterns = (np.arange(1 << num_models)[:, None] & place) > 0
    counts = np.bincount(rows @ place, minlength=len(patterns))
    accuracy = np.clip(rows.mean(axis=0), _CLIP, 1 - _CLIP)
    product = np.where(patterns, accuracy, 1 - accuracy).prod(axis=1)
    law = (counts + smoothing * product) / (num + smoothing)
    return PatternLaw(jnp.asarray(patterns, jnp.float32), jnp.asarray(law, jnp.float32))


def _tilt(scores: jax.Array, patterns: jax.Array, log_base: jax.Array) -> jax.Array:
    """The tilted law `[2^m]` of one query, by Newton's method on the convex log Z(t) - t . s."""
    target = jnp.clip(scores, _CLIP, 1 - _CLIP)
    num_models = len(target)
    eye = jnp.eye(num_models, dtype=target.dtype)

    def excess(t: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(log_base + patterns @ t) - t @ target

    def newton(_: int, t: jax.Array) -> jax.Array:
        law = jax.nn.softmax(log_base + patterns @ t)
        mean = law @ patterns
        covariance = (patterns.T * law[None]) @ patterns - jnp.outer(mean, mean)
        direction = jnp.linalg.solve(covariance + 1e-6 * eye, target - mean)
        candidates = t[None] + jnp.asarray(_STEPS)[:, None] * direction[None]
        best: jax.Array = candidates[jnp.argmin(jax.vmap(excess)(candidates))]
        return best

    base = jnp.clip(jnp.exp(log_base) @ patterns, 1e-6, 1 - 1e-6)
    start = jax.scipy.special.logit(target) - jax.scipy.special.logit(base)
    return jax.nn.softmax(log_base + patterns @ lax.fori_loop(0, _NUM_NEWTON, newton, start))


@jax.jit
def _tilted(scores: jax.Array, law: PatternLaw) -> jax.Array:
    log_base = jnp.log(law.probability)
    result: jax.Array = lax.map(
        lambda s: _tilt(s, law.patterns, log_base), scores, batch_size=block_size(law.patterns.size)
    )
    return result


def _flat(scores: ArrayLike) -> tuple[jax.Array, tuple[int, ...]]:
    scores = jnp.asarray(given("scores", scores))
    check_scores(scores)
    return scores.astype(jnp.float32).reshape(-1, scores.shape[-1]), scores.shape


def tilted(scores: ArrayLike, law: PatternLaw) -> jax.Array:
    r"""The law of the patterns of each query.

    q_x(y) is proportional to b(y) exp(t . y), with t such that its marginals are s(x, .).

    Args:
      scores: Router scores s(x, m), floating `[..., m]`; clipped to [.005, .995].
      law: Base law b of the training rows, from `pattern_law`.

    Returns:
      float32 `[..., 2^m]`, in the order of `law.patterns`; rows sum to 1.

    Raises:
      TypeError: If `scores` is not floating.
      ValueError: If a score is not finite or outside [0, 1], or the number of models is not that of
        the law.

    Use this when you want the joint law itself, such as the chance that two models are both wrong;
    `tilt` goes on to nonconformity.
    """
    flat, shape = _flat(scores)
    if shape[-1] != law.patterns.shape[1]:
        raise ValueError(
            f"scores must have {law.patterns.shape[1]} models, as the law has, got {shape[-1]}"
        )
    result: jax.Array = _tilted(flat, law)
    return result.reshape(*shape[:-1], -1)


def tilt(
    scores: ArrayLike,
    law: PatternLaw,
    null: NullMode = "free",
    *,
    cost: ArrayLike | None = None,
    gamma: float = 0.5,
) -> jax.Array:
    """RACER-J by tilt: coverage gains under the training law, tilted to a router's scores.

    Args:
      scores: Router scores s(x, m), floating `[..., m]`; clipped to [.005, .995].
      law: Base law of the training rows, from `pattern_law`.
      null: The null mode.
      cost: As in `coverage_gain`.
      gamma: As in `coverage_gain`.

    Returns:
      Nonconformity `[..., m + 1]`, null model last, float32.

    Raises:
      TypeError: If `scores` is not floating, or costs are not numeric.
      ValueError: If a score is not finite or outside [0, 1], the number of models is not that of
        the law, a cost is missing, not above 0 or infinite, or the null mode is unknown.

    Use this when your router gives scores only and the pool has at most 12 models;
    `factor` takes any number, and `RacerJ` needs embeddings in the place of scores.

    >>> law = pattern_law([[1, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1]], smoothing=0.1)
    >>> # The third model covers what the first leaves.
    >>> tilt(jnp.array([0.5, 0.45, 0.4]), law)[:3].argsort().tolist()
    [0, 2, 1]
    """
    check_null(null)
    discount = discounts(cost, gamma, law.patterns.shape[1])
    return gains_under(tilted(scores, law), law.patterns, discount, null)


def _nodes() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Hermite nodes and weights of N(0, 1), float32 `[z]`."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NUM_NODES)
    return nodes.astype(np.float32), (weights / weights.sum()).astype(np.float32)


def _logits(scores: jax.Array, loadings: jax.Array) -> jax.Array:
    """b_m + sigma_m z at each node, `[z, m]`.

    b is such that the marginals are the scores `[m]`.
    """
    nodes, weights = _nodes()
    slope = nodes[:, None] * loadings[None]
    target = jnp.clip(scores, _CLIP, 1 - _CLIP)

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        below = weights @ jax.nn.sigmoid(middle[None] + slope) < target
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    wide = jnp.full(target.shape, 8 * _MAX_LOADING, target.dtype)
    low, high = lax.fori_loop(0, _NUM_HALVINGS, halve, (-wide, wide))
    logits: jax.Array = 0.5 * (low + high)[None] + slope
    return logits


@partial(jax.jit, static_argnames="null")
def _factored(scores: jax.Array, loadings: jax.Array, discount: jax.Array, null: str) -> jax.Array:
    weights = jnp.asarray(_nodes()[1])

    def one(query: tuple[jax.Array, jax.Array]) -> jax.Array:
        return greedy(weights, jax.nn.sigmoid(_logits(query[0], loadings)), query[1], null)

    result: jax.Array = lax.map(
        one, (scores, discount), batch_size=block_size(_NUM_NODES * loadings.size)
    )
    return result


def factor(
    scores: ArrayLike,
    loadings: ArrayLike,
    null: NullMode = "free",
    *,
    cost: ArrayLike | None = None,
    gamma: float = 0.5,
) -> jax.Array:
    """RACER-J by one latent factor.

    Coverage gains of a black-box router's scores, for any number of models.

    Args:
      scores: Router scores s(x, m), floating `[..., m]`; clipped to [.005, .995].
      loadings: sigma_m, how much each model depends on the common easiness of a query, `[m]`; from
        `fit_loadings`. Zeros make the models independent.
      null: The null mode.
      cost: As in `coverage_gain`.
      gamma: As in `coverage_gain`.

    Returns:
      Nonconformity `[..., m + 1]`, null model last, float32.

    Raises:
      TypeError: If scores or loadings are not floating, or costs are not numeric.
      ValueError: If a score is not finite or outside [0, 1], the loadings are not `[m]` and within
        [-8, 8], a cost is missing, not above 0 or infinite, or the null mode is unknown.

    Use this when your router gives scores only and the pool has more than 12 models;
    for smaller pools `tilt` uses the whole law of the training patterns.

    >>> # Independent models: 1 - .5, 1 - .5 * .4.
    >>> factor(jnp.array([0.5, 0.4]), jnp.zeros(2)).round(3).tolist()
    [0.5, 0.800000011920929, -inf]
    """
    check_null(null)
    flat, shape = _flat(scores)
    loadings = jnp.asarray(loadings)
    check_floating("loadings", loadings)
    if loadings.shape != shape[-1:]:
        raise ValueError(
            f"loadings must have shape {shape[-1:]}, one for each model, got {loadings.shape}"
        )
    if not is_traced(loadings) and not bool((jnp.abs(loadings) <= _MAX_LOADING).all()):
        raise ValueError(
            f"loadings must be finite and within [-{_MAX_LOADING:g}, {_MAX_LOADING:g}]"
        )
    discount = discounts(cost, gamma, shape[-1])
    batch = jnp.broadcast_shapes(shape[:-1], discount.shape[:-1])
    flat = jnp.broadcast_to(flat.reshape(shape), (*batch, shape[-1])).reshape(-1, shape[-1])
    discount = jnp.broadcast_to(discount, (*batch, shape[-1])).reshape(-1, shape[-1])
    result: jax.Array = _factored(flat, loadings.astype(jnp.float32), discount, null)
    return result.reshape(*batch, -1)


@jax.jit
def _factor_loss(loadings: jax.Array, scores: jax.Array, correct: jax.Array) -> jax.Array:
    """Mean negative log-likelihood of the patterns given the marginals."""
    nodes, weights = _nodes()

    def one(s: jax.Array, right: jax.Array) -> jax.Array:
        logits = lax.stop_gradient(_logits(s, loadings))
        # One Newton step from the solution changes nothing but carries the gradient of b through
        # the loadings.
        logits = logits + nodes[:, None] * (loadings - lax.stop_gradient(loadings))[None]
        chance = jax.nn.sigmoid(logits)
        slope = lax.stop_gradient(weights @ (chance * (1 - chance)))
        logits = logits - ((weights @ chance - lax.stop_gradient(weights @ chance)) / slope)[None]
        log_likelihood = jnp.where(
            right[None], jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        ).sum(axis=-1)
        return jax.nn.logsumexp(log_likelihood, b=weights)

    return -jax.vmap(one)(scores, correct).mean()


def fit_loadings(scores: ArrayLike, correct: ArrayLike) -> jax.Array:
    """Loadings of `factor`, by maximum likelihood of the training patterns.

    Runs on the host. Scores must be out of fold: scores of rows that the router was fitted on are
    too close to 0 and 1, and leave nothing for the common factor to explain.

    Args:
      scores: Out-of-fold scores of the training queries, floating `[n, m]` in [0, 1].
      correct: Whether each model got each of them right, bool or 0/1 `[n, m]`.

    Returns:
      sigma, float32 `[m]`, within [-8, 8]; its sign is such that the sum is not negative.

    Raises:
      TypeError: If `scores` is not floating, or `correct` neither boolean nor numeric.
      ValueError: If the shapes do not fit, or a value is out of range.

    Use this when you have out-of-fold scores of the training queries and need the loadings that
    `factor` takes.
    """
    from scipy.optimize import minimize  # takes half a second to import

    right = check_training_rows(correct)
    flat, shape = _flat(scores)
    if shape != right.shape:
        raise ValueError(f"scores must have the shape of correct, {right.shape}, got {shape}")
    value_and_grad = jax.value_and_grad(_factor_loss)

    def objective(loadings: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = value_and_grad(jnp.asarray(loadings, jnp.float32), flat, right)
        return float(value), np.asarray(gradient, np.float64)

    start = np.ones(shape[1])
    with one_blas_thread():
        solution = minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(-_MAX_LOADING, _MAX_LOADING)] * shape[1],
        )
    loadings = jnp.asarray(solution.x, jnp.float32)
    return loadings * jnp.where(loadings.sum() < 0, -1, 1)
