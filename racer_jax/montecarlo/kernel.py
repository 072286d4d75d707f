r"""The kernel of Monte Carlo: one tile of trials, from keys to metrics.

A tile of trials is laid out as lanes side by side, so that every array below has the trials as its
last axis and one vector instruction serves many of them. What a trial costs is what it reads:

1. Draw. The parts are bits by position of the pool, 32 to a word (`subsets`).
2. Threshold. It is the k-th calibration query in rank order, so its position is that of the k-th
   bit: running counts of whole words, and a search within one word (`packed_bits.select`). One
   alpha costs a few steps, where a sort would cost the whole pool.
3. Metrics. A metric at a threshold is a weighted number of TEST queries among a prefix of its
   steps (`plan.Planes`). The bits of the test part are gathered once in the order of those steps;
   from then on each alpha is one look-up of a running count, whatever the size of the prefix.

So the pool is read once for each trial, and one more alpha costs one look-up for each plane.

On some processors `plain_splits.c` does the same for plain splits, in less time and to the bit.
"""

from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from racer_jax.montecarlo.packed_bits import (
    Packed,
    as_bytes,
    count_before,
    exclusive_sums,
    gather_bytes,
    running_counts,
    select,
    whole_rows,
)
from racer_jax.montecarlo.plan import Planes, Shape, TrialPlan
from racer_jax.montecarlo.split_design import DrawPlan, trial_parts, words_by_position
from racer_jax.montecarlo.subsets import load

# Bytes and running counts of each part, and the rows that are summed.
Scratch = tuple[tuple[tuple[jax.Array, jax.Array], ...], jax.Array]


def _draw(plan: DrawPlan, keys: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Words `[w, t]` of the calibration part and, by name, of the parts that are measured."""
    lanes = keys.shape[-1] // plan.calibration.num.shape[0]
    in_calibration, validation = trial_parts(keys, plan)
    calibration = words_by_position(in_calibration, plan, lanes)
    if validation is None:
        return calibration, {"test": ~calibration}
    validation = words_by_position(validation, plan, lanes)
    return calibration, {"test": ~(calibration | validation), "validation": validation}


def blank_scratch(plan: TrialPlan, lanes: int) -> Scratch:
    """The scratch of the first tile of so many trials.

    Use this when you call `tile_values`.
    """
    places, _, num_blocks = plan.planes.order.row.shape
    num_parts = 1 if plan.draw.outer is None else 2
    blank = jnp.zeros((places, num_blocks, lanes), jnp.uint8)
    num = whole_rows(plan.draw.num_words + num_parts * num_blocks)
    return ((blank, blank),) * num_parts, jnp.zeros((num, lanes), jnp.int32)


def _countable(
    planes: Planes, calibration: jax.Array, parts: dict[str, jax.Array], scratch: Scratch
) -> tuple[jax.Array, dict[str, Packed], Scratch]:
    """Calibration rows before each word, each part's bits to be counted, and the scratch.

    The rows are `[r, t]`, r > w; the bits stand in the order of the entries of the planes.
    """
    blanks, rows = scratch
    bits, end = [], len(calibration)
    counts = lax.population_count(calibration).astype(jnp.int32)
    rows = lax.dynamic_update_slice_in_dim(rows, counts, 0, 0)
    for part, (byte, running) in zip(parts.values(), blanks, strict=True):
        byte_plane = gather_bytes(as_bytes(part), planes.order, byte)
        before_byte, total = running_counts(byte_plane, running)
        rows = lax.dynamic_update_slice_in_dim(rows, total, end, 0)
        bits.append((byte_plane, before_byte, end))
        end += len(total)
    # The words of calibration and the blocks of all parts are summed in one go. So the sums of a
    # part begin with those of the rows above it: one number for each lane, taken off in
    # `_counts_at`.
    before = exclusive_sums(rows)[0]
    planes_of = {
        name: Packed(byte, running, before, first)
        for name, (byte, running, first) in zip(parts, bits, strict=True)
    }
    return before, planes_of, (tuple((byte, running) for byte, running, _ in bits), rows)


def _counts_at(planes: Planes, planes_of: Packed, position: jax.Array) -> jax.Array:
    """Number of queries of a part in each plane's prefix at each threshold `[p, a, t]`."""

    def prefix(_: None, plane: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        entry, begin = plane
        start = load(planes_of.before, (begin >> 8) + planes_of.first)[None]  # a block's begin
        return None, count_before(planes_of, load(entry, position)) - start

    counts: jax.Array = lax.scan(prefix, None, (planes.entry, planes.begin))[1]
    return counts


def _metric_values(
    shape: Shape, counts: jax.Array, rows: jax.Array, misses: jax.Array | None
) -> dict[str, Any]:
    """Each metric over a part `[a, t]`.

    Totals, int32 where they are whole numbers and float32 otherwise; all float32 where means are
    wanted.
    """
    values = {}
    for metric in shape.metrics:
        kind = jnp.int32 if metric.whole else jnp.float32
        if metric.name == "risk" and misses is not None:
            total = misses
        else:
            bases = (rows[None].astype(kind) * kind(base) for base in metric.base)
            total = jnp.broadcast_to(reduce(jnp.add, bases), counts.shape[1:])
            for plane, weight in zip(metric.planes, metric.weights, strict=True):
                total = total + counts[plane].astype(kind) * kind(weight)
        if shape.means:
            total = total.astype(jnp.float32)
        values[metric.name] = total
    return values


# Why the steps come in this order: the bits of all parts are gathered and counted once, before any
# threshold is known, for that is the work that grows with the pool. Everything after it is by alpha
# and small: the k-th calibration bit, then look-ups of counts. The miss of a test query needs no
# gathering at all where scores are distinct: the queries above a threshold are counted by its
# position, and those of them in the calibration part by its rank.
def tile_values(
    plan: TrialPlan, shape: Shape, scratch: Scratch, keys: jax.Array
) -> tuple[Scratch, dict[str, Any]]:
    """One tile of trials: totals of the metrics of each part, with thresholds for means; `[a, t]`.

    Beside them the rows of each part `[1, t]`, by which `trial_means` divides.

    The scratch arrays are carried from tile to tile, so that they are not cleared for each.

    Use this when the trials run in your own loop; `stream_trials` runs them for you.
    """
    calibration, parts = _draw(plan.draw, keys)
    before, planes_of, scratch = _countable(plan.planes, calibration, parts, scratch)
    num = before[len(calibration)]

    # One column where the number of calibration rows is fixed, one a lane where it varies with the
    # split.
    ranks = plan.ranks
    column = num - ranks.least if ranks.rank.shape[1] > 1 else np.zeros(1, np.int32)
    rank, floor, last = (table[:, column] for table in ranks[:3])
    position = select(calibration, before, rank, ranks.guess, shape.width)
    position = jnp.maximum(position, floor)

    sizes = {"test": plan.num_queries - num}
    if "validation" in parts:
        validation = lax.population_count(parts["validation"]).astype(jnp.int32)
        validation = validation.sum(axis=0, dtype=jnp.int32)
        sizes = {"test": sizes["test"] - validation, "validation": validation}
    # Without ties the misses are the test queries above the threshold: all queries above it, less
    # the calibration queries above it.
    misses = None
    if shape.distinct:
        misses = last - position

    result: dict[str, Any] = {}
    if shape.means:
        result["threshold"] = jax.tree.map(lambda x: load(x, position), plan.threshold)
    for name, bits in planes_of.items():
        counts = _counts_at(plan.planes, bits, position)
        result[name] = _metric_values(shape, counts, sizes[name], misses)
        result[name]["rows"] = sizes[name][None]
    return scratch, result
