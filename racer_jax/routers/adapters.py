"""Routers of a caller's own: a function of embeddings, or what predicts probabilities from them."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.routers.base import Router


@dataclass(frozen=True)
class ProbabilityRouter:
    """What has a method `predict_proba`, such as a fitted scikit-learn classifier, as a router.

    It is fitted on embeddings and the 0/1 matrix `correct`, one column for each model.

    Attributes:
      classifier: It.

    Use this when a router is a scikit-learn classifier or pipeline; `as_router` makes it.
    """

    classifier: Any

    def __call__(self, embeddings: ArrayLike) -> jax.Array:
        """Scores s(x, m), float32 `[n, m]`: the chance of class 1 of each model.

        Raises:
          ValueError: If there is no such chance for each query and model.
        """
        result = self.classifier.predict_proba(np.asarray(embeddings))
        if isinstance(result, list):  # one matrix of classes for each model
            pairs = zip(result, self.classifier.classes_, strict=True)
            result = np.stack([_chance_of_one(*pair) for pair in pairs], axis=1)
        return jnp.asarray(np.asarray(given("the router's scores", result)), jnp.float32)


def _chance_of_one(chances: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The column of class 1; a model that is always right, or never, has one class alone."""
    is_one = np.asarray(classes) == 1
    return np.asarray(np.asarray(chances)[:, is_one].sum(axis=1))


def as_router(part: Any) -> Router:
    """A router of what a caller has: any function of embeddings, or what has `predict_proba`.

    Args:
      part: It.

    Raises:
      TypeError: If it is neither.

    Use this when you pass a router of your own on; `Racer.from_router` does it.
    """
    if hasattr(part, "predict_proba"):
        return ProbabilityRouter(part)
    if callable(part):
        router: Router = part
        return router
    raise TypeError(
        f"a router must be callable with embeddings, or have a method predict_proba, got "
        f"{type(part).__name__}"
    )
