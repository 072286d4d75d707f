"""Every short path of scores that tie, with every loss: the envelope, the stop and the sets."""

import itertools
from math import inf

import jax
import numpy as np
import pytest

from racer_jax import prediction_sets, reference
from racer_jax.core.nonconformity import TieBroken
from racer_jax.risk_control import path_nonconformity, stop_critical_scores, stops_at
from racer_jax.risk_control.stopping import stop_losses

CALLS = 3
VALUES, KEYS = (-inf, 0.0, 1.0, inf), (0, 1)
LEVELS = list(itertools.product(VALUES, (0, 1, 2)))


def every_path(num):
    """Paths drawn from all of them without repeats: scores, second keys and losses."""
    every = np.array(list(itertools.product(*[VALUES] * CALLS, *[KEYS] * CALLS, *[(0, 1)] * CALLS)))
    rows = every[np.random.default_rng(0).permutation(len(every))[:num]]
    scores, keys, losses = np.split(rows, 3, axis=1)
    return scores.astype(np.float32), keys.astype(np.uint32), losses.astype(bool)


def pairs(scores, keys):
    """Paths as lists of pairs of Python numbers; the key of -inf says nothing."""
    return [
        [(value, 0 if value == -inf else key) for value, key in zip(row, second, strict=True)]
        for row, second in zip(scores.tolist(), keys.tolist(), strict=True)
    ]


@jax.jit
def results(scores, losses, tie, value, key):
    """Critical scores, stops and sets at every level, with second keys and without."""
    pair = path_nonconformity(scores, tie)
    level = TieBroken(value, key)
    broken = stops_at(scores, level, tie), prediction_sets(pair.value, level, pair.tie)
    plain = stops_at(scores, value), prediction_sets(path_nonconformity(scores), value)
    critical = stop_critical_scores(scores, losses, tie)
    return (critical, *broken), (stop_critical_scores(scores, losses), *plain)


@pytest.mark.long
def test_envelope_stop_and_sets_are_those_of_trying_every_threshold():
    scores, keys, losses = every_path(400)
    value, key = (np.array(part) for part in zip(*LEVELS, strict=True))
    both = results(scores, losses, keys, value.astype(np.float32), key.astype(np.uint32))
    (pair, *broken), (plain, *unbroken) = jax.tree.map(np.asarray, both)
    with_keys = list(zip(pair.value.tolist(), pair.tie.tolist(), strict=True))
    check(pairs(scores, keys), losses, LEVELS, with_keys, *broken)
    without = [(value, 0) for value in plain.tolist()]
    levels = [(value, 0) for value, _ in LEVELS]
    check(pairs(scores, np.zeros_like(keys)), losses, levels, without, *unbroken)


def check(paths, losses, levels, critical, stops, sets):
    # The first call is always made; the next where nothing before was above the threshold.
    np.testing.assert_array_equal(sets[..., :-1].sum(axis=-1), stops.calls)
    np.testing.assert_array_equal(sets[..., -1], ~stops.has_stop)
    for i, row in enumerate(paths):
        lost = losses[i].tolist()
        for j, level in enumerate(levels):
            # A score of +inf stops at any threshold, and what it loses is lost at any.
            if critical[i][0] < inf:
                assert (critical[i] > level) == reference.stop_envelope(row, lost, level)
            stop = reference.stop_call(row, level)
            assert stops.calls[j, i] == (stop or CALLS)
            assert stops.has_stop[j, i] == (stop is not None)


def test_every_loss_of_every_small_pool():
    """Two answers of two models, what each call leaves as the leader, and what is right."""
    rows = np.array(list(itertools.product((-1, 0, 1), (-1, 0, 1), (0, 1), (0, 1))))
    answers, correct = rows[:, :2], rows[:, 2:].astype(bool)
    weights = [1.0, 0.5]
    leader = np.array(
        [[reference.stop_leader(row[:k].tolist(), weights[:k]) for k in (1, 2)] for row in answers]
    )
    for loss in ("regret", "differs", "covers", "wrong"):
        lost = np.asarray(stop_losses(loss, leader, answers, leader[:, -1], correct))
        expected = [
            [reference.stop_loss(loss, row.tolist(), weights, right.tolist(), k) for k in (1, 2)]
            for row, right in zip(answers, correct, strict=True)
        ]
        np.testing.assert_array_equal(lost, expected)
    # Of a pool that is larger than what is called: none of these is right, another is.
    none = np.zeros_like(correct)
    lost = stop_losses("covers", leader, answers, leader[:, -1], none, np.ones(len(rows), bool))
    assert np.asarray(lost).all()
    assert not np.asarray(stop_losses("covers", leader, answers, leader[:, -1], none)).any()
