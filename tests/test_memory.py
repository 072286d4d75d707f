"""What a process has no use for is freed, and the system has it back."""

import gc
import mmap
import re
import sys
import weakref
from pathlib import Path

import pytest

from racer_jax import _memory

GNU = pytest.mark.skipif(_memory._c_library() is None, reason="GNU's C library alone can do it")


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has them")


class Figure:
    """Refers to its canvas, which refers to it."""

    def __init__(self):
        self.canvas = [self]


@pytest.mark.parametrize("enabled", [True, False])
def test_circles_are_freed_at_the_end_of_the_step_that_made_them(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        kept = Figure()
        with _memory.forgotten():
            figure = Figure()
            alive = weakref.ref(figure)
            kept.other = Figure()
            del figure
            assert alive() is not None
        assert alive() is None
        assert isinstance(kept.other, Figure)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_circles_are_freed_where_a_step_fails():
    seen = []

    def failing_step():
        with _memory.forgotten():
            seen.append(weakref.ref(Figure()))
            seen.append(seen[0]() is not None)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing_step()
    assert seen[1]
    assert seen[0]() is None
    assert gc.isenabled()


@GNU
def test_freed_memory_goes_back_to_the_system():
    def resident():
        with open("/proc/self/statm", encoding="utf-8") as file:
            return int(file.read().split()[1]) * 4096

    pieces = [bytes(2000) for _ in range(20_000)]
    last = bytes(2000)  # above them, so that the heap does not shrink by itself
    del pieces
    _memory.give_back()
    before = resident()
    pieces = [bytes(2000) for _ in range(20_000)]
    del pieces
    filled = resident()
    _memory.give_back()
    assert resident() - before < 0.2 * max(filled - before, 20_000_000)
    assert len(last) == 2000


@pytest.mark.long
@LINUX
def test_what_lies_on_large_pages_is_what_it_was():
    with mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE) as area:
        content = bytes(range(256)) * (len(area) // 256)
        area[:] = content
        num_pages = _memory.use_large_pages()
        assert num_pages >= 0
        assert area[:] == content
        assert _memory.use_large_pages() >= 0  # again, where they are large already
        assert area[:] == content


@pytest.mark.long
@LINUX
def test_large_pages_are_made_where_the_system_has_them():
    def large_kilobytes():
        text = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
        return int(re.search(r"AnonHugePages: *(\d+) kB", text)[1])

    with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE) as area:
        area[:] = b"x" * len(area)
        num_pages = _memory.use_large_pages()
        # None on an older system, or one that has none free; some others were large before.
        assert large_kilobytes() >= 0.9 * 2048 * num_pages
        assert area[-1:] == b"x"


def test_without_the_system_s_own_library_nothing_is_done(monkeypatch):
    monkeypatch.setattr(_memory, "_c_library", lambda: None)
    assert _memory.use_large_pages() == 0
