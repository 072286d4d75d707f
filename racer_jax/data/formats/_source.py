"""Where bytes come from: files, compressed files and pipes, opened once and bounded."""

import bz2
import codecs
import gzip
import lzma
import os
import select
import shlex
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from racer_jax._files import address_problem
from racer_jax.data.errors import DataError

# What a pipe may deliver, and what a compressed file may unpack to beyond a share of its size: a
# few kilobytes can claim terabytes. It goes to the disk, not into memory.
MAX_PIPE = 1 << 32
_MAX_GROWTH, _FREE_GROWTH = 200, 1 << 26
# How long a named pipe may stay without anybody who writes to it.
_WAIT_SECONDS = 2.0
_BLOCK = 1 << 20
_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


_SPREADSHEET = "a spreadsheet of old Excel; save it as CSV (UTF-8) first"
_ARROW = "an Arrow file (Feather); write it as Parquet or CSV first"
# Files that hold no text, by their first bytes, and what to do about them.
_BINARY: dict[bytes, str] = {
    b"\x28\xb5\x2f\xfd": "a Zstandard archive; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"\xd0\xcf\x11\xe0": _SPREADSHEET,
    b"ARROW1": _ARROW,
    b"FEA1": _ARROW,
    b"SQLite format 3\0": "an SQLite database; export its table as CSV first",
    b"\x89HDF": "an HDF5 file; write its table as CSV or Parquet first",
    b"ORC": "an ORC file; write it as Parquet first",
    b"Obj\x01": "an Avro file; write it as Parquet first",
    b"%PDF": "a PDF",
}


def cannot_read(path: Path, error: OSError) -> DataError:
    """The error for a file that the system will not give."""
    if problem := address_problem(path):
        return DataError(problem)
    if isinstance(error, FileNotFoundError):
        return DataError("file not found", path=path)
    return DataError(f"cannot be read: {error.strerror or error}", path=path)


def check_exists(path: Path) -> None:
    """Refuses what is not there.

    Raises:
      DataError: If there is no such file or folder, or the path is an address.
    """
    _status(path)


def is_pipe(path: Path) -> bool:
    """Whether a path can be read only once."""
    return stat.S_ISFIFO(_status(path).st_mode) or stat.S_ISSOCK(_status(path).st_mode)


def _status(path: Path) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise cannot_read(path, error) from None
    except ValueError as error:  # a null byte in the name
        raise DataError(f"cannot be read: {error}", path=path) from None


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file, plain or compressed, or a pipe, so that it can be read again from its start.

    Args:
      path: The file; a pipe is read to its end, a device is refused.

    Yields:
      The bytes, from the start; of a compressed file those that were compressed.

    Raises:
      DataError: If there is no such file, it is a folder or a device, it is damaged, or it is
        larger than allowed.
    """
    mode = _status(path).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise DataError("must be a file or a pipe, got a device", path=path)
    try:
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            with tempfile.TemporaryFile() as copy:
                _drain(path, copy)
                with _unpacked(path, cast(IO[bytes], copy)) as file:
                    yield file
            return
        with path.open("rb") as plain, _unpacked(path, plain) as file:
            yield file
    except OSError as error:
        raise cannot_read(path, error) from None


def _opener_of(start: bytes) -> Callable[..., Any] | None:
    """What opens a compressed file, by its first bytes; None where it is not compressed."""
    return next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)


@contextmanager
def _unpacked(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file itself, or a copy on the disk of what was compressed in it."""
    opener = _opener_of(file.read(6))
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if opener is None:
        with _in_utf8(path, file) as text:
            yield text
        return
    most = _FREE_GROWTH + _MAX_GROWTH * size
    with tempfile.TemporaryFile() as copy:
        num_bytes = 0
        try:
            with opener(file) as stream:
                while block := stream.read(_BLOCK):
                    num_bytes += len(block)
                    if num_bytes > most:
                        raise DataError(
                            f"must unpack to at most {_MAX_GROWTH} times its size; unpack it first",
                            path=path,
                        )
                    copy.write(block)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise DataError(f"must be a whole compressed file: {error}", path=path) from None
        copy.seek(0)
        with _in_utf8(path, cast(IO[bytes], copy)) as text:
            yield text


