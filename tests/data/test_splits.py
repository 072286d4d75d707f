"""Splits: by question, in each group, in the paper's proportions."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racer_jax.data import RoutingTable, paper_split, read_routerdc, split


def table(questions, groups=None):
    n = len(questions)
    return RoutingTable(
        ids=[str(i) for i in range(n)],
        texts=[f"question {q}" for q in questions],
        models=["x"],
        correct=np.zeros((n, 1)),
        group=groups,
    )


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=25), st.integers(0, 99), st.booleans())
def test_every_row_once_and_no_question_on_two_sides(questions, seed, by_group):
    groups = [f"g{q % 2}" for q in questions]
    rows = table(questions, groups)
    parts = split(jax.random.key(seed), rows, (0.4, 0.2, 0.4), by_group)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(questions)))
    sides = [set(rows.question_ids[part].tolist()) for part in parts]
    assert sum(map(len, sides)) == len(set.union(*sides))


def test_sizes_are_the_fractions_of_each_group():
    rows = table(range(130), ["a"] * 100 + ["b"] * 30)
    parts = rows.split(jax.random.key(0), (0.5, 0.1, 0.4))
    assert [int((part < 100).sum()) for part in parts] == [50, 10, 40]
    assert [int((part >= 100).sum()) for part in parts] == [15, 3, 12]


def test_remainders_go_to_the_largest():
    parts = split(jax.random.key(0), table(range(7)), (0.5, 0.1, 0.4))
    assert [len(part) for part in parts] == [3, 1, 3]  # 3.5, 0.7, 2.8


def test_the_paper_s_protocol_on_the_paper_s_data(data_dir):
    rows = read_routerdc(data_dir / "routerdc")
    parts = paper_split(jax.random.key(1), rows)
    group = np.array(rows.group)
    sizes = {name: [int((group[part] == name).sum()) for part in parts] for name in rows.groups}
    assert sizes["gsm8k"] == [659, 132, 528]
    assert sizes["arc_challenge"] == [141, 70, 141]
    assert sum(sizes["mmlu"]) == 4213
    sides = [set(rows.question_ids[part].tolist()) for part in parts]
    assert sum(map(len, sides)) == len(set.union(*sides))


@pytest.mark.parametrize("name", ["ARC-C", "arc_challenge", "toy_arc_challenge", "arc-challenge"])
def test_arc_is_known_by_any_of_its_names(name):
    parts = paper_split(jax.random.key(0), table(range(10), [name] * 10))
    assert [len(part) for part in parts] == [4, 2, 4]
    assert [len(part) for part in paper_split(jax.random.key(0), table(range(10)))] == [5, 1, 4]


@pytest.mark.long
def test_splits_are_uniform_over_questions():
    rows = table(range(6))
    counts = np.zeros(6)
    keys = jax.random.split(jax.random.key(3), 600)
    for key in keys:
        counts[split(key, rows, (0.5, 0, 0.5)).calibration] += 1
    assert (np.abs(counts - 300) < 5 * np.sqrt(600 / 4)).all()


def test_the_key_fixes_the_split():
    rows = table(range(50))
    first, again = (split(jax.random.key(9), rows) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((0.5, 0.5), "must be three numbers of at least 0 that sum to 1"),
        ((0.5, 0.6, -0.1), "must be three numbers of at least 0 that sum to 1"),
        ((0.5, 0.1, 0.3), "must be three numbers of at least 0 that sum to 1"),
        ({"h": (0.5, 0.1, 0.4)}, "must name every group, got none for 'g'"),
    ],
)
def test_fractions_that_do_not_fit_are_refused(fractions, message):
    with pytest.raises(ValueError, match=message):
        split(jax.random.key(0), table([1, 2], ["g", "g"]), fractions)
