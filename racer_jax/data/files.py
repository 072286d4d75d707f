"""Files written whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Errors of the disk name the file that was to be written, not the temporary one, and not nothing."""
    try:
        yield
    except OSError as error:
        temporary = error.filename is None or f".{path.name}." in str(error.filename)
        if error.errno is None or not temporary:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends without an error.

    Args:
      path: Where the file shall be; its folder must exist.

    Yields:
      The file to write to.

    >>> with written_whole("/tmp/racer_jax_doctest.txt") as file:
    ...     _ = file.write_text("whole")
    >>> Path("/tmp/racer_jax_doctest.txt").read_text()
    'whole'
    """
    path = Path(path)
    with blaming(path):
        name = path.parent / (f".{path.name}.{secrets.token_hex(6)}{path.suffix}")
        # A file of the mode that any new file gets. tempfile makes files for the owner alone, and
        # the umask cannot be asked for without setting it, which other threads would see.
        os.close(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            yield name
            os.replace(name, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)
