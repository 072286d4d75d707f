"""Parts of a caller's own in an artefact: routers, encoders and orders that this package lacks.

An artefact holds no code and no pickle. So of a part that is not one of ours it keeps

- for a Flax router, its parameters, the import path of its class and the arguments it is made with;
- for anything else, its class for people to read; the caller passes the part to `Racer.load`.

Either is checked: by the fingerprint that the part gives of itself, where it has a method
`fingerprint`, else by what it does on a few texts, kept in the artefact. A part that gives other
numbers than the one that was calibrated is refused, since the threshold means nothing for it.
"""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from racer_jax.core.nonconformity import NONCONFORMITIES
from racer_jax.encoders.adapters import as_encoder
from racer_jax.encoders.base import Arrays, Encoder, Parts, PartsError, array_of
from racer_jax.orders.model_orders import Order
from racer_jax.routers.adapters import as_router
from racer_jax.routers.base import Router

if TYPE_CHECKING:
    from racer_jax.racer.calibration import Calibration

# What a part is tried on. They are part of the format.
PROBES = (
    "What is 2 + 2?",
    "Write a short poem about the sea in winter.",
    "Which planet of the solar system is the largest one, and why?",
    "def add(a, b): return a - b  # find the mistake",
)
# More than what the rounding of another processor does, less than what training does.
_TOLERANCE = 1e-3
_OURS = ("inverse_probability", "gap")
OWN, EXTERNAL, FLAX = "own", "external", "flax"


class OtherPartError(ValueError):
    """A part that is not the one the artefact was made with, or that was not passed.

    Use this when you catch a part that does not fit an artefact; `Racer.load` raises it as
    `OtherWeightsError`.
    """


def _is_flax(part: Any) -> bool:
    """Whether a part is a Flax module; where Flax was never imported, none is."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(part, nnx.Module)


def _tried(what: str, part: Any, outcome: Callable[[], Any]) -> np.ndarray:
    """What a part gives for the probes.

    Raises:
      PartsError: If it cannot take them.
    """
    try:
        return np.asarray(outcome(), np.float32)
    except Exception as error:
        raise PartsError(
            f"the {what} of kind {type(part).__name__} cannot be saved: it is tried on a few "
            f"texts, to know it again when it is loaded, and they fail with "
            f"{type(error).__name__}: {error}; give it a method fingerprint() that names what it "
            f"computes"
        ) from error


class Writing:
    """Own parts on their way into an artefact.

    Use this when a racer is written; `Racer.save` does it for you.

    Args:
      encoder: The encoder, whose embeddings of the probes the routers are tried on.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def encoder(self, part: Any, prefix: str) -> Parts:
        """An encoder in pieces.

        Use this when an encoder has no `to_parts`.
        """
        tried = _tried("encoder", part, lambda: part.encode(list(PROBES)))
        return {"kind": OWN, "class": _name(part)}, {f"{prefix}.probe": tried}

    def router(self, part: Any, prefix: str) -> Parts:
        """A router in pieces.

        Use this when a router has no `to_parts`.

        Raises:
          PartsError: If it cannot take the probes, or is a Flax module that cannot be made anew.
        """
        if callable(getattr(part, "fingerprint", None)):
            return _external(part)
        tried = _tried("router", part, lambda: part(self._encoder.encode(list(PROBES))))
        description: dict[str, Any] = {"kind": OWN, "class": _name(part)}
        arrays: Arrays = {f"{prefix}.probe": tried}
        if _is_flax(part):
            flax, parameters = _flax_parts(part, f"{prefix}.parameters")
            return {**description, **flax}, {**arrays, **parameters}
        return description, arrays

    def order(self, part: Any, prefix: str) -> Parts:
        """The model of an order in pieces.

        Use this when an order is a registered one.
        """
        if callable(getattr(part, "fingerprint", None)):
            return _external(part)
        tried = _tried("order", part, lambda: _ordered(part, self._encoder))
        return {"kind": OWN, "class": _name(part)}, {f"{prefix}.probe": tried}


def _external(part: Any) -> Parts:
    return {
        "kind": EXTERNAL,
        "class": _name(part),
        "fingerprint": str(part.fingerprint()),
    }, {}


def _ordered(model: Any, encoder: Encoder) -> np.ndarray:
    """Nonconformity of the probes, without their groups."""
    return Order("own", model)(encoder.encode(list(PROBES)), None, "free")[:, :-1]


