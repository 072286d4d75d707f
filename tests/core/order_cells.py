"""Rows of scores that tie in every way, and their order statistics by an independent sort.

A cell is one order statistic of one row, compared bit for bit.
"""

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.core.calibration import _at_rank
from racer_jax.core.nonconformity import TieBroken

TIES = np.array([0, 1, 2**16 - 1, 2**16, 2**16 + 1, 2**31, 2**32 - 1], np.uint32)
TOP = 2**32 - 1
SAMPLED, STRIDE = 1 << 14, 64


def rows(size, rng, dtype=np.float32):
    """Name -> row `[size]`."""
    tiny = np.finfo(dtype).smallest_subnormal
    uniform = rng.random(size)
    levels = {
        f"{k} levels": (np.floor(uniform * k) / (k - 1)).astype(dtype) for k in (2, 5, 11, 101)
    }
    one_less, one_more = np.full(size, 0.7, dtype), np.full(size, 0.7, dtype)
    one_less[rng.integers(size)], one_more[rng.integers(size)] = 0.5, 0.9
    # A sample of every 64th entry sees one value alone: the other is all that it does not see.
    sees_low, sees_high = (uniform < 0.6).astype(dtype), (uniform < 0.6).astype(dtype)
    sees_low[::STRIDE], sees_high[::STRIDE] = 0, 1
    return {
        **levels,
        "all equal": np.full(size, -2.5, dtype),
        "one less": one_less,
        "one more": one_more,
        "zeros": rng.choice(np.array([-0.0, 0.0], dtype), size),
        "zeros and neighbours": rng.choice(np.array([-tiny, -0.0, 0.0, tiny], dtype), size),
        "subnormal": (rng.integers(-3, 4, size) * tiny).astype(dtype),
        "infinite": rng.choice(np.array([-np.inf, -1, 0.5, np.inf], dtype), size),
        "the sample sees the low": sees_low,
        "the sample sees the high": sees_high,
        "distinct": rng.normal(size=size).astype(dtype),
    }


def ranks(ordered, num, rng):
    """Ranks `[num]` around the ends of a run of equal values, in one, at the ends and beyond."""
    size = len(ordered)
    runs = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    start = rng.choice(runs)
    end = int(np.searchsorted(ordered, ordered[start], side="right"))
    around = [start, start + 1, start + 2, (start + end) // 2 + 1, end - 1, end, end + 1]
    some = np.array([*around, 0, 1, size, size + 1, *rng.integers(1, size + 1, 3)])
    return np.clip(rng.choice(some, num, replace=False), 0, size + 1)


def expected(value, tie, mask, rank):
    """Value and tie at each rank, by a sort; infinite where there is none."""
    order = np.lexsort((np.zeros(len(value)) if tie is None else tie, value))
    order = order[mask[order]]
    inside = order[np.clip(rank, 1, len(order)) - 1]
    # -0 is 0; adding would flush nothing here, NumPy keeps subnormal numbers.
    at = value[inside] + value.dtype.type(0)
    above, below = rank > len(order), rank < 1
    at = np.where(above, np.inf, np.where(below, -np.inf, at)).astype(value.dtype)
    second = None if tie is None else np.where(above, TOP, np.where(below, 0, tie[inside]))
    return at, second


def count_cells(size, rng, *, num=8, repeats=1, dtype=np.float32, broken=False, masked=False):
    """Compares `repeats` times `num` ranks of every row of `rows`; returns how many cells."""
    # A jit of its own, so that what a test changes in the module is compiled in.
    run = jax.jit(lambda *arguments: _at_rank.__wrapped__(*arguments))
    names, value = zip(*rows(size, rng, dtype).items(), strict=True)
    value = np.stack(value)
    cells = 0
    for _ in range(repeats):
        tie = rng.choice(TIES, value.shape) if broken else None
        mask = rng.random(value.shape) < rng.choice([0.1, 0.5, 0.99])
        mask[:, rng.integers(size)] = True
        # Of every third row the mask leaves no sample, of every third nothing is masked.
        mask[1::3, ::STRIDE] = size == 1
        mask[1::3, -1] = True
        mask[2::3] = True
        if not masked:
            mask[:] = True
        rank = np.stack(
            [ranks(np.sort(row[rest]), num, rng) for row, rest in zip(value, mask, strict=True)]
        )
        got = run(
            jnp.asarray(value),
            jnp.asarray(rank, jnp.int32),
            jnp.asarray(mask) if masked else None,
            None if tie is None else jnp.asarray(tie),
        )
        at, second = got if isinstance(got, TieBroken) else (got, None)
        for i, name in enumerate(names):
            reference = expected(value[i], None if tie is None else tie[i], mask[i], rank[i])
            where = f"{name}, size {size}, {dtype.__name__}, ranks {rank[i].tolist()}"
            assert np.asarray(at[i]).tobytes() == reference[0].tobytes(), where
            if second is not None:
                np.testing.assert_array_equal(second[i], reference[1], where)
            cells += num
    return cells
