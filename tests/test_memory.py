"""What a process has no use for is freed, and the system has it back."""

import gc
import weakref

import pytest

from racer_jax import _memory

GNU = pytest.mark.skipif(_memory._c_library() is None, reason="GNU's C library alone can do it")


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
