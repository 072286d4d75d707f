"""Training and test parts from any source.

Groups, no question on both sides, and orders of the right shape.
"""

import jax
import numpy as np
import pytest

from racer_jax.data import RoutingTable, save
from racer_jax.studies.corpora import first_of_each_group, for_pool, read_parts
from racer_jax.studies.order_studies import (
    calibration_size,
    hashed_embeddings,
    orders,
)

pytestmark = pytest.mark.long


def table(group=None, num=60):
    rng = np.random.default_rng(0)
    return RoutingTable(
        ids=[str(i) for i in range(num)],
        texts=[f"question {i % 50} of {i % 7}" for i in range(num)],
        models=["x", "y", "z"],
        correct=rng.random((num, 3)) < 0.5,
        group=group,
    )


def test_any_table_is_split_by_question_and_has_groups(tmp_path):
    save(table(), tmp_path / "mine.npz")
    train, test, notes = read_parts(jax.random.key(0), tmp_path / "mine.npz", share=0.3)
    assert train.groups == test.groups == ("mine",)
    assert not set(train.texts) & set(test.texts)
    assert len(set(test.texts)) == len(test)
    assert 10 <= len(train) <= 25
    assert set(notes) == {"mine"}


def test_groups_and_limits_are_kept(tmp_path):
    save(table(group=["a", "b"] * 30), tmp_path / "mine.npz")
    train, test, _ = read_parts(jax.random.key(0), tmp_path / "mine.npz", queries=4)
    for part in (train, test):
        assert sorted(part.group) == ["a"] * 4 + ["b"] * 4
    assert first_of_each_group(table(group=["a", "b"] * 30), 1).ids == ("0", "1")


def test_orders_are_learned_from_training_rows():
    train, test, _ = read_parts(jax.random.key(0), None, queries=40)
    x, z = hashed_embeddings(jax.random.key(1), train, test)
    result = orders(x, train, z, test, neighbors=10, blend=0.3)
    for call in result.values():
        assert call("free").shape == (len(test), len(test.models) + 1)
    first = np.asarray(result["static"]("free"))[np.array(test.group) == test.groups[0]]
    assert (first == first[0]).all()


def test_routerdc_brings_its_own_parts(data_dir):
    train, test, notes = read_parts(jax.random.key(0), data_dir / "routerdc", queries=30)
    assert len(train) == len(test) == 120
    assert notes["mmlu"] == "left out 8 repeated and 16 trained-on questions"


@pytest.mark.parametrize(("share", "num", "expected"), [(0.5, 9, 4), (0.01, 9, 1), (0.99, 9, 8)])
def test_both_sides_of_a_split_hold_a_query(share, num, expected):
    assert calibration_size(share, num) == expected


def test_the_training_table_must_hold_the_pool():
    assert for_pool(table(), ["z", "x"]).correct.tolist() == table().correct[:, [2, 0]].tolist()
    with pytest.raises(
        ValueError, match="must hold every model of the pool, 'a', 'b' are not among"
    ):
        for_pool(table(), ["x", "a", "b"])


def test_a_group_seen_only_at_test_time_is_named():
    train, test = table(group=["a"] * 60), table(group=["a", "b"] * 30)
    x, z = hashed_embeddings(jax.random.key(0), train, test)
    with pytest.raises(
        ValueError,
        match=r"groups must be among those of the training rows, \('a',\), got 'b' at \[1\]",
    ):
        orders(x, train, z, test, neighbors=5, blend=0.3)["static"]("free")
