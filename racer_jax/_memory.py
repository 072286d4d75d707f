"""Memory of a process: what it holds and has no use for, and the pages on which the rest lies."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

# Of Linux 6.1 and later (`man 2 madvise`); Python's `mmap` knows no name for it.
_MADV_COLLAPSE = 25
_LARGE_PAGE = 2 << 20


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


def use_large_pages() -> int:
    """Puts what the process holds now on pages of 2 MB, where the system has them to give.

    The processor remembers where a few thousand pages lie and must look up any other. A process
    that does little at a time, here and there in hundreds of megabytes, looks up again and again.
    What was half empty takes its whole page afterwards, some megabytes in all.

    Takes a quarter of a second. Without effect where the system is not Linux 6.1 or later.

    Use this once a server has loaded all that it serves with.

    Returns:
      How many pages of 2 MB it made.
    """
    library, areas = _c_library(), Path("/proc/self/maps")
    if library is None or sys.platform != "linux" or not areas.exists():
        return 0
    num_pages = 0
    for line in areas.read_text().splitlines():
        addresses, rights, *rest = line.split(maxsplit=5)
        is_own = len(rest) == 3 or rest[3] == "[heap]"  # no file, no stack
        if not rights.startswith("rw") or not is_own:
            continue
        first, last = (int(address, 16) for address in addresses.split("-"))
        first = -(-first // _LARGE_PAGE) * _LARGE_PAGE
        for page in range(first, last - _LARGE_PAGE + 1, _LARGE_PAGE):
            refused = library.madvise(
                ctypes.c_void_p(page), ctypes.c_size_t(_LARGE_PAGE), _MADV_COLLAPSE
            )
            num_pages += refused == 0
    return num_pages


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
