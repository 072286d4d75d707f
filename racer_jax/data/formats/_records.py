"""Records of JSON lines of which only the fields that are read are decoded.

A row of an evaluation log is mostly prompts that are not needed. msgspec finds the fields of a row
without decoding them, twenty times as fast as Python's parser, but keeps the last of two fields of
one name. Whether a name stands twice is known without reading the row again: written anew from
the fields found, in the layout of Python's or of compact JSON, the row must be the same byte for
byte, for a field that was dropped is missing there. A row for which it is not, and one that msgspec
does not read (NaN, half characters), goes to the parser that says exactly what is wrong.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from racer_jax.data.formats._json import check_object, json_list, parse, starts_list
from racer_jax.data.formats._lines import byte_lines
from racer_jax.data.formats._text import read_text

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder()


class _Often(TypedDict, total=False):
    """Fields that are read of every row, decoded in one go."""

    doc_id: Any
    doc_hash: Any
    filter: Any
    filtered_resps: Any
    target: Any
    acc: Any
    exact_match: Any


_OFTEN = msgspec.json.Decoder(_Often)
_FAULTS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


class Record(dict[str, Any]):
    """A row: the fields that are always read, and the others, decoded when they are asked for."""

    __slots__ = ("raw",)
    raw: dict[str, msgspec.Raw]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a field, or the default where there is none."""
        if dict.__contains__(self, name):
            return dict.__getitem__(self, name)
        if name not in self.raw:
            return default
        try:
            self[name] = _VALUE.decode(self.raw[name])
        except _FAULTS:
            # Half characters and integers of a thousand digits, which Python's parser judges.
            self[name] = parse(bytes(self.raw[name]).decode(), Path(name))
        return dict.__getitem__(self, name)

    def __getitem__(self, name: str) -> Any:
        if name not in self.raw:
            raise KeyError(name)
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self.raw

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)


def record_lines(path: Path) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """The objects of JSON lines, or of one JSON list, with their row and line, each checked.

    Args:
      path: The file, plain or compressed.

    Yields:
      Row counted from 1, line (0 within a list), and the record.

    Raises:
      DataError: If the file is not what it should be; it names row and line.
    """
    if starts_list(path):
        yield from ((row, 0, record) for row, record in json_list(read_text(path), path))
        return
    for row, (line, content) in enumerate(byte_lines(path), start=1):
        yield row, line, _record(content, path, row, line)


def _record(content: memoryview, path: Path, row: int, line: int) -> Mapping[str, Any]:
    """One row."""
    try:
        raw = _FIELDS.decode(content)
    except _FAULTS:
        raw = None
    if raw is not None and _is_whole(raw, content):
        try:
            decoded_record = Record(_OFTEN.decode(content))
        except _FAULTS:
            decoded_record = Record()
        decoded_record.raw = raw
        return decoded_record
    record = parse(str(content, "utf-8"), path, row=row, line=line)
    check_object(record, path, row=row, line=line)
    mapping: Mapping[str, Any] = record
    return mapping


def _is_whole(raw: dict[str, msgspec.Raw], content: memoryview) -> bool:
    """Whether a row is nothing but the fields found in it, so that none stands twice."""
    parts: list[Any] = [b"}"] * (2 * len(raw) + 1)
    parts[1::2] = raw.values()
    row = bytes(content)  # views are compared item by item
    for prefixes in _prefixes(tuple(raw)):
        parts[:-1:2] = prefixes
        if b"".join(parts) == row:
            return True
    return False


@lru_cache(1 << 10)
def _prefixes(names: tuple[str, ...]) -> list[list[bytes]]:
    """What stands before each value, in the layout of Python's JSON and in the compact one."""
    layouts = []
    for comma, colon in ((", ", ": "), (",", ":")):
        starts = ["{", *([comma] * (len(names) - 1))]
        pairs = zip(starts, names, strict=False)
        layouts.append([f'{start}"{name}"{colon}'.encode() for start, name in pairs])
    return layouts
