"""An MLPR as it is read from disk: its scores, bit for bit, without the import of Flax."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax.encoders.arithmetic import add_row, dense
from racer_jax.encoders.base import Arrays, Parts, Read, Save, array_of
from racer_jax.routers.base import check_embeddings


@dataclass(frozen=True, eq=False)
class ServedMLP:
    """A trained multilayer perceptron router that is used and not trained further.

    Use this when scores are all you want: an artefact that holds an MLPR gives one of these, which
    saves the half second that Flax takes to import. `MLPR.from_parts` gives the Flax module.

    Attributes:
      description: What `MLPR.to_parts` says of it.
      arrays: Its arrays, by their names within the router.
    """

    description: Mapping[str, Any]
    arrays: Arrays

    def to_parts(self, prefix: str, save: Save) -> Parts:
        """The router in pieces, those of the MLPR."""
        arrays = {f"{prefix}.{name}": array for name, array in self.arrays.items()}
        return dict(self.description), arrays

    @classmethod
    def from_parts(
        cls,
        description: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        prefix: str,
        read: Read,
    ) -> "ServedMLP":
        """The router of `MLPR.to_parts`, or of this class's.

        Raises:
          PartsError: If an array is missing or of another shape.
        """
        dim, num_models = int(description["dim"]), int(description["num_models"])
        hidden = [int(width) for width in description["hidden"]]
        shapes: dict[str, tuple[int, ...]] = {"mean": (dim,), "scale": (dim,)}
        for i, (rows, columns) in enumerate(pairwise([dim, *hidden, num_models])):
            shapes |= {f"layers.{i}.kernel": (rows, columns), f"layers.{i}.bias": (columns,)}
        own = {name: array_of(arrays, f"{prefix}.{name}", shape) for name, shape in shapes.items()}
        kept: dict[str, Any] = {
            "kind": "mlp",
            "dim": dim,
            "num_models": num_models,
            "hidden": hidden,
            "dropout": float(description["dropout"]),
        }
        return cls(kept, own)

    def as_pure(self, pure_router: Any) -> tuple[Callable[[Any, jax.Array], jax.Array], Any]:
        """A pure function of arrays and embeddings `[n, d]` to scores, and the arrays."""
        return _scores, self.arrays

    def __call__(self, embeddings: ArrayLike) -> jax.Array:
        """Scores s(x, m), the probability that model m is right.

        Args:
          embeddings: Floating `[n, d]`.

        Returns:
          float32 `[n, m]`, in [0, 1].

        Raises:
          TypeError: If embeddings are not floating.
          ValueError: If the shape does not fit, or a value is not finite.
        """
        dim = self.description["dim"]
        return _scores(self.arrays, check_embeddings("embeddings", embeddings, dim))


def _scores(arrays: Mapping[str, Any], embeddings: jax.Array) -> jax.Array:
    """What `MLPR.__call__` computes, operation by operation."""
    mean, scale = jnp.asarray(arrays["mean"]), jnp.asarray(arrays["scale"])
    x = (embeddings.astype(jnp.float32) - mean[None]) * scale[None]
    num_layers = sum(name.endswith(".kernel") for name in arrays)
    for i in range(num_layers):
        x = jax.nn.relu(x) if i else x
        kernel, bias = (jnp.asarray(arrays[f"layers.{i}.{part}"]) for part in ("kernel", "bias"))
        x = add_row(dense(x, kernel), bias)
    return jax.nn.sigmoid(x)
