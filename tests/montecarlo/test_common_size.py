"""Pools of several sizes in plans of one size: the same bits, from one compiled program."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from racer_jax.core.nonconformity import NONCONFORMITIES, tie_break
from racer_jax.montecarlo import common_size, trials
from racer_jax.montecarlo.common_size import PlanSize, padded, plan_size
from racer_jax.montecarlo.plan import trial_plan
from racer_jax.montecarlo.pool_entries import pool_entries
from racer_jax.montecarlo.split_design import bracket_width, split_design
from racer_jax.montecarlo.step_functions import pool_steps

ALPHAS = ["0.02", "0.1", "0.5"]


def pool_of(num, num_models=3, seed=0):
    rng = np.random.default_rng(seed + num)
    scores = rng.random((num, num_models)).astype(np.float32)
    return scores, rng.random((num, num_models)) < scores


def steps_of(num, name="inverse_probability"):
    """A pool made by NumPy alone: nothing of it is compiled."""
    scores, correct = pool_of(num)
    augmented = np.concatenate([scores, 1 - scores.max(axis=1, keepdims=True)], axis=1)
    highest = 1 if name == "inverse_probability" else augmented.max(axis=1, keepdims=True)
    keys = np.random.default_rng(num).integers(0, 2**32, augmented.shape, dtype=np.uint32)
    return pool_steps(highest - augmented, correct, keys)


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


def bits_read(order, num_words):
    """Element of the bit that each entry of an order reads; -1 where it reads none."""
    byte, word = np.divmod(order.row.astype(np.int64), num_words)
    mask = order.mask.astype(np.int64)
    element = word * 32 + byte * 8 + np.log2(np.maximum(mask, 1)).astype(np.int64)
    return np.where(mask > 0, element, -1)


@pytest.mark.parametrize("num_validation", [0, 10])
@pytest.mark.parametrize("more", [(0, 0, 0), (1, 0, 0), (40, 3, 2)])
def test_what_is_added_is_no_query_and_what_was_there_is_read_as_before(more, num_validation):
    pool = steps_of(60)
    design = split_design(pool.order, num_calibration=30, num_validation=num_validation)
    plan, shape = trial_plan(pool, design, design.budgets(ALPHAS), means=True)
    num_blocks = plan.planes.order.row.shape[2]
    size = PlanSize(60 + more[0], num_blocks + more[1], shape.width + more[2])
    wide, wide_shape = padded(plan, shape, size)
    num_words = -(-size.num_queries // 32)
    assert (size.num_words, plan_size([(60, 30), (7, 2)], 3).num_words) == (num_words, 2)
    bits = bits_read(wide.planes.order, num_words)
    assert wide.planes.order.row.dtype == np.int32
    np.testing.assert_array_equal(bits[..., :num_blocks], bits_read(plan.planes.order, 2))
    assert (bits[..., num_blocks:] == -1).all()
    assert bits.shape[2] == size.num_blocks
    for part in ("calibration", "outer"):
        draw, wide_draw = getattr(plan.draw, part), getattr(wide.draw, part)
        if draw is None:
            assert wide_draw is None
            continue
        expected = np.zeros((num_words, draw.valid.shape[1]), np.uint32)
        expected[:2] = draw.valid
        np.testing.assert_array_equal(wide_draw.valid, expected)
        assert wide_draw.num is draw.num
    for ours, whole in zip(
        [plan.planes.entry.T, *jax.tree.leaves(plan.threshold)],
        [wide.planes.entry.T, *jax.tree.leaves(wide.threshold)],
        strict=True,
    ):
        assert len(whole) == len(ours) + more[0]
        np.testing.assert_array_equal(whole[: len(ours)], ours)
        assert (whole[len(ours) :] == ours[-1]).all()
    # The wider bracket holds the narrow one, and stays within the words.
    assert wide_shape == replace(shape, width=min(size.width, num_words))
    guess, wide_guess = plan.ranks.guess, wide.ranks.guess
    assert (wide_guess <= guess).all()
    assert (wide_guess >= 0).all()
    assert (wide_guess + wide_shape.width >= guess + shape.width).all()
    assert (wide_guess + wide_shape.width <= num_words).all()
    assert int(wide.num_queries) == 60


def test_a_size_has_room_for_every_pool():
    size = plan_size([(300, 100), (127, 60), (40, 39)], 3)
    assert size.num_queries == 300
    # 900 entries of models, 300 of abstentions and 300 of misses, one more than that in each.
    assert size.num_blocks == 4 + 2 + 2
    assert plan_size([(255, 60)], 1).num_blocks == 3  # 256 entries are one block
    assert plan_size([(256, 60)], 1).num_blocks == 6
    assert size.width == max(bracket_width(*p) for p in ((300, 100, 100), (127, 60, 60)))


def test_the_draws_of_many_words_are_other_draws(monkeypatch):
    pool = steps_of(60)
    design = split_design(pool.order, num_calibration=30)
    plan, shape = trial_plan(pool, design, design.budgets(ALPHAS), means=False)
    for half_words, left in ((1, False), (2, True), (3, False)):
        monkeypatch.setattr(common_size, "HALF_WORDS", half_words)
        assert (padded(plan, shape, PlanSize(90, 50, 3))[0] is plan) == left


@pytest.mark.parametrize("name", list(NONCONFORMITIES))
@pytest.mark.long
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


@pytest.mark.long
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
