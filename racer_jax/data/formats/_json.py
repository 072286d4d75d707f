"""JSON with nothing hidden: repeated keys, NaN, nesting bombs and broken encodings become errors that say where."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from racer_jax.data.errors import DataError
from racer_jax.data.formats._text import read_text


class Repeated(dict[str, Any]):
    """A JSON object that named a key twice; `key` is the key. Plain `json` would keep the last and say nothing."""

    key: str = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    repeated, seen = Repeated(result), set()
    for key, _ in pairs:
        if key in seen:
            repeated.key = key
        seen.add(key)
    return repeated


def parse(text: str, path: Path, *, row: int | None = None, line: int | None = None) -> Any:
    """One JSON value; NaN and infinities pass as floats, for the caller to refuse with their field."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        where = error.lineno if line is None else line
        raise DataError(
            f"must be JSON: {error.msg} at column {error.colno}", path=path, row=row, line=where
        ) from None
    except RecursionError:
        raise DataError("must be JSON nested less deeply", path=path, row=row, line=line) from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise DataError(
            f"must be JSON with numbers of a sane length: {error}", path=path, row=row, line=line
        ) from None


def json_lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The objects of a JSON-lines file, or of one JSON list, with their row and line, each checked."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        for row, record in enumerate(records(parse(text, path), path), start=1):
            yield row, 0, record
        return
    row = 0
    # Not splitlines(): U+2028 and its like may stand unescaped inside a JSON string.
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        row += 1
        record = parse(content, path, row=row, line=line)
        check_object(record, path, row=row, line=line)
        yield row, line, record


def records(value: Any, path: Path) -> list[dict[str, Any]]:
    """A parsed JSON list of objects, checked."""
    if not isinstance(value, list):
        raise DataError(f"must be a JSON list of objects, got {type(value).__name__}", path=path)
    if not value:
        raise DataError("must hold at least one record, got an empty list", path=path)
    for row, record in enumerate(value, start=1):
        check_object(record, path, row=row)
    return value


def check_object(
    record: Any, path: Path, *, row: int | None, line: int | None = None, field: str | None = None
) -> None:
    """Refuses what is not an object, and an object that names a key twice."""
    if not isinstance(record, dict):
        raise DataError(
            f"must be an object, got {shown(record)}", path=path, row=row, line=line, field=field
        )
    if isinstance(record, Repeated):
        name = record.key if field is None else f"{field}.{record.key}"
        raise DataError(
            "must be named once, got it twice", path=path, row=row, line=line, field=name
        )


def check_text(
    value: Any,
    field: str,
    *,
    path: Path,
    row: int | None,
    line: int | None = None,
    empty: bool = True,
) -> None:
    """Refuses what is not a string, or one that UTF-8 cannot write: JSON can escape half of a character."""
    if not isinstance(value, str) or not (value or empty):
        raise DataError(
            f"must be a text, got {shown(value)}", path=path, row=row, line=line, field=field
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        problem = f"must be text that UTF-8 can write, got a lone surrogate at character {error.start + 1}"
        raise DataError(problem, path=path, row=row, line=line, field=field) from None


def shown(value: Any) -> str:
    """A value as an error shows it: JSON, cut short."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
