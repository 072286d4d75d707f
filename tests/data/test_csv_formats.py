"""The four CSV formats: right cells, and errors that name file, row, line and field."""

import csv
import gzip

import jax
import numpy as np
import pytest
from hypothesis import given, settings

from racer_jax.data import (
    DataError,
    RoutingTable,
    load,
    read_long_csv,
    read_routellm,
    read_routerbench,
    read_wide_csv,
    write_long_csv,
)
from racer_jax.data.answers import last_number
from tests.data import samples
from tests.data.strategies import tables

CORRECT = np.array(samples.CORRECT, bool)


def put(folder, text, name="data.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_long(tmp_path):
    table = read_long_csv(samples.long_csv(tmp_path))
    assert table.ids == tuple(samples.IDS)
    assert table.texts == tuple(samples.QUESTIONS)
    assert table.models == tuple(samples.MODELS)
    assert table.group == ("g0", "g0", "g1", "g1")
    np.testing.assert_array_equal(table.correct, CORRECT)
    assert table.answers.tolist() == [["A0", "A1"], ["A0", "A1"], [None, "A1"], ["A0", "A1"]]
    assert table.cost[:, 0].tolist() == [0.25, 1.25, 2.25, 3.25]
    assert table.tokens.tolist() == [[0, 1], [10, 11], [20, 21], [30, 31]]
    assert table.confidence["verbal"].tolist() == [[0, 1]] * 4
    assert table.label_rule == "as given"


@pytest.mark.long
@settings(deadline=None, max_examples=60)
@given(tables())
def test_a_table_comes_back_from_a_long_csv_bit_for_bit(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("long") / "table.csv"
    write_long_csv(table, path)
    assert read_long_csv(path) == table


def test_an_exported_file_is_plain_csv_after_its_first_line(tmp_path):
    path = tmp_path / "table.csv"
    write_long_csv(read_long_csv(samples.long_csv(tmp_path)), path)
    with path.open(newline="") as file:
        assert file.readline().startswith('#racer_jax_table {"version": 1')
        rows = list(csv.DictReader(file))
    assert [row["correct"] for row in rows] == [str(int(label)) for label in CORRECT.reshape(-1)]
    with pytest.raises(ValueError, match="table must hold at least one query"):
        write_long_csv(read_long_csv(path).select([]), path)


@pytest.mark.parametrize("key", ["version", "rows", "notes", "label_rule", "price"])
def test_an_exported_file_that_lacks_a_key_of_its_first_line_is_refused(tmp_path, key):
    path = tmp_path / "table.csv"
    write_long_csv(read_long_csv(samples.long_csv(tmp_path)), path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(f'"{key}"', f'"j{key}"', 1), encoding="utf-8", newline="")
    with pytest.raises(DataError, match=r"line 1.*must"):
        read_long_csv(path)


def test_an_exported_file_of_another_length_or_version_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    write_long_csv(read_long_csv(samples.long_csv(tmp_path)), path)
    whole = path.read_text(encoding="utf-8")
    put(tmp_path, whole[: whole.rindex("q3")], "table.csv")
    with pytest.raises(DataError, match="must hold the 8 rows that its first line states, got 7"):
        read_long_csv(path)
    put(tmp_path, whole.replace("q3", "q4", 1), "table.csv")
    with pytest.raises(
        DataError, match="must hold a row for every query and model, as it was exported"
    ):
        read_long_csv(path)
    put(tmp_path, whole.replace('"version": 1', '"version": 2'), "table.csv")
    with pytest.raises(
        DataError, match="line 1: must be of format version 1, got 2; update racer_jax"
    ):
        read_long_csv(path)
    put(tmp_path, whole.replace('"notes": []', '"notes": 3'), "table.csv")
    with pytest.raises(DataError, match="line 1, field 'notes': must stand in the first line"):
        read_long_csv(path)
    put(tmp_path, whole.replace('"price": null', '"price": ["x", 1]'), "table.csv")
    with pytest.raises(DataError, match="line 1, field 'price': must be a list of numbers"):
        read_long_csv(path)
    put(tmp_path, whole.replace('"as given"', '""'), "table.csv")
    with pytest.raises(
        DataError, match="must hold a valid table: label_rule must not hold empty strings"
    ):
        read_long_csv(path)


LONG = "query_id,query,model,correct\na,1?,x,1\na,1?,y,0\nb,2?,x,0\nb,2?,y,1\n"


@pytest.mark.parametrize(
    "text",
    [
        LONG.replace("\n", "\r\n"),
        LONG.replace("\n", "\r"),
        "\ufeff" + LONG,
        LONG.replace("\n", "\n\n"),
        LONG.rstrip("\n"),  # the last column cannot be cut without notice
        "model,correct,query,query_id\nx,1,1?,a\ny,0,1?,a\nx,0,2?,b\ny,1,2?,b\n",
        LONG.replace(",1\n", ",True\n").replace(",0\n", ",FALSE\n"),
        LONG.replace(",1\n", ',"1.0"\n'),
    ],
)
def test_what_does_not_change_the_meaning_does_not_change_the_table(tmp_path, text):
    assert read_long_csv(put(tmp_path, text)) == read_long_csv(put(tmp_path, LONG, "plain.csv"))


def test_rows_may_stand_in_any_order(tmp_path):
    head, *rows = LONG.splitlines(keepends=True)
    table = read_long_csv(put(tmp_path, head + "".join([rows[3], rows[0], rows[2], rows[1]])))
    assert table.ids == ("b", "a")
    assert table.models == ("y", "x")
    assert table.correct.tolist() == [[True, False], [False, True]]


def test_the_text_can_be_the_identity_and_the_identity_all_there_is(tmp_path):
    by_text = read_long_csv(put(tmp_path, "query,model,correct\n1?,x,1\n2?,x,0\n"))
    assert (by_text.ids, by_text.texts) == (("1?", "2?"), ("1?", "2?"))
    by_id = read_long_csv(put(tmp_path, "query_id,model,correct\na,x,1\nb,x,0\n"))
    assert (by_id.ids, by_id.texts) == (("a", "b"), ("", ""))


def test_other_columns_are_named_in_a_note(tmp_path):
    table = read_long_csv(put(tmp_path, "query_id,model,correct,rater,mood\na,x,1,me,fine\n"))
    assert table.notes == (
        "ignored columns 'rater', 'mood'",
        "data.csv holds no text of any question",
    )


def test_graded_scores_need_a_rule(tmp_path):
    path = put(tmp_path, "query_id,model,score\na,x,0.5\na,y,0.7\nb,x,\nb,y,1\n")
    with pytest.raises(DataError, match=r"field 'correct': must be a column; .*pass label_rule="):
        read_long_csv(path)
    table = read_long_csv(path, label_rule="score > 0.5", missing="keep")
    assert table.correct.tolist() == [[False, True], [False, True]]
    assert table.missing.tolist() == [[False, False], [True, False]]
    assert table.label_rule == "score > 0.5"
    assert read_long_csv(
        path, label_rule="one attempt", key=jax.random.key(0), missing="drop"
    ).ids == ("a",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "a,1?,y,0",
            "a,1?,x,0",
            r"row 2 \(line 3\), field 'model': .* query 'a' and model 'x', got it in row 1",
        ),
        (
            "a,1?,y,0",
            "a,1 ?,y,0",
            r"row 2 \(line 3\), field 'query': must be the same in every row of query 'a'",
        ),
        (
            "a,1?,y,0",
            "a,1?,y,2",
            r"row 2 \(line 3\), field 'correct': must be 0/1 or True/False, .* got '2'; for",
        ),
        (
            "a,1?,y,0",
            "a,1?,y,maybe",
            r"row 2 \(line 3\), field 'correct': must be 0/1 or True/False, .* got 'maybe'",
        ),
        ("a,1?,y,0", "a,1?,y,nan", "1 of 4 are missing"),
        ("a,1?,y,0", "a,1?,y", r"row 2 \(line 3\): must have 4 fields like the header, got 3"),
        ("a,1?,y,0", "a,1?,y,0,0", r"row 2 \(line 3\): must have 4 fields like the header, got 5"),
        ("a,1?,y,0", "a,1?,,0", r"row 2 \(line 3\), field 'model': must not be empty"),
        ("a,1?,y,0", ",1?,y,0", r"row 2 \(line 3\), field 'query_id': must not be empty"),
        (
            "a,1?,y,0\n",
            "",
            "1 of 4 are missing .*first for query 'a' and model 'y'; pass missing='drop'",
        ),
        ("a,1?,y,0", "a,1?,y,", "1 of 4 are missing"),
        ("a,1?,y,0", 'a,"1?,y,0', "must be CSV: a quotation mark opens a field"),
        ("a,1?,y,0", 'a,"1?"x,y,0', "row 2: must be CSV: ',' expected after '\"'"),
        (
            "query_id,query",
            "query,query",
            "field 'query': must be named once in the header, got it twice",
        ),
        ("query_id,query", "id,text", "field 'query_id': must be a column, or 'query' must"),
        ("model", "llm", "field 'model': must be a column, the header has"),
        ("correct", "right", "field 'correct': must be a column, the header has"),
        (
            "query_id,query,model,correct",
            "query_id;query;model;correct",
            "must have 4 fields like the header, got 1",
        ),
        (LONG, "", "must not be empty"),
        (LONG, "\n\n", "must not be empty"),
        (LONG, "query_id,model,correct\n", "must hold at least one row below the header"),
    ],
)
def test_long_files_that_are_wrong(tmp_path, old, new, message):
    path = put(tmp_path, LONG.replace(old, new, 1))
    with pytest.raises(DataError, match=message) as caught:
        read_long_csv(path)
    assert str(path) in str(caught.value)


