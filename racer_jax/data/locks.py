"""A lock that processes and threads hold while they change files that others change too.

The lock is an empty file. It is removed when the holder is done, so none is left behind but by a
process that was killed, and such a file blocks no process: the operating system released the lock.
"""

import errno
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]

# Seconds after which a lock that is still held is reported in place of waited for.
PATIENCE = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02


@contextmanager
def locked(path: str | Path, patience: float = PATIENCE) -> Iterator[bool]:
    """Holds a lock for the time of a block.

    Use this when several processes may read a file, change what it says and write it again.

    Args:
      path: The file that stands for the lock; made, and removed at the end.
      patience: Seconds to wait for another holder.

    Yields:
      Whether the lock is held. False where the system or the file system has none, or the file
      cannot be made there: then others may be at work in the block too.

    Raises:
      TimeoutError: If another process holds it for longer than `patience`.

    >>> with locked("/tmp/racer_jax_doctest.lock") as alone:
    ...     Path("/tmp/racer_jax_doctest.lock").exists() == alone
    True
    """
    path = Path(path)
    handle = _acquired(path, patience)
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        with suppress(OSError):
            os.unlink(path)
        # Said aloud: a process forked in the meantime has the same open file.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _acquired(path: Path, patience: float) -> int | None:
    """An open file that holds the lock; None where there can be none."""
    if fcntl is None:
        return None
    end, pause = time.monotonic() + patience, _FIRST_PAUSE
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, handle):
                return handle
            os.close(handle)  # the last holder removed the file while it was opened here
            continue
        except OSError as error:
            os.close(handle)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return None
        if time.monotonic() > end:
            raise TimeoutError(
                errno.ETIMEDOUT, f"another process has held the lock for {patience:g} s", str(path)
            )
        time.sleep(pause * (0.5 + random.random()))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _is_at(path: Path, handle: int) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
