"""Memory that a process holds and has no use for: the C library's, and circles of references."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@cache
def _c_library() -> ctypes.CDLL | None:
    """The C library of the process where it is GNU's, which alone has `malloc_trim`."""
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "malloc_trim") else None
    except (OSError, TypeError):  # Windows
        return None


def give_back() -> None:
    """Gives the system the memory that was freed and that the C library keeps, in pieces.

    Takes some milliseconds. Without effect where the C library is not GNU's.

    Use this after a step that needed much memory, such as compiling.
    """
    if (library := _c_library()) is not None:
        library.malloc_trim(0)


@contextmanager
def forgotten() -> Iterator[None]:
    """Frees at its end what was made within it and is named no more, circles of references too.

    The collector looks through what is new alone, once, in a tenth of the time that a look through
    everything takes.

    Use this when a step makes large objects that refer to each other, such as a figure.
    """
    was_enabled = gc.isenabled()
    gc.disable()  # what the collector has seen in use counts as old
    try:
        yield
    finally:
        gc.collect(0)
        if was_enabled:
            gc.enable()
