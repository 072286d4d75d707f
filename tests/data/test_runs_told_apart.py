"""Runs of lm-evaluation-harness in one folder: which are read, and what is said of the others."""

import gzip
import json
import shutil

import pytest

from racer_jax.data import DataError, load, read_lm_eval
from tests.data.test_logs_told_apart import (
    FIRST,
    SECOND,
    accuracies,
    rows,
    write_log,
    write_report,
)


def write_run(folder, model, stamp=FIRST, values=(1.0, 0.0), task="toy", **report):
    write_report(folder, f"results_{stamp}.json", model, **report)
    return write_log(folder, task, stamp, rows(values))


def test_a_compressed_folder_is_the_same_folder(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / f"org__{name}", f"org/{name}")
    plain = load(tmp_path)
    for file in [*tmp_path.rglob("*.json*")]:
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert load(tmp_path) == plain


def test_hidden_copies_are_no_logs(tmp_path):
    """What systems and editors leave in a folder is named like what it was made from."""
    folder = tmp_path / "org__a"
    log = write_run(folder, "org/a")
    plain = load(tmp_path)
    shutil.copytree(folder, tmp_path / ".ipynb_checkpoints")
    for name in (log.name, f"results_{FIRST}.json"):
        (folder / f"._{name}").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / ".DS_Store").write_bytes(b"\x00")
    assert load(tmp_path) == plain


def test_what_was_not_run_with_the_wanted_examples_is_said(tmp_path):
    for name, numbers in (("a", (0, 5)), ("b", (5,))):
        for number, stamp in zip(numbers, (FIRST, SECOND), strict=False):
            write_run(tmp_path / name, name, stamp, **{"n-shot": {"toy": number}})
    write_run(
        tmp_path / "a", "a", "2026-01-03T00-00-00.1", task="other", **{"n-shot": {"other": 3}}
    )
    table = read_lm_eval(tmp_path, num_fewshot=0)
    assert table.models == ("a",)
    assert table.notes[0] == "b was not run on toy with 0 worked examples"
    assert table.notes[1] == "not run with 0 worked examples, and read as it is: other (3)"
    with pytest.raises(DataError, match="with 4 worked examples, got 0 and 3 and 5"):
        read_lm_eval(tmp_path, num_fewshot=4)


@pytest.mark.parametrize(
    ("report", "got"),
    [({"n-shot": {"toy": 5}}, "got 5"), ({}, "no report says how many there were")],
)
def test_a_number_of_examples_that_no_run_has_is_refused(tmp_path, report, got):
    write_run(tmp_path, "a", **report)
    with pytest.raises(DataError, match=f"must hold runs with 0 worked examples, {got}"):
        read_lm_eval(tmp_path, num_fewshot=0)


def test_runs_of_one_name_in_two_ways_are_noted(tmp_path):
    """The newest is read; that it may be another model is said."""
    for stamp, revision in ((FIRST, "step1"), (SECOND, "step2")):
        arguments = f"pretrained=org/a,revision={revision},device=cuda:{stamp[9]}"
        write_run(tmp_path, "org/a/", stamp, config={"model_args": arguments})
    table = read_lm_eval(tmp_path)
    assert table.models == ("org/a",)
    assert table.notes[-1] == (
        "the runs of org/a were made in 2 ways and are read as one model: revision=step1; "
        "revision=step2"
    )
    write_run(tmp_path, "org/a", SECOND, config={"model_args": {"revision": "step1"}})
    write_run(tmp_path, "org/a", FIRST, config={"model_args": "revision=step1"})
    assert not any("2 ways" in note for note in read_lm_eval(tmp_path).notes)


def test_the_newest_run_being_short_is_named_with_what_is_missing(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, name, values=[1.0] * 5)
    write_run(tmp_path / "a", "a", SECOND, values=[1.0])
    with pytest.raises(
        DataError, match=r"4 of 10 are missing .*; ignored samples_toy_.* of a, old"
    ):
        read_lm_eval(tmp_path)


def test_a_stamp_may_be_written_without_colons(tmp_path):
    stamp = FIRST.replace("00-00", "00_00")
    write_run(tmp_path, "org/a", stamp)
    assert read_lm_eval(tmp_path).models == ("org/a",)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("pretrained__org__a,dtype__auto_toy.jsonl", "org/a"),
        ("pretrained=org__a,dtype=auto_toy.jsonl", "org/a"),
        ("pretrained=org__b,dtype=auto_toy.jsonl", "org__b"),
        ("pretrained__org__b_toy.jsonl", "org__b"),
        ("toy.jsonl", "org/a"),
    ],
)
def test_a_file_named_after_another_model_is_not_that_of_the_report(tmp_path, name, model):
    """Up to version 0.4.2 the report of the last run took the place of all before it."""
    config = {"model_args": "pretrained=org/a,dtype=auto"}
    results = {"toy": {"exact_match,none": 0.5}}
    write_report(tmp_path, "results.json", None, config=config, results=results)
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows([1.0, 0.0])))
    table = read_lm_eval(tmp_path)
    assert accuracies(table) == {model: 0.5}
    noted = any(
        note.startswith(f"the model of {name} is named by its file") for note in table.notes
    )
    assert noted == (model != "org/a")


def test_a_file_of_another_task_is_not_that_of_the_report_beside_it(tmp_path):
    folder = tmp_path / "mine"
    write_report(folder, "results.json", "org/a", results={"toy": {}})
    path = folder / "other.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows([1.0])))
    assert read_lm_eval(path).models == ("mine",)


def test_a_name_of_an_option_that_fits_nothing_is_noted(tmp_path):
    for task in ("mmlu_law", "toy"):
        write_run(tmp_path, "a", task=task)
    options = {
        "groups": {"mmlu_*": "mmlu", "arc_*": "arc"},
        "metric": {"toy": "exact_match", "ty": "f1"},
        "label_rule": {"toy": "score > 0.5", "gsm8k": "score > 0"},
    }
    table = load(tmp_path, **options)
    assert table.notes[-3:] == (
        "no task or group fits 'arc_*', which groups names",
        "no task or group fits 'ty', which metric names",
        "no task or group fits 'gsm8k', which label_rule names",
    )
