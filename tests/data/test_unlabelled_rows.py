"""Rows for each query and model with answers and no labels: read as unlabelled, never as wide."""

import json

import pytest

from racer_jax import RoutingTable, load
from racer_jax.data import DataError
from racer_jax.data.formats._synonyms import is_long, other_names

ANSWERS = {("q1", "a"): "A", ("q1", "b"): "B", ("q2", "a"): "", ("q2", "b"): "C"}


def csv_file(folder, header):
    path = folder / "traffic.csv"
    lines = [f"{query},{model},{answer}" for (query, model), answer in ANSWERS.items()]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def json_file(folder, header):
    path = folder / "traffic.jsonl"
    names = header.split(",")
    rows = [dict(zip(names, (*pair, answer), strict=True)) for pair, answer in ANSWERS.items()]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def parquet_file(folder, header):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [(*pair, answer or None) for pair, answer in ANSWERS.items()]
    columns = dict(zip(header.split(","), map(list, zip(*rows, strict=True)), strict=True))
    path = folder / "traffic.parquet"
    parquet.write_table(arrow.table(columns), path)
    return path


KINDS = (csv_file, json_file, parquet_file)


@pytest.mark.parametrize("write", KINDS)
@pytest.mark.parametrize("header", ["query,model,answer", "query_id,model,answer"])
def test_the_answers_are_read_and_every_label_is_missing(write, header, tmp_path):
    table = load(write(tmp_path, header), missing="keep")
    assert (table.ids, table.models) == (("q1", "q2"), ("a", "b"))
    assert table.answers.tolist() == [["A", "B"], [None, "C"]]
    assert table.missing.all()
    assert not table.correct.any()


@pytest.mark.parametrize("write", KINDS)
@pytest.mark.parametrize("missing", [None, "error", "drop"])
def test_without_labels_what_to_pass_is_said(write, missing, tmp_path):
    options = {} if missing is None else {"missing": missing}
    with pytest.raises(DataError, match=r"field 'correct': must be a column, the .* has") as error:
        load(write(tmp_path, "query,model,answer"), **options)
    assert "answers and no labels" in str(error.value)
    assert "pass missing='keep'" in str(error.value)
    assert "pass --missing keep" in error.value.in_shell()


@pytest.mark.parametrize("write", KINDS)
def test_under_other_names_it_is_no_wide_table(write, tmp_path):
    path = write(tmp_path, "query,llm,response")
    with pytest.raises(DataError, match="must name its columns query, model and correct") as error:
        load(path, missing="keep")
    columns = {"model": "llm", "answer": "response"}
    assert f"pass columns={columns}" in str(error.value)
    table = load(path, missing="keep", columns=columns)
    assert table.models == ("a", "b")
    assert table.missing.all()


def test_a_data_frame_is_read_the_same_way():
    query, model = zip(*ANSWERS, strict=True)
    answers = [answer or None for answer in ANSWERS.values()]
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"query": query, "model": model, "answer": answers})
    table = RoutingTable.from_frame(frame, missing="keep")
    assert table.answers.tolist() == [["A", "B"], [None, "C"]]
    with pytest.raises(DataError, match="answers and no labels"):
        RoutingTable.from_frame(frame)
    with pytest.raises(DataError, match=r"columns=\{'model': 'llm'\}"):
        RoutingTable.from_frame(frame.rename(columns={"model": "llm"}))


def test_a_label_under_another_name_is_named_first(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("query,model,answer,is_correct\nq1,a,A,1\n")
    with pytest.raises(DataError, match=r"columns=\{'correct': 'is_correct'\}"):
        load(path)
    assert load(path, columns={"correct": "is_correct"}).correct.all()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("query,gpt-4,mixtral", False),
        ("query,model,answer", True),
        ("query,model,score", True),
        ("query,model,cost", False),
    ],
)
def test_what_is_long(header, expected):
    names = header.split(",")
    assert is_long(names, None) == is_long(names, other_names(names)) == expected
