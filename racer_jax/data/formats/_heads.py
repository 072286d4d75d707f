"""The head of a JSON file: its first keys, without reading the rest."""

import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from pathlib import Path

from racer_jax.data.formats._source import opened

HEAD = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r"[^,}\]]*")
_MARKS = re.compile(r'["\[\]{}]')


def head(path: Path) -> str:
    """The head of a file as text, plain or compressed."""
    with opened(path) as file:
        return file.read(HEAD).decode("utf-8-sig", errors="replace")


def head_keys(text: str) -> dict[str, dict[str, object]]:
    """The keys of the first object of a text that may be cut short, each with those of its value.

    Args:
      text: The head of JSON, of a JSON list or of JSON lines.

    Returns:
      Key -> keys of its value, empty where that is no object. What follows a fault is left out.

    >>> head_keys('[{"results": {"version": 3, "prompts": ["a')
    {'results': {'version': {}, 'prompts': {}}}
    """
    start = _SPACE.match(text)
    at = start.end() if start else 0
    if text[at : at + 1] == "[":
        at = _after(_SPACE, text, at + 1)
    return _keys(text, at, 2)[0]


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _keys(text: str, at: int, levels: int) -> tuple[dict[str, dict[str, object]], int | None]:
    """The keys of the object at a place, and where it ends; None where it is cut short."""
    keys: dict[str, dict[str, object]] = {}
    if text[at : at + 1] != "{":
        return keys, None
    at += 1
    while True:
        at = _after(_SPACE, text, at)
        if text[at : at + 1] == "}":
            return keys, at + 1
        try:
            name, at = scanstring(text, at + 1, False) if text[at : at + 1] == '"' else ("", -1)
        except ValueError:
            return keys, None
        if at < 0:
            return keys, None
        at = _after(_SPACE, text, at)
        if text[at : at + 1] != ":":
            return keys, None
        keys[name] = {}
        at = _after(_SPACE, text, at + 1)
        end: int | None
        if text[at : at + 1] == "{" and levels > 1:
            inner, end = _keys(text, at, levels - 1)
            keys[name] = dict(inner)
        else:
            end = _skipped(text, at)
        if end is None:
            return keys, None
        at = _after(_SPACE, text, end)
        if text[at : at + 1] == ",":
            at += 1


def _skipped(text: str, at: int) -> int | None:
    """Where the value at a place ends; None where it is cut short."""
    depth = 0
    if text[at : at + 1] not in ('"', "{", "["):
        end = _after(_PLAIN, text, at)
        return end if end < len(text) else None
    while True:
        match = _MARKS.search(text, at)
        if match is None:
            return None
        at = match.end()
        if match[0] == '"':
            try:
                _, at = scanstring(text, at, False)
            except ValueError:
                return None
        else:
            depth += 1 if match[0] in "[{" else -1
        if depth <= 0:
            return at
