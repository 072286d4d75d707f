"""The routing table: validated once, frozen, selected without losing what belongs together."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racer_jax.data import RoutingTable
from tests.data.strategies import tables

SMALL = {
    "ids": ["a", "b"],
    "texts": ["1 + 1?", "2 + 2?"],
    "models": ["x", "y"],
    "correct": [[1, 0], [0, 0]],
}


def table(**changes):
    return RoutingTable(**{**SMALL, **changes})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"ids": "ab"}, TypeError, "ids must be a sequence of strings, got the one string 'ab'"),
        ({"ids": ["a", 3]}, TypeError, r"ids must hold strings, got 3 at \[1\]"),
        ({"ids": ["a", ""]}, ValueError, r"ids must not hold empty strings, got one at \[1\]"),
        ({"ids": ["a", "a"]}, ValueError, r"ids must be unique, got 'a' at \[0\] and \[1\]"),
        ({"models": ["x", "x"]}, ValueError, r"models must be unique, got 'x' at \[0\] and \[1\]"),
        (
            {"models": [], "correct": np.zeros((2, 0))},
            ValueError,
            "models must hold at least one model, got none",
        ),
        (
            {"texts": ["a", "\ud800"]},
            ValueError,
            r"texts must be text that UTF-8 can write, .* at \[1\]",
        ),
        ({"texts": ["a"]}, ValueError, "texts must hold one text for each of the 2 ids, got 1"),
        ({"group": ["g"]}, ValueError, "group must hold one name for each of the 2 ids, got 1"),
        ({"correct": [["1", "0"]] * 2}, TypeError, "correct must be boolean or 0/1, got dtype"),
        ({"correct": [[1, 0]]}, ValueError, r"correct must have shape \(2, 2\), got \(1, 2\)"),
        ({"correct": [[1, 2], [0, 0]]}, ValueError, r"correct must be 0/1, got 2 at \[0, 1\]"),
        (
            {"correct": [[1, np.nan], [0, 0]]},
            ValueError,
            r"correct must be 0/1, got nan at \[0, 1\]",
        ),
        ({"graded": [["a", "b"]] * 2}, TypeError, "graded must be numeric, got dtype"),
        ({"cost": np.zeros((2, 3))}, ValueError, r"cost must have shape \(2, 2\), got \(2, 3\)"),
        (
            {"cost": [[0, np.inf], [0, 0]]},
            ValueError,
            r"cost must be finite .* got inf at \[0, 1\]",
        ),
        (
            {"cost": [[0, -1], [0, 0]]},
            ValueError,
            r"cost must be in \[0, inf\], got -1 at \[0, 1\]",
        ),
        (
            {"tokens": [[0, 1.5], [0, 0]]},
            ValueError,
            r"tokens must be whole numbers, got 1.5 at \[0, 1\]",
        ),
        (
            {"price": [-1.0, 0.0]},
            ValueError,
            r"price must be in \[0, inf\] dollars per million tokens, got -1",
        ),
        (
            {"confidence": {"p": [[2, 0]] * 2}},
            ValueError,
            r"confidence\['p'\] must be in \[0, 1\], got 2 at \[0, 0\]",
        ),
        ({"answers": [["A"]]}, ValueError, r"answers must have shape \(2, 2\), got \(1, 1\)"),
        (
            {"answers": [["A", 3]] * 2},
            TypeError,
            r"answers must be strings or None, got 3 at \[0, 1\]",
        ),
        (
            {"answers": [["A", ""]] * 2},
            ValueError,
            r"answers must be None where there is no answer, got ''",
        ),
        (
            {"missing": [[1, 0], [0, 0]]},
            ValueError,
            r"correct must be 0 where missing, got 1 at \[0, 0\]",
        ),
        (
            {"label_rule": 3},
            TypeError,
            "label_rule must be a name or a mapping of group to name, got 3",
        ),
        ({"label_rule": {"g": "r"}}, ValueError, "label_rule by group needs groups, got none"),
        (
            {"group": ["g", "h"], "label_rule": {"g": "r"}},
            ValueError,
            "a rule for every group, got none for 'h'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_field_and_place(changes, error, message):
    with pytest.raises(error, match=message):
        table(**changes)


def test_the_table_is_frozen():
    with pytest.raises(ValueError, match="read-only"):
        table().correct[0, 0] = False
    with pytest.raises(dataclasses.FrozenInstanceError):
        table().models = ("z",)


def test_the_arrays_given_are_copied():
    correct = np.zeros((2, 2), bool)
    rest = table(correct=correct)
    correct[:] = True
    assert not rest.correct.any()


def test_strings_of_numpy_become_plain_ones():
    assert type(table(ids=np.array(["a", "b"])).ids[0]) is str


def test_questions_are_the_same_by_text_alone():
    same = table(
        ids=list("abcde"), texts=["1 +  1?\n", "2?", "1 + 1?", "", ""], correct=np.zeros((5, 2))
    )
    # queries without text are questions of their own
    assert same.question_ids.tolist() == [0, 1, 0, 2, 3]
    assert table(texts=["caf\u00e9", "cafe\u0301"]).question_ids.tolist() == [0, 0]


def test_one_rule_for_all_groups_is_one_name():
    assert table(group=["g", "h"], label_rule={"g": "r", "h": "r"}).label_rule == "r"
    assert table(group=["g", "h"], label_rule={"h": "s", "g": "r"}).rules == {"g": "r", "h": "s"}
    assert table().rules == {"all": "as given"}


@settings(deadline=None, max_examples=60)
@given(tables(), st.data())
def test_selection_takes_whole_rows_and_columns(whole, data):
    n, m = whole.correct.shape
    rows = data.draw(st.lists(st.integers(0, n - 1), unique=True))
    columns = data.draw(st.lists(st.integers(0, m - 1), unique=True, min_size=1))
    part = whole.select(rows, models=[whole.models[j] for j in columns])
    assert [whole.ids.index(name) for name in part.ids] == rows
    assert len(part) == len(rows)
    for i, row in enumerate(rows):
        assert part.texts[i] == whole.texts[row]
        assert whole.group is None or part.group[i] == whole.group[row]
        for j, column in enumerate(columns):
            for name in ("correct", "graded", "answers", "cost", "tokens"):
                if getattr(whole, name) is not None:
                    np.testing.assert_array_equal(
                        getattr(part, name)[i, j], getattr(whole, name)[row, column]
                    )
            for scheme, values in whole.confidence.items():
                np.testing.assert_array_equal(part.confidence[scheme][i, j], values[row, column])
    assert whole.select() == whole
    assert whole.select(slice(None)) == whole


def test_selection_by_mask_slice_and_group():
    grouped = table(group=["g", "h"])
    assert grouped.select([False, True]).ids == ("b",)
    assert grouped.select(slice(0, 1)).ids == ("a",)
    assert grouped.select(group="h").ids == ("b",)
    assert grouped.select([1, 0], group=["g", "h"]).ids == ("b", "a")
    assert len(grouped.select([])) == 0


def test_groups_are_compared_whole():
    assert table(group=["g", "g\x00"]).select(group="g").ids == ("a",)


def test_an_empty_selection_keeps_the_rules_by_name():
    empty = table(group=["g", "h"], label_rule={"g": "r", "h": "s"}).select([])
    assert empty.label_rule == "g: r; h: s"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rows": [2]}, ValueError, r"rows must be in \[0, 2\), got 2"),
        ({"rows": [-1]}, ValueError, r"rows must be in \[0, 2\), got -1"),
        ({"rows": [0, 0]}, ValueError, "rows must name each row once"),
        ({"rows": [True]}, ValueError, r"rows must be a mask of shape \(2,\), got \(1,\)"),
        ({"rows": [[0], [1]]}, ValueError, r"rows must have one dimension, got shape \(2, 1\)"),
        (
            {"rows": [0.5]},
            TypeError,
            "rows must be integers, booleans or a slice, got dtype float64",
        ),
        ({"group": "g"}, ValueError, "group must be left out: the table has no groups, got 'g'"),
        ({"models": ["z"]}, ValueError, r"models must be among \('x', 'y'\), got 'z'"),
    ],
)
def test_a_selection_of_what_is_not_there_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        table().select(**options)


def test_complete_leaves_out_queries_that_lack_a_result_and_says_so():
    partial = table(missing=[[0, 0], [0, 1]])
    assert partial.complete().ids == ("a",)
    assert partial.complete().notes == ("left out 1 of 2 queries that lack a model's result",)
    assert table(missing=np.zeros((2, 2))).missing is None
    assert table().complete() == table()


def test_equality_sees_every_field():
    assert table() == table()
    assert table(cost=[[np.nan, 0]] * 2) == table(cost=[[np.nan, 0]] * 2)
    assert table() != table(notes=["x"])
    assert table() != table(label_rule="score > 0")
    assert table(confidence={"p": [[0, 1]] * 2}) != table(confidence={"q": [[0, 1]] * 2})
    assert table() != "a table"
