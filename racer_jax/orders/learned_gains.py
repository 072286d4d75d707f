r"""RACER-J with learned gains.

The static order of a group, each model's gain learned from the query.

Which model comes second is a matter of the pool and hardly of the query; how much the second still
adds to the first is not. So the order stays static, m_1, m_2, ..., and the router learns the
position J(x) of the first model in it that is right (the last class: none is):

  p_j(x) = P(J = j | x) = softmax_j(b + W x)
  gain of m_j = p_j(x)
  E(x, m_j) = 1 - min_(i <= j) p_i(x)

One multinomial logistic regression a group, shrunk by a ridge towards the shares of the training
rows: with an infinite ridge it is the static order itself. The problem is convex; no key, no
epochs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._programs import run_small
from racer_jax.core.host_threads import one_blas_thread
from racer_jax.core.nonconformity import NullMode, check_null, null_nonconformity
from racer_jax.orders.coverage_gain import static_order
from racer_jax.orders.racer_j import as_codes, group_codes
from racer_jax.routers.base import check_embeddings, check_training

_MAX_ITERATIONS = 200


@jax.jit
def _loss(
    weights: jax.Array, x: jax.Array, position: jax.Array, log_prior: jax.Array, ridge: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Penalised mean negative log-likelihood of the positions, and its gradient.

    Weights `[d + 1, m + 1]`.

    The last row belongs to a column of ones and is free of the penalty.
    """

    def loss(weights: jax.Array) -> jax.Array:
        log_law = jax.nn.log_softmax(log_prior[None] + jnp.matmul(x, weights, precision="highest"))
        likelihood = jnp.take_along_axis(log_law, position[:, None], axis=1).mean()
        return 0.5 * ridge / len(x) * jnp.square(weights[:-1]).sum() - likelihood

    return jax.value_and_grad(loss)(weights)