def _name(part: Any) -> str:
    """What a part is called where people read it: its class, or that of what it wraps."""
    for inside in ("function", "pipeline", "classifier"):
        if hasattr(part, inside):
            inner = getattr(part, inside)
            return getattr(inner, "__name__", type(inner).__name__)
    return getattr(part, "__name__", type(part).__name__)


def own_parts(encoder: Any, router: Any, order: Any) -> tuple[Encoder | None, Router | None, Any]:
    """Parts of a caller as they are used: adapted where they are functions or pipelines.

    Use this when a racer is read with parts that were passed.

    Raises:
      TypeError: If the encoder or the router is none.
    """
    if encoder is not None:
        encoder = as_encoder(encoder)
    if router is not None:
        router = as_router(router)
    return encoder, router, order


class Reading:
    """Own parts on their way out of an artefact: those passed by the caller, or Flax modules.

    Use this when a racer is read; `Racer.load` does it for you.

    Args:
      arrays: The arrays of the artefact.
      encoder: The caller's encoder, or None.
      router: The caller's router, or None.
      order: The caller's model of an order, or None.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        encoder: Encoder | None = None,
        router: Router | None = None,
        order: Any = None,
    ) -> None:
        self._arrays = arrays
        self._passed = {"encoder": encoder, "router": router, "order": order}
        self._used: set[str] = set()
        self._loaded: Encoder | None = None

    def with_encoder(self, encoder: Encoder) -> None:
        """Says which encoder the routers are tried on.

        Use this when the encoder is there and routers are to be tried.
        """
        self._loaded = encoder

    def encoder(self, description: Mapping[str, Any], prefix: str) -> Encoder:
        """The caller's encoder, checked.

        Use this when a description names an encoder of a caller.
        """
        part: Encoder = self._part("encoder", description)
        self._check("encoder", description, prefix, part, lambda: part.encode(list(PROBES)))
        return part

    def router(self, description: Mapping[str, Any], prefix: str) -> Router:
        """The caller's router, or the Flax module of a description, checked.

        Use this when a description names a router of a caller.
        """
        part: Router
        if description["kind"] == FLAX and self._passed["router"] is None:
            part = _flax_from(description, self._arrays, f"{prefix}.parameters")
        else:
            part = self._part("router", description)
        self._check("router", description, prefix, part, lambda: part(self._probes()))
        return part

    def order(self, description: Mapping[str, Any], prefix: str) -> Any:
        """The caller's model of an order, checked.

        Use this when a description names a registered order.
        """
        part = self._part("order", description)
        tried = self._loaded
        if tried is None:
            raise PartsError("an order needs an encoder")
        self._check("order", description, prefix, part, lambda: _ordered(part, tried))
        return part

    def check_all_used(self) -> None:
        """Refuses a router or an order that was passed and is not wanted.

        Use this when every part has been read.

        Raises:
          OtherPartError: If there is one.
        """
        for name in ("router", "order"):
            if self._passed[name] is not None and name not in self._used:
                raise OtherPartError(f"holds {_article(name)} of its own: load it without {name}=")

    def _probes(self) -> np.ndarray:
        if self._loaded is None:
            raise PartsError("a router needs an encoder")
        return self._loaded.encode(list(PROBES))

    def _part(self, name: str, description: Mapping[str, Any]) -> Any:
        part = self._passed[name]
        if part is None:
            raise OtherPartError(
                f"was made with {_article(name)} of the kind {description['class']}, which it does "
                f"not hold: pass it as {name}="
            )
        self._used.add(name)
        return part

    def _check(
        self,
        name: str,
        description: Mapping[str, Any],
        prefix: str,
        part: Any,
        outcome: Callable[[], Any],
    ) -> None:
        """Refuses another part than that of the artefact."""
        if description["kind"] == EXTERNAL:
            expected, method = description["fingerprint"], getattr(part, "fingerprint", None)
            fingerprint = method() if callable(method) else "none"
            if fingerprint != expected:
                raise OtherPartError(
                    f"was made with {_article(name)} with fingerprint {expected}, got one with "
                    f"{fingerprint}"
                )
            return
        before = array_of(self._arrays, f"{prefix}.probe")
        tried = np.asarray(outcome(), np.float32)
        if tried.shape != before.shape:
            raise OtherPartError(
                f"was made with {_article(name)} that gives {list(before.shape)} numbers for the "
                f"texts it is tried on, got one that gives {list(tried.shape)}"
            )
        apart = float(np.abs(tried - before).max(initial=0))
        if not apart <= _TOLERANCE * max(1.0, float(np.abs(before).max(initial=0))):
            raise OtherPartError(
                f"was made with another {name}: on the texts it is tried on, this one is up to "
                f"{apart:.3g} apart, and the threshold would mean nothing for it"
            )


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "aeo" else f"a {name}"


def check_own_nonconformity(name: str, null: str, calibration: "Calibration | None") -> None:
    """Refuses a registered nonconformity that gives others than it gave when it was calibrated.

    Use this when an artefact was made with a registered score.

    Args:
      name: Its name.
      null: The null mode.
      calibration: The calibration, whose first queries it is tried on.

    Raises:
      OtherPartError: If it does.
    """
    if name in _OURS or name not in NONCONFORMITIES:
        return
    if calibration is None or calibration.record is None:
        return
    rows = slice(0, len(PROBES))
    before, scores = calibration.record.nonconformity[rows], calibration.record.scores[rows]
    tried = np.asarray(NONCONFORMITIES[name](jnp.asarray(scores), null))
    if not np.allclose(tried, before, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise OtherPartError(
            f"was calibrated with another nonconformity {name!r} than the one that is registered"
        )


# --- Flax -----------------------------------------------------------------------------------------


def _flax_parts(module: Any, prefix: str) -> Parts:
    """The parameters of a Flax module, the import path of its class, and its arguments.

    Raises:
      PartsError: If its class cannot be imported, or nothing says what it is made with.
    """
    import inspect

    cls = type(module)
    path = f"{cls.__module__}:{cls.__qualname__}"
    if "<locals>" in path or cls.__module__ == "__main__":
        raise PartsError(
            f"a Flax router must be of a class that another process can import, got {path}: put "
            f"the class into a module, or pass a plain function that calls it and give that to "
            f"Racer.load(router=...)"
        )
    arguments = getattr(module, "arguments", None)
    if arguments is None:
        needed = [
            name
            for name, parameter in inspect.signature(cls).parameters.items()
            if name != "rngs" and parameter.default is parameter.empty
        ]
        if needed:
            raise PartsError(
                f"a Flax router must say what it is made with: give {cls.__qualname__} an "
                f"attribute arguments, such as {{{needed[0]!r}: ...}}, the keywords of its "
                f"constructor beside rngs, in plain values"
            )
        arguments = {}
    arrays = {
        ".".join([prefix, *map(str, keys)]): np.asarray(variable.get_value())
        for keys, variable in _parameters(module)
    }
    return {"kind": FLAX, "class": path, "arguments": dict(arguments)}, arrays


def _parameters(module: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """The variables of a module that are not the state of a random generator."""
    from flax import nnx

    flat = nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.RngState)))
    return [(tuple(keys), variable) for keys, variable in flat]


def _flax_from(
    description: Mapping[str, Any], arrays: Mapping[str, np.ndarray], prefix: str
) -> Router:
    """The Flax module of `_flax_parts`, in the mode in which nothing is drawn.

    Raises:
      OtherPartError: If its class cannot be imported or is no Flax module.
      PartsError: If the arrays do not fit it.
    """
    from flax import nnx

    path = description["class"]
    module_name, _, name = path.partition(":")
    try:
        cls: Any = import_module(module_name)
        for step in name.split("."):
            cls = getattr(cls, step)
    except (ImportError, AttributeError) as error:
        raise OtherPartError(
            f"was made with a Flax router of the class {path}, which cannot be imported ({error}): "
            f"put its module on the path, or pass the router as router="
        ) from None
    if not (isinstance(cls, type) and issubclass(cls, nnx.Module)):
        raise OtherPartError(f"names {path} as the class of a Flax router, which it is not")
    make: Any = cls
    module = make(**description["arguments"], rngs=nnx.Rngs(0))
    for keys, variable in _parameters(module):
        array = array_of(arrays, ".".join([prefix, *map(str, keys)]))
        shape = variable.get_value().shape
        if array.shape != shape:
            raise PartsError(f"the array of {keys} must have shape {shape}, got {array.shape}")
        variable.set_value(jnp.asarray(array))
    module.eval()
    router: Router = module
    return router
