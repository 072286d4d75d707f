"""Tables as they are sent: what stands around the rows, and columns that are no models."""

import json

import numpy as np
import pytest

from racer_jax.data import DataError, load
from tests.data.test_loose_tables import put


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("query,x,y\na?,1,0\nGesamt:,1,1\n", "row 2, field 'query'"),
        ("query,x,y\na?,1,0\nb?,0,0\nSumme,2,0\n", r"row 3 \(line 4\), field 'query'"),
        ("query_id,query,x\n1,a?,1\n,Average,0.5\n", r"row 2 \(line 3\), field 'query'"),
        ("query_id,query,x\n1,a?,1\n,Moyenne,1\n", "row 2, field 'query'"),
        ("query,model,correct\na?,x,1\nTotal,x,1\n", r"row 2 \(line 3\), field 'query'"),
        (
            "query_id,query,model,correct\n1,a?,x,1\n2,Overall,x,1\n",
            r"row 2 \(line 3\), field 'query'",
        ),
    ],
)
def test_a_row_of_totals_is_named_as_one(tmp_path, text, place):
    with pytest.raises(DataError, match=f"{place}: must be a question, .* a row of totals"):
        load(put(tmp_path, text))


def test_a_question_that_begins_like_a_total_is_a_question(tmp_path):
    assert len(load(put(tmp_path, "query,x\na?,1\nTotal of 2 and 3?,0\n"))) == 2
    assert len(load(put(tmp_path, "query,x\nTotal,1\na?,0\n"))) == 2


@pytest.mark.parametrize(
    ("above", "line"),
    [
        ("Evaluation of May\n\n", 3),
        ("Evaluation of May,,\n", 2),
        (",Models,\n", 2),
        ("# a comment\n# another\n", 3),
        (";;\nSheet 1;;\n", 3),
    ],
)
def test_what_stands_above_the_header_is_to_be_removed(tmp_path, above, line):
    below = "query;x;y\na?;1;0\n" if ";" in above else "Query,x,y\na?,1,0\n"
    path = put(tmp_path, above + below)
    with pytest.raises(
        DataError, match=f"names of its columns, which seem to stand in line {line}"
    ):
        load(path)
    path.write_text("\n".join(path.read_text().split("\n")[line - 1 :]))
    assert load(path).models == ("x", "y")


@pytest.mark.parametrize("name", ["X", "Nr.", "rownames", "...1"])
def test_a_column_that_counts_the_rows_is_no_model(tmp_path, name):
    """Its numbers would be right by any rule: under one it is left out, else it is named first."""
    rows = "".join(f"{i},q{i}?,{i % 2},0.75\n" for i in range(1, 120))
    path = put(tmp_path, f"{name},query,x,y\n{rows}")
    table = load(path, label_rule="score > 0.5")
    assert table.models == ("x", "y")
    assert f"columns that number the rows are not models: {name}" in table.notes[0]
    path = put(tmp_path, f"{name},query,x\n1,a?,1\n2,b?,0\n")
    with pytest.raises(DataError) as raised:
        load(path)
    assert raised.value.field == name
    assert raised.value.remedy.options == (("models", ["x"]),)
    # Two rows are no proof under a rule, and an order that ends is none.
    assert load(path, label_rule="score >= 1").models == (name, "x")
    path = put(tmp_path, f"{name},query,x\n1,a?,1\n2,b?,0\n2,c?,0\n")
    assert load(path, label_rule="score > 1").models == (name, "x")


@pytest.mark.parametrize("name", ["label", "Gold", "correct", "difficulty"])
def test_a_column_named_like_a_label_is_asked_about(tmp_path, name):
    path = put(tmp_path, f"query,{name},x\na?,1,0\n")
    with pytest.raises(DataError, match=f"field '{name}': must be the column of a model") as raised:
        load(path)
    (option,) = raised.value.remedy.options
    assert load(path, **dict([option])).models == ("x",)
    assert load(path, models=[name, "x"]).models == (name, "x")


def test_names_of_columns_in_words_are_those_of_ours(tmp_path):
    path = put(tmp_path, "Query ID,Model-Name,Is Correct\n1,x,1\n")
    with pytest.raises(DataError) as raised:
        load(path)
    (option,) = raised.value.remedy.options
    assert option == (
        "columns",
        {"query_id": "Query ID", "model": "Model-Name", "correct": "Is Correct"},
    )
    assert load(path, **dict([option])).ids == ("1",)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_names_that_were_typed_stay_in_the_remedy(tmp_path, kind):
    text = "question,llm,is_correct\na?,x,1\n"
    if kind == "jsonl":
        text = json.dumps({"question": "a?", "llm": "x", "is_correct": 1}) + "\n"
    path = put(tmp_path, text, f"data.{kind}")
    with pytest.raises(DataError) as raised:
        load(path, columns={"query": "question"})
    (option,) = raised.value.remedy.options
    assert option[1] == {"query": "question", "model": "llm", "correct": "is_correct"}
    assert load(path, **dict([option])).models == ("x",)


def test_texts_that_stand_twice_may_be_told_apart_by_another_column(tmp_path):
    path = put(tmp_path, "id,query,model,correct\n1,a?,x,1\n2,a?,x,0\n")
    with pytest.raises(DataError, match="tells the questions apart pass columns=") as raised:
        load(path)
    (option,) = raised.value.remedy.options
    np.testing.assert_array_equal(load(path, **dict([option])).correct, [[True], [False]])
    with pytest.raises(DataError) as raised:
        load(put(tmp_path, "query,model,correct\na?,x,1\na?,x,0\n"))
    assert raised.value.remedy is None


@pytest.mark.parametrize(
    "table",
    [
        {"query": {"0": "a?"}, "x": {"0": 1}},
        {"query": ["a?"], "x": [1]},
        {"columns": ["query", "x"], "index": [0], "data": [["a?", 1]]},
        {"schema": {"fields": []}, "data": [{"query": "a?", "x": 1}]},
    ],
)
def test_a_table_by_column_is_to_be_written_by_row(tmp_path, table):
    path = put(tmp_path, json.dumps(table), "data.json")
    with pytest.raises(DataError, match=r"an object for each row, .* orient='records'"):
        load(path)


def test_a_question_may_be_chat_messages(tmp_path):
    """In lines of JSON as in Parquet; a list of anything else is no text."""
    chat = [{"role": "user", "content": [{"type": "text", "text": "a?"}]}]
    rows = [{"query": chat, "model": name, "correct": 1} for name in ("x", "y")]
    path = put(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "data.jsonl")
    assert load(path).texts == ("a?",)
    path.write_text(json.dumps({"query": ["a?"], "model": "x", "correct": 1}) + "\n")
    with pytest.raises(DataError, match="field 'query': must be a text"):
        load(path)


def test_percentages_are_asked_about_where_labels_are_read(tmp_path):
    with pytest.raises(DataError, match="got '87%': write percentages without the sign"):
        load(put(tmp_path, "query,x\na?,87%\n"))
