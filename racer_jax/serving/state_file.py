"""The state of a monitor on disk: one process at a time, and never far behind what was counted."""

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from racer_jax.data.errors import DataError
from racer_jax.data.locks import locked
from racer_jax.serving.monitor import Monitor
from racer_jax.serving.terminated import Terminated

# A state on disk is at most this many seconds and this many queries behind.
SECONDS = 1.0
QUERIES = 1000
# How long another process may hold a state before it is reported in place of waited for.
PATIENCE = 60.0


@contextmanager
def alone_with(path: Path, patience: float = PATIENCE) -> Iterator[None]:
    """No other process counts into this state until the block ends.

    Use this when two processes may count into one file.

    Args:
      path: File of the state.
      patience: Seconds to wait for another process.

    Raises:
      DataError: If another process holds the state for longer.
    """
    try:
        with locked(path.with_name(f".{path.name}.lock"), patience):
            yield
    except TimeoutError:
        raise DataError(
            "in use by another monitor: give each stream a state file of its own, or wait until "
            "the other has ended",
            path=path,
        ) from None


class StateKeeper:
    """Saves the state of a monitor while it counts.

    Use this when the feedback is a stream that may go on for ever. Every `seconds`, and after
    every `queries`, the state is written; at the end of the block, whatever ends it, once more.

    Attributes:
      monitor: The monitor after what was counted so far.
    """

    def __init__(
        self, path: Path, monitor: Monitor, seconds: float = SECONDS, queries: int = QUERIES
    ) -> None:
        self.monitor = monitor
        self._path, self._seconds, self._queries = path, seconds, queries
        self._on_disk: Monitor | None = None
        self._one_save = threading.Lock()
        self._end = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._save_now_and_then, daemon=True)

    def __enter__(self) -> "StateKeeper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with _signals_wait():
            self._end.set()
            self._thread.join()
            self.save()

    def count(self, monitor: Monitor) -> None:
        """Takes over the monitor after one more query.

        Use this when a query was counted.

        Raises:
          OSError: If the state could not be written.
        """
        self.monitor = monitor
        if self._error is not None:
            raise self._error
        if self._on_disk is None or monitor.num - self._on_disk.num >= self._queries:
            self.save()

    def save(self) -> None:
        """Writes the state, if it is not on disk already.

        Use this when the state must be on disk now.
        """
        with self._one_save:
            monitor = self.monitor
            if monitor is not self._on_disk:
                monitor.save(self._path)
                self._on_disk = monitor

    def _save_now_and_then(self) -> None:
        while not self._end.wait(self._seconds):
            try:
                self.save()
            except OSError as error:
                self._error = error  # raised where the next query is counted
                return


@contextmanager
def _signals_wait() -> Iterator[None]:
    """An impatient second Ctrl-C comes after the block, not in the midst of it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def raising_when_terminated() -> Iterator[None]:
    """SIGTERM becomes an exception in the block, so that the state is saved before the end.

    Use this when a program counts for ever and may be ended by a signal.
    """

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_regular(file: IO[bytes]) -> bool:
    """Whether an open file is one that ends and can be read again; a pipe is not.

    Use this when an input may be a pipe.
    """
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, AttributeError):  # no file of the system: bytes in memory
        return False