@contextmanager
def _in_utf8(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file itself, or a copy on the disk where its first bytes say that it is UTF-16."""
    start = file.read(2)
    file.seek(0)
    if start not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        yield file
        return
    decoder = codecs.getincrementaldecoder("utf-16")()
    with tempfile.TemporaryFile() as copy:
        try:
            while block := file.read(_BLOCK):
                copy.write(decoder.decode(block).encode())
            copy.write(decoder.decode(b"", final=True).encode())
        except UnicodeError:
            raise DataError("must be UTF-16, as its first bytes say", path=path) from None
        copy.seek(0)
        yield cast(IO[bytes], copy)


@contextmanager
def open_lines(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file, plain or compressed, or a pipe, to be read once, as it comes.

    Args:
      path: The file.

    Yields:
      The bytes; of a compressed file those that were compressed.

    Raises:
      DataError: If there is no such file, it cannot be read, or it is damaged.
    """
    try:
        plain = path.open("rb")
    except OSError as error:
        raise cannot_read(path, error) from None
    with plain:
        opener = None
        if plain.seekable():  # a pipe cannot go back to its start
            opener = _opener_of(plain.read(6))
            plain.seek(0)
        if opener is None:
            yield plain
            return
        # Other errors of the system may be those of what is done with the lines.
        try:
            with opener(plain) as stream:
                yield stream
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise DataError(f"must be a whole compressed file: {error}", path=path) from None


def _drain(path: Path, copy: IO[bytes]) -> None:
    """Copies a pipe to its end; a pipe no process writes to is refused at once."""
    # Opened without waiting: to open a named pipe without a writer would wait for ever.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        deadline, size = time.monotonic() + _WAIT_SECONDS, 0
        seen_writer = not path.is_fifo() or _is_inherited(path)
        while True:
            try:
                block = os.read(handle, _BLOCK)
            except BlockingIOError:  # a process has opened it and has written nothing yet
                seen_writer = True
                poll.poll()
                continue
            if block:
                seen_writer = True
                size += len(block)
                if size > MAX_PIPE:
                    raise DataError(
                        f"must deliver at most {MAX_PIPE >> 30} GiB; write it to a file first",
                        path=path,
                    )
                copy.write(block)
            elif seen_writer:
                break
            elif time.monotonic() > deadline:
                raise DataError("must be written to, got a pipe no process writes to", path=path)
            else:
                time.sleep(0.01)
    finally:
        os.close(handle)
    copy.seek(0)


def _is_inherited(path: Path) -> bool:
    """Whether a pipe is one the shell opened for this process, whose writer has been there."""
    return str(path).startswith(("/dev/fd/", "/proc/")) or str(path) == "/dev/stdin"


@contextmanager
def as_file(path: Path) -> Iterator[Path]:
    """A path that may be read several times: the path itself, or a copy of what a pipe delivers.

    Args:
      path: The file, folder or pipe.

    Yields:
      The path to read. Errors name the path given.
    """
    if not is_pipe(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder, opened(path) as file:
        # A number given by the shell names nothing, and is another at the next call.
        copy = Path(folder) / ("pipe" if path.name.isdigit() else path.name)
        with copy.open("wb") as target:
            while block := file.read(_BLOCK):
                target.write(block)
        try:
            yield copy
        except DataError as error:
            raise (error.at(path) if error.path == copy else error) from None


def refuse_compressed(path: Path) -> None:
    """Refuses a compressed file of a format that is read from many places and packed within."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise cannot_read(path, error) from None
    if _opener_of(start) is not None:
        raise DataError("must not be compressed as a whole; unpack it first", path=path)


def refuse_binary(path: Path, start: bytes | None = None) -> None:
    """Refuses pickles, which run code when read, and other files that hold no text.

    Says how to turn them into CSV. The name of the file is an argument of the recipe, quoted, never
    a part of its code: a name can hold commands.
    """
    if start is None:
        with opened(path) as file:
            start = file.read(512)
    if path.suffix in (".pkl", ".pickle") or (
        start[:1] == b"\x80" and b"\x02" <= start[1:2] <= b"\x05"
    ):
        raise DataError(
            "must not be a pickle, which can run any code when it is read; turn one that you "
            "trust into CSV with " + _recipe(path, "read_pickle"),
            path=path,
        )
    if start[:4] == b"PAR1":
        raise DataError(
            "must be text, got Parquet; turn it into CSV with " + _recipe(path, "read_parquet"),
            path=path,
        )
    if start[:4] == b"PK\x03\x04":
        raise DataError(
            "must be text, got a zip archive; unpack it first, or save a spreadsheet as CSV "
            "(UTF-8)",
            path=path,
        )
    if start[257:262] == b"ustar":
        raise DataError("must be text, got a tar archive; unpack it first", path=path)
    for magic, what in _BINARY.items():
        if start.startswith(magic):
            raise DataError(f"must be text, got {what}", path=path)


def _recipe(path: Path, reader: str) -> str:
    """A command that turns a file into CSV, safe to paste whatever the file is called."""
    code = f"import sys, pandas; pandas.{reader}(sys.argv[1]).to_csv(sys.argv[2], index=False)"
    return f'python -c "{code}" {shlex.join([str(path), str(path.with_suffix(".csv"))])}'
