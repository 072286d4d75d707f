"""JSON with nothing hidden.

Repeated keys, NaN, deep nesting and broken encodings become errors that say where.
"""

import codecs
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from racer_jax.data.errors import DataError
from racer_jax.data.formats._lines import MAX_RECORD, byte_lines
from racer_jax.data.formats._progress import progress
from racer_jax.data.formats._source import opened, refuse_binary
from racer_jax.data.formats._text import not_utf8

_SPACE = " \t\n\r"
# A list is read so many bytes at a time.
_BLOCK = 1 << 18


class Repeated(dict[str, Any]):
    """A JSON object that named `key` twice; plain `json` would keep the last in silence."""

    key: str = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    duplicates, keys = Repeated(result), set()
    for key, _ in pairs:
        if key in keys:
            duplicates.key = key
        keys.add(key)
    return duplicates


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def parse(text: str, path: Path, *, row: int | None = None, line: int | None = None) -> Any:
    """One JSON value; NaN and infinities pass as floats, which the caller refuses by field."""
    value, end = _value(text, _skip(text, 0), path, row, line)
    if (end := _skip(text, end)) != len(text):
        raise _invalid(json.JSONDecodeError("Extra data", text, end), path, row=row, line=line)
    return value


def _skip(text: str, start: int) -> int:
    """The first position from `start` on that is no white space."""
    while start < len(text) and text[start] in _SPACE:
        start += 1
    return start


def _value(text: str, start: int, path: Path, row: int | None, line: int | None) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and where it ends."""
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise _invalid(error, path, row=row, line=line) from None
    except RecursionError:
        raise too_deep(path, row=row, line=line) from None
    except ValueError:  # an integer of more digits than Python converts
        raise _too_long(path, row, line) from None


def _too_long(path: Path, row: int | None, line: int | None) -> DataError:
    """The error for an integer of more digits than Python converts."""
    most = sys.get_int_max_str_digits()
    problem = f"must be JSON with numbers of a sane length, got one of more than {most} digits"
    return DataError(problem, path=path, row=row, line=line)


def _invalid(
    error: json.JSONDecodeError, path: Path, *, row: int | None, line: int | None
) -> DataError:
    where = error.lineno if line is None else line
    problem = f"must be JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    return DataError(problem, path=path, row=row, line=where)


def too_deep(path: Path, *, row: int | None = None, line: int | None = None) -> DataError:
    """The error for JSON nested so deeply that Python gives up."""
    return DataError("must be JSON nested less deeply", path=path, row=row, line=line)


def json_lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The objects of a JSON-lines file, or of one JSON list, with row and line, each checked."""
    if starts_list(path):
        yield from ((row, 0, record) for row, record in json_list(path))
        return
    for row, (line, content) in enumerate(byte_lines(path), start=1):
        record = parse(str(content, "utf-8"), path, row=row, line=line)
        check_object(record, path, row=row, line=line)
        yield row, line, record


def starts_list(path: Path) -> bool:
    """Whether a file begins as a JSON list does."""
    with opened(path) as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return start[:1] == b"["


