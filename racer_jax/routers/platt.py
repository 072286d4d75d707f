r"""Platt scaling: scores made into probabilities after the fact, on validation data only.

Each model has a slope a and an intercept b, fitted by maximum likelihood:

  P(model m is right | x) = sigmoid(a_m logit(s(x, m)) + b_m).

The targets are Platt's, (N+ + 1) / (N+ + 2) and 1 / (N- + 2), so that a model that is always right
on the validation data, or never, gets a finite answer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import as_binary, check_scores
from racer_jax.encoders.base import Parts, Read, Save, array_of
from racer_jax.routers.base import Router

# Scores of exactly 0 or 1, which a k-NN router gives, have no logit; they are read as this far
# inside.
_MARGIN = 1e-3
# Pulls the slope to 1, by so much as this many queries would: it decides where the scores do not
# vary.
_RIDGE = 1e-2
_NUM_STEPS = 50
_Carry: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]


def _logit(scores: jax.Array) -> jax.Array:
    inside = jnp.clip(scores.astype(jnp.float32), _MARGIN, 1 - _MARGIN)
    return jnp.log(inside) - jnp.log1p(-inside)


@jax.jit
def _fit_one(z: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Slope and intercept of one model, by damped Newton steps.

    `z` logits and `y` booleans, `[n]`.
    """
    positives, n = y.sum(), y.shape[0]
    target = jnp.where(y, (positives + 1) / (positives + 2), 1 / (n - positives + 2))
    centre = z.mean()
    z = z - centre

    def loss(a: jax.Array, b: jax.Array) -> jax.Array:
        logits = a * z + b
        return (jax.nn.softplus(logits) - target * logits).sum() + 0.5 * _RIDGE * (a - 1) ** 2

    def step(carry: _Carry, _: None) -> tuple[_Carry, None]:
        a, b, damping = carry
        p = jax.nn.sigmoid(a * z + b)
        ga, gb = ((p - target) * z).sum() + _RIDGE * (a - 1), (p - target).sum()
        w = p * (1 - p)
        haa, hab, hbb = (w * z * z).sum() + _RIDGE + damping, (w * z).sum(), w.sum() + damping
        determinant = haa * hbb - hab * hab
        new_a, new_b = (
            a - (hbb * ga - hab * gb) / determinant,
            b - (haa * gb - hab * ga) / determinant,
        )
        better = loss(new_a, new_b) <= loss(a, b)
        damping = jnp.where(better, damping / 10, damping * 10 + 1e-3)
        return (jnp.where(better, new_a, a), jnp.where(better, new_b, b), damping), None

    begin = (jnp.float32(1), jnp.float32(0), jnp.float32(1e-3))
    (a, b, _), _ = lax.scan(step, begin, length=_NUM_STEPS)
    return a, b - a * centre


@partial(jax.tree_util.register_dataclass, data_fields=("slope", "intercept"), meta_fields=())
@dataclass(frozen=True)
class Platt:
    """Fitted slopes and intercepts.

    Use this when you want to calibrate scores that you hold as an array; `PlattScaled` joins it to
    a router.

    Attributes:
      slope: a, float32 `[m]`.
      intercept: b, float32 `[m]`.
    """

    slope: jax.Array
    intercept: jax.Array

    @classmethod
    def fit(cls, scores: ArrayLike, correct: ArrayLike) -> "Platt":
        """Fits them on validation data, which is not used to train, calibrate or test.

        Use this when scores of a router are there with labels of validation queries.

        Args:
          scores: Floating `[n, m]`, in [0, 1].
          correct: Whether each model was right, bool or 0/1 `[n, m]`.

        Raises:
          TypeError: If an array is of the wrong kind.
          ValueError: If the shapes do not fit or a value is out of range.

        References:
          Platt, "Probabilistic outputs for support vector machines", 1999.
        """
        scores, right = jnp.asarray(given("scores", scores)), as_binary("correct", correct)
        check_scores(scores)
        if scores.ndim != 2 or scores.shape != right.shape or scores.shape[0] < 1:
            raise ValueError(
                f"scores and correct must have the same shape [n, m] with n >= 1, got "
                f"{scores.shape} and {right.shape}"
            )
        return cls(*jax.vmap(_fit_one, in_axes=1)(_logit(scores), right))

    def __call__(self, scores: ArrayLike) -> jax.Array:
        """Calibrated scores, float32 `[n, m]`, of scores `[n, m]`.

        Raises:
          TypeError: If they are not floating.
          ValueError: If they are of another pool, or out of range.
        """
        scores = jnp.asarray(given("scores", scores))
        check_scores(scores)
        if scores.ndim != 2 or scores.shape[1] != self.slope.shape[0]:
            raise ValueError(
                f"scores must have shape [n, {self.slope.shape[0]}], got {scores.shape}"
            )
        return jax.nn.sigmoid(self.slope[None] * _logit(scores) + self.intercept[None])


@dataclass(frozen=True)
class PlattScaled:
    """A router whose scores are calibrated.

    Use this when a router's scores shall be probabilities, as votes weighted by log odds need them,
    and some queries besides the training ones are at hand.

    Attributes:
      router: The router.
      platt: Its calibration.
    """

    router: Router
    platt: Platt

    def __call__(self, embeddings: ArrayLike) -> jax.Array:
        """Scores s(x, m), float32 `[n, m]`, of embeddings `[n, d]`."""
        return self.platt(self.router(embeddings))

    def as_pure(self, pure_router: Callable[[Any], Any]) -> tuple[Any, Any] | None:
        """The router as a pure function of its arrays and embeddings, and its arrays.

        Use this when the router is compiled together with an encoder.
        """
        pure = pure_router(self.router)
        if pure is None:
            return None
        function, arrays = pure
        return lambda both, x: both[1](function(both[0], x)), (arrays, self.platt)

    def to_parts(self, prefix: str, save: Save) -> Parts:
        """The router in pieces, with the one whose scores are calibrated.

        Use this when you store the router in a format of your own; `Racer.save` does so for you.
        """
        inner, arrays = save(self.router, f"{prefix}.inner")
        coefficients = {
            f"{prefix}.slope": np.asarray(self.platt.slope),
            f"{prefix}.intercept": np.asarray(self.platt.intercept),
        }
        return {"kind": "platt", "router": inner}, {**arrays, **coefficients}

    @classmethod
    def from_parts(
        cls,
        description: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        prefix: str,
        read: Read,
    ) -> "PlattScaled":
        """The router of `to_parts`. Use this when you read what `to_parts` gave."""
        slope, intercept = (array_of(arrays, f"{prefix}.{name}") for name in ("slope", "intercept"))
        inner = read(description["router"], f"{prefix}.inner")
        return cls(inner, Platt(jnp.asarray(slope), jnp.asarray(intercept)))
