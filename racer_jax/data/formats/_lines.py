"""Files read line by line, block by block: what is held is one line, however long the file is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tqdm import tqdm

from racer_jax.data.errors import DataError
from racer_jax.data.formats._source import opened, refuse_binary
from racer_jax.data.formats._text import not_utf8

# One record may be this long. Parsed JSON takes up to 30 times its text, if it is made of empty
# lists: records are therefore parsed one by one, and let go before the next.
MAX_RECORD = 1 << 26
_BLOCK = 1 << 18
_MARK = b"\xef\xbb\xbf"
# Seconds before a bar appears: what is read sooner needs none.
_DELAY = 2.0


@contextmanager
def progress(path: Path, total: int, unit: str = "B") -> Iterator[Callable[[int], object]]:
    """A bar on the terminal for what takes longer than two seconds; nothing where there is none.

    Args:
      path: The file, whose name the bar shows.
      total: How much there is.
      unit: Of what.

    Yields:
      What to call with how much more was read.
    """
    scale = unit == "B"
    with tqdm(
        total=total,
        unit=unit,
        unit_scale=scale,
        desc=path.name[:40],
        delay=_DELAY,
        disable=None,
        leave=False,
    ) as bar:
        yield bar.update


def byte_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a UTF-8 file that are not blank, with their number, counted from 1.

    Args:
      path: The file, plain or compressed.

    Yields:
      Number and bytes, without white space around them.

    Raises:
      DataError: If there is no such file, it is not UTF-8, it holds no line or one that is longer
        than `MAX_RECORD`.
    """
    with opened(path) as file:
        refuse_binary(path, file.read(8))
        size = file.seek(0, 2)
        file.seek(0)
        empty = True
        with progress(path, size) as update:
            for line, raw in enumerate(_split(path, file, update), start=1):
                # Not by str.splitlines(): U+2028 and its like may stand unescaped inside a string.
                content = (raw.removeprefix(_MARK) if line == 1 else raw).strip()
                if not content:
                    continue
                if not content.isascii():
                    try:
                        content.decode()
                    except UnicodeDecodeError:
                        raise not_utf8(path, file) from None
                empty = False
                yield line, content
    if empty:
        raise DataError("must not be empty", path=path)


def _split(path: Path, file: IO[bytes], update: Callable[[int], object]) -> Iterator[bytes]:
    """The lines of a file, blank ones too."""
    parts: list[bytes] = []
    held = count = 0
    while block := file.read(_BLOCK):
        update(len(block))
        first, *others = block.split(b"\n")
        parts.append(first)
        held += len(first)
        if held > MAX_RECORD:
            raise DataError(
                f"must be a record of at most {MAX_RECORD >> 20} MiB, got one of more",
                path=path,
                line=count + 1,
            )
        if not others:
            continue
        yield b"".join(parts)
        yield from others[:-1]
        count += len(others)
        parts, held = [others[-1]], len(others[-1])
    yield b"".join(parts)
