"""Random splits written out in Python: keys of the draws, parts by unit, and rows by position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.montecarlo import replay
from racer_jax.montecarlo.packed_bits import (
    Packed,
    as_bytes,
    count_before,
    exclusive_sums,
    gather_bytes,
    packing_order,
    running_counts,
    select,
)
from racer_jax.montecarlo.replay import split_parts
from racer_jax.montecarlo.split_design import bracket_width, draw_parts, rank_plan, split_design
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.subsets import draw_plan
from tests.montecarlo.test_subsets_word_by_word import scrambled, subset

NUM, TRIALS = 70, 3
QUESTION = np.arange(NUM) * 3 % 41 // 2  # units of two to four rows
GROUP = np.where(QUESTION % 5 < 2, "b", "a")


def pool():
    rng = np.random.default_rng(0)
    return pool_steps(rng.random((NUM, 2)).astype(np.float32), np.ones((NUM, 1), bool))


def by_hand(design, trial, num_words):
    """Calibration and validation units of each group in one trial of `key(3)`."""
    key = scrambled((0, 3), 0, trial)
    groups = len(design.group_size)
    parts = []
    for g in range(groups):
        inner, outer = (scrambled(key, 0, draw * groups + g) for draw in (0, 1))
        size, num = int(design.group_size[g]), int(design.calibration[g])
        both = num + int(design.validation[g])
        plan = draw_parts(design)
        whole = subset(
            outer, both, size, plan.outer.digit[:, g].tolist(), (1 << size) - 1, num_words=num_words
        )
        within = sum(1 << e for e in whole)
        digits = plan.calibration.digit[:, g].tolist()
        own = subset(inner, num, size, digits, within, num_words=num_words)
        parts.append((own, whole - own))
    return parts


@pytest.mark.long
def test_parts_by_group_and_question_are_those_of_their_draws():
    steps = pool()
    how = {
        "num_calibration": [6, 3],
        "num_validation": 4,
        "group": GROUP,
        "question": QUESTION,
    }
    design = split_design(steps.order, **how)
    assert design.group_size.tolist() == [
        len(set(QUESTION[name == GROUP].tolist())) for name in ("a", "b")
    ]
    parts = split_parts(jax.random.key(3), np.arange(TRIALS), steps, **how)
    assert parts.dtype == np.int8
    num_words = -(-int(design.group_size.max()) // 32)
    for trial in range(TRIALS):
        units = by_hand(design, trial, num_words)
        for position, row in enumerate(steps.order):
            own, validation = units[design.group[position]]
            place = int(design.place[position])
            expected = 0 if place in own else 1 if place in validation else 2
            assert parts[trial, row] == expected
    # Rows of one question stand together, and its first row says where.
    for g, name in enumerate(("a", "b")):
        rows = [q for q in QUESTION[steps.order].tolist() if GROUP[q == QUESTION][0] == name]
        places = {q: i for i, q in enumerate(dict.fromkeys(rows))}
        own = design.place[design.group == g].tolist()
        assert own == [places[q] for q in rows]


def test_the_fewest_and_the_most_rows_of_a_calibration_part():
    design = split_design(pool().order, 5, 0, None, QUESTION)
    rows = np.sort(np.bincount(QUESTION))
    assert (design.least, design.most) == (rows[:5].sum(), rows[-5:].sum())
    assert not design.plain
    assert not design.validates
    assert split_design(pool().order, 5, 1).validates
    assert split_design(pool().order, 5).plain
    assert not split_design(pool().order, 5, 0, GROUP).plain
    # Of one budget for each number of rows; alphas alone where it varies.
    budgets = design.budgets(0.5)
    expected = [(n + 1) // 2 - 1 for n in range(design.least, design.most + 1)]
    assert budgets.tolist() == [expected]
    with pytest.raises(ValueError, match="budget needs a fixed number of calibration rows"):
        design.budgets(None, 2)
    fixed = split_design(pool().order, 5)
    assert fixed.budgets(None, [0, 2]).tolist() == [[0], [2]]
    assert fixed.budgets(None, 3).tolist() == [[3]]
    with pytest.raises(TypeError, match="one of alpha and budget must be given"):
        fixed.budgets(0.5, 2)


def test_numbers_are_shared_among_groups_by_largest_remainder():
    group = np.repeat(["a", "b", "c"], [10, 7, 3])
    order = np.arange(20)
    for num in range(1, 20):
        share = split_design(order, num, 0, group).calibration
        exact = num * np.array([10, 7, 3]) / 20
        assert share.sum() == num
        assert (np.abs(share - exact) < 1).all()
        up = share > exact
        assert not up.any() or (exact % 1)[up].min() >= (exact % 1)[~up].max() - 1e-12
    assert split_design(order, [1, 2, 0], [0, 0, 3], group).validation.tolist() == [0, 0, 3]
    for calibration, validation, message in (
        ([10, 7, 3], 0, "must leave at least one of the 20"),
        ([10, 7, 2], 1, "must leave at least one of the 20"),
        ([11, 1, 1], 0, "fit in each group"),
        ([1, 1], 0, "one integer for each of the 3 groups"),
        ([1.0, 1.0, 1.0], 0, "one integer for each of the 3 groups"),
        ([0, 0, 0], 0, "num_calibration must be 0 or more for each group and 1 or more in all"),
        ([2, -1, 1], 0, "num_calibration must be 0 or more for each group"),
        (1, [-1, 0, 0], "num_validation must be 0 or more for each group and 0 or more in all"),
        (0, 0, "num_calibration must be at least 1"),
        (1, -1, "num_validation must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            split_design(order, calibration, validation, group)
    assert split_design(order, [10, 7, 2], 0, group).group_size.tolist() == [10, 7, 3]
    with pytest.raises(ValueError, match=r"group must have shape \[N\] = \(20,\)"):
        split_design(order, 1, 0, group[1:])
    with pytest.raises(ValueError, match="the question of row 9 is in several"):
        split_design(order, 1, 0, group, [*range(9), 9, 9, *range(11, 20)])


def test_the_bracket_is_around_the_mean_position_and_wide_enough():
    """Six standard deviations of the position to either side, or all words."""
    for num, calibration in ((5000, 500), (5000, 4000), (100_000, 50), (40, 20)):
        order = np.arange(num)
        design = split_design(order, calibration)
        ranks, width = rank_plan(design, design.budgets([0.1, 0.5, 0.9]))
        words = -(-num // 32)
        assert width == bracket_width(num, calibration, calibration) <= words
        assert ranks.rank[:, 0].tolist() == [
            calibration - b for b in design.budgets([0.1, 0.5, 0.9])[:, 0]
        ]
        assert int(ranks.least) == calibration
        k = ranks.rank[:, 0]
        mean = k * (num + 1) / (calibration + 1)
        variance = mean * (1 - k / (calibration + 1)) * (num - calibration) / (calibration + 2)
        reach = 5 * np.sqrt(variance)
        low = np.maximum((mean - reach) / 32, 0)
        high = np.minimum((mean + reach) / 32, words)
        assert (ranks.guess <= low + 1).all()
        assert (ranks.guess + width >= high - 1).all()
        assert (ranks.guess >= 0).all()
        assert (ranks.guess + width <= words).all()
    wide = bracket_width(5000, 400, 600)
    assert wide > bracket_width(5000, 500, 500)


@pytest.mark.long
def test_counts_and_places_in_packed_bits_are_those_of_loops():
    rng = np.random.default_rng(0)
    num_words, lanes, num_entries, num_kinds = 9, 4, 300, 2
    words = rng.integers(0, 2**32, (num_words, num_kinds * lanes), dtype=np.uint32)
    words[3] = 0
    words[5] = 0xFFFFFFFF
    element = rng.integers(0, 32 * num_words, num_entries)
    kind = rng.integers(0, num_kinds, num_entries)
    entry = rng.integers(0, num_entries, (9, lanes)).astype(np.int32)
    entry[0], entry[1], entry[2], entry[3] = 0, num_entries - 1, 255, 256
    order = packing_order(element, num_words, num_kinds, kind)
    rank = np.array([1, 2, 60, 90, 120], np.int32)

    @jax.jit
    def everything(words, order, entry, rank):
        source = as_bytes(words).reshape(-1, lanes)
        out = jnp.zeros((*order.row.shape[::2], lanes), jnp.uint8)
        running, total = running_counts(gather_bytes(source, order, out), out)
        bits = Packed(gather_bytes(source, order, out), running, exclusive_sums(total)[0])
        rows = jax.lax.population_count(words)
        before, sums = exclusive_sums(rows)
        places = [
            select(words, before, rank[:, None], jnp.full(5, guess, jnp.int32), 2)
            for guess in (0, 4, 7)
        ]
        return count_before(bits, entry), before, sums, places

    counts, before, sums, places = everything(words, order, entry, rank)
    bits = np.unpackbits(words.T.copy().view(np.uint8), axis=1, bitorder="little").T
    picked = bits.reshape(-1, num_kinds, lanes)[element, kind]
    expected = [[picked[: entry[a, t], t].sum() for t in range(lanes)] for a in range(9)]
    np.testing.assert_array_equal(counts, expected)
    per_row = bits.reshape(num_words, 32, -1).sum(axis=1)
    np.testing.assert_array_equal(before, np.cumsum(per_row, axis=0) - per_row)
    np.testing.assert_array_equal(sums, per_row.sum(axis=0))
    for place in places:
        for a, k in enumerate(rank):
            for t in range(num_kinds * lanes):
                assert place[a, t] == np.flatnonzero(bits[:, t])[k - 1]


@pytest.mark.long
def test_masks_of_plain_splits_are_those_of_their_draws():
    masks = replay.split_masks(
        jax.random.key(3), np.arange(TRIALS), num_calibration=20, num_queries=NUM
    )
    digits = draw_plan(np.array([20]), np.array([NUM])).digit[:, 0].tolist()
    for trial in range(TRIALS):
        key = scrambled(scrambled((0, 3), 0, trial), 0, 0)
        expected = subset(key, 20, NUM, digits, (1 << NUM) - 1, num_words=3)
        assert set(np.flatnonzero(masks[trial]).tolist()) == expected
