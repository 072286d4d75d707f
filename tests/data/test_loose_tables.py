"""Tables of rows as people send them: what one thing only can be meant by is read, with a note."""

import numpy as np
import pytest

from racer_jax.data import DataError, load, read_wide_csv
from racer_jax.data.formats._synonyms import other_names


def put(folder, text, name="data.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


ROWS = "query,model,correct\na?,x,{}\na?,y,{}\n"


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("T", "F", "t/f"),
        ("pass", "FAIL", "pass/fail"),
        ("right", "wrong", "pass/fail"),
        ("correct", "Incorrect", "pass/fail"),
        ("WAHR", "FALSCH", "another language"),
        ("success", "Failure", "pass/fail"),
        ("✓", "✗", "ticks and crosses"),
        ("✅", "❌", "ticks and crosses"),
        ("1.00", "0.0", "numbers with decimals"),
        ("1e0", "+0", "numbers with decimals"),
        (" 1 ", " 0", "without spaces"),
    ],
)
def test_right_and_wrong_may_be_written_in_words(tmp_path, right, wrong, words):
    table = load(put(tmp_path, ROWS.format(right, wrong)))
    assert table.correct.tolist() == [[True, False]]
    assert words in table.notes[0]
    assert len(table.notes) == 2


@pytest.mark.parametrize("word", ["on", "x", "-", "?", "'1", "100%", "1.5", "1.0000001", "10"])
def test_words_that_can_mean_something_else_are_refused(tmp_path, word):
    with pytest.raises(DataError, match=r"row 1 .*must be 0/1 or True/False"):
        load(put(tmp_path, ROWS.format(word, 0)))


@pytest.mark.parametrize("word", ["NaN", "nan", "None", "#N/A", "<NA>", "null", "n.a.", "\\N"])
def test_words_for_what_is_not_known(tmp_path, word):
    path = put(tmp_path, ROWS.format(1, word) + "b?,x,1\nb?,y,0\n")
    with pytest.raises(DataError, match="1 of 4 are missing"):
        load(path)
    table = load(path, missing="drop")
    assert table.ids == ("b?",)
    assert "stand for what is not known" in table.notes[0]


COSTS = "query;model;correct;cost;tokens\na?;x;1;{};1\na?;y;0;{};2\n"


@pytest.mark.parametrize(
    ("first", "second", "cost"),
    [
        ("$1,234.50", "0.006$", [1234.5, 0.006]),
        ("USD 0.02", "0.5 usd", [0.02, 0.5]),
        ("US$0.02", "", [0.02, np.nan]),
        ("1.234,50", "0,006", [1234.5, 0.006]),
        ("1,234,567", "1,234", [1234567.0, 1234.0]),
        ("1.5e-3", "2E3", [0.0015, 2000.0]),
        ("1\u00a0234,5", "2\u202f345\u202f678", [1234.5, 2345678.0]),
        ("1'234.5", "0.25", [1234.5, 0.25]),
    ],
)
def test_costs_as_spreadsheets_write_them(tmp_path, first, second, cost):
    table = load(put(tmp_path, COSTS.format(first, second)))
    np.testing.assert_array_equal(table.cost, [cost])


@pytest.mark.parametrize(
    ("first", "second"),
    [("1,234", "5,678"), ("1,234.50", "0,006"), ("12,34.5", "1"), ("1 234", "1"), ("1.2.3", "1")],
)
def test_costs_that_can_be_two_numbers_are_refused(tmp_path, first, second):
    with pytest.raises(DataError, match="field 'cost': must be a number"):
        load(put(tmp_path, COSTS.format(first, second)))


def test_tokens_are_whole_numbers_whose_commas_stand_between_thousands(tmp_path):
    table = load(put(tmp_path, COSTS.format(1, 2).replace(";2\n", ";12,345\n")))
    assert table.tokens.tolist() == [[1.0, 12345.0]]


def test_the_line_for_spreadsheet_programs_names_the_separator(tmp_path):
    text = "sep=;\n" + ROWS.format(1, "perhaps").replace(",", ";")
    with pytest.raises(DataError, match=r"row 2 \(line 4\)"):
        load(put(tmp_path, text))
    table = load(put(tmp_path, text.replace("perhaps", "0")))
    assert table.correct.tolist() == [[True, False]]
    assert "the first line, 'sep=;', says what separates the fields" in table.notes[0]


def test_vertical_bars_and_blank_rows_before_the_header(tmp_path):
    table = load(put(tmp_path, ROWS.format(1, 0).replace(",", "|")))
    assert "separated by vertical bars" in table.notes[0]
    table = load(put(tmp_path, ",,\n\n" + ROWS.format(1, 0)))
    assert "rows without any field are left out" in table.notes[0]
    assert table.correct.tolist() == [[True, False]]