def json_list(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file that is one JSON list, one by one, with their number.

    The file is read block by block: what is held is a block and a record.
    """
    with opened(path) as file:
        refuse_binary(path, file.read(8))
        size = file.seek(0, 2)
        file.seek(0)
        with progress(path, size) as update:
            yield from _list_of(_Text(path, file, update))


def _list_of(text: "_Text") -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a list that is read block by block."""
    path, row = text.path, 0
    if not text.next():
        raise DataError("must not be empty", path=path)
    if text.next() != "[":
        kind = type(text.value(None)).__name__
        raise DataError(f"must be a JSON list of objects, got {kind}", path=path)
    text.step()
    while text.next() != "]" or row:
        row += 1
        record = text.value(row)
        check_object(record, path, row=row)
        yield row, record
        if text.next() == "]":
            break
        if text.next() != ",":
            raise text.invalid("Expecting ',' delimiter", row)
        text.step()
    if not row:
        raise DataError("must hold at least one record, got an empty list", path=path)
    text.step()
    if text.next():
        raise text.invalid("Extra data", None)


class _Text:
    """The text of a file of which only a part is held.

    Attributes:
      path: The file.
    """

    def __init__(self, path: Path, file: IO[bytes], update: Callable[[int], object]) -> None:
        self.path, self._file, self._update = path, file, update
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._held, self._at, self._lines, self._column = "", 0, 0, 0
        self._ended = False

    def next(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            self._at = _skip(self._held, self._at)
            if self._at < len(self._held) or self._ended:
                return self._held[self._at : self._at + 1]
            self._more(_BLOCK)

    def step(self) -> None:
        """Goes past a character."""
        self._at += 1

    def value(self, row: int | None) -> Any:
        """The JSON value that begins here."""
        size = _BLOCK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
            except json.JSONDecodeError as error:
                # An error close to the end of what is held is one only if nothing more comes.
                unfinished = "Unterminated" in error.msg or error.pos > len(self._held) - 16
                if self._ended or not unfinished:
                    raise self._placed(error, row) from None
                check_length(len(self._held) - self._at, self.path, row)
                self._more(size)
                size *= 2
                continue
            except RecursionError:
                raise too_deep(self.path, row=row) from None
            except ValueError:  # an integer of more digits than Python converts
                raise _too_long(self.path, row, None) from None
            check_length(end - self._at, self.path, row)
            self._at = end
            return value

    def invalid(self, problem: str, row: int | None) -> DataError:
        """The error for something else than what must stand here."""
        return self._placed(json.JSONDecodeError(problem, self._held, self._at), row)

    def _placed(self, error: json.JSONDecodeError, row: int | None) -> DataError:
        column = error.colno + (self._column if error.lineno == 1 else 0)
        line = error.lineno + self._lines
        problem = f"must be JSON: {error.msg} at column {column}"
        return DataError(problem, path=self.path, row=row, line=line)

    def _more(self, size: int) -> None:
        """Reads on; what was read over is let go."""
        block = self._file.read(size)
        self._update(len(block))
        self._ended = not block
        try:
            text = self._decoder.decode(block, final=not block)
        except UnicodeDecodeError:
            raise not_utf8(self.path, self._file) from None
        gone = self._held[: self._at]
        lines = gone.count("\n")
        self._column = len(gone) - gone.rfind("\n") - 1 if lines else self._column + len(gone)
        self._lines += lines
        self._held, self._at = self._held[self._at :] + text, 0


def check_length(length: int, path: Path, row: int | None) -> None:
    """Refuses a record that is longer than any honest one."""
    if length > MAX_RECORD:
        problem = f"must be a record of at most {MAX_RECORD >> 20} MiB, got one of more"
        raise DataError(problem, path=path, row=row)


def check_repeats(
    value: Any, path: Path, *, row: int | None = None, line: int | None = None
) -> None:
    """Refuses a value within which an object names a key twice."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Repeated):
            raise DataError(
                "must be named once, got it twice", path=path, row=row, line=line, field=part.key
            )
        if isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


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
    """Refuses what is no string that UTF-8 can write: JSON can escape half of a character."""
    if not isinstance(value, str) or not (value or empty):
        raise DataError(
            f"must be a text, got {shown(value)}", path=path, row=row, line=line, field=field
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        place = error.start + 1
        problem = f"must be text that UTF-8 can write, got a lone surrogate at character {place}"
        raise DataError(problem, path=path, row=row, line=line, field=field) from None


def shown(value: Any) -> str:
    """A value as an error shows it: JSON, cut short."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def cell(value: Any, field: str, *, path: Path, row: int, line: int | None = None) -> str:
    """A value of a row as the field of a table; None and NaN are empty."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    check_text(value, field, path=path, row=row, line=line)
    return str(value)