def first_right(correct: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Position in the order of the first model that is right, m where none is; int32 `[n]`.

    Use this when a learned order needs its targets.
    """
    columns = correct[:, order]
    return np.asarray(
        np.where(columns.any(axis=1), columns.argmax(axis=1), columns.shape[1]), np.int32
    )


def _fit_group(x: np.ndarray, correct: np.ndarray, ridge: float) -> tuple[np.ndarray, ...]:
    """Order `[m]`, weights `[d, m + 1]` and biases `[m + 1]` of one group."""
    from scipy.optimize import minimize  # takes half a second to import

    num_models = correct.shape[1]
    order = np.argsort(np.asarray(static_order(correct))[:-1], kind="stable")
    position = first_right(correct, order)
    share = np.bincount(position, minlength=num_models + 1) + 0.5  # no class without a chance
    log_prior = np.log(share / share.sum())
    mean = x.mean(axis=0)
    design = jnp.asarray(np.hstack([x - mean, np.ones((len(x), 1), np.float32)]))
    shape = (x.shape[1] + 1, num_models + 1)
    arguments = (
        design,
        jnp.asarray(position),
        jnp.asarray(log_prior, jnp.float32),
        jnp.float32(ridge),
    )

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _loss(jnp.asarray(flat.reshape(shape), jnp.float32), *arguments)
        return float(value), np.asarray(gradient, np.float64).ravel()

    with one_blas_thread():
        solution = minimize(
            objective,
            np.zeros(shape).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _MAX_ITERATIONS},
        )
    weights, intercept = np.split(solution.x.reshape(shape), [-1])
    return order, weights, log_prior + intercept[0] - mean @ weights


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("order", "weights", "bias"),
    meta_fields=("groups", "ridge"),
)
@dataclass(frozen=True)
class LearnedGains:
    """RACER-J with learned gains; it gives nonconformity, not scores.

    Attributes:
      order: The static order of each group, int32 `[g, m]`; one row where there are no groups.
      weights: float32 `[g, d, m + 1]`.
      bias: float32 `[g, m + 1]`.
      groups: Names of the groups, `[g]`; None where there are none.
      ridge: The penalty it was fitted with.

    Use this when the query's embedding says how many models of its group's order it needs; `RacerJ`
    also changes the order with the query, and `StaticOrder` uses the group alone.
    """

    order: jax.Array
    weights: jax.Array
    bias: jax.Array
    groups: tuple[str, ...] | None
    ridge: float

    @classmethod
    def fit(
        cls,
        embeddings: ArrayLike,
        correct: ArrayLike,
        *,
        groups: Sequence[str] | None = None,
        ridge: float = 8.0,
    ) -> "LearnedGains":
        """Fits one regression for each group, on the host; deterministic.

        Use this when you have labelled training rows with embeddings; calibrate on other rows.

        Args:
          embeddings: Floating `[n, d]`, columns of comparable scale.
          correct: Whether each model got each query right, bool or 0/1 `[n, m]`.
          groups: Name of the group of each query, `[n]`.
          ridge: Penalty on the squared weights, in units of one row's log-likelihood, above 0. The
            default was chosen by cross-validation over training rows of four benchmarks, for
            embeddings of length 1.

        Raises:
          TypeError: If embeddings are not floating, or `correct` neither boolean nor numeric.
          ValueError: If shapes do not fit, a value is not finite or not 0/1, or the ridge is not
            positive.
        """
        x, right = check_training(embeddings, correct)
        if not 0 < ridge < float("inf"):
            raise ValueError(f"ridge must be positive and finite, got {ridge}")
        names, codes = as_codes(groups, x.shape[0])
        rows, labels = np.asarray(x, np.float32), np.asarray(right)
        fits = [
            _fit_group(rows[codes == g], labels[codes == g], ridge) for g in range(codes.max() + 1)
        ]
        order, weights, bias = (np.stack(part) for part in zip(*fits, strict=True))
        return cls(
            jnp.asarray(order, jnp.int32),
            jnp.asarray(weights, jnp.float32),
            jnp.asarray(bias, jnp.float32),
            names,
            float(ridge),
        )

    def of_models(self, columns: Sequence[int]) -> "LearnedGains":
        """The gains of some of the models, given that none of the others is the first right one.

        Nothing is fitted anew: the chances of the places that are left are scaled to add up to 1.
        Refitting on the training rows may order the queries better; the promise is the same.

        Use this when a model leaves the pool.

        Args:
          columns: Places of those models in the pool.
        """
        orders, weights, bias = map(np.asarray, (self.order, self.weights, self.bias))
        place = {model: i for i, model in enumerate(columns)}
        places = [
            [i for i, model in enumerate(order) if model in place] for order in orders.tolist()
        ]
        rows = list(zip(orders, places, strict=True))
        new = np.array([[place[model] for model in order[i].tolist()] for order, i in rows])
        last = [orders.shape[1]]
        return replace(
            self,
            order=jnp.asarray(new, jnp.int32),
            weights=jnp.stack([w[:, i + last] for w, i in zip(weights, places, strict=True)]),
            bias=jnp.stack([b[i + last] for b, i in zip(bias, places, strict=True)]),
        )

    def positions(self, embeddings: ArrayLike, groups: Sequence[str] | None = None) -> jax.Array:
        """Chance of each position of the first right model in the order of the query's group.

        Use this when you want the chances themselves, for example to inspect the model; calling the
        model gives nonconformity.

        Args:
          embeddings: Floating `[n, d]`.
          groups: Name of the group of each query, `[n]`; with, and only with, a model that was
            fitted with groups.

        Returns:
          float32 `[n, m + 1]`; the last column is the chance that no model is right.

        Raises:
          TypeError: If embeddings are not floating.
          ValueError: If shapes do not fit, a value is not finite, or a group was not among the
            training rows.
        """
        queries = check_embeddings("embeddings", embeddings, self.weights.shape[1])
        codes = group_codes(groups, self.groups, queries.shape[0])
        law: jax.Array = _positions(self, queries, codes)
        return law

    def __call__(
        self, embeddings: ArrayLike, groups: Sequence[str] | None = None, null: NullMode = "free"
    ) -> jax.Array:
        """Nonconformity of queries.

        Use this when you want what `critical_scores` and `prediction_sets` take.

        Args:
          embeddings: Floating `[n, d]`.
          groups: Name of the group of each query, `[n]`; with, and only with, a model that was
            fitted with groups.
          null: The null mode; under `"paper"` the null model scores 1 - P(m_1 is right).

        Returns:
          float32 `[n, m + 1]`, null model last.

        Raises:
          TypeError: If embeddings are not floating.
          ValueError: If shapes do not fit, a value is not finite, a group was not among the
            training rows, or the null mode is unknown.
        """
        check_null(null)
        queries = check_embeddings("embeddings", embeddings, self.weights.shape[1])
        codes = group_codes(groups, self.groups, queries.shape[0])
        args, packages = (self, queries, codes), ("core", "orders")
        result: jax.Array = run_small(_nonconformity, args, {"null": null}, packages=packages)
        return result


@jax.jit
def _positions(model: LearnedGains, queries: jax.Array, codes: jax.Array) -> jax.Array:
    num_groups, dim, num_classes = model.weights.shape
    flat = jnp.moveaxis(model.weights, 0, 1).reshape(dim, num_groups * num_classes)
    logits = jnp.matmul(queries.astype(jnp.float32), flat, precision="highest").reshape(
        -1, num_groups, num_classes
    )
    group_logits = jnp.take_along_axis(logits, codes[:, None, None], axis=1)[:, 0]
    return jax.nn.softmax(group_logits + model.bias[codes])


@partial(jax.jit, static_argnames="null")
def _nonconformity(
    model: LearnedGains, queries: jax.Array, codes: jax.Array, null: str
) -> jax.Array:
    gains = _positions(model, queries, codes)[:, :-1]
    along = jax.lax.cummax(1 - gains, axis=1)
    place = jnp.argsort(model.order, axis=1)[codes]  # of each model in the order
    real = jnp.take_along_axis(along, place, axis=1)
    return jnp.concatenate([real, null_nonconformity(gains[:, :1], null)], axis=1)
