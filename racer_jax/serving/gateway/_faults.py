"""What is wrong with a configuration or a request: the field, its place, what would be right."""

import difflib
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from math import isfinite
from typing import Any

import msgspec
from msgspec import inspect

from racer_jax.serving.gateway.settings import Settings

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "str": "text",
    "bool": "true or false",
    "object": "a table of fields",
    "array": "a list",
    "null": "nothing",
}
_LIMITS = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}


def in_words(
    error: msgspec.ValidationError, plain: Any, resolved: Any, convert: Callable[[Any], Any]
) -> str:
    """The message of an error of `convert(resolved)`, with its path.

    Args:
      error: What was raised.
      plain: What was written: it is shown, since what a reference stands for may be a secret.
      resolved: The same with references replaced.
      convert: Makes settings of plain values, or raises.
    """
    text, _, place = str(error).partition(" - at `")
    parts = _named(list(_parts(place.rstrip("`"))), text, resolved, convert)
    path = "".join(part if part.startswith("[") else f".{part}" for part in parts)
    kind = _type_at(parts, inspect.type_info(Settings))
    return f"{_said(text, _at(plain, parts), kind)} - at `${path}`"


def fault_of(error: msgspec.ValidationError, value: Any, kind: Any, name: str) -> tuple[str, str]:
    """The message of an error of one field of a request, and the path of what is at fault.

    Args:
      error: What was raised.
      value: The value of the field.
      kind: The type that it was to have.
      name: Name of the field.
    """
    text, _, place = str(error).partition(" - at `")
    parts = list(_parts(place.rstrip("`")))
    path = name + "".join(part if part.startswith("[") else f".{part}" for part in parts)
    said = _said(text, _at(value, parts), _type_at(parts, inspect.type_info(kind)))
    return f"{path}{' ' if said.startswith('must') else ': '}{said}", path


def _parts(path: str) -> Iterator[str]:
    """Names, and `[...]` or `[2]` for what is in a table or list, of a path such as `$.a[...]`."""
    for name, index in re.findall(r"\.([^.\[]+)|(\[[^\]]*\])", path):
        yield name or index


def _named(parts: list[str], text: str, plain: Any, convert: Callable[[Any], Any]) -> list[str]:
    """The parts with the name of each entry that msgspec writes as `[...]`."""
    for place, part in enumerate(parts):
        table = _at(plain, parts[:place])
        if part == "[...]" and isinstance(table, dict):
            # A table that must hold several entries is at fault with one: then it holds copies.
            trials = [(name, {name: table[name]}) for name in table]
            trials += [(name, dict.fromkeys(table, table[name])) for name in table]
            for name, entries in trials:
                alone = deepcopy(plain)
                here = _at(alone, parts[:place])
                here.clear()
                here.update(entries)
                try:
                    convert(alone)
                except msgspec.ValidationError as error:
                    if str(error).partition(" - at `")[0] == text:
                        parts[place] = str(name)
                        break
                except ValueError:
                    continue
    return parts


def _at(plain: Any, parts: list[str]) -> Any:
    """The value at a path; None where there is none."""
    for part in parts:
        index = part.strip("[]")
        if isinstance(plain, dict):
            plain = plain.get(part)
        elif isinstance(plain, list) and index.isdigit() and int(index) < len(plain):
            plain = plain[int(index)]
        else:
            return None
    return plain


def _type_at(parts: list[str], kind: inspect.Type) -> inspect.Type:
    """What is asked for at a path within a type."""
    for part in parts:
        if isinstance(kind, inspect.UnionType):
            kind = next(t for t in kind.types if not isinstance(t, inspect.NoneType))
        if isinstance(kind, inspect.StructType):
            types = {field.encode_name: field.type for field in kind.fields}
            kind = types.get(part, inspect.AnyType())
        elif isinstance(kind, inspect.DictType):
            kind = kind.value_type
        elif isinstance(kind, inspect.VarTupleType | inspect.ListType):
            kind = kind.item_type
    if isinstance(kind, inspect.UnionType):
        kind = next(t for t in kind.types if not isinstance(t, inspect.NoneType))
    return kind


def _said(text: str, value: Any, kind: inspect.Type) -> str:
    """A message of msgspec in words."""
    names = []
    if isinstance(kind, inspect.StructType):
        names = [field.encode_name for field in kind.fields]
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", text, re.S):
        near = difflib.get_close_matches(match[1], names, 1)
        meant = f": did you mean `{near[0]}`?" if near else f"; the fields are {', '.join(names)}"
        return f"unknown field `{match[1]}`{meant}"
    if match := re.fullmatch(r"Object missing required field `(.*)`", text):
        return f"`{match[1]}` is missing"
    if isinstance(kind, inspect.LiteralType):
        return f"must be one of {', '.join(map(repr, kind.values))}, got {value!r:.60}"
    if match := re.fullmatch(
        r"Expected `([\w |]+)`(?: (of length )?(>=|<=|>|<) (\S+))?(?:, got `\w+`)?", text
    ):
        kinds = [name for name in match[1].split(" | ") if name != "null"]
        if isinstance(value, float) and not isfinite(value):
            kinds = ["finite"]
        must = f"must be {' or '.join(_KINDS.get(name, name) for name in kinds)}"
        if match[3]:
            must += f", {match[2] or ''}{_LIMITS[match[3]]} {match[4]}"
        return f"{must}, got {value!r:.60}"
    return text