NUMBERS = "query_id,model,correct,cost,tokens,confidence_v,x\na,x,1,0.5,3,0.5,\na,y,0,,,,\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "0.5,3",
            "abc,3",
            "row 1 .*field 'cost': must be a number of at least 0, or empty where not known, got "
            "'abc'",
        ),
        ("0.5,3", "inf,3", "field 'cost': .* got 'inf'"),
        ("0.5,3", "1e999,3", "field 'cost': .* got '1e999'"),
        ("0.5,3", "1e-999,3", "field 'cost': .* got '1e-999'"),
        ("0.5,3", "-1,3", "field 'cost': .* got '-1'"),
        ("0.5,3", "1_000,3", "field 'cost': .* got '1_000'"),
        ("0.5,3", "\u0661,3", "field 'cost': .* got '\u0661'"),
        ("0.5,3", "0.5,3.5", "field 'tokens': must be a whole number, got 3.5"),
        ("0.5,3", "0.5,-3", "field 'tokens': must be a number of at least 0"),
        (",0.5,\n", ",1.5,\n", r"field 'confidence_v': must be a number in \[0, 1\]"),
    ],
)
def test_numbers_that_are_wrong(tmp_path, old, new, message):
    with pytest.raises(DataError, match=message):
        read_long_csv(put(tmp_path, NUMBERS.replace(old, new, 1)))


