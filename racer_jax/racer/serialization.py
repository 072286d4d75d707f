"""Fingerprints of what is saved, and whether what is stated of it is what is used."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from racer_jax.encoders.base import Arrays as Arrays
from racer_jax.encoders.base import PartsError as PartsError
from racer_jax.encoders.registry import OtherEncoderError as OtherEncoderError
from racer_jax.racer.digests import digest as digest
from racer_jax.racer.digests import named as named


def check_fingerprint(
    name: str, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Refuses a part of an artefact whose stated fingerprint is not that of its content.

    Use this when a part is read from an artefact.

    Args:
      name: `router`, `encoder` or `order`, which is the prefix of the names of its arrays too.
      description: What is stated of it, `fingerprint` among it.
      arrays: The arrays of the artefact.

    Raises:
      PartsError: If it is not.
    """
    if description.get("kind") == "external":  # that is the fingerprint of weights elsewhere
        return
    rest = {key: value for key, value in description.items() if key != "fingerprint"}
    inside = {key: value for key, value in arrays.items() if key.startswith(f"{name}.")}
    check_stated({"fingerprint": digest(rest, inside)}, description, name)


def check_stated(
    values: Mapping[str, Any],
    description: Mapping[str, Any],
    where: str = "",
    *,
    may_lack: bool = False,
) -> None:
    """Refuses a description that says something else than what is used.

    Use this when an artefact says in words what its arrays hold.

    Args:
      values: What the content gives, in plain values.
      description: What the description says; it may say more.
      where: The place in the description, for the error.
      may_lack: Whether the description may leave things unsaid, as one of an older format does.

    Raises:
      PartsError: If they differ.
    """
    for name, value in values.items():
        place = f"{where}.{name}" if where else name
        if name not in description and may_lack:
            continue
        if name not in description:
            raise PartsError(f"does not state {place}")
        if isinstance(value, Mapping) and isinstance(description[name], Mapping):
            check_stated(value, description[name], place, may_lack=may_lack)
        elif _plain(description[name]) != _plain(value):
            raise PartsError(
                f"states {place} = {description[name]!r}, but what is used is {value!r}"
            )


def _plain(value: Any) -> str:
    """A value as JSON: 1 is neither 1.0 nor true."""
    return json.dumps(value, sort_keys=True)
