"""A router of a pool, for some of its models: their columns of its scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from racer_jax.encoders.base import Parts, Read, Save
from racer_jax.routers.base import Router


@dataclass(frozen=True)
class RestrictedRouter:
    """The scores of some of the models that a router scores.

    Attributes:
      router: The router of the whole pool.
      columns: Places of the models in that pool, in the order they are to have.

    Use this when a model is no longer called and its router shall stay as it is; `of_models` makes
    one.
    """

    router: Router
    columns: tuple[int, ...]

    def __call__(self, embeddings: ArrayLike) -> jax.Array:
        """Scores s(x, m), `[n, m]`, of embeddings `[n, d]`."""
        return self.router(embeddings)[:, np.array(self.columns)]

    def as_pure(self, pure_router: Callable[[Any], Any]) -> tuple[Any, Any] | None:
        """The router as a pure function of its arrays and embeddings, and its arrays.

        Use this when the router is compiled together with what comes before and after it.
        """
        pure = pure_router(self.router)
        if pure is None:
            return None
        function, arrays = pure
        return lambda arrays, x: function(arrays, x)[:, np.array(self.columns)], arrays

    def to_parts(self, prefix: str, save: Save) -> Parts:
        """The router in pieces, with the one of the whole pool.

        Use this when the router is written to disk.
        """
        inner, arrays = save(self.router, f"{prefix}.inner")
        return {"kind": "restricted", "router": inner, "columns": list(self.columns)}, arrays

    @classmethod
    def from_parts(
        cls,
        description: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        prefix: str,
        read: Read,
    ) -> "RestrictedRouter":
        """The router of `to_parts`.

        Use this when the router is read from disk.
        """
        return cls(read(description["router"], f"{prefix}.inner"), tuple(description["columns"]))


def of_models(router: Router, columns: Sequence[int]) -> RestrictedRouter:
    """A router for some of the models it scores; one that is restricted already stays one layer.

    Args:
      router: A router.
      columns: Places of the models among those it scores.

    Use this when some models of the pool are no longer called.
    """
    if isinstance(router, RestrictedRouter):
        return RestrictedRouter(router.router, tuple(router.columns[j] for j in columns))
    return RestrictedRouter(router, tuple(columns))
