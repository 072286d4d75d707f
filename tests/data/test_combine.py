"""Joining tables: nothing is dropped without a note."""

import numpy as np
import pytest
from hypothesis import given, settings

from racer_jax.data import RoutingTable, concat
from tests.data.strategies import tables


def table(ids, models=("x", "y"), **fields):
    n = len(ids)
    base = {"texts": [f"{name}?" for name in ids], "correct": np.eye(n, len(models), dtype=bool)}
    return RoutingTable(**{"ids": ids, "models": models, **base, **fields})


@settings(deadline=None, max_examples=50)
@given(tables(min_queries=2))
def test_the_parts_of_a_table_joined_are_the_table(whole):
    cut = len(whole) // 2
    parts = [whole.select(slice(None, cut)), whole.select(slice(cut, None))]
    assert concat(parts) == whole


def test_models_are_joined_by_name():
    a, b = table(["a"]), table(["b"], models=("y", "x"))
    joined = concat([a, b])
    assert joined.models == ("x", "y")
    assert joined.correct.tolist() == [[True, False], [False, True]]


def test_the_intersection_of_pools_is_reported():
    a, b = table(["a"], models=("x", "y", "u")), table(["b"], models=("y", "x", "v"))
    joined = concat([a, b], pools="intersect")
    assert joined.models == ("x", "y")
    assert joined.notes == ("models not in every table were left out: u, v",)


def test_what_only_some_tables_know_is_left_out_with_a_note():
    a = table(["a"], cost=[[1, 2]], confidence={"p_true": [[0, 1]]}, price=[1.0, 2.0])
    joined = concat([a, table(["b"])])
    assert joined.cost is None
    assert joined.price is None
    assert joined.confidence == {}
    assert joined.notes == (
        "cost is not in every table and was left out",
        "confidence 'p_true' is not in every table and was left out",
        "price is not the same in every table and was left out",
    )


def test_rules_of_groups_are_kept_apart():
    a = table(["a"], group=["g"], label_rule="score > 0.5")
    b = table(["b"], group=["h"], label_rule="score > 0")
    assert concat([a, b]).label_rule == {"g": "score > 0.5", "h": "score > 0"}


def test_missing_pairs_stay_missing():
    joined = concat([table(["a"], missing=[[False, True]]), table(["b"])])
    assert joined.missing.tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize(
    ("parts", "pools", "message"),
    [
        ([], "match", "tables must hold at least one table, got none"),
        ([table(["a"])], "union", "pools must be one of"),
        (
            [table(["a"]), table(["b"], models=("x", "z"))],
            "match",
            "must hold the same models, got 'y' in some",
        ),
        (
            [table(["a"], models=("x",)), table(["b"], models=("z",))],
            "intersect",
            "a model in common, got none",
        ),
        (
            [table(["a"]), table(["a"])],
            "match",
            "ids must be unique over the tables, got 'a' in tables 0 and 1",
        ),
        (
            [table(["a"], group=["g"]), table(["b"])],
            "match",
            "must all have groups, or none, got some of both",
        ),
        (
            [table(["a"], label_rule="r"), table(["b"])],
            "match",
            "without groups must have one label rule",
        ),
        (
            [table(["a"], group=["g"], label_rule="r"), table(["b"], group=["g"], label_rule="s")],
            "match",
            "group 'g' must have one label rule, got 'r' and 's'",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(parts, pools, message):
    with pytest.raises(ValueError, match=message):
        concat(parts, pools)
