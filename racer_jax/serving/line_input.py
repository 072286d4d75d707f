"""Lines of a stream of queries: each is bounded, decoded and parsed, and its fault has its place.

Nothing in a line ends the stream: what is wrong with one is an error in its place.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from racer_jax.data.errors import DataError
from racer_jax.data.formats._json import Repeated, parse, shown

# A line longer than this is no query; the rest of it is read and let go.
LONGEST = 16 << 20
# What has no line break for so long is no file of lines.
_MOST_SKIPPED = 1 << 30
# A line that begins like this is meant to be JSON.
_JSON_STARTS = ("{", "[", '"', "}", "]")
# Words in quotation marks with more text behind them are no JSON, unless they are part of a list.
_QUOTED_WORDS = re.compile(r'"(?:[^"\\]|\\.)*"\s*[^\s,:\]}]')
# Bytes that no plain text holds: the file is something else.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")


def numbered_lines(file: IO[bytes], path: str) -> Iterator[tuple[int, bytes | DataError]]:
    """The lines that are not blank, with their number; the error of one in its place.

    Use this when a stream of lines is read: memory does not grow with a line.

    Args:
      file: Opened for bytes.
      path: Its name, for errors.

    Yields:
      Number, counted from 1, and bytes, or what is wrong with the line.

    Raises:
      DataError: If a line has no end, or the stream begins as a binary file does.
    """
    begun = False
    for line in range(1, 1 << 62):
        raw = file.readline(LONGEST)
        if not raw:
            return
        if len(raw) >= LONGEST and not raw.endswith(b"\n"):
            _skip_line(file, path, line)
            problem = f"must be a line of at most {LONGEST >> 20} MiB, got a longer one"
            yield line, DataError(problem, path=path, line=line)
        elif raw.strip():
            if not begun and b"\0" in raw:
                raise DataError(_binary(raw), path=path, line=line)
            yield line, raw
        begun = begun or bool(raw.strip())


def _skip_line(file: IO[bytes], path: str, line: int) -> None:
    """Reads to the end of a line."""
    for _ in range(_MOST_SKIPPED // LONGEST):
        rest = file.readline(LONGEST)
        if len(rest) < LONGEST or rest.endswith(b"\n"):
            return
    raise DataError(
        f"must be lines, got one of more than {_MOST_SKIPPED >> 20} MiB", path=path, line=line
    )


def _binary(raw: bytes) -> str:
    """What is wrong with a stream that is no text, by its first line."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "must be lines of text in UTF-8, got UTF-16; save it as UTF-8"
    return "must be lines of text, got a binary file"


def record_of(raw: bytes, path: str, line: int, *, plain: bool) -> dict[str, Any]:
    """The object of a line; a string, or a line of plain text, becomes one.

    Use this when a line of a stream is to be read.

    Args:
      raw: The line.
      path: Its file, for errors.
      line: Its number.
      plain: Whether plain text is a question.

    Returns:
      The object.

    Raises:
      DataError: If the line is none of these, or names a field twice.
    """
    try:
        words = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
    except UnicodeDecodeError:
        raise DataError("must be text in UTF-8", path=path, line=line) from None
    looks_plain = words[:1] not in _JSON_STARTS or _QUOTED_WORDS.match(words) is not None
    if plain and looks_plain:
        if _CONTROL.search(words):
            raise DataError("must be text, got control characters", path=path, line=line)
        return {"text": words}
    record = _parsed(words, path, line, plain)
    if isinstance(record, str) and plain:
        return {"text": record}
    if isinstance(record, list):
        problem = "must be one JSON object on each line, got a list: write its items on lines"
        raise DataError(f"{problem} of their own", path=path, line=line)
    if not isinstance(record, dict):
        raise DataError(f"must be a JSON object, got {shown(record)}", path=path, line=line)
    for field, value in {"": record, **record}.items():
        if isinstance(value, Repeated):
            name = f"{field}.{value.key}" if field else value.key
            raise DataError("must be named once, got it twice", path=path, line=line, field=name)
    return record


def _parsed(words: str, path: str, line: int, plain: bool) -> Any:
    """The JSON of a line; what is wrong with it is said in the words of lines."""
    try:
        return parse(words, Path(path), line=line)
    except DataError as error:
        why = error.problem.removeprefix("must be JSON").removeprefix(": ").strip()
        kinds = "must be a JSON object, or plain text" if plain else "must be a JSON object"
        begins = f" begins like JSON, {shown(words[:20])}, and is none:" if plain else ""
        raise DataError(f"{kinds};{begins} {why}", path=path, line=line) from None


def string_of(record: dict[str, Any], field: str, path: str, line: int) -> str | None:
    """A field that is a text without lone surrogates, of which nothing could be written.

    Use this when a field of a line is a text; it is None where it is not there.
    """
    value = record.get(field)
    if value is not None and not isinstance(value, str):
        raise DataError(f"must be a string, got {shown(value)}", path=path, line=line, field=field)
    _check_unicode(value, path, line)
    return value


def name_of(record: dict[str, Any], path: str, line: int) -> str | int | None:
    """The `id` of a line, which may be a number.

    Use this when a line may name its query; it is None where it names none.
    """
    value = record.get("id")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not whole and not isinstance(value, str):
        problem = f"must be a string or a whole number, got {shown(value)}"
        raise DataError(problem, path=path, line=line, field="id")
    _check_unicode(value if isinstance(value, str) else None, path, line)
    return value


def question_of(record: dict[str, Any], path: str, line: int) -> str | None:
    """The question of a line, under `text` or `query`.

    Use this when a line may hold a question; it is None where it holds none.
    """
    names = [name for name in ("text", "query") if record.get(name) is not None]
    if len(names) > 1:
        raise DataError("must stand under 'text' or 'query', not both", path=path, line=line)
    return string_of(record, names[0], path, line) if names else None


def no_question(record: dict[str, Any], text: str | None, path: str, line: int) -> DataError:
    """The error for a line whose question is empty or not there.

    Use this when `question_of` gives nothing that can be asked.
    """
    known = [name for name in ("text", "query") if name in record]
    field = known[0] if known else "text"
    got = shown(text)
    if not known:
        got = f"an object with {', '.join(map(repr, [*record][:8]))}" if record else "{}"
    problem = f"must be the text of a question, got {got}"
    return DataError(problem, path=path, line=line, field=field)


def is_error(record: Any) -> bool:
    """Whether an object stands in the place of the decision of a query that could not be read.

    Use this when decisions are read that `route` wrote.
    """
    return isinstance(record, dict) and "error" in record and not {"models", "scores"} & set(record)


def _check_unicode(text: str | None, path: str, line: int) -> None:
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise DataError("must be text without lone surrogates", path=path, line=line) from None