def test_numbers_not_known_stay_not_known(tmp_path):
    table = read_long_csv(put(tmp_path, NUMBERS))
    np.testing.assert_array_equal(table.cost, [[0.5, np.nan]])
    np.testing.assert_array_equal(table.tokens, [[3, np.nan]])


def test_a_file_that_may_be_cut_in_its_last_number_says_so(tmp_path):
    path = put(tmp_path, "query_id,query,model,correct,cost\na,?,x,1,0.25")
    (note,) = read_long_csv(path).notes
    assert "last field of its last row, 'cost', may have lost characters" in note


def test_an_exported_file_that_is_cut_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    write_long_csv(read_long_csv(samples.long_csv(tmp_path)), path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="must end with a line break, as it was written"):
        read_long_csv(path)


@pytest.mark.parametrize(
    ("rows", "word"),
    [("a,x,NA\na,y,Y\nb,x,Y\nb,y,N", "NA"), ("a,x,None\na,y,Y\nb,x,Y\nb,y,No", "None")],
)
def test_a_label_that_may_be_cut_short_is_refused(tmp_path, rows, word):
    path = put(tmp_path, f"query_id,model,correct\n{rows}")
    with pytest.raises(DataError, match=f"'no?' can be '{word.lower()}' cut short"):
        read_long_csv(path, missing="keep")
    put(tmp_path, f"query_id,model,correct\n{rows}\n")
    assert read_long_csv(path, missing="keep").correct.tolist() == [[False, True], [True, False]]
    put(tmp_path, "query_id,model,correct\na,x,Y\na,y,N")
    table = read_long_csv(path)
    assert table.correct.tolist() == [[True, False]]
    assert "its last field, 'n', may be the beginning of another word" in table.notes[0]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_encodings_that_the_first_bytes_name_are_read(tmp_path, encoding):
    """Windows writes both: Excel's "Unicode text", and what PowerShell redirects to a file."""
    text = LONG.replace("2?", "2\xe9?")
    plain = load(put(tmp_path, text))
    assert load(put(tmp_path, text, encoding=encoding)) == plain
    packed = tmp_path / "data.csv.gz"
    packed.write_bytes(gzip.compress(text.encode(encoding)))
    assert load(packed) == plain
    cut = put(tmp_path, "x" + text, encoding="utf-16")
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(DataError, match="must be UTF-16, as its first bytes say"):
        load(cut)


