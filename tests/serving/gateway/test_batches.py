"""Decisions in batches: who is decided together, and where."""

import asyncio
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from racer_jax.serving.gateway._batcher import Batcher


class Wide:
    """A racer whose batches a test counts."""

    sets = np.zeros((64, 2), bool)
    nonconformity = np.zeros((64, 2), np.float32)

    def route(self, texts, groups):
        self.texts = [*getattr(self, "texts", []), list(texts)]
        return self

    def __getitem__(self, i):
        return i


def test_batches_of_a_shape_that_is_quick_need_no_thread(start):
    gateway = start(scripted=False)
    racer, batcher = gateway.gateway.planners["my"].loaded.racers["0.3"], gateway.gateway.batcher
    threads = []

    class Noted:
        """The racer, and the thread that asks it."""

        def __init__(self, seconds):
            self.seconds = seconds

        def route(self, texts, groups):
            threads.append(threading.current_thread() is threading.main_thread())
            time.sleep(self.seconds)
            return racer.route(texts, groups)

    async def decided(one, texts):
        batch = await asyncio.gather(*(batcher.decide(one, text, "a") for text in texts))
        return [routed.decision.models for routed in batch]

    batcher._seconds.clear()
    for quick, expected in (({2}, [False]), ({2, 16}, [True])):  # nine are padded to sixteen
        for shape in quick:
            batcher._seconds[shape].extend([0.0] * 5)
        number = 9
        texts = [f"question {i} while {quick} are quick" for i in range(number)]
        assert gateway.run(decided(Noted(0), texts)) == [
            d.models for d in racer.route(texts, ["a"] * number)
        ]
        assert threads == expected
        threads.clear()
    batcher._seconds[1].extend([0.0] * 5)
    slow = Noted(0.01)
    for number in range(5):  # three of five that were held up say nothing; four do
        gateway.run(decided(slow, [f"slow question {number}"]))
    assert threads == [True, True, True, True, False]
    with pytest.raises(ValueError, match="broken"):
        gateway.run(decided(SimpleNamespace(route=broken), ["three"]))


def broken(texts, groups):
    raise ValueError("broken")


def test_requests_of_one_turn_of_the_loop_are_decided_together(run):
    sizes, racer = [], Wide()
    batcher = Batcher(largest=4, on_batch=sizes.append)

    async def six():
        first = asyncio.gather(*(batcher.decide(racer, str(i), None) for i in range(6)))
        return [routed.decision for routed in await first]

    assert run(six()) == [0, 1, 2, 3, 0, 1]
    assert sizes == [4, 2]
    assert racer.texts == [["0", "1", "2", "3"], ["4", "5"]]
    batcher.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        run(batcher.decide(racer, "too late", None))


def test_a_batch_waits_while_each_turn_of_the_loop_brings_requests(run):
    """A busy loop decides many at once, and none waits for a request that has not come."""
    sizes, racer = [], Wide()
    batcher = Batcher(largest=4, on_batch=sizes.append)

    async def ask(turn, num):
        for _ in range(turn):
            await asyncio.sleep(0)
        await batcher.decide(racer, f"{turn} of {num}", None)

    async def one_each_turn(num):
        # The last one first, so that in each turn one asks before the batch may start.
        await asyncio.gather(*(ask(turn, num) for turn in reversed(range(num))))

    run(one_each_turn(1))
    run(one_each_turn(3))
    run(one_each_turn(5))
    assert sizes == [1, 3, 4, 1]
    batcher.close()
