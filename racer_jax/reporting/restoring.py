"""Results read back from JSON: the inverse of `as_plain`."""

import dataclasses
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import jax
import numpy as np

T = TypeVar("T")


def as_typed(kind: Any, value: Any) -> Any:
    """A value of JSON as the type that it was written from: the inverse of `as_plain`.

    Use this when results that `write_json` wrote are to be used again.

    Args:
      kind: A NamedTuple or dataclass whose fields are annotated, or what such a field is annotated
        with: a number, a string, `Path`, `np.ndarray`, a list, tuple or dict of those, or one of
        them or None.
      value: What `json.load` gave.

    Returns:
      An instance of `kind`. Arrays are float64, int64, bool or of strings.

    Raises:
      ValueError: If a field is missing; the message names it.

    >>> as_typed(dict[str, tuple[float, ...]], {"risk": [0.1, "inf"]})
    {'risk': (0.1, inf)}
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return as_typed(inner[0], value)
    if origin in (Union, types.UnionType):
        kinds = [part for part in inner if part is not type(None)]
        return None if value is None else as_typed(kinds[0], value)
    if kind in (np.ndarray, jax.Array):
        return _array(value)
    if kind in (float, int, Path):
        return kind(value)
    fields = _fields(kind)
    if fields is not None:
        return _record(kind, fields, value)
    if not inner or origin is Literal:
        return value
    return _collection(origin, inner, value)


def read_results(path: str | Path) -> dict[str, Any]:
    """The object of a JSON file that an experiment wrote.

    Use this when figures are drawn again from `results.json`.

    Raises:
      ValueError: If it is no such file; the message names it.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not the results of a run ({error})") from None
    if not isinstance(record, dict) or not {"config", "results"} <= set(record):
        raise ValueError(f"{path}: not the results of a run: it lacks 'config' or 'results'")
    return record


def _array(value: Any) -> np.ndarray:
    """Nested lists as an array; NaN and infinities stand in them as strings."""
    array = np.asarray(value)
    if array.dtype.kind != "U":
        return array
    try:
        return array.astype(np.float64)
    except ValueError:
        return array


def _fields(kind: Any) -> dict[str, Any] | None:
    """Annotations by field of a NamedTuple or a dataclass; None of anything else."""
    if not isinstance(kind, type):
        return None
    if hasattr(kind, "_fields"):
        return get_type_hints(kind)
    if not dataclasses.is_dataclass(kind):
        return None
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _record(kind: Any, fields: dict[str, Any], value: Any) -> Any:
    """An instance of a NamedTuple or a dataclass."""
    missing = [name for name in fields if not isinstance(value, Mapping) or name not in value]
    if missing:
        raise ValueError(f"{kind.__name__} lacks {missing[0]!r}: written by another version?")
    return kind(**{name: as_typed(hint, value[name]) for name, hint in fields.items()})


def _collection(origin: Any, inner: tuple[Any, ...], value: Any) -> Any:
    """A list, tuple or dict."""
    if isinstance(value, Mapping):
        # The keys of an object are strings.
        return {as_typed(inner[0], key): as_typed(inner[1], item) for key, item in value.items()}
    if origin is tuple and Ellipsis not in inner:
        return tuple(as_typed(hint, item) for hint, item in zip(inner, value, strict=True))
    items = [as_typed(inner[0], item) for item in value]
    return tuple(items) if origin is tuple else items