def test_names_are_read_without_spaces_around_them(tmp_path):
    table = load(put(tmp_path, "query, model, correct, group\na?, x, 1, g\na?, y, 0, g \n"))
    assert table.models == ("x", "y")
    assert table.groups == ("g",)
    assert "names of queries, models and groups are read without spaces" in table.notes[0]


@pytest.mark.parametrize("name", ["index", "level_0", "#", "Unnamed: 0.1", "Row"])
def test_columns_that_number_rows_are_no_models(tmp_path, name):
    path = put(tmp_path, f"query,{name},x,y\na?,0,1,0\nb?,1,0,1\n")
    table = load(path)
    assert table.models == ("x", "y")
    assert f"columns that number the rows are not models: {name}" in table.notes[0]
    assert read_wide_csv(path, models=[name, "x"]).models == (name, "x")


def test_numbers_of_frames_one_after_another_are_an_index(tmp_path):
    text = ",query,x\n0,a?,1\n1,b?,0\n2,c?,0\n0,d?,1\n1,e?,0\n"
    assert load(put(tmp_path, text)).models == ("x",)
    with pytest.raises(DataError, match="got none for column 1; write one into the header"):
        load(put(tmp_path, ",query,x\n0,a?,1\n0,b?,0\n"))  # these may be labels


def test_a_row_of_totals_is_no_question(tmp_path):
    with pytest.raises(DataError, match=r"row 2, field 'query': .* looks like a row of totals"):
        load(put(tmp_path, "query,x,y\na?,1,0\nTotal,1,0\n"))


def test_a_rule_for_percentages_on_shares_is_asked_about(tmp_path):
    path = put(tmp_path, "query,x,y\na?,0.8,0.2\nb?,1,0\n")
    with pytest.raises(DataError, match=r"got scores up to 1; .*pass label_rule='score > 0.5'"):
        load(path, label_rule="score > 50")
    assert load(path, label_rule="score >= 1").correct.tolist() == [[False, False], [True, False]]


def test_a_column_that_is_no_model_is_left_out_as_the_error_says(tmp_path):
    path = put(tmp_path, "query,length,x,y\na?,123,1,0\nb?,50,0,1\n")
    with pytest.raises(DataError, match=r"field 'length': .*if it is not a model pass models="):
        load(path)
    path.write_text("query,length,x,y\na?,100,1,0\nb?,50,0,1\n")
    with pytest.raises(
        DataError, match=r"label_rule=.*; if it is not a model pass models=\['x', 'y'"
    ):
        load(path)
    assert load(path, models=["x", "y"]).correct.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("question,model,is_correct", {"query": "question", "correct": "is_correct"}),
        ("query,llm,label", {"model": "llm", "correct": "label"}),
        (
            "prompt_id,model_id,label",
            {"query_id": "prompt_id", "model": "model_id", "correct": "label"},
        ),
        ("id,Prompt,model,correct", {"query": "Prompt"}),
        ("query,model,accuracy", {"correct": "accuracy"}),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_other_names_of_columns_are_named_in_the_error(tmp_path, header, columns, kind):
    names = header.split(",")
    values = dict.fromkeys(["query", "question", "Prompt"], "a?")
    values |= dict.fromkeys(["model", "llm", "model_id"], "x")
    row = [values.get(name, "1") for name in names]
    text = header + "\n" + ",".join(row) + "\n"
    if kind == "jsonl":
        text = "{" + ", ".join(f'"{n}": "{v}"' for n, v in zip(names, row, strict=True)) + "}\n"
    path = put(tmp_path, text, f"data.{kind}")
    with pytest.raises(DataError, match="must name its columns query, model and correct") as raised:
        load(path)
    ((keyword, value),) = raised.value.remedy.options
    assert keyword == "columns"
    assert {ours: name.lower() for ours, name in value.items()} == {
        ours: name.lower() for ours, name in columns.items()
    }
    table = load(path, columns=value)
    assert table.models == ("x",)
    assert table.correct.tolist() == [[True]]


def test_columns_of_a_wide_table_under_other_names():
    assert other_names(["question", "x", "y"]) == {"query": "question"}
    assert other_names(["query", "x", "y"]) is None
    assert other_names(["a", "b"]) is None
    assert other_names(["query", "model", "x"]) is None


def test_columns_are_found_whatever_their_case_and_the_spaces_around_them(tmp_path):
    path = put(tmp_path, " Question ,model,correct\na?,x,1\n")
    assert load(path, columns={"query": "question"}).texts == ("a?",)
