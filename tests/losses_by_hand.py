"""Bounded losses made by NumPy alone: what `grade_loss` makes, without anything to compile."""

from fractions import Fraction

import numpy as np

from racer_jax.core.losses import TICKS, SetLoss


def loss_by_hand(entries, grades, ties=None, against="perfect"):
    """The `SetLoss` of grades `[n, m]`, against 1 or the best grade of the pool."""
    entries, grades = np.asarray(entries, np.float32), np.asarray(grades, np.float64)
    null = ~(grades > 0).any(axis=1, keepdims=True)
    ticks = np.rint(np.concatenate([grades, null], axis=1) * TICKS).astype(np.int32)
    keys = (entries,) if ties is None else (np.asarray(ties), entries)
    order = np.lexsort(keys, axis=1)
    best = np.maximum.accumulate(np.take_along_axis(ticks, order, axis=1), axis=1)
    whole = best[:, -1] if against == "pool" else np.full(len(best), TICKS, np.int32)
    return SetLoss(
        start=whole,
        step=np.take_along_axis(entries, order, axis=1),
        drop=np.diff(best, axis=1, prepend=0).astype(np.int32),
        model=order.astype(np.int32),
        tie=None if ties is None else np.take_along_axis(np.asarray(ties), order, axis=1),
        bound=Fraction(1),
    )
