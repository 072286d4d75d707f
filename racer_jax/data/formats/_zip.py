"""ZIP archives whose declared sizes are checked before anything is unpacked."""

import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from racer_jax._distribution import install_command
from racer_jax.data.errors import DataError
from racer_jax.data.formats._source import cannot_read

# All members of an archive, and one of them, may unpack to this much.
MAX_BYTES = 1 << 34
MAX_MEMBER = 1 << 30
# Deflate cannot compress better than about 1,032 to 1; an archive that declares more is damaged or
# an attack.
_DEFLATE_RATIO = 1100
_ZSTD_RATIO = 1 << 15
_ZSTD = 93


class Members:
    """The members of an archive, read one by one.

    Attributes:
      path: The archive.
      names: The members it holds, in the order of its directory.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self._archive = path, archive
        self.names = archive.namelist()
        if len(set(self.names)) < len(self.names):
            raise DataError("must hold each member once, got one twice", path=path)
        budget = MAX_BYTES
        for info in archive.infolist():
            budget -= info.file_size
            packed_size = max(info.compress_size, 1)
            ratio = _ZSTD_RATIO if info.compress_type == _ZSTD else _DEFLATE_RATIO
            if info.file_size > min(MAX_MEMBER, packed_size * ratio) or budget < 0:
                raise DataError(
                    f"must unpack to at most {MAX_MEMBER >> 30} GiB a member and "
                    f"{MAX_BYTES >> 30} GiB in all, {info.filename!r} declares "
                    f"{info.file_size} bytes out of {info.compress_size}",
                    path=path,
                )

    def read(self, name: str) -> bytes:
        """The bytes of a member; never more than it declares."""
        try:
            info = self._archive.getinfo(name)
        except KeyError:
            raise DataError(f"must hold the member {name!r}", path=self.path) from None
        with self._archive.open(info) as file:
            data = file.read(info.file_size + 1)
        if len(data) != info.file_size:
            raise DataError(
                f"must hold the {info.file_size} bytes that member {name!r} declares, got "
                f"{len(data)}",
                path=self.path,
            )
        return data

    def text(self, name: str) -> str:
        """The text of a member."""
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"must be UTF-8, member {name!r} is not at byte {error.start}", path=self.path
            ) from None


class _Reader(NamedTuple):
    """What reads an archive, and what it raises where one is damaged."""

    module: ModuleType
    errors: tuple[type[Exception], ...]


# zlib.error and EOFError come from a damaged member, NotImplementedError and RuntimeError from
# exotic ones.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
)


def _reader(path: Path) -> _Reader:
    """What reads an archive: the standard library where that is enough."""
    with zipfile.ZipFile(path) as archive:
        methods = {info.compress_type for info in archive.infolist()}
    if _ZSTD not in methods:
        return _Reader(zipfile, _DAMAGE)
    try:
        if sys.version_info >= (3, 14):
            from compression.zstd import ZstdError

            return _Reader(zipfile, (*_DAMAGE, ZstdError))
        from backports.zstd import ZstdError
        from backports.zstd import zipfile as with_zstd
    except ImportError:
        raise ImportError(
            f"{path} is compressed with zstd, which Python reads from version 3.14 on; before, it "
            f"needs backports.zstd: {install_command('inspect')}"
        ) from None
    return _Reader(with_zstd, (*_DAMAGE, ZstdError, with_zstd.BadZipFile))


@contextmanager
def open_zip(path: Path) -> Iterator[Members]:
    """Opens an archive; whatever is wrong with it as a file becomes a `DataError`.

    Args:
      path: The file.

    Yields:
      Its members.

    Raises:
      ImportError: If it is compressed with zstd and nothing here reads that; said before any work.
    """
    errors: tuple[type[Exception], ...] = _DAMAGE
    try:
        reader = _reader(path)
        errors = reader.errors
        with reader.module.ZipFile(path) as archive:
            yield Members(path, archive)
    except (DataError, ImportError):
        raise
    except OSError as error:
        raise cannot_read(path, error) from None
    except errors as error:
        raise DataError(f"must be a whole ZIP archive: {error}", path=path) from None