@pytest.mark.parametrize("encoding", ["utf-16-le", "latin-1"])
def test_other_encodings_are_refused_with_the_line(tmp_path, encoding):
    path = put(tmp_path, LONG.replace("2?", "2\xe9?"), encoding=encoding)
    with pytest.raises(
        DataError, match=r"line [14]: must be UTF-8, .* save it as UTF-8 \(in Excel"
    ):
        read_long_csv(path)


def test_a_bad_byte_far_into_a_file_is_found(tmp_path):
    body = "".join(f"q{i},é{'x' * 100},m,1\n" for i in range(20_000))
    data = ("query_id,query,model,correct\n" + body).encode()
    path = tmp_path / "long.csv"
    path.write_bytes(data + b"\xe9,\n")
    with pytest.raises(
        DataError, match=f"line 20002: must be UTF-8, got byte 0xe9 at offset {len(data)}"
    ):
        read_long_csv(path)


def test_a_list_of_pairs_far_from_a_table_is_refused_before_it_fills_the_memory(tmp_path):
    rows = "".join(f"q{i},m{i},1\n" for i in range(3000))
    with pytest.raises(
        DataError,
        match="must hold most of the pairs, got 3000 results for 3000 queries x 3000 models",
    ):
        read_long_csv(put(tmp_path, "query_id,model,correct\n" + rows), missing="keep")


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        (
            "a.pkl",
            b"anything",
            r"must not be a pickle.*read_pickle\(sys.argv\[1\]\).*index=False\).* \S*a.pkl \S*a.csv$",
        ),
        ("a.csv", b"\x80\x04\x95", "must not be a pickle, which can run any code"),
        ("a.csv", b"PAR1....", r"got Parquet; turn it into CSV with python -c .*read_parquet"),
        ("a.csv", b"PK\x03\x04...", "got a zip archive; unpack it first, or save a spreadsheet"),
    ],
)
def test_pickles_and_other_binaries_are_refused_with_a_recipe(tmp_path, name, start, message):
    path = tmp_path / name
    path.write_bytes(start)
    for reader in (read_routerbench, read_long_csv):
        with pytest.raises(DataError, match=message):
            reader(path)


def test_the_limits_of_the_csv_module_are_put_back(tmp_path):
    before = csv.field_size_limit()
    read_long_csv(samples.long_csv(tmp_path))
    assert csv.field_size_limit() == before


def test_wide(tmp_path):
    table = read_wide_csv(samples.wide_csv(tmp_path))
    assert table.models == tuple(samples.MODELS)
    assert table.texts == tuple(samples.QUESTIONS)
    np.testing.assert_array_equal(table.correct, CORRECT)
    assert table.answers.tolist() == [[f"A{i}", None] for i in range(4)]
    np.testing.assert_array_equal(table.cost, [[np.nan, 0.5]] * 4)
    np.testing.assert_array_equal(table.tokens, [[np.nan, 7]] * 4)


