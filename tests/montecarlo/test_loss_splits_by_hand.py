"""Bounded losses over splits against thresholds that are tried one by one, in whole numbers."""

from fractions import Fraction
from itertools import combinations
from math import inf

import numpy as np
import pytest

from racer_jax.core.losses import TICKS, SetLoss
from racer_jax.montecarlo import loss_splits
from racer_jax.montecarlo.loss_splits import exact_loss_means, loss_trials

NUM, CALIBRATION, STEPS = 6, 4, 3
LEVELS = [Fraction(1, 5), Fraction(2, 5), Fraction(1, 2), Fraction(9, 10)]


def pool(seed, broken):
    """Steps that tie, drops that end at no loss or above it, the null model as the last of three."""
    rng = np.random.default_rng(seed)
    step = np.sort(rng.integers(0, 4, (NUM, STEPS)) / 4, axis=1).astype(np.float32)
    step[1, 0], step[2, 2] = -inf, inf
    model = np.stack([rng.permutation(STEPS) for _ in range(NUM)]).astype(np.int32)
    parts = rng.integers(0, 4, (NUM, STEPS + 1)) * (TICKS // 12)
    return SetLoss(
        start=parts.sum(axis=1).astype(np.int32),
        step=step,
        drop=parts[:, :STEPS].astype(np.int32),
        model=model,
        tie=rng.integers(0, 2, step.shape).astype(np.uint32) if broken else None,
        bound=Fraction(2),
    )


def pairs(loss, i):
    keys = np.zeros(STEPS) if loss.tie is None else loss.tie[i]
    return list(zip(loss.step[i].tolist(), keys.tolist(), strict=True))


def at(loss, i, threshold):
    """Loss in ticks, models called and whether none is, at a threshold."""
    inside = [p[0] == -inf or (p <= threshold and p[0] < inf) for p in pairs(loss, i)]
    fallen = sum(int(loss.drop[i, j]) for j in range(STEPS) if inside[j])
    called = sum(inside[j] and loss.model[i, j] < STEPS - 1 for j in range(STEPS))
    return int(loss.start[i]) - fallen, called, called == 0


def measured(loss, rows, alpha):
    """One split: the first threshold within the budget, and the means over the other queries."""
    budget = (alpha / 2 * (len(rows) + 1) - 1) * TICKS
    every = sorted({p for i in range(NUM) for p in pairs(loss, i) if p[0] < inf})
    below, above = (-inf, 0), (inf, 0)
    threshold = next(
        (
            t
            for t in [below, *every]
            if sum(int(loss.start[i]) if t == below else at(loss, i, t)[0] for i in rows) <= budget
        ),
        above,
    )
    rest = [at(loss, i, threshold) for i in range(NUM) if i not in rows]
    means = [Fraction(sum(column), len(rest)) for column in zip(*rest, strict=True)]
    return means[0] * 2 / TICKS, means[1], means[2], threshold != above


@pytest.mark.long
@pytest.mark.parametrize("broken", [True, False])
def test_all_splits_and_drawn_ones_are_those_tried_one_by_one(monkeypatch, broken):
    # 15 splits in chunks of 4: the last one is not full.
    monkeypatch.setattr(loss_splits, "_MOST_ENTRIES", 4 * (NUM * STEPS - 1))
    for seed in range(3):
        loss = pool(seed, broken)
        exact = exact_loss_means(loss, LEVELS, num_calibration=CALIBRATION)
        splits = list(combinations(range(NUM), CALIBRATION))
        for j, alpha in enumerate(LEVELS):
            rows = [measured(loss, split, alpha) for split in splits]
            for name, column in zip(exact._fields[:3], zip(*rows, strict=True), strict=False):
                mean = float(sum(column) / len(splits))
                assert getattr(exact, name)[j] == pytest.approx(mean, abs=1e-6), name
            assert exact.reached[j] == all(row[3] for row in rows)
    masks = np.zeros((12, NUM), bool)
    for i in range(12):
        masks[i, list(splits[i])] = True
    numbers, done = [], []

    def drawn(key, trials, *, num_calibration, num_queries):
        numbers.extend(np.asarray(trials).tolist())
        assert (key, num_calibration, num_queries) == ("key", CALIBRATION, NUM)
        return masks[np.asarray(trials) % 12]

    monkeypatch.setattr(loss_splits, "split_masks", drawn)
    options = {"num_calibration": CALIBRATION, "num_trials": 10, "progress": done.append}
    trials = loss_trials("key", loss, LEVELS, **options)
    assert numbers == list(range(12))
    assert done == [4, 4, 2]
    for i in range(10):
        for j, alpha in enumerate(LEVELS):
            expected = measured(loss, splits[i], alpha)
            got = [values[i, j] for values in trials]
            np.testing.assert_allclose(got, [float(x) for x in expected], atol=1e-6)


def test_what_cannot_be_split_is_refused(monkeypatch):
    loss = pool(0, False)
    for num, message in ((NUM, "leaves at least one: got \\[6\\] and 6"), (0, "num_calibration")):
        with pytest.raises(ValueError, match=message):
            exact_loss_means(loss, 0.5, num_calibration=num)
    with pytest.raises(ValueError, match="num_trials"):
        loss_trials("key", loss, 0.5, num_calibration=2, num_trials=0)
    monkeypatch.setattr(loss_splits, "MOST_SPLITS", 14)
    with pytest.raises(ValueError, match="there are 15 splits, more than the 14"):
        exact_loss_means(loss, 0.5, num_calibration=CALIBRATION)
