"""Routers by name, and routers in pieces: a description in JSON and arrays by name. No pickle."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, TypeAlias

import jax
import numpy as np

from racer_jax.encoders.base import OWN_KINDS, Parts, PartsError, Read, Save
from racer_jax.routers.base import Router

Pure: TypeAlias = Callable[[Any, jax.Array], jax.Array]


def _mlp(num_rows: int) -> Any:
    from racer_jax.routers.mlp import MLPConfig

    return MLPConfig(batch_size=min(MLPConfig.batch_size, max(1, num_rows // 4)))


def _knn(num_rows: int) -> Any:
    from racer_jax.routers.knn import KNNConfig

    return KNNConfig(k=min(KNNConfig.k, max(1, num_rows // 2)))


def _routerdc(num_rows: int) -> Any:
    from racer_jax.routers.routerdc import RouterDCConfig

    return RouterDCConfig(batch_size=min(RouterDCConfig.batch_size, max(1, num_rows // 4)))


ROUTERS: dict[str, Callable[[int], Any]] = {"mlp": _mlp, "knn": _knn, "routerdc": _routerdc}
"""Routers by name: what makes the configuration of each for so many training rows.

Use this when you list the routers there are; `register_router` adds one.
"""
# Kind in a description -> module and class that read it; Flax is imported only where it is needed.
_CLASSES: dict[str, tuple[str, str]] = {
    "knn": ("racer_jax.routers.knn", "KNNR"),
    "platt": ("racer_jax.routers.platt", "PlattScaled"),
    "restricted": ("racer_jax.routers.restricted", "RestrictedRouter"),
    "mlp": ("racer_jax.routers.served_mlp", "ServedMLP"),
    "routerdc": ("racer_jax.routers.routerdc", "RouterDC"),
}


def register_router(
    name: str, config: Callable[[int], Any], *, kind: str | None = None, cls: type | None = None
) -> None:
    """Adds a router to those that go by a name, in `Racer.fit` and on the command line.

    Args:
      name: Its name.
      config: A function of the number of training rows to a configuration: an object with a method
        `fit(key, embeddings, correct, questions)` that returns the router.
      kind: What `to_parts` writes as the kind of its description, where it can be saved.
      cls: The class with `from_parts` that reads such a description.

    Raises:
      ValueError: If the name or the kind is taken.

    Use this when a router of your own is to be chosen by name.
    """
    if name in ROUTERS or kind in _CLASSES:
        raise ValueError(f"the router {name!r} of kind {kind!r} is there already")
    ROUTERS[name] = config
    if kind is not None and cls is not None:
        _CLASSES[kind] = (cls.__module__, cls.__qualname__)


def named(name: str, num_rows: int) -> Any:
    """The configuration of a router by its name.

    Args:
      name: One of `ROUTERS`: `"mlp"`, `"knn"`, `"routerdc"`.
      num_rows: Training rows; few of them need smaller batches, or fewer neighbours.

    Raises:
      ValueError: If the name is unknown.

    Use this when the router is a setting.
    """
    if name not in ROUTERS:
        raise ValueError(f"router must be one of {tuple(ROUTERS)} or a configuration, got {name!r}")
    return ROUTERS[name](num_rows)


def pure_router(router: Router) -> tuple[Pure, Any] | None:
    """A router as a pure function of its arrays and embeddings; None where it is not one of ours.

    Use this when a router is to be compiled together with what comes before and after it.
    """
    if hasattr(router, "as_pure"):
        pure: tuple[Pure, Any] | None = router.as_pure(pure_router)
        return pure
    from flax import nnx  # takes a second to import; a k-NN router does without

    if not isinstance(router, nnx.Module):
        return None
    graph, state = nnx.split(router)
    return lambda state, x: nnx.merge(graph, state)(x), state


def router_parts(router: Router, prefix: str = "router", own_part: Save | None = None) -> Parts:
    """The description and the arrays of a router.

    Args:
      router: The router.
      prefix: Prefix of the names of the arrays.
      own_part: What makes pieces of a router that has no `to_parts`; None to refuse it.

    Raises:
      PartsError: If it has no `to_parts`.

    Use this when a router is to be written to disk.
    """
    if not hasattr(router, "to_parts") and own_part is not None:
        return own_part(router, prefix)
    if not hasattr(router, "to_parts"):
        raise PartsError(
            f"a router of kind {type(router).__name__} cannot be saved; score the queries "
            "yourself (Racer.from_scores)"
        )
    parts: Parts = router.to_parts(prefix, partial(router_parts, own_part=own_part))
    return parts


def router_from(
    description: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    prefix: str = "router",
    own_part: Read | None = None,
) -> Router:
    """The router of a description.

    Args:
      description: From `router_parts`.
      arrays: Its arrays.
      prefix: Prefix of the names of the arrays.
      own_part: What gives a router of a caller's own; None where there is none.

    Raises:
      PartsError: If the description is not of a router, or the arrays do not fit it.

    Use this when a router is to be read from disk.
    """
    kind = description.get("kind")
    if kind in OWN_KINDS and own_part is not None:
        router: Router = own_part(description, prefix)
        return router
    if kind not in _CLASSES:
        raise PartsError(f"a router of kind {kind!r} is not known")
    module, name = _CLASSES[kind]

    def read(inner: Mapping[str, Any], inner_prefix: str) -> Router:
        return router_from(inner, arrays, inner_prefix, own_part)

    cls = getattr(import_module(module), name)
    router = cls.from_parts(description, arrays, prefix, read)
    return router
