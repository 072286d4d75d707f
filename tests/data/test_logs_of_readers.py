"""What people have in folders of logs, and scores that nobody knows: alike in all readers."""

import gzip
import json
import shlex

import pytest

from racer_jax.data import DataError, load
from racer_jax.data.guessing import FORMATS
from racer_jax.data.loading import READERS
from tests.data import log_samples, samples
from tests.data.samples import MODELS

FOLDERS = {
    "inspect": log_samples.inspect_logs,
    "every_eval_ever": log_samples.every_eval_ever,
    "helm": log_samples.helm,
    "llmrouterbench": log_samples.llmrouterbench,
    "routerarena": log_samples.routerarena,
}


def test_the_formats_that_errors_list_are_those_that_are_read():
    assert tuple(READERS) == FORMATS


@pytest.mark.parametrize("name", FOLDERS)
def test_hidden_and_foreign_files_are_not_read(tmp_path, name):
    folder = FOLDERS[name](tmp_path)
    plain = load(folder)
    for file in [*folder.rglob("*.*")]:
        file.with_name(f"._{file.name}").write_bytes(b"\x00\x05\x16\x07")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "a.json").write_text("{")
    assert load(folder) == plain
    for other in ("notes.json", "notes.jsonl"):
        (folder / other).write_text('{"a": 1}\n')
    table = load(folder)
    assert table.correct.tolist() == plain.correct.tolist()
    assert any("not read: " in note and "notes.json" in note for note in table.notes)


@pytest.mark.parametrize("name", [name for name in FOLDERS if name != "inspect"])
def test_compressed_folders_are_read(tmp_path, name):
    folder = FOLDERS[name](tmp_path)
    plain = load(folder)
    for file in [*folder.rglob("*.json*")]:
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert load(folder).correct.tolist() == plain.correct.tolist()


@pytest.mark.parametrize(
    ("name", "old", "new", "rule"),
    [
        ("inspect", '"value": "I"', '"value": NaN', None),
        ("every_eval_ever", '"score": 0.0', '"score": NaN', "score > 0.5"),
        ("helm", '"mean": 0', '"mean": NaN', None),
        ("llmrouterbench", '"score": 0.0', '"score": NaN', None),
        ("routerarena", '"score": 0.0', '"score": NaN', None),
        ("llmrouter", '"performance": 0.0', '"performance": NaN', None),
        ("llmrouter", '"performance": 0.0', '"performance": null', None),
    ],
)
def test_a_score_that_is_nan_is_a_missing_value(tmp_path, name, old, new, rule):
    if name == "inspect":
        folder = log_samples.inspect_json(tmp_path / "one").parent
    elif name == "llmrouter":
        folder = samples.llmrouter(tmp_path)
    else:
        folder = FOLDERS[name](tmp_path)
    changed = 0
    for file in [folder] if folder.is_file() else folder.rglob("*.json*"):
        text = file.read_text(encoding="utf-8")
        changed += text.count(old)
        file.write_text(text.replace(old, new), encoding="utf-8")
    assert changed
    options = {} if rule is None else {"label_rule": rule}
    with pytest.raises(DataError, match="are missing"):
        load(folder, **options)
    table = load(folder, missing="keep", **options)
    assert table.missing.sum() > 0
    assert table.correct[~table.missing].all()


def test_what_is_not_there_is_named_with_what_is(tmp_path):
    with pytest.raises(DataError, match="pass, for example: scorer='choice'"):
        load(log_samples.inspect_json(tmp_path), scorer="other")
    with pytest.raises(DataError, match="pass, for example: metric='exact_match'"):
        load(log_samples.helm(tmp_path), metric="other")
    with pytest.raises(DataError, match="must hold an assertion 'other' to leave out, got"):
        load(log_samples.promptfoo(tmp_path), ignore=["other", "latency"])


def test_a_file_of_a_run_is_read_by_its_folder(tmp_path):
    path = log_samples.helm_run(tmp_path)
    with pytest.raises(DataError, match="got a file; name its folder, ") as raised:
        load(path)
    (folder,) = shlex.split(raised.value.remedy.in_shell().removeprefix("name its folder, "))
    assert load(folder).models == (MODELS[0],)


def test_a_folder_of_single_files_says_how_to_name_them(tmp_path):
    path = log_samples.promptfoo(tmp_path)
    with pytest.raises(DataError, match="format promptfoo, got a folder") as raised:
        load(tmp_path)
    assert raised.value.remedy.options == (("path", [path]),)
    rows = [{"query": "a?", "model": "x", "correct": 1}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="format long_csv, got a folder"):
        load(tmp_path)