def test_wide_scores_and_chosen_models(tmp_path):
    path = put(tmp_path, "query,hard,x,y\n1?,1,0.5,0.75\n2?,0,,1\n")
    with pytest.raises(
        DataError,
        match=r"row 1 \(line 2\), field 'x': must be 0/1 .* pass, for example: label_rule",
    ):
        read_wide_csv(path)
    table = read_wide_csv(path, models=["y", "x"], label_rule="score > 0.5", missing="drop")
    assert table.models == ("y", "x")
    assert table.correct.tolist() == [[True, False]]
    assert table.notes == (
        "ignored columns 'hard'",
        "left out 1 of 2 queries that lack a model's result",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,0\n", "field 'query_id': must be a column, or 'query' must"),
        ("query_id,query\na,b\n", "must hold a column for each model, got columns"),
        (
            "query_id,x\na,1\na,0\n",
            "row 2, field 'query_id': must be unique, got 'a' in row 1 already",
        ),
        ("query_id,x\n,1\n", "row 1, field 'query_id': must not be empty"),
        ("query_id,x,\na,1,1\n", "line 1: must have a name for every column"),
        (
            "query_id,x\na,\n",
            "must hold a result of every model for at least one query|1 of 1 are missing",
        ),
        (
            "query_id,x,x|tokens\na,1,1.5\n",
            "row 1 .*field 'x|tokens': must be a whole number, got 1.5",
        ),
        ("query_id,x,x|cost\na,1,-1\n", "row 1 .*field 'x|cost': must be a number of at least 0"),
    ],
)
def test_wide_files_that_are_wrong(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_wide_csv(put(tmp_path, text))


def test_routellm(tmp_path):
    path = samples.routellm(tmp_path)
    table = read_routellm(path)
    assert table.models == tuple(samples.MODELS)
    assert table.group == ("gsm8k",) * 4
    assert table.ids[0] == "gsm8k_responses/1"
    np.testing.assert_array_equal(table.correct, CORRECT)
    assert table.answers is None
    assert read_routellm(path, answer=last_number).answers.tolist() == [["1000", None]] * 4


def test_a_folder_of_routellm_keeps_subjects_apart(tmp_path):
    put(tmp_path, "prompt,a,b\n1?,True,False\n1?,True,True\n", "mmlu_x.csv")
    put(tmp_path, "prompt,b,a\n2?,True,False\n", "mmlu_y.csv")
    table = read_routellm(tmp_path)
    assert table.groups == ("mmlu_x", "mmlu_y")
    assert table.models == ("a", "b")
    assert table.correct.tolist() == [[True, False], [True, True], [False, True]]
    assert table.question_ids.tolist() == [0, 0, 1]
    put(tmp_path, "prompt,c,a\n2?,True,False\n", "mmlu_z.csv")
    with pytest.raises(DataError, match="must hold the same models, got 'b' in some but not all"):
        read_routellm(tmp_path)
    with pytest.raises(ValueError, match="must be a single file to name its benchmark"):
        read_routellm(tmp_path, group="mmlu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"must hold \.csv files, got none"):
        read_routellm(tmp_path / "empty")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,a,b\n1?,True,False\n", "field 'prompt': must be a column"),
        ("prompt,a\n1?,True\n", "must hold columns of at least two models, got"),
        ("prompt,a,b\n1?,True,maybe\n", r"row 1 \(line 2\), field 'b': must be 0/1 or True/False"),
        ("prompt,a,b\n1?,True,\n", "1 of 2 are missing"),
    ],
)
def test_routellm_files_that_are_wrong(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_routellm(put(tmp_path, text))


@pytest.mark.parametrize("reader", [read_long_csv, read_wide_csv, read_routellm, read_routerbench])
def test_options_and_files_that_are_not_there(tmp_path, reader):
    with pytest.raises(ValueError, match=r"missing must be one of .* got 'zero'"):
        reader(tmp_path / "x.csv", missing="zero")
    with pytest.raises(DataError, match="file not found"):
        reader(tmp_path / "x.csv")


def test_the_header_may_name_any_model():
    names = ["a|b", 'c"d', "e,f", "g\nh"]
    table = RoutingTable(ids=["q"], texts=[""], models=names, correct=[[1, 0, 1, 0]])
    assert table.models == tuple(names)
