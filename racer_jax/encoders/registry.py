"""Encoders by name, and encoders in pieces: a description in JSON and arrays by name. No pickle.

Hashing encoders are saved whole. A pretrained one is too large for that and is named by the
fingerprint of its weights; it comes from the caller, or from the package of MiniLM's weights, and
is refused where it is another one.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import numpy as np

from racer_jax._distribution import install_command
from racer_jax.encoders.base import Encoder, Parts, PartsError, Read, Save
from racer_jax.encoders.compound import JoinedEncoder, ReducedEncoder
from racer_jax.encoders.hashing import HashedNgrams
from racer_jax.encoders.surface import SurfaceEncoder

Make: TypeAlias = Callable[[jax.Array, Sequence[str]], Encoder]


def _minilm() -> Encoder:
    from racer_jax.encoders.text import minilm  # takes seconds to import

    return minilm()


def _both(key: jax.Array, texts: Sequence[str]) -> Encoder:
    return JoinedEncoder((_minilm(), ReducedEncoder.fit(key, texts)))


ENCODERS: dict[str, Make] = {
    "hashed": ReducedEncoder.fit,
    "minilm": lambda key, texts: _minilm(),
    "both": _both,
}
"""Encoders by name: what makes each from a PRNG key and the training texts.

Use this when you list the encoders there are; `register_encoder` adds one.
"""
# Kind in a description -> the class that reads it.
_CLASSES: dict[str, Any] = {
    "hashed_ngrams": HashedNgrams,
    "reduced": ReducedEncoder,
    "surface": SurfaceEncoder,
    "joined": JoinedEncoder,
}


class OtherEncoderError(ValueError):
    """An encoder with other weights than those the router was trained on.

    Use this when you catch the loading of an artefact without its encoder.
    """


def register_encoder(name: str, make: Make, *, kind: str | None = None, cls: Any = None) -> None:
    """Adds an encoder to those that go by a name, in `Racer.fit` and on the command line.

    Args:
      name: Its name.
      make: A function of a PRNG key and the training texts.
      kind: What `to_parts` writes as the kind of its description, where it can be saved.
      cls: The class with `from_parts` that reads such a description.

    Raises:
      ValueError: If the name or the kind is taken.

    Use this when an encoder of your own is to be chosen by name.
    """
    if name in ENCODERS or kind in _CLASSES:
        raise ValueError(f"the encoder {name!r} of kind {kind!r} is there already")
    ENCODERS[name] = make
    if kind is not None:
        _CLASSES[kind] = cls


def named(name: str, key: jax.Array, texts: Sequence[str]) -> Encoder:
    """An encoder by its name, fitted on the texts where it is one that is.

    Args:
      name: One of `ENCODERS`: `"hashed"` (n-grams, no download), `"minilm"`, `"both"`.
      key: A typed PRNG key.
      texts: The training texts.

    Raises:
      ModuleNotFoundError: If the weights of MiniLM are asked for and not installed.
      ValueError: If the name is unknown.

    Use this when the encoder is a setting.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder must be one of {tuple(ENCODERS)} or an encoder, got {name!r}")
    return ENCODERS[name](key, texts)


def encoder_parts(encoder: Encoder, prefix: str = "encoder", own_part: Save | None = None) -> Parts:
    """The description and the arrays of an encoder.

    Args:
      encoder: One with `to_parts`, or one with `fingerprint()`, which names its weights.
      prefix: Prefix of the names of the arrays.
      own_part: What makes pieces of an encoder that has neither; None to refuse it.

    Raises:
      PartsError: If it is neither.

    Use this when an encoder is to be written to disk.
    """
    if hasattr(encoder, "to_parts"):
        parts: Parts = encoder.to_parts(prefix, partial(encoder_parts, own_part=own_part))
        return parts
    fingerprint = getattr(encoder, "fingerprint", None)
    if not callable(fingerprint) and own_part is not None:
        return own_part(encoder, prefix)
    if not callable(fingerprint):
        raise PartsError(
            f"an encoder of kind {type(encoder).__name__} cannot be saved: give it a method "
            f"fingerprint() that names its weights, or score the queries yourself "
            f"(Racer.from_scores)"
        )
    name = type(encoder).__name__
    return {"kind": "external", "class": name, "fingerprint": str(fingerprint())}, {}


def encoder_from(
    description: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    pretrained: Encoder | None = None,
    prefix: str = "encoder",
    own_part: Read | None = None,
) -> Encoder:
    """The encoder of a description.

    Args:
      description: From `encoder_parts`.
      arrays: Its arrays.
      pretrained: The pretrained encoder, where the description names one; MiniLM's from its package
        where None.
      prefix: Prefix of the names of the arrays.
      own_part: What gives an encoder of a caller's own that has no fingerprint.

    Raises:
      PartsError: If the description is not of an encoder.
      OtherEncoderError: If the weights are not those the description names, or there are none.

    Use this when an encoder is to be read from disk.
    """
    kind = description.get("kind")
    if kind == "external":
        return _pretrained(description, pretrained)
    if kind == "own" and own_part is not None:
        mine: Encoder = own_part(description, prefix)
        return mine
    if kind not in _CLASSES:
        raise PartsError(f"an encoder of kind {kind!r} is not known")

    def read(inner: Mapping[str, Any], inner_prefix: str) -> Encoder:
        return encoder_from(inner, arrays, pretrained, inner_prefix, own_part)

    encoder: Encoder = _CLASSES[kind].from_parts(description, arrays, prefix, read)
    return encoder


def _pretrained(description: Mapping[str, Any], pretrained: Encoder | None) -> Encoder:
    """The encoder with the weights that a description names."""
    original = description["fingerprint"]
    if pretrained is None:
        try:
            pretrained = _minilm()
        except ModuleNotFoundError:
            raise OtherEncoderError(
                f"the router was trained on a {description['class']} with fingerprint {original}, "
                f"which the artefact does not hold: pass it as encoder=; if it was "
                f"MiniLM: {install_command('minilm')}"
            ) from None
    fingerprint = getattr(pretrained, "fingerprint", None)
    name = fingerprint() if callable(fingerprint) else "none"
    if name != original:
        raise OtherEncoderError(
            f"the router was trained on an encoder with fingerprint {original}, got "
            f"one with {name}: other weights or settings make its scores meaningless"
        )
    return pretrained
