"""Records of JSON lines of which only the fields that are read are decoded.

A row of an evaluation log is mostly prompts that nobody reads. msgspec finds the fields of a row
without decoding them, twenty times as fast as Python's parser, but keeps the last of two fields of
one name. Whether a name stands twice is told without a second look at the row: written anew from
the fields found, in the layout of Python's or of compact JSON, the row must be the same byte for
byte, for a field that was dropped is missing there. Within a field the names are counted: those of
the text when the field is decoded, those of the whole row when a row has another number of them
than any row before. A row that fails a test, and one that msgspec does not read (NaN, half
characters), goes to the parser that tells exactly what is wrong.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import astuple

from racer_jax.data.formats._json import check_object, check_repeats, parse

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUES = msgspec.json.Decoder(list[Any])
_ENCODED = msgspec.json.Encoder().encode
# What follows a name, and nothing else: within a text a quotation mark stands after a backslash.
AFTER_NAME = b'":'
# Rows are compared with what they would be so many bytes at a time.
_WRITTEN_AT_ONCE = 1 << 15
# What msgspec takes in no name of a field: rows with such a name are parsed whole.
_UNREADABLE = re.compile(r'["\\\x00-\x1f]')
_FAULTS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
Place = tuple[Path, int, int]


class Record(msgspec.Struct):
    """A row: the fields that are always read, and the others, decoded when they are asked for.

    Attributes:
      place: Path, row and line, for an error.
      names: The names of the fields.
      values: Their values, decoded or not.
    """

    place: Place
    names: tuple[str, ...]
    values: Any
    doc_id: Any = None
    doc_hash: Any = None
    filter: Any = ""
    filtered_resps: Any = None
    target: Any = None
    acc: Any = None
    exact_match: Any = None

    def __getitem__(self, name: str) -> Any:
        """The value of a field, None where there is none."""
        if name in OFTEN:
            return getattr(self, name)
        if name not in self.names:
            return None
        value = self.values[self.names.index(name)]
        return _decoded(value, self.place) if isinstance(value, msgspec.Raw) else value

    def where(self) -> dict[str, Any]:
        """The place of the row, for an error."""
        path, row, line = self.place
        return {"path": path, "row": row, "line": line or None}

    def __contains__(self, name: object) -> bool:
        """Whether the row has a field of this name."""
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        """The names of the fields."""
        return iter(self.names)


OFTEN = Record.__struct_fields__[3:]
_DEFAULTS = dict(zip(OFTEN, Record.__struct_defaults__, strict=True))


class Layout:
    """The names of a row, by which the rows that follow are read: they are nearly always the same.

    Attributes:
      names: The names in their order.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        places = [f"field{j}" for j in range(len(names))]
        kinds: list[Any] = [(place, msgspec.Raw) for place in places]
        row = msgspec.defstruct(
            "Row",
            kinds,
            rename=dict(zip(places, names, strict=True)),
            forbid_unknown_fields=True,
        )
        self._decoder = msgspec.json.Decoder(row)
        self._starts = _starts(names)
        self._often = [names.index(name) if name in names else None for name in OFTEN]
        self._read = [place for place in self._often if place is not None]
        self._all = None not in self._often

    def record(self, content: bytes, place: Place) -> Record | None:
        """A row, None where it is not read by these names, each once."""
        try:
            values = astuple(self._decoder.decode(content))
        except _FAULTS:
            return None
        if not self._is_whole([values], content, b"}"):
            return None
        try:
            decoded = _VALUES.decode(b"[" + b",".join([values[j] for j in self._read]) + b"]")
        except _FAULTS:
            return None
        if not self._all:
            rest = iter(decoded)
            decoded = [
                default if j is None else next(rest)
                for j, default in zip(self._often, _DEFAULTS.values(), strict=True)
            ]
        return Record(place, self.names, values, *decoded)

    def columns(self, block: bytes) -> list[tuple[Any, ...]] | None:
        """The values of whole lines by field; None where a line is not read by these names."""
        try:
            rows = list(map(astuple, self._decoder.decode_lines(block)))
        except _FAULTS:
            return None
        end = b"}\n" if block.endswith(b"\n") else b"}"
        return list(zip(*rows, strict=True)) if self._is_whole(rows, block, end) else None

    def _is_whole(self, rows: list[tuple[Any, ...]], content: bytes, end: bytes) -> bool:
        """Whether lines are nothing but the fields found in them, so that none stands twice."""
        # Some rows at a time: written anew, the whole block would be held twice.
        step = max(1, len(rows) * _WRITTEN_AT_ONCE // len(content))
        for layout, starts in enumerate(self._starts):
            at = 0
            for row in range(0, len(rows), step):
                text = _written(rows[row : row + step], starts, is_first=row == 0)
                if not content.startswith(text, at):
                    break
                at += len(text)
            else:
                if at + len(end) == len(content) and content.endswith(end):
                    if layout:  # the rows that follow are written in the same way
                        self._starts.reverse()
                    return True
        return False


def _written(rows: list[tuple[Any, ...]], starts: list[bytes], is_first: bool) -> bytes:
    """Rows that follow one another, without the end of the last one."""
    parts: list[Any] = [b""] * (2 * len(starts) * len(rows))
    parts[1::2] = chain.from_iterable(rows)
    parts[::2] = starts * len(rows)
    if is_first:
        parts[0] = starts[0].removeprefix(_NEXT_ROW)
    return b"".join(parts)


# What stands between two rows; that of the first is cut off.
_NEXT_ROW = b"}\n"


def _starts(names: tuple[str, ...]) -> list[list[bytes]]:
    """What stands before each value, in the layout of Python's JSON and in the compact one."""
    layouts = []
    for comma, colon in ((", ", ": "), (",", ":")):
        starts = [_NEXT_ROW.decode() + "{", *([comma] * (len(names) - 1))]
        pairs = zip(starts, names, strict=False)
        layouts.append([f'{start}"{name}"{colon}'.encode() for start, name in pairs])
    return layouts


@lru_cache(1 << 8)
def _layout(names: tuple[str, ...]) -> Layout:
    return Layout(names)


def layout_of(content: bytes) -> Layout | None:
    """How rows such as this one are read; None where they must be parsed whole."""
    try:
        names = tuple(_FIELDS.decode(content))
    except _FAULTS:
        return None
    return _layout(names) if names and not _UNREADABLE.search("".join(names)) else None


def checked(content: bytes, place: Place) -> Record:
    """A row by the parser that sees every name."""
    path, row, line = place
    return parsed(parse(str(content, "utf-8"), path, row=row, line=line or None), place)


def parsed(value: Any, place: Place) -> Record:
    """The record of an object that was decoded whole."""
    path, row, line = place
    check_object(value, path, row=row, line=line or None)
    check_repeats(value, path, row=row, line=line or None)
    often = [value.get(name, default) for name, default in _DEFAULTS.items()]
    return Record(place, tuple(value), tuple(value.values()), *often)


def _decoded(raw: msgspec.Raw, place: Place) -> Any:
    """The value of a field; an error where a name within it stands twice."""
    text = bytes(raw)
    values = decoded_all([text])
    if values is not None:
        return values[0]
    # Repeated names, half characters and integers of a thousand digits, which Python's parser
    # judges.
    path, row, line = place
    value = parse(text.decode(), path, row=row, line=line or None)
    check_repeats(value, path, row=row, line=line or None)
    return value


def decoded_all(column: Sequence[Any]) -> list[Any] | None:
    """Values that are not decoded yet; None where a name may stand twice in one, or one is bad."""
    return _list(b"[" + b",".join(column) + b"]")


def decoded_together(columns: Sequence[Sequence[Any]]) -> list[list[Any]] | None:
    """Several columns of values as `decoded_all` reads them; None where one of them is None."""
    return _list(b"[[" + b"],[".join(map(b",".join, columns)) + b"]]")


def _list(text: bytes) -> list[Any] | None:
    """The values of a JSON list; None where a name may stand twice in one, or one is bad."""
    try:
        values = _VALUES.decode(text)
        number = text.count(AFTER_NAME)
        # An escaped quotation mark or colon would be counted when it is written anew.
        sure = number == 0 or (
            number == _ENCODED(values).count(AFTER_NAME)
            and (b"\\" not in text or (b"\\u0022" not in text and b"\\u003" not in text))
        )
    except _FAULTS:
        return None
    return values if sure else None
