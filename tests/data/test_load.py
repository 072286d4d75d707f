"""One door: the format is guessed, named, and checked."""

import json

import pytest

from racer_jax.cli.main import main
from racer_jax.data import DataError, guess, load, read_long_csv, save, save_table
from tests.data import samples

WRITERS = {
    "long_csv": samples.long_csv,
    "wide_csv": samples.wide_csv,
    "routerdc": samples.routerdc,
    "routerbench": samples.routerbench,
    "routellm": samples.routellm,
    "llmrouter": samples.llmrouter,
    "routereval": samples.routereval,
    "score_matrix": samples.score_matrix,
    "lm_eval": samples.lm_eval,
}
OPTIONS = {"lm_eval": {"filter": "strict-match"}}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_known_by_its_content(tmp_path, name):
    path = WRITERS[name](tmp_path)
    assert guess(path) == name
    table = load(path, **OPTIONS.get(name, {}))
    assert table.notes[-1] == f"read as {name}, guessed from the content"
    told = load(path, name, **OPTIONS.get(name, {}))
    assert told.notes == table.notes[:-1]
    assert table.correct[:4].tolist() in (
        [[bool(c) for c in row] for row in samples.CORRECT],
        [[bool(c) for c in row[::-1]] for row in samples.CORRECT],
    )


@pytest.mark.parametrize("name", ["routerdc", "routerbench", "routellm"])
def test_folders_are_known_too(tmp_path, name):
    WRITERS[name](tmp_path)
    assert guess(tmp_path) == name


def test_a_file_of_samples_alone(tmp_path):
    path = next(samples.lm_eval(tmp_path).rglob("*toy_arc*"))
    assert guess(path) == "lm_eval"
    assert guess(samples.lm_eval_old(tmp_path)) == "lm_eval"


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_a_saved_table_comes_back_without_a_further_note(tmp_path, suffix):
    table = load(samples.long_csv(tmp_path))
    save(table, tmp_path / f"table{suffix}")
    assert load(tmp_path / f"table{suffix}") == table


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "name,age\nx,3\n",
            r"a known format .*, got CSV with columns \['age', 'name'\]; pass format=",
        ),
        ("a.json", '[{"a": 1}]', r"must be in a known format .*, got JSON with keys \['a'\]"),
        ("a.json", "[1]", "row 1: must be an object, got 1"),
        ("a.json", '{\n "a": 1\n}', r"must be in a known format .*, got JSON with keys \['a'\]"),
        ("a.jsonl", '{"a": ', r"row 1 \(line 1\): must be JSON: Expecting value at column"),
        ("a.jsonl", '{"a": ' + "9" * 5000 + "}", "must be JSON with numbers of a sane length"),
        ("a.txt", "[" * 100_000, "must be JSON nested less deeply"),
        ("a.csv", "", "must not be empty"),
    ],
)
def test_what_is_not_known_is_refused_with_the_formats_there_are(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        guess(tmp_path / name)


def test_folders_that_cannot_be_read_as_one(tmp_path):
    with pytest.raises(DataError, match="got a folder without logs"):
        guess(tmp_path)
    samples.long_csv(tmp_path)
    with pytest.raises(
        DataError,
        match="must be a file, or files, of format long_csv, got a folder; to join them name",
    ):
        guess(tmp_path)
    with pytest.raises(DataError, match="file not found"):
        guess(tmp_path / "nowhere.csv")


def test_an_archive_that_is_none_of_ours(tmp_path):
    import numpy as np

    np.savez(tmp_path / "a.npz", weights=np.zeros(3))
    with pytest.raises(DataError, match=r"got arrays \['weights'\]"):
        guess(tmp_path / "a.npz")
    save_table(read_long_csv(samples.long_csv(tmp_path)), tmp_path / "b.npz")
    assert guess(tmp_path / "b.npz") == "table"


def test_spreadsheets_of_other_countries(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("query_id;model;correct\na;x;1\n")
    table = load(path)
    assert table.correct.tolist() == [[True]]
    assert "fields are separated by semicolons" in table.notes[0]
    assert load(path, delimiter=";").correct.tolist() == [[True]]
    assert main(["data", "summary", str(path), "--delimiter", ";"]) == 0
    assert "1.0000" in capsys.readouterr().out


def test_options_are_those_of_the_reader(tmp_path):
    path = samples.routellm(tmp_path)
    with pytest.raises(
        ValueError, match=r"leave out label_rule=; its options are group=, missing="
    ):
        load(path, label_rule="score > 0")
    with pytest.raises(ValueError, match=r"format must be one of .*, got 'feather'"):
        load(path, "feather")
    with pytest.raises(ValueError, match=r"path must end in \.npz, \.csv or \.parquet, got"):
        save(load(path), tmp_path / "a.feather")


def test_real_corpora(data_dir):
    assert load(data_dir / "routerdc", part="train").groups[0] == "gsm8k"
    assert len(load(data_dir / "routerbench")) == 1470
    assert guess(data_dir / "lm_eval") == "lm_eval"


def test_first_records_of_any_layout(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(" \n[ \n" + json.dumps({"question": "?", "scores": {"m": 1}}) + "]")
    assert guess(path) == "routerdc"
