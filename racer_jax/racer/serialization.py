"""Routers, encoders and orders in pieces: a description in JSON and arrays by name, and back. No pickle.

Hashing encoders are written whole. A pretrained one is too large for that and is named by the
fingerprint of its weights; it comes from the caller, or from the package of MiniLM's weights, and
is refused where it is another one.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.encoders.base import Encoder
from racer_jax.encoders.compound import JoinedEncoder, ReducedEncoder
from racer_jax.encoders.hashing import HashedNgrams
from racer_jax.encoders.surface import SurfaceEncoder
from racer_jax.orders.learned_gains import LearnedGains
from racer_jax.orders.model_orders import Order, StaticOrder
from racer_jax.orders.racer_j import RacerJ
from racer_jax.routers.base import Router
from racer_jax.routers.knn import KNNR
from racer_jax.routers.platt import Platt, PlattScaled

Arrays = dict[str, np.ndarray]


class PartsError(ValueError):
    """A description or its arrays that do not make a router or an encoder."""


class OtherEncoderError(ValueError):
    """An encoder with other weights than those the router was trained on."""


def digest(description: Any, arrays: Mapping[str, np.ndarray] | None = None) -> str:
    """32 hexadecimal digits that stand for a description and its arrays."""
    found = hashlib.sha256(json.dumps(description, sort_keys=True, ensure_ascii=False).encode())
    for name, array in sorted((arrays or {}).items()):
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).view(np.uint8).data)
    return found.hexdigest()[:32]


def _array(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise PartsError(f"the array {name!r} is missing")
    return np.asarray(arrays[name])


# --- encoders -------------------------------------------------------------------------------------


def encoder_parts(encoder: Encoder, prefix: str = "encoder") -> tuple[dict[str, Any], Arrays]:
    """The description and the arrays of an encoder.

    Raises:
      PartsError: If it is an encoder of the caller's that has no `fingerprint()`.
    """
    if isinstance(encoder, HashedNgrams):
        sizes = [int(size) for size in encoder.sizes]
        read = {"max_chars": encoder.max_chars, "truncation_side": encoder.truncation_side}
        return {"kind": "hashed_ngrams", "dim": encoder.dim, "sizes": sizes, **read}, {}
    if isinstance(encoder, ReducedEncoder):
        inner, arrays = encoder_parts(encoder.encoder, f"{prefix}.inner")
        own = {f"{prefix}.weights": encoder.weights, f"{prefix}.projection": encoder.projection}
        return {"kind": "reduced", "encoder": inner}, {**arrays, **own}
    if isinstance(encoder, SurfaceEncoder):
        own = {f"{prefix}.mean": encoder.mean, f"{prefix}.deviation": encoder.deviation}
        return {"kind": "surface", "scale": encoder.scale}, own
    if isinstance(encoder, JoinedEncoder):
        inners, joined = [], {}
        for i, part in enumerate(encoder.encoders):
            inner, arrays = encoder_parts(part, f"{prefix}.{i}")
            inners.append(inner)
            joined.update(arrays)
        return {"kind": "joined", "encoders": inners}, joined
    name = getattr(encoder, "fingerprint", None)
    if not callable(name):
        raise PartsError(
            f"an encoder of kind {type(encoder).__name__} cannot be saved: give it a method fingerprint() that names "
            f"its weights, or score the queries yourself (Racer.from_scores)"
        )
    return {"kind": "external", "class": type(encoder).__name__, "fingerprint": str(name())}, {}


def encoder_from(
    description: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    given: Encoder | None = None,
    prefix: str = "encoder",
) -> Encoder:
    """The encoder of a description.

    Args:
      description: From `encoder_parts`.
      arrays: Its arrays.
      given: The pretrained encoder, where the description names one; MiniLM's from its package
        where None.
      prefix: Of the names of the arrays.

    Raises:
      PartsError: If the description is not of an encoder.
      OtherEncoderError: If the weights are not those the description names, or there are none.
    """
    kind = description.get("kind")
    if kind == "hashed_ngrams":
        # the only side there was, in the first artefacts
        side = description.get("truncation_side", "right")
        return HashedNgrams(
            int(description["dim"]),
            tuple(description["sizes"]),
            int(description["max_chars"]),
            side,
        )
    if kind == "reduced":
        inner = encoder_from(description["encoder"], arrays, given, f"{prefix}.inner")
        return ReducedEncoder(
            inner, _array(arrays, f"{prefix}.weights"), _array(arrays, f"{prefix}.projection")
        )
    if kind == "surface":
        mean, deviation = _array(arrays, f"{prefix}.mean"), _array(arrays, f"{prefix}.deviation")
        return SurfaceEncoder(mean, deviation, float(description["scale"]))
    if kind == "joined":
        inners = description["encoders"]
        return JoinedEncoder(
            tuple(encoder_from(d, arrays, given, f"{prefix}.{i}") for i, d in enumerate(inners))
        )
    if kind == "external":
        return _pretrained(description, given)
    raise PartsError(f"an encoder of kind {kind!r} is not known")


def _pretrained(description: Mapping[str, Any], given: Encoder | None) -> Encoder:
    wanted = description["fingerprint"]
    if given is None:
        from racer_jax.encoders.text import minilm  # takes seconds to import

        try:
            given = minilm()
        except ModuleNotFoundError:
            raise OtherEncoderError(
                f"the router was trained on a {description['class']} with fingerprint {wanted}, which the artefact "
                f"does not hold: pass it as encoder=, or install 'racer-jax[minilm]' if it was MiniLM"
            ) from None
    found = given.fingerprint() if callable(getattr(given, "fingerprint", None)) else "none"  # type: ignore[attr-defined]
    if found != wanted:
        raise OtherEncoderError(
            f"the router was trained on an encoder with fingerprint {wanted}, got one with {found}: other weights or "
            f"settings make its scores meaningless"
        )
    return given


# --- routers --------------------------------------------------------------------------------------


def router_parts(router: Router, prefix: str = "router") -> tuple[dict[str, Any], Arrays]:
    """The description and the arrays of a router.

    Raises:
      PartsError: If it is not one of this package's.
    """
    if isinstance(router, KNNR):
        # Labels are 0 or 1: a byte each.
        own = {
            f"{prefix}.train": np.asarray(router.train),
            f"{prefix}.correct": np.asarray(router.correct, np.uint8),
        }
        return {"kind": "knn", "k": router.k, "block_size": router.block_size}, own
    if isinstance(router, PlattScaled):
        inner, arrays = router_parts(router.router, f"{prefix}.inner")
        own = {
            f"{prefix}.slope": np.asarray(router.platt.slope),
            f"{prefix}.intercept": np.asarray(router.platt.intercept),
        }
        return {"kind": "platt", "router": inner}, {**arrays, **own}
    from flax import nnx

    from racer_jax.routers.mlp import MLPR
    from racer_jax.routers.routerdc import RouterDC

    if not isinstance(router, MLPR | RouterDC):
        raise PartsError(
            f"a router of kind {type(router).__name__} cannot be saved; score the queries "
            "yourself (Racer.from_scores)"
        )
    arrays = {
        ".".join([prefix, *map(str, path)]): np.asarray(variable.get_value())
        for path, variable in nnx.to_flat_state(nnx.state(router))
    }
    if isinstance(router, MLPR):
        layers = list(router.layers)
        hidden = [int(layer.kernel[...].shape[1]) for layer in layers[:-1]]
        dims = {
            "dim": int(router.mean[...].shape[0]),
            "num_models": int(layers[-1].kernel[...].shape[1]),
        }
        return {"kind": "mlp", **dims, "hidden": hidden, "dropout": router.dropout}, arrays
    num_models, width = router.models[...].shape
    description = {
        "kind": "routerdc",
        "dim": router.dim,
        "num_models": int(num_models),
        "width": None if router.projection is None else int(width),
        "probability": router.probability,
        "temperature": router.temperature,
    }
    return description, arrays


def router_from(
    description: Mapping[str, Any], arrays: Mapping[str, np.ndarray], prefix: str = "router"
) -> Router:
    """The router of a description.

    Raises:
      PartsError: If the description is not of a router, or the arrays do not fit it.
    """
    kind = description.get("kind")
    if kind == "knn":
        train, correct = _array(arrays, f"{prefix}.train"), _array(arrays, f"{prefix}.correct")
        labels = jnp.asarray(correct, jnp.float32)
        return KNNR(
            jnp.asarray(train), labels, int(description["k"]), int(description["block_size"])
        )
    if kind == "platt":
        slope, intercept = _array(arrays, f"{prefix}.slope"), _array(arrays, f"{prefix}.intercept")
        inner = router_from(description["router"], arrays, f"{prefix}.inner")
        return PlattScaled(inner, Platt(jnp.asarray(slope), jnp.asarray(intercept)))
    if kind not in ("mlp", "routerdc"):
        raise PartsError(f"a router of kind {kind!r} is not known")
    from flax import nnx

    abstract = nnx.eval_shape(lambda: _new_module(description))
    graph, state = nnx.split(abstract)
    flat = []
    for path, variable in nnx.to_flat_state(state):
        array = _array(arrays, ".".join([prefix, *map(str, path)]))
        if array.shape != variable.get_value().shape:
            raise PartsError(
                f"the array {'.'.join(map(str, path))!r} must have shape {variable.get_value().shape}, got "
                f"{array.shape}"
            )
        flat.append((path, variable.replace(jnp.asarray(array))))
    router: Router = nnx.merge(graph, nnx.from_flat_state(flat))
    return router


def _new_module(description: Mapping[str, Any]) -> Any:
    from flax import nnx

    from racer_jax.routers.mlp import MLPR
    from racer_jax.routers.routerdc import RouterDC, RouterDCConfig

    dim, num_models, rngs = (
        int(description["dim"]),
        int(description["num_models"]),
        nnx.Rngs(jax.random.key(0)),
    )
    if description["kind"] == "mlp":
        return MLPR(
            dim, num_models, tuple(description["hidden"]), float(description["dropout"]), rngs=rngs
        )
    config = RouterDCConfig(
        dim=description["width"],
        probability=description["probability"],
        temperature=float(description["temperature"]),
    )
    return RouterDC(dim, num_models, config, rngs=rngs)


# --- orders ---------------------------------------------------------------------------------------


def order_parts(order: Order, prefix: str = "order") -> tuple[dict[str, Any], Arrays]:
    """The description and the arrays of an order."""
    model = order.model
    description: dict[str, Any] = {
        "kind": order.kind,
        "groups": None if model.groups is None else list(model.groups),
    }
    if isinstance(model, StaticOrder):
        return description, {f"{prefix}.real": model.real}
    if isinstance(model, LearnedGains):
        names: tuple[str, ...] = ("order", "weights", "bias")
        description["ridge"] = model.ridge
    else:
        names = ("train", "of_row", "prior", "patterns")
        description |= {"k": model.k, "w": model.w}
    arrays = {f"{prefix}.{name}": np.asarray(getattr(model, name)) for name in names}
    if isinstance(model, RacerJ):
        # 0 or 1: a byte each
        arrays[f"{prefix}.patterns"] = arrays[f"{prefix}.patterns"].astype(np.uint8)
    return description, arrays


def order_from(
    description: Mapping[str, Any], arrays: Mapping[str, np.ndarray], prefix: str = "order"
) -> Order:
    """The order of a description.

    Raises:
      PartsError: If the description is not of an order, or an array is missing.
    """
    kind = description.get("kind")
    groups = None if description["groups"] is None else tuple(description["groups"])

    def array(name: str) -> jax.Array:
        return jnp.asarray(_array(arrays, f"{prefix}.{name}"))

    if kind == "static":
        return Order(kind, StaticOrder(_array(arrays, f"{prefix}.real"), groups))
    if kind == "J":
        patterns = array("patterns").astype(jnp.float32)
        k, w = int(description["k"]), float(description["w"])
        return Order(
            kind, RacerJ(array("train"), array("of_row"), patterns, array("prior"), groups, k, w)
        )
    if kind == "J_learned":
        ridge = float(description["ridge"])
        return Order(
            kind, LearnedGains(array("order"), array("weights"), array("bias"), groups, ridge)
        )
    raise PartsError(f"an order of kind {kind!r} is not known")


def named(models: Sequence[str]) -> str:
    """The fingerprint of a pool: its models in their order."""
    return digest(list(models))
