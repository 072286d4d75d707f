"""Files read line by line, block by block: what is held is one line, however long the file is."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._progress import progress
from racer_jax.data.formats._source import opened, refuse_binary
from racer_jax.data.formats._text import not_utf8

# One record may be this long. Parsed JSON takes up to 30 times its text, if it is made of empty
# lists: records are therefore parsed one by one, and let go before the next.
MAX_RECORD = 1 << 26
_BLOCK = 1 << 17
_MARK = b"\xef\xbb\xbf"
_LINE_BREAK, _COUNTED_AT_ONCE = 10, 1 << 15
_SPACE = b" \t\r\n\v\f"


@contextmanager
def without_collector() -> Iterator[None]:
    """Turns the search for cycles off while many small objects are made that have none.

    Strings by the million make no cycles, but the collector looks for some at every turn, and jax
    hangs a callback on it: half of the time of reading.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def byte_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a UTF-8 file that are not blank, with their number, counted from 1.

    Args:
      path: The file, plain or compressed.

    Yields:
      Number and bytes.

    Raises:
      DataError: If there is no such file, it is not UTF-8, it holds no line or one that is longer
        than `MAX_RECORD`.
    """
    for line, block in byte_blocks(path):
        yield from lines_of(block, line)


def lines_of(block: bytes, line: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a block that are not blank, without white space around them.

    Args:
      block: Whole lines.
      line: Number of the first.

    Yields:
      Number and bytes.
    """
    start = 0
    # Not by str.splitlines(): U+2028 and its like may stand unescaped inside a JSON string. One
    # after another, not by split(): a line is read while it is still in the cache.
    while start < len(block):
        end = block.find(b"\n", start)
        end = len(block) if end < 0 else end
        content = block[start:end]
        if not content or content[-1] in _SPACE or content[0] in _SPACE:
            content = content.strip()
        if content:
            yield line, content
        start, line = end + 1, line + 1


def byte_blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a UTF-8 file, many at a time, with the number of the first.

    Args:
      path: The file, plain or compressed.

    Yields:
      Number and bytes; a block ends with a line break, the last one where the file does.

    Raises:
      DataError: As `byte_lines` does.
    """
    with opened(path) as file:
        refuse_binary(path, file.read(8))
        size = file.seek(0, 2)
        file.seek(0)
        empty = True
        with progress(path, size) as update:
            for line, block in _split(path, file, update):
                empty = empty and block.isspace()
                yield line, block
                del block
    if empty:
        raise DataError("must not be empty", path=path)


def _split(
    path: Path, file: IO[bytes], update: Callable[[int], object]
) -> Iterator[tuple[int, bytes]]:
    """The blocks of a file, without its byte-order mark."""
    buffer = bytearray(_BLOCK)
    length, line, first = 0, 1, True  # so much of the buffer is the beginning of a line
    while True:
        if 2 * length > len(buffer):
            buffer.extend(bytes(len(buffer)))
        with memoryview(buffer) as view, view[length:] as rest:
            count = file.readinto(rest)  # type: ignore[attr-defined]
        update(count)
        has_ended = not count
        if first and buffer.startswith(_MARK, 0, count):
            count -= len(_MARK)
            buffer[:count] = buffer[len(_MARK) : len(_MARK) + count]
        first = False
        end = length if has_ended else buffer.rfind(b"\n", length, length + count) + 1
        length += count
        if end:
            lines = bytes(memoryview(buffer)[:end])
            if not _is_text(lines):
                raise not_utf8(path, file)
            length -= end
            buffer[:length] = buffer[end : end + length]
            start, line = line, line + _count_lines(lines)
            block = [lines]
            del lines  # so that it goes when whoever reads it lets it go
            yield start, block.pop()
        if has_ended:
            return
        if length > MAX_RECORD:
            raise DataError(
                f"must be a record of at most {MAX_RECORD >> 20} MiB, got one of more",
                path=path,
                line=line,
            )


def _count_lines(lines: bytes) -> int:
    """How many lines end, a part at a time: `bytes.count` takes ten times as long."""
    characters = np.frombuffer(lines, np.uint8)
    starts = range(0, len(lines), _COUNTED_AT_ONCE)
    parts = (characters[start : start + _COUNTED_AT_ONCE] for start in starts)
    return sum(int(np.count_nonzero(part == _LINE_BREAK)) for part in parts)


def _is_text(lines: bytes) -> bool:
    """Whether whole lines are UTF-8."""
    if lines.isascii():
        return True
    try:
        lines.decode()
    except UnicodeDecodeError:
        return False
    return True
