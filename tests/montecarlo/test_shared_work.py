"""Work that threads share: all of it once, errors where they are waited for, and no thread at all."""

import threading
import time

import pytest

from racer_jax.montecarlo import shared_work
from racer_jax.montecarlo.shared_work import SharedWork


@pytest.mark.parametrize("num_threads", [1, 2, 7])
@pytest.mark.parametrize(("num", "piece"), [(1, 1), (10, 3), (10, 100), (64, 16)])
def test_all_pieces_are_done_once(num, piece, num_threads):
    done = []
    SharedWork(num, piece, num_threads, lambda begin, end: done.append((begin, end))).wait()
    assert sorted(done) == [(at, min(at + piece, num)) for at in range(0, num, piece)]


def test_no_more_threads_than_pieces(monkeypatch):
    started = []
    start = threading.Thread.start
    monkeypatch.setattr(shared_work.Thread, "start", lambda self: started.append(1) or start(self))
    SharedWork(10, 5, 8, lambda *_: None).wait()
    assert len(started) == 2


def test_an_error_is_raised_where_it_is_waited_for_and_ends_the_rest():
    done = []

    def work(begin, _):
        if begin == 2:
            raise MemoryError("short")
        done.append(begin)

    started = SharedWork(1000, 1, 1, work)
    with pytest.raises(MemoryError, match="short"):
        started.wait()
    assert done == [0, 1]


@pytest.mark.parametrize("allowed", [0, 1])
def test_without_threads_whoever_waits_does_the_work(monkeypatch, allowed):
    start = threading.Thread.start
    left = [allowed]

    def refused(self):
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(self)

    monkeypatch.setattr(shared_work.Thread, "start", refused)
    done = []
    started = SharedWork(10, 3, 4, lambda begin, end: done.append((begin, end)))
    started.wait()
    assert sorted(done) == [(0, 3), (3, 6), (6, 9), (9, 10)]
    with pytest.raises(ZeroDivisionError):
        SharedWork(1, 1, 1, lambda *_: 1 / 0).wait()


def test_what_is_cancelled_does_not_begin():
    begun, go = [], threading.Event()

    def work(begin, _):
        begun.append(begin)
        go.wait(10)

    started = SharedWork(100, 1, 2, work)
    while len(begun) < 2:
        time.sleep(0.001)
    started.cancel()
    go.set()
    started.wait()
    assert sorted(begun) == [0, 1]


def test_an_interrupt_while_it_begins_or_is_waited_for_cancels_it(monkeypatch):
    begun, go = [], threading.Event()

    def work(begin, _):
        begun.append(begin)
        go.wait(10)

    def interrupted(self, *_):
        raise KeyboardInterrupt

    started = SharedWork(100, 1, 1, work)
    with monkeypatch.context() as patch:
        patch.setattr(shared_work.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            started.wait()
    go.set()
    started.wait()
    assert begun == [0]
    monkeypatch.setattr(shared_work.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SharedWork(100, 1, 1, work)
