r"""Counting and searching in packed bits, many lanes at once.

A lane is one trial; lanes are the minor axis of every array, so that a row is contiguous memory and
one instruction serves many trials. Bits are packed along the major axis: 8 entries in a byte, 32
bytes (256 entries) in a block, so that the number of bits before an entry of its block is a byte.

A value that has two users may be computed twice by the compiler, which here means gathering
everything twice; loops stand where a value has to exist once.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from racer_jax.core.order_statistics import bit_in_word
from racer_jax.montecarlo.subsets import Leaf, load

BLOCK = 256
_BYTES = BLOCK // 8
# A bracket of up to so many rows is written out as one kernel: a loop takes four, and a twentieth
# of a second more of the compiler. A longer one goes on by so many rows at a time.
_WHOLE_BRACKET = 32
_BRACKET_ROWS = 8
# Bytes of each block that one kernel puts together: each kernel costs its start, and one that makes
# all 32 would be made anew for every user of its result, as no loop stands around it.
_BYTES_AT_ONCE = 8
# Entries from which on the threads of all cores share the packing of an order.
_SHARED = 1 << 18


# row, place of the bit if it is there, whether any lane moves on
_Walk = tuple[jax.Array, jax.Array, jax.Array]


class Order(NamedTuple):
    """Where to find the bit of each entry of a list, for packing.

    Entry 256 j + 8 s + i is bit i of byte s of block j.

    Use this when you read what `packing_order` returns.

    Attributes:
      row: Row of its byte among the bytes of `as_bytes`, int32 `[32, 8, b]` by s, i and j.
      mask: The bit itself, uint8 `[32, 8, b]`.
    """

    row: Leaf
    mask: Leaf


class Packed(NamedTuple):
    """Bits in a new order, with what is needed to count those before any entry.

    Use this when you read what `running_counts` and its caller pass on.

    Attributes:
      byte: uint8 `[32, b, t]`, by byte of the block and block.
      running: Number of bits in the bytes of the same block up to this one, less 256 where it is
        that, uint8 `[32, b, t]`.
      before: Number of bits in the earlier blocks, up to one number for each lane, int32 `[r, t]`.
      first: Row of `before` of the first block.
    """

    byte: jax.Array
    running: jax.Array
    before: jax.Array
    first: int = 0


def packing_order(
    element: np.ndarray, num_words: int, num_kinds: int = 1, kind: np.ndarray | int = 0
) -> Order:
    """The `Order` in which entry i is the bit of `element[i]`, on the host; padded to whole blocks.

    Lanes may hold several kinds of subsets side by side: then words `[w, k t]` are read as rows
    (byte, word, kind).

    Use this when bits are to be counted by position of the threshold.
    """
    num_blocks = -(-len(element) // BLOCK)
    place = np.arange(32 * num_words + 1, dtype=np.int32)
    row_of = (((place >> 3) & 3) * num_words + (place >> 5)) * num_kinds
    mask_of = (1 << (place & 7)).astype(np.uint8)
    row_of[-1] = mask_of[-1] = 0  # what pads is no bit
    padded = np.full(num_blocks * BLOCK, len(place) - 1, np.int32)
    padded[: len(element)] = element
    by_block = padded.reshape(num_blocks, _BYTES, 8)
    of_kind: np.ndarray | None = None
    if np.any(kind):
        of_kind = np.zeros(num_blocks * BLOCK, np.int32)
        of_kind[: len(element)] = kind
        of_kind = of_kind.reshape(num_blocks, _BYTES, 8)
    row = np.empty((_BYTES, 8, num_blocks), np.int32)
    mask = np.empty((_BYTES, 8, num_blocks), np.uint8)

    def fill(part: slice) -> None:
        at = np.ascontiguousarray(by_block[:, part].transpose(1, 2, 0))
        # Every entry is in range: to say "clip" spares the check, and a copy.
        np.take(row_of, at, out=row[part], mode="clip")
        np.take(mask_of, at, out=mask[part], mode="clip")
        if of_kind is not None:
            row[part] += of_kind[:, part].transpose(1, 2, 0)

    # NumPy lets go of the interpreter while it copies, so threads share a large order.
    cores = os.cpu_count() or 1
    if len(padded) < _SHARED or cores == 1:
        fill(slice(None))
    else:
        step = -(-_BYTES // min(cores, _BYTES))
        with ThreadPoolExecutor(min(cores, _BYTES)) as threads:
            list(threads.map(fill, (slice(i, i + step) for i in range(0, _BYTES, step))))
    return Order(row, mask)


def as_bytes(words: jax.Array) -> jax.Array:
    """Words `[w, t]` as bytes `[4 w, t]`: row j * w + i is byte j of word i.

    Use this when bits are gathered by byte.
    """
    return jnp.concatenate([(words >> (8 * j)).astype(jnp.uint8) for j in range(4)])


# Why bytes: a metric asks for the bits of the test part in an order of its own, and a gather of one
# bit costs a load of a row. Packed eight to a byte, the counts up to a place are then a look-up of
# a running sum and a population count, where bits as numbers would take 32 times the memory.
def gather_bytes(source: jax.Array, order: Order, out: jax.Array) -> jax.Array:
    """Bytes `[32, b, t]` of bits picked from bytes `[r, t]`, written over `out`.

    It takes eight row loads a byte.

    Use this when packed bits are put into the order of a plane.
    """

    def some(i: jax.Array, out: jax.Array) -> jax.Array:
        first = i * _BYTES_AT_ONCE
        row, mask = (
            lax.dynamic_slice_in_dim(jnp.asarray(leaf), first, _BYTES_AT_ONCE)
            for leaf in (order.row, order.mask)
        )
        byte = jnp.zeros((_BYTES_AT_ONCE, *out.shape[1:]), jnp.uint8)
        for j in range(8):  # a test and a masked move for each: shifts would take twice as many
            there = (load(source, row[:, j]) & mask[:, j, :, None]) != 0
            byte = byte | jnp.where(there, jnp.uint8(1 << j), jnp.uint8(0))
        out = lax.dynamic_update_slice_in_dim(out, byte, first, 0)
        return out

    result: jax.Array = lax.fori_loop(0, _BYTES // _BYTES_AT_ONCE, some, out)
    return result


def _segments(num: int) -> int:
    """How many segments of so many rows advance side by side."""
    return 1 << ((num - 1).bit_length() // 2)


def whole_rows(num: int) -> int:
    """The least number of rows, `num` or more, that `exclusive_sums` takes without a copy.

    Use this when you make room for rows that are to be summed.
    """
    return num + -num % _segments(num)


def exclusive_sums(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums of the rows before each row `[r, t]`, and of all `[t]`; int32.

    Segments of the rows advance side by side, so that it takes sqrt(r) steps of wide rows.

    Use this when counts before each row are needed.
    """
    num, lanes = rows.shape
    segments = _segments(num)
    rows = rows.astype(jnp.int32)
    if num % segments:  # XLA pads entry by entry: as slow as the sums themselves
        rows = jnp.pad(rows, ((0, -num % segments), (0, 0)))
    rows = rows.reshape(segments, -1, lanes)

    def running(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total, out = state
        row = lax.dynamic_index_in_dim(rows, i, 1, keepdims=False)
        return total + row, lax.dynamic_update_index_in_dim(out, total, i, 1)

    # The sums of whole segments first: then each row is written once, and all are computed once.
    # There are about as many pairs of them as rows, so no loop is needed for theirs.
    of_segment = rows.sum(axis=1, dtype=rows.dtype)
    earlier = np.tri(segments, k=-1, dtype=bool)[:, :, None]
    before = jnp.where(earlier, of_segment[None], 0).sum(axis=1, dtype=rows.dtype)
    sums = lax.fori_loop(0, rows.shape[1], running, (before, rows))[1]
    return sums.reshape(-1, lanes)[:num], before[-1] + of_segment[-1]


def running_counts(byte: jax.Array, out: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Number of bits in each block up to each byte `[32, b, t]`, written over `out`.

    It counts from 0 again at 256, which only the last byte of a block reaches. The number in all of
    each block is the second result, int32 `[b, t]`.

    Use this when bits before any position are to be counted.
    """

    def place(s: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total, out = state
        total = total + lax.population_count(load(byte, s))
        return total, lax.dynamic_update_index_in_dim(out, total, s, 0)

    running = lax.fori_loop(0, _BYTES, place, (jnp.zeros_like(byte[0]), out))[1]
    last = lax.population_count(byte[-1])
    return running, running[-2].astype(jnp.int32) + last.astype(jnp.int32)


def count_before(bits: Packed, entry: jax.Array) -> jax.Array:
    """Number of bits before each entry `[a, t]` of its lane.

    Up to one number for each lane, that of `Packed.before`.

    Use this when the bits before some entries are counted, after `running_counts`.
    """
    num_blocks, lanes = bits.byte.shape[1:]
    lane = jnp.arange(lanes, dtype=jnp.int32)[None]
    block = entry >> 8
    # flat: one address, not one for each axis
    index = (((entry >> 3) & 31) * num_blocks + block) * lanes + lane
    not_before = load(bits.byte.reshape(-1), index) >> (entry & 7).astype(jnp.uint8)
    # Bytes count modulo 256, and fewer than 256 bits of a block come before an entry of it.
    within = load(bits.running.reshape(-1), index) - lax.population_count(not_before)
    before = load(bits.before.reshape(-1), (block + bits.first) * lanes + lane)
    return before + within.astype(jnp.int32)


# Why no binary search: lanes would read rows that differ, one gather each, some log2(w) times in
# turn. The place of the k-th bit is nearly known beforehand (`split_design.rank_plan`), so counting
# the rows of a narrow bracket reads the same rows for all lanes, one after the other in memory.
def select(
    words: jax.Array, before: jax.Array, rank: jax.Array, guess: jax.Array, width: int
) -> jax.Array:
    """Position of the rank-th bit of each lane.

    Use this when a threshold is the rank-th calibration query of a lane.

    Args:
      words: uint32 `[w, t]`.
      before: Number of bits in the words before each word, int32 `[w, t]` or more rows.
      rank: 1-based, at most the number of bits of the lane, int32 `[a, t]` or `[a, 1]`.
      guess: First row of the bracket of each, int32 `[a]`; at most w - width.
      width: Rows of the bracket.

    Returns:
      int32 `[a, t]`.
    """
    num_words, lanes = words.shape
    lane = jnp.arange(lanes, dtype=jnp.int32)[None]
    shape = (guess.shape[0], lanes)

    # In a bracket around the expected row, count the rows that begin below the rank: whole rows, no
    # search.
    def count(i: jax.Array, number: jax.Array) -> jax.Array:
        return number + (load(before, guess + i) < rank).astype(jnp.int32)

    unroll = width if width <= _WHOLE_BRACKET else _BRACKET_ROWS
    number = lax.fori_loop(0, width, count, jnp.zeros(shape, jnp.int32), unroll=unroll)
    row = jnp.maximum(guess[:, None] + number - 1, 0)

    # Lanes whose bracket missed walk: 32 bits fit in a row, so these steps never go too far. Mostly
    # there is none.
    def walk(state: _Walk) -> _Walk:
        row = state[0]
        index = row * lanes + lane
        word, rest = load(words.reshape(-1), index), rank - load(before.reshape(-1), index)
        over = rest - lax.population_count(word).astype(jnp.int32)
        step = jnp.where(over > 0, (over + 31) >> 5, jnp.where(rest <= 0, -1 - ((-rest) >> 5), 0))
        return (
            jnp.clip(row + step, 0, num_words - 1),
            row * 32 + bit_in_word(word, rest),
            (step != 0).any(),
        )

    start = (row, row, jnp.array(True))
    place: jax.Array = lax.while_loop(lambda state: state[2], walk, start)[1]
    return place
