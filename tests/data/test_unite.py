"""Tables of other models on the same questions, side by side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from racer_jax.cli.options import Source
from racer_jax.data import DataError, RoutingTable, load, save, unite


def table(ids, models, correct, **more):
    fields = {"texts": [f"{name}?" for name in ids]} | more
    return RoutingTable(ids=ids, models=models, correct=correct, **fields)


def test_models_stand_side_by_side_and_the_rest_is_missing():
    a = table(["p", "q"], ["x"], [[1], [0]], cost=[[0.5], [0.25]], notes=["left out 1"])
    b = table(["q", "r"], ["y"], [[1], [1]], answers=[["A"], [None]], price=[2.0])
    both = unite([a, b])
    assert both.ids == ("p", "q", "r")
    assert both.texts == ("p?", "q?", "r?")
    assert both.correct.tolist() == [[True, False], [False, True], [False, True]]
    assert both.missing.tolist() == [[False, True], [False, False], [True, False]]
    np.testing.assert_array_equal(both.cost, [[0.5, np.nan], [0.25, np.nan], [np.nan, np.nan]])
    assert both.answers.tolist() == [[None, None], [None, "A"], [None, None]]
    np.testing.assert_array_equal(both.price, [np.nan, 2.0])
    assert both.notes == ("left out 1",)
    assert both.complete().ids == ("q",)


@given(
    labels=st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1),
    data=st.data(),
)
def test_a_table_taken_apart_is_put_together_again(labels, data):
    ids = [f"q{i}" for i in range(len(labels))]
    whole = table(ids, ["x", "y", "z"], np.array(labels), cost=np.ones((len(ids), 3)))
    rows = data.draw(st.permutations(range(len(ids))))
    parts = [whole.select(models=["x"]), whole.select(rows, models=["z", "y"])]
    again = unite(parts).aligned(whole.models)
    assert again == whole


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (table(["q"], ["x"], [[1]]), "a pair must be in one table, got 'x' on 'q' in table 1"),
        (table(["q"], ["y"], [[1]], texts=["other"]), "'q' must be the same in all tables"),
        (table(["q"], ["y"], [[1]], label_rule="score > 0"), "must have one label rule"),
        (table(["r"], ["y"], [[1]], group=["g"]), "must all have a group, or none"),
    ],
)
def test_tables_that_do_not_fit_are_refused(second, message):
    with pytest.raises(DataError, match=message):
        unite([table(["q"], ["x"], [[1]]), second])


def test_files_of_one_model_each_are_joined_as_the_error_says(tmp_path):
    save(table(["p", "q"], ["x"], [[1], [0]]), tmp_path / "x.csv")
    save(table(["p", "q"], ["y"], [[0], [0]]), tmp_path / "y.csv")
    paths = [tmp_path / "x.csv", tmp_path / "y.csv"]
    with pytest.raises(DataError, match=r"pass pools='unite' to put models .* side by side"):
        load(paths)
    assert load(paths, pools="unite").models == ("x", "y")
    with pytest.raises(DataError, match="must have a model in common, got none; pass pools='unite"):
        load(paths, pools="intersect")
    save(table(["q"], ["z"], [[1]]), tmp_path / "z.csv")
    with pytest.raises(DataError, match="1 of 6 are missing"):
        load([*paths, tmp_path / "z.csv"], pools="unite")
    kept = load([*paths, tmp_path / "z.csv"], pools="unite", missing="drop")
    assert kept.ids == ("q",)
    assert "left out 1 of 2 queries that lack a model's result" in kept.notes


def test_of_files_side_by_side_the_models_are_those_of_all(tmp_path):
    """No file holds all that are named; what a wide table holds beside them is no model."""
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("query,gold,x,y\np?,A,1,0\nq?,B,0,1\n")
    second.write_text("query,z\np?,1\n")
    files = [first, second]
    with pytest.raises(DataError, match=r"1 of 6 are missing \(z 1\)"):
        load(files, pools="unite", models=["z", "y", "x"])
    both = load(files, pools="unite", models=["z", "x"], missing="drop")
    assert both.models == ("z", "x")
    assert both.correct.tolist() == [[True, True]]
    assert any("left out 1 of 2 queries" in note for note in both.notes)
    assert load(files, pools="unite", models=["z", "x"], missing="keep").ids == ("p?", "q?")
    with pytest.raises(DataError, match="the table has no model 'w'; it has: x, z"):
        load(files, pools="unite", models=["x", "z", "w"])
    with pytest.raises(DataError, match="pass models="):
        load(files, pools="unite")


def test_tables_of_an_artefact_may_stand_in_several_files(tmp_path):
    """Where no file holds the whole pool, the error says how to join them."""
    for name in "xyz":
        (tmp_path / name).write_text(f"query,model,correct\np?,{name},1\n")
    source = Source(tuple(tmp_path / name for name in "xyz"), {})
    with pytest.raises(DataError) as error:
        source.table_of(["z", "x", "y"])
    assert "pass --pools unite" in error.value.in_shell()
    joined = Source(source.paths, {"pools": "unite"})
    assert joined.table_of(["z", "x", "y"]).models == ("z", "x", "y")
    with pytest.raises(DataError, match=r"take it out of the artefact, .* --without w"):
        joined.table_of(["x", "w"])
