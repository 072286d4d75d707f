"""The exact laws against enumeration of every split, one query at a time."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import gap, miss_budget, tie_break
from racer_jax.montecarlo.exact import split_law

ALPHAS = [0.01, 0.12, 0.25, 0.34, 0.5, 0.77, 0.95]


def enumerated(nonconformity, tie, correct, num, budget):
    """Risk, size, abstention and avoidable-miss rate of every split."""
    total, num_models = correct.shape
    truth = np.concatenate([correct, ~correct.any(1, keepdims=True)], 1)
    keys = [
        [(nonconformity[i, m], 0 if tie is None else int(tie[i, m])) for m in range(num_models + 1)]
        for i in range(total)
    ]
    critical = [min(keys[i][m] for m in range(num_models + 1) if truth[i, m]) for i in range(total)]

    @cache  # many splits have one threshold
    def measured(i, threshold):
        inside = [
            (keys[i][m] <= threshold or e == -np.inf) and e < np.inf
            for m, e in enumerate(nonconformity[i])
        ]
        called = np.array(inside[:-1])
        return [
            not (truth[i] & np.array(inside)).any(),
            called.sum(),
            not called.any(),
            correct[i].any() and not (correct[i] & called).any(),
        ]

    for split in itertools.combinations(range(total), num):
        ordered = sorted(critical[i] for i in split)
        threshold = (np.inf, 2**32) if budget < 0 else ordered[num - budget - 1]
        rest = [measured(i, threshold) for i in set(range(total)) - set(split)]
        yield np.mean(np.array(rest, float), axis=0)


@pytest.mark.long
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("null", ["paper", "free", "never"])
@pytest.mark.parametrize("levels", [1, 2, 4, 1000])
def test_equals_enumeration(null, levels, broken):
    rng = np.random.default_rng(levels)
    largest = [(12, 6)] if (levels, null) == (4, "paper") else []
    for total, num in ((2, 1), (5, 4), (7, 3), (8, 4), *largest):
        num_models = int(rng.integers(1, 4))
        scores = jnp.asarray(
            np.round(rng.random((total, num_models)) * levels) / levels, jnp.float32
        )
        correct = rng.random((total, num_models)) < 0.4
        nonconformity = np.asarray(gap(scores, null))
        tie = tie_break(jax.random.key(total), nonconformity.shape) % 3 if broken else None
        law = split_law(nonconformity, correct, num_calibration=num, alpha=ALPHAS, tie_break=tie)
        for i, budget in enumerate(miss_budget(ALPHAS, num)):
            splits = np.array(list(enumerated(nonconformity, tie, correct, num, budget)))
            mean = [
                law.risk_mean[i],
                law.size_mean[i],
                law.abstention_mean[i],
                law.avoidable_miss_mean[i],
            ]
            std = [
                law.risk_std[i],
                law.size_std[i],
                law.abstention_std[i],
                law.avoidable_miss_std[i],
            ]
            np.testing.assert_allclose(mean, splits.mean(0), atol=1e-12)
            np.testing.assert_allclose(np.square(std), splits.var(0), atol=1e-12)
            num_test = total - num
            expected = np.bincount(
                np.rint(splits[:, 0] * num_test).astype(int), minlength=num_test + 1
            ) / len(splits)
            got = np.zeros(num_test + 1)
            index = np.rint(law.risk_support[i] * num_test).astype(int)
            np.add.at(
                got,
                index[law.risk_probability[i] > 0],
                law.risk_probability[i][law.risk_probability[i] > 0],
            )
            np.testing.assert_allclose(got, expected, atol=1e-12)


def small_pool(seed):
    """Few values, so that scores tie, and a null model of each kind; NumPy alone, hence quick."""
    rng = np.random.default_rng(seed)
    num_models = 1 + seed % 3
    total, num = [(2, 1), (5, 3), (6, 4), (6, 5), (7, 2)][seed % 5]
    entries = (rng.integers(0, 4, (total, num_models + 1)) / 4).astype(np.float32)
    if seed % 4:
        entries[:, -1] = [0.5, -np.inf, np.inf][seed % 3]
    tie = rng.integers(0, 3, entries.shape).astype(np.uint32) if seed % 2 else None
    return entries, tie, rng.random((total, num_models)) < 0.4, num


@pytest.mark.parametrize("seed", range(60))
def test_small_pools_equal_enumeration(seed):
    entries, tie, correct, num = small_pool(seed)
    levels = [0.01, 0.25, 0.5, 0.77, 0.95]
    law = split_law(entries, correct, num_calibration=num, alpha=levels, tie_break=tie)
    num_test = len(entries) - num
    for i, budget in enumerate(miss_budget(levels, num)):
        splits = np.array(list(enumerated(entries, tie, correct, num, budget)))
        named = (law.risk_mean, law.size_mean, law.abstention_mean, law.avoidable_miss_mean)
        np.testing.assert_allclose([mean[i] for mean in named], splits.mean(0), atol=1e-12)
        named = (law.risk_std, law.size_std, law.abstention_std, law.avoidable_miss_std)
        np.testing.assert_allclose([std[i] ** 2 for std in named], splits.var(0), atol=1e-12)
        misses = np.rint(splits[:, 0] * num_test).astype(int)
        expected = np.bincount(misses, minlength=num_test + 1) / len(splits)
        index = np.rint(law.risk_support[i] * num_test).astype(int)
        inside = (index >= 0) & (index <= num_test)
        assert (law.risk_probability[i][~inside] == 0).all()
        law_of_misses = np.bincount(
            index[inside], law.risk_probability[i][inside], minlength=num_test + 1
        )
        np.testing.assert_allclose(law_of_misses, expected, atol=1e-12)
