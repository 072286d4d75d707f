"""Records of JSON lines of which only the fields that are read are decoded.

A row of an evaluation log is mostly prompts that nobody reads. msgspec finds the fields of a row
without decoding them, twenty times as fast as Python's parser, but keeps the last of two fields of
one name. Whether a name stands twice is told without a second look at the row: written anew from
the fields found, in the layout of Python's or of compact JSON, the row must be the same byte for
byte, for a field that was dropped is missing there. A row for which it is not, and one that msgspec
does not read (NaN, half characters), goes to the parser that tells exactly what is wrong.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from racer_jax.data.formats._json import check_object, json_list, parse, starts_list
from racer_jax.data.formats._lines import byte_lines
from racer_jax.data.formats._text import read_text

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder()
_FAULTS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


class Record(Mapping[str, Any]):
    """A row whose fields are decoded when they are asked for."""

    __slots__ = ("_raw",)

    def __init__(self, raw: dict[str, msgspec.Raw]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> Any:
        raw = self._raw[name]
        try:
            return _VALUE.decode(raw)
        except _FAULTS:
            # Half characters and integers of a thousand digits, which Python's parser judges.
            return parse(bytes(raw).decode(), Path(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)


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


def _record(content: bytes, path: Path, row: int, line: int) -> Mapping[str, Any]:
    """One row."""
    try:
        raw = _FIELDS.decode(content)
    except _FAULTS:
        raw = None
    if raw is not None and _is_whole(raw, content):
        return Record(raw)
    record = parse(content.decode(), path, row=row, line=line)
    check_object(record, path, row=row, line=line)
    found: Mapping[str, Any] = record
    return found


def _is_whole(raw: dict[str, msgspec.Raw], content: bytes) -> bool:
    """Whether a row is nothing but the fields found in it, so that none stands twice."""
    spaced = content[1:].partition(b":")[2][:1] == b" "
    colon, comma = (b'": ', b', "') if spaced else (b'":', b',"')
    written = [b"%b%b%b" % (name.encode(), colon, value) for name, value in raw.items()]
    return b'{"' + comma.join(written) + b"}" == content
