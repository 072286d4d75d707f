"""Pools of several sizes in plans of one size: the same bits, from one compiled program."""

import jax
import numpy as np
import pytest

from racer_jax.core.nonconformity import NONCONFORMITIES, tie_break
from racer_jax.montecarlo import trials
from racer_jax.montecarlo.common_size import PlanSize, padded, plan_size
from racer_jax.montecarlo.plan import trial_plan
from racer_jax.montecarlo.pool_entries import pool_entries
from racer_jax.montecarlo.split_design import split_design
from racer_jax.montecarlo.step_functions import pool_steps

pytestmark = pytest.mark.long

ALPHAS = ["0.02", "0.1", "0.5"]


def pool_of(num, num_models=3, seed=0):
    rng = np.random.default_rng(seed + num)
    scores = rng.random((num, num_models)).astype(np.float32)
    return scores, rng.random((num, num_models)) < scores


def steps_of(num, name="inverse_probability"):
    scores, correct = pool_of(num)
    entries = NONCONFORMITIES[name](scores, "paper")
    return pool_steps(entries, correct, tie_break(jax.random.key(num), entries.shape))


def summaries(num, size, **split):
    return trials.stream_trials(
        jax.random.key(7), steps_of(num), alpha=ALPHAS, num_trials=600, size=size, bins=8, **split
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "split", [{"num_calibration": 20}, {"num_calibration": 9, "num_validation": 8}]
)
def test_a_padded_plan_gives_the_same_summaries(split):
    size = plan_size([(45, 20), (150, 75)], 3)
    plain, padded_ones = summaries(45, None, **split), summaries(45, size, **split)
    assert plain.keys() == padded_ones.keys()
    for name, summary in plain.items():
        for ours, theirs in zip(padded_ones[name], summary, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def shapes(num, name, size):
    pool = steps_of(num, name)
    design = split_design(pool.order, num_calibration=num // 2)
    plan, shape = padded(*trial_plan(pool, design, design.budgets(ALPHAS), means=False), size)
    return shape, jax.tree.map(np.shape, plan)


def test_one_size_gives_plans_of_one_shape():
    """So that one compilation serves them, whatever the pool and the score."""
    sizes = (40, 97, 300)
    size = plan_size([(num, num // 2) for num in sizes], 3)
    kinds = {repr(shapes(num, name, size)) for num in sizes for name in NONCONFORMITIES}
    assert len(kinds) == 1


@pytest.mark.parametrize("size", [PlanSize(40, 50, 3), PlanSize(90, 1, 3), PlanSize(90, 50, 1)])
def test_what_does_not_fit_is_left_as_it_is(size):
    pool = steps_of(60)
    design = split_design(pool.order, num_calibration=30)
    plan, shape = trial_plan(pool, design, design.budgets(ALPHAS), means=False)
    again, same_shape = padded(plan, shape, size)
    assert again is plan
    assert same_shape is shape


def test_groups_are_left_as_they_are():
    pool = steps_of(60)
    design = split_design(pool.order, num_calibration=30, group=np.arange(60) % 2)
    plan, shape = trial_plan(pool, design, design.budgets(ALPHAS), means=False)
    assert padded(plan, shape, PlanSize(90, 50, 4)) == (plan, shape)


@pytest.mark.parametrize("name", list(NONCONFORMITIES))
def test_entries_and_keys_are_those_of_the_public_functions(name):
    scores = pool_of(37)[0]
    tie_key, split_key = jax.random.split(jax.random.key(3))
    rest_data = jax.random.key_data(split_key)
    second = tie_break(tie_key, (37, 4))
    entries = NONCONFORMITIES[name](scores, "free")
    for rows in (None, 50):
        ours, keys, rest = pool_entries(jax.random.key(3), scores, name, "free", rows=rows)
        np.testing.assert_array_equal(ours, entries)
        np.testing.assert_array_equal(keys, second)
        np.testing.assert_array_equal(jax.random.key_data(rest), rest_data)


def test_a_key_of_another_generator_draws_no_more_rows_than_there_are():
    keys = [jax.random.key(3, impl="rbg") for _ in range(2)]
    plain, wanted = (
        pool_entries(key, pool_of(37)[0], "gap", "paper", rows=rows)
        for key, rows in zip(keys, (None, 50), strict=True)
    )
    np.testing.assert_array_equal(plain[1], wanted[1])


def test_scores_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"scores must be in \[0, 1\], got 1.5 at \[0, 1\]"):
        pool_entries(jax.random.key(0), np.float32([[0.5, 1.5]]), "gap", "paper")
