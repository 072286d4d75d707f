"""Spreadsheets as people have them: what is read with a note, and what is asked about."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import racer_jax.data
from racer_jax.data import DataError, RoutingTable, load, read_long_csv, read_wide_csv
from tests.data import samples

PLAIN = "query_id,query,model,correct,cost\na,1?,x,1,0.5\na,1?,y,0,0.25\nb,2?,x,0,1\nb,2?,y,1,2\n"
# The same table, written in other ways, and what the note says of each.
WAYS = {
    "semicolons": (PLAIN.replace(",", ";"), "separated by semicolons"),
    "tabs": (PLAIN.replace(",", "\t"), "separated by tabs"),
    "decimal commas": (
        PLAIN.replace(",", ";").replace("0.5", "0,5").replace("0.25", "0,25"),
        "decimals may stand after a comma",
    ),
    "quoted decimal commas": (PLAIN.replace("0.25", '"0,25"'), "decimals may stand after"),
    "dollars": (PLAIN.replace("0.25", "$0.25").replace(",2\n", ",$ 2\n"), "a dollar sign"),
    "yes and no": (PLAIN.replace(",1,", ",Yes,").replace(",0,", ",no,"), "yes/no and y/n"),
    "y and n": (PLAIN.replace(",1,", ",Y,").replace(",0,", ",N,"), "yes/no and y/n"),
    "upper case": (PLAIN.replace("query_id", "QUERY_ID").replace("correct", "Correct"), "any case"),
    "padded names": (PLAIN.replace("correct,cost", " correct , cost"), "without spaces"),
    "an index": (
        "".join(
            f"{n},{line}" for n, line in zip(["", 0, 3, 1, 2], PLAIN.splitlines(True), strict=True)
        ),
        "the index of a data frame",
    ),
    "an index with a name of pandas": (
        "".join(
            f"{n},{line}"
            for n, line in zip(["Unnamed: 0", 0, 1, 2, 3], PLAIN.splitlines(True), strict=True)
        ),
        "the index of a data frame",
    ),
    "no final line break": (PLAIN.removesuffix("\n"), "does not end with a line break"),
    "blank rows": (PLAIN + ",,,,\n", "rows without any field"),
    "blank columns": (PLAIN.replace("\n", ",,\n"), "columns without a name and without fields"),
}


def put(folder, text, name="data.csv"):
    (folder / name).write_bytes(text.encode())
    return folder / name


@pytest.mark.parametrize("way", WAYS)
def test_other_ways_of_writing_a_table_are_read_with_one_note(tmp_path, way):
    text, words = WAYS[way]
    whole = read_long_csv(put(tmp_path, PLAIN))
    table = load(put(tmp_path, text), "long_csv")
    (note,) = table.notes
    assert note.startswith("accepted as written: ")
    assert words in note
    for field in ("ids", "texts", "models", "correct", "cost", "missing"):
        np.testing.assert_array_equal(getattr(table, field), getattr(whole, field))


@pytest.mark.parametrize("word", ["NA", "n/a", "null", ""])
def test_what_is_not_known_may_be_written_in_words(tmp_path, word):
    path = put(tmp_path, PLAIN.replace(",1,0.5", f",{word},{word}"))
    with pytest.raises(DataError, match="1 of 4 are missing"):
        load(path)
    table = load(path, missing="keep")
    assert table.missing.tolist() == [[True, False], [False, False]]
    assert np.isnan(table.cost[0, 0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",0.5", ',"1,234"', r"field 'cost': .*got '1,234', which can be 1.234 or 1234"),
        (",0.5", ',"12,34.5"', "field 'cost': must be a number of at least 0"),
        (",0.5", ",€0.5", "got '€0.5': amounts must be in dollars"),
        (",0.5", ",5%", "got '5%': write percentages without the sign"),
        (",1,0.5", ",100%,0.5", "must be 0/1 or True/False"),
        (
            ",1,0.5",
            ",87,0.5",
            "got '87'; for graded scores pass, for example: label_rule='score > 50'",
        ),
        (",1,0.5", ",maybe,0.5", "must be 0/1 or True/False"),
    ],
)
def test_what_can_mean_two_things_is_refused(tmp_path, old, new, message):
    with pytest.raises(DataError, match=message):
        read_long_csv(put(tmp_path, PLAIN.replace(old, new, 1)))


def test_a_comma_that_is_certain_anywhere_in_a_column_decides_the_others(tmp_path):
    text = PLAIN.replace("0.5", '"1,234"').replace("0.25", '"0,25"')
    assert read_long_csv(put(tmp_path, text)).cost[0].tolist() == [1.234, 0.25]


def test_percentages_are_asked_about(tmp_path):
    path = put(tmp_path, "query_id,query,x,y\na,1?,80,20\nb,2?,0,100\n")
    with pytest.raises(DataError, match=r"got scores up to 100; .*pass label_rule='score > 50'"):
        load(path, label_rule="score > 0.5")
    table = load(path, label_rule="score > 50")
    assert table.correct.tolist() == [[True, False], [False, True]]
    put(tmp_path, "query_id,query,x\na,1?,1\nb,2?,0.25\n")
    assert load(path, label_rule="score > 0.5").correct.tolist() == [[True], [False]]


def test_an_unnamed_column_that_is_no_index_is_refused(tmp_path):
    with pytest.raises(DataError, match="must have a name for every column"):
        load(put(tmp_path, ",query_id,x\nfoo,a,1\n"))
    with pytest.raises(DataError, match="must have a name for every column"):
        load(put(tmp_path, ",query_id,x\n1,a,1\n1,b,1\n"))
    with pytest.raises(DataError, match="must have a name for every column"):
        load(put(tmp_path, "query_id,x,\na,1,0\n"))


def test_columns_may_have_other_names(tmp_path):
    path = put(
        tmp_path, PLAIN.replace("query_id,query", "id,prompt").replace("correct", "is_right")
    )
    columns = {"query_id": "id", "query": "prompt", "correct": "is_right"}
    table = load(path, columns=columns)
    assert table.texts == ("1?", "2?")
    assert table.notes == ("read as long_csv, guessed from the content",)
    with pytest.raises(DataError, match="field 'question': must be a column"):
        load(path, columns={"query": "question"})
    with pytest.raises(DataError, match="field 'model': must not be a column of its own"):
        load(path, columns=columns | {"model": "cost"})


def as_json_lines(text):
    head, *lines = [line.split(",") for line in text.splitlines()]
    values = {"0": 0, "1": True}
    return "".join(
        json.dumps(
            {n: values.get(v, v) if n == "correct" else v for n, v in zip(head, line, strict=True)}
        )
        + "\n"
        for line in lines
    )


def test_json_lines_of_rows_are_a_table(tmp_path):
    text = as_json_lines(PLAIN)
    whole = read_long_csv(put(tmp_path, PLAIN))
    assert read_long_csv(put(tmp_path, text, "rows.jsonl")) == whole
    assert load(tmp_path / "rows.jsonl").notes == ("read as long_csv, guessed from the content",)
    records = [json.loads(line) for line in text.splitlines()]
    assert read_long_csv(put(tmp_path, json.dumps(records), "rows.json")) == whole
    wide = '{"query_id": "a", "query": "1?", "x": 1, "y": null}\n'
    assert load(put(tmp_path, wide, "wide.jsonl"), missing="keep").missing.tolist() == [
        [False, True]
    ]
    extra = wide.replace('"x"', '"about": {"by": ["me"]}, "x"')
    table = load(put(tmp_path, extra, "wide.jsonl"), models=["x", "y"], missing="keep")
    assert table.notes[0] == "ignored columns 'about'"
    with pytest.raises(
        DataError, match=r"row 1 \(line 1\), field 'query': must be a text, got \[1\]"
    ):
        load(put(tmp_path, wide.replace('"1?"', "[1]"), "wide.jsonl"))


@pytest.mark.parametrize("name", ["data.csv.gz", "data.gz", "data.csv"])
def test_compressed_tables_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(PLAIN.encode()))
    assert load(tmp_path / name, "long_csv") == read_long_csv(put(tmp_path, PLAIN, "plain.csv"))


def test_a_damaged_archive_is_refused(tmp_path):
    data = gzip.compress(PLAIN.encode())
    (tmp_path / "a.csv.gz").write_bytes(data[:-9])
    with pytest.raises(DataError, match="must be a whole compressed file"):
        load(tmp_path / "a.csv.gz")


class Column:
    """A column of a data frame, as far as one is asked."""

    def __init__(self, values):
        self.values = values

    def tolist(self):
        return self.values

    to_list = tolist


class PandasFrame:
    """What a frame of pandas looks like from outside."""

    def __init__(self, columns, index=None):
        self.data, self.columns = columns, list(columns)
        self.index = SimpleNamespace(names=[index])
        self.iloc = self

    def __getitem__(self, key):
        return Column(list(self.data.values())[key[1]])

    def reset_index(self):
        return PandasFrame({self.index.names[0]: ["a", "b"], **self.data})


class PolarsFrame:
    """What a frame of polars looks like from outside."""

    def __init__(self, columns):
        self.data, self.columns = columns, list(columns)

    def to_series(self, position):
        return Column(list(self.data.values())[position])


LONG = {
    "query_id": ["a", "a", "b", "b"],
    "query": ["1?", "1?", "2?", "2?"],
    "model": ["x", "y", "x", "y"],
    "correct": [True, 0, np.int64(0), 1.0],
    "cost": [0.5, 0.25, 1, 2],
}


@pytest.mark.parametrize("frame", [PandasFrame, PolarsFrame])
def test_a_frame_is_a_table(tmp_path, frame):
    assert RoutingTable.from_frame(frame(LONG)) == read_long_csv(put(tmp_path, PLAIN))
    wide = frame({"id": [1, 2], "x": [1, 0], "y": [float("nan"), 1]})
    table = RoutingTable.from_frame(wide, columns={"query_id": "id"}, missing="keep")
    assert table.ids == ("1", "2")
    assert table.missing.tolist() == [[False, True], [False, False]]
    with pytest.raises(DataError, match="the data frame, row 2, field 'x': must be 0/1"):
        RoutingTable.from_frame(frame({"query": ["1?", "2?"], "x": [1, 7]}))
    with pytest.raises(DataError, match="must hold at least one row"):
        RoutingTable.from_frame(frame({"query": []}))


def test_an_index_with_a_name_is_a_column():
    assert RoutingTable.from_frame(PandasFrame({"x": [1, 0]}, "query")).texts == ("a", "b")


def test_what_is_no_frame_is_refused():
    with pytest.raises(TypeError, match="must be a data frame of pandas or polars, got list"):
        RoutingTable.from_frame([1])


def test_neither_library_is_imported():
    sources = Path(racer_jax.data.__file__).parent.rglob("*.py")
    lines = [line.split() for path in sources for line in path.read_text().splitlines()]
    imported = {words[1].split(".")[0] for words in lines if words[:1] in (["import"], ["from"])}
    assert not imported & {"pandas", "polars"}
    assert "numpy" in imported


def test_a_guessed_format_is_named_in_the_error(tmp_path):
    path = put(tmp_path, PLAIN.replace(",1,0.5", ",maybe,0.5"))
    with pytest.raises(
        DataError, match=r"\(read as long_csv, guessed from the content; pass format="
    ):
        load(path)
    with pytest.raises(DataError, match=r"got 'maybe'$"):
        load(path, "long_csv")


def test_wide_tables_with_columns_of_text_say_which_are_models(tmp_path):
    path = put(tmp_path, "query_id,query,category,x,y\na,1?,kitchen,1,0\n")
    with pytest.raises(
        DataError, match=r"'category'.*if it is not a model pass models=\['x', 'y'\]"
    ):
        read_wide_csv(path)
    table = read_wide_csv(path, models=["x", "y"])
    assert table.notes == ("ignored columns 'category'",)


def test_rules_may_differ_from_group_to_group(tmp_path):
    text = "query_id,query,group,x\na,1?,gsm8k,0.4\nb,2?,mmlu,0.4\nc,3?,law,1\n"
    path = put(tmp_path, text)
    rules = {"gsm8k": "score > 0.5", "mm*": "score > 0"}
    table = load(path, label_rule=rules)
    assert table.correct[:, 0].tolist() == [False, True, True]
    assert table.rules == {"gsm8k": "score > 0.5", "mmlu": "score > 0", "law": "as given"}
    put(tmp_path, text.replace("3?,law,1", "3?,law,0.9"))
    with pytest.raises(
        DataError, match=r"got 0.9 in group 'law'; pass label_rule=\{.*'law': 'score"
    ):
        load(path, label_rule=rules)


def test_a_summary_of_many_groups_fits_a_terminal():
    n = 57
    table = RoutingTable(
        ids=[str(i) for i in range(2 * n)],
        texts=["?"] * (2 * n),
        models=["x\x1b[2J", "y"],
        correct=[[1, 0], [0, 1]] * n,
        group=[f"group {i % n}" for i in range(2 * n)],
    )
    summary = table.summary()
    lines = str(summary).splitlines()
    assert max(map(len, lines)) < 160
    assert len(lines) < 40
    assert "and 38 smaller groups, all of them in the JSON output" in lines
    assert "\x1b" not in str(summary)
    assert len(summary.to_dict()["groups"]) == n + 1


def test_formats_keep_their_own_index(tmp_path):
    assert load(samples.routerbench(tmp_path)).notes == (
        "read as routerbench, guessed from the content",
    )
