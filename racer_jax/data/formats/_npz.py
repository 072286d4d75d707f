"""NumPy archives without pickle: the size of every array is bounded before it is read."""

import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._source import opened

# A few kilobytes can claim to unpack to terabytes: an archive may unpack to 4 GiB, and to no more
# than a multiple of its own size beyond what fits anywhere.
MAX_BYTES = 1 << 32
_MAX_GROWTH, _FREE_GROWTH = 100, 1 << 24
_KINDS = "biufUS"
_LAST_CHARACTER = 0x10FFFF
# The header as NumPy writes it. It is a Python literal, but one to match, not to evaluate: a
# literal can take hundreds of times its length in memory.
_HEADER = re.compile(
    r"\{'descr': '([<>|=]?[a-zA-Z]\d{0,9})', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,15}, ?)*(?:\d{1,15})?),?\),? ?\}"
)


class Archive:
    """The arrays of an `.npz` file, read one by one.

    Attributes:
      path: The file.
      names: The arrays it holds.
      unread: Those of them that were not asked for.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, size: int) -> None:
        self.path, self._archive = path, archive
        self.names = tuple(name.removesuffix(".npy") for name in archive.namelist())
        if len(set(self.names)) < len(self.names):
            raise DataError("must hold each array once, got one twice", path=path)
        self._members = frozenset(archive.namelist())
        self._name_set = frozenset(self.names)
        self.unread = set(self.names)
        self._budget = min(MAX_BYTES, _FREE_GROWTH + _MAX_GROWTH * size)

    def __contains__(self, name: str) -> bool:
        return name in self._name_set

    def require(self, name: str) -> None:
        """Refuses an archive without this array.

        Raises:
          DataError: If it lacks it.
        """
        if name not in self:
            raise DataError(
                f"must be in the file, which holds {sorted(self.names)}", path=self.path, field=name
            )

    def array(self, name: str, kinds: str = _KINDS, ndim: int | None = None) -> np.ndarray:
        """An array of the archive.

        Args:
          name: Its name.
          kinds: The kinds of dtype allowed (NumPy's letters).
          ndim: The number of dimensions it must have.

        Returns:
          The array.

        Raises:
          DataError: If it is absent, damaged, of another kind or shape, or larger than `MAX_BYTES`.
        """
        self.require(name)
        self.unread.discard(name)
        member = f"{name}.npy" if f"{name}.npy" in self._members else name
        info = self._archive.getinfo(member)
        self._budget -= info.file_size
        if self._budget < 0:
            raise DataError(
                f"must unpack to at most {_MAX_GROWTH} times the size of the file and "
                f"{MAX_BYTES >> 30} GiB",
                path=self.path,
                field=name,
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                "must be stored or deflated, as NumPy writes it", path=self.path, field=name
            )
        with self._archive.open(info) as file:
            shape, fortran, dtype, header = _header(file)
            if dtype.kind not in kinds or dtype.hasobject:
                raise DataError(
                    f"must hold {_kind_names(kinds)}, got dtype {dtype}"
                    + (
                        "; Python objects would have to be unpickled, which is never done"
                        if dtype.hasobject
                        else ""
                    ),
                    path=self.path,
                    field=name,
                )
            if ndim is not None and len(shape) != ndim:
                raise DataError(
                    f"must have {ndim} dimensions, got shape {shape}", path=self.path, field=name
                )
            if not dtype.itemsize:  # of these any number fits into no byte at all
                raise DataError(
                    "must hold texts of at least one character", path=self.path, field=name
                )
            size = math.prod(shape) * dtype.itemsize
            if size != (num_bytes := info.file_size - header):
                raise DataError(
                    f"must hold {size} bytes for shape {shape}, got {num_bytes}",
                    path=self.path,
                    field=name,
                )
            data = file.read()
        array = np.frombuffer(data, dtype=dtype) if size else np.empty(math.prod(shape), dtype)
        if dtype.kind == "U" and (array.view(f"{dtype.byteorder}u4") > _LAST_CHARACTER).any():
            raise DataError("must hold characters of Unicode", path=self.path, field=name)
        return array.reshape(shape, order="F" if fortran else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, order, dtype and length of an array's header; `ValueError` where it is not one."""
    start = file.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise ValueError("not an array of NumPy's format")
    width = 2 if start[6:7] == b"\x01" else 4
    length = int.from_bytes(file.read(width), "little")
    if length > 1 << 16:
        raise ValueError("the header is too long")
    text = file.read(length).decode("latin1")
    match = _HEADER.fullmatch(text.rstrip())
    if match is None:
        raise ValueError("the header is damaged")
    try:
        dtype = np.dtype(match[1])
    except (TypeError, ValueError):
        raise ValueError("the header is damaged") from None
    shape = tuple(int(size) for size in match[3].split(",") if size.strip())
    return shape, match[2] == "True", dtype, 8 + width + length


def _kind_names(kinds: str) -> str:
    names = {
        "b": "booleans",
        "i": "integers",
        "u": "integers",
        "f": "floats",
        "U": "strings",
        "S": "strings",
    }
    return " or ".join(dict.fromkeys(names[kind] for kind in kinds))


@contextmanager
def open_npz(path: Path) -> Iterator[Archive]:
    """Opens an archive; whatever is wrong with it as a file becomes a `DataError`.

    Args:
      path: The file.

    Yields:
      The archive.
    """
    try:
        with opened(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                yield Archive(path, archive, size)
    except DataError:
        raise
    # zlib.error and EOFError come from a damaged member, NotImplementedError and RuntimeError from
    # exotic ones.
    except (
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DataError(f"must be a whole .npz file: {error}", path=path) from None


def packed_strings(values: list[str | None]) -> dict[str, np.ndarray]:
    """Strings and Nones as two arrays: UTF-8 bytes, and where each ends; -1 - end for None."""
    byte_strings = [b"" if value is None else value.encode() for value in values]
    ends = (
        np.cumsum([len(value) for value in byte_strings], dtype=np.int64)
        if values
        else np.zeros(0, np.int64)
    )
    absent = np.array([value is None for value in values], dtype=bool)
    return {
        "bytes": np.frombuffer(b"".join(byte_strings), dtype=np.uint8),
        "ends": np.where(absent, -1 - ends, ends),
    }


def unpacked_strings(archive: Archive, name: str) -> list[str | None]:
    """The strings that `packed_strings` packed under `name.bytes` and `name.ends`."""
    data, ends = (
        archive.array(f"{name}.bytes", "u", 1).tobytes(),
        archive.array(f"{name}.ends", "i", 1),
    )
    absent = ends < 0
    ends = np.where(absent, -1 - ends, ends)
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    if (ends < starts).any() or (len(ends) and ends[-1] != len(data)) or (not len(ends) and data):
        raise DataError(
            "must hold ends that fit the bytes", path=archive.path, field=f"{name}.ends"
        )
    try:
        spans = zip(starts.tolist(), ends.tolist(), absent.tolist(), strict=True)
        return [None if none else data[start:end].decode() for start, end, none in spans]
    except UnicodeDecodeError:
        raise DataError("must be UTF-8", path=archive.path, field=f"{name}.bytes") from None
