"""What is counted of a pool: made once, and packed by several threads."""

import gc

import numpy as np
import pytest

from racer_jax import gap
from racer_jax.montecarlo import packed_bits, plan
from racer_jax.montecarlo.packed_bits import packing_order
from racer_jax.montecarlo.plan import trial_plan
from racer_jax.montecarlo.split_design import split_design
from racer_jax.montecarlo.step_functions import Steps, pool_steps


def some_pool(seed):
    rng = np.random.default_rng(seed)
    entries = gap(rng.random((40, 3)).astype(np.float32))
    tables = {"dollars": rng.random((40, 4))}
    return pool_steps(entries, rng.random((40, 3)) < 0.5, metrics=tables)


def plan_of(pool, num_calibration=20):
    design = split_design(pool.order, num_calibration=num_calibration)
    return trial_plan(pool, design, design.budgets([0.1, 0.5]), means=True)


def entry_by_entry(element, num_words, num_kinds, kind):
    """Row and bit of each entry, one at a time."""
    num_blocks = -(-len(element) // 256)
    row, mask = (np.zeros((32, 8, num_blocks), int) for _ in range(2))
    for i, e in enumerate(element.tolist()):
        at = (i % 256 // 8, i % 8, i // 256)
        row[at] = (e // 8 % 4 * num_words + e // 32) * num_kinds + int(kind[i])
        mask[at] = 1 << e % 8
    return row, mask


@pytest.mark.parametrize("cores", [1, 2, 3, 50])
@pytest.mark.parametrize("num", [1, 256, 700])
def test_an_order_is_the_same_whoever_packs_it(monkeypatch, cores, num):
    monkeypatch.setattr(packed_bits, "_SHARED", 1)
    monkeypatch.setattr(packed_bits.os, "cpu_count", lambda: cores)
    rng = np.random.default_rng(num)
    element, kind = rng.integers(0, 32 * 5, num), rng.integers(0, 3, num)
    for kinds, kind_of in ((1, np.zeros(num, int)), (3, kind)):
        row, mask = entry_by_entry(element, 5, kinds, kind_of)
        order = packing_order(element, 5, kinds, kind_of if kinds > 1 else 0)
        np.testing.assert_array_equal(order.mask, mask)
        np.testing.assert_array_equal(order.row, row)
        assert (order.row.dtype, order.mask.dtype) == (np.int32, np.uint8)


def test_what_is_counted_is_made_once_for_a_pool(monkeypatch):
    made = []
    make = plan._metrics_and_counted
    monkeypatch.setattr(
        plan, "_metrics_and_counted", lambda *args: made.append(args[1:]) or make(*args)
    )
    pool = some_pool(0)
    first, again = plan_of(pool)[0], plan_of(pool, num_calibration=7)[0]
    assert len(made) == 1
    assert again.planes is first.planes
    # Other metrics and another pool have planes of their own.
    assert len(plan_of(pool.only("size"))[0].planes.begin) < len(first.planes.begin)
    plan_of(some_pool(1))
    assert len(made) == 3
    with pytest.raises(ValueError, match="read-only"):
        first.planes.entry[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        pool.metrics["size"].first[0] = 1


def test_steps_that_can_be_written_to_are_read_each_time():
    pool = some_pool(0)
    copies = {name: Steps(*map(np.array, steps)) for name, steps in pool.metrics.items()}
    writable = pool._replace(metrics=copies)
    before = plan_of(writable)[0].planes.entry.copy()
    writable.metrics["size"].first[-1] = 40
    after = plan_of(writable)[0].planes.entry
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(before, plan_of(pool)[0].planes.entry)


@pytest.mark.long
def test_nothing_is_kept_for_a_pool_that_is_gone():
    gc.collect()
    kept = len(plan._KEPT)
    pool = some_pool(2)
    some = pool.only("size", "dollars")
    plan_of(pool)
    plan_of(some)
    assert len(plan._KEPT) == kept + 2
    del pool
    gc.collect()
    assert len(plan._KEPT) == kept + 1
    del some
    gc.collect()
    assert len(plan._KEPT) == kept
