"""Eighteen inputs that once were refused, misread or dropped, and what is right for each.

| input | what is right | test |
| --- | --- | --- |
| chat-prompt-lost | the text is the user's message | test_the_text_of_a_chat_is_the_message_of_the_user |
| fuzz-keyerror-long-csv | one line that says what is wrong | test_one_line_says_what_is_wrong |
| fuzz-valueerror-lm-eval | one line that says what is wrong | test_one_line_says_what_is_wrong |
| graded-acc | accuracy 1.0 under the rule | test_a_graded_metric_called_acc_is_read_by_its_rule |
| gzip | read | test_a_compressed_log_is_read |
| hint-loop | said once: a list is no label, bypass scores nothing | test_what_cannot_be_a_label |
| ignored-files | a note names the files not read | test_a_note_names_what_is_not_read |
| lost-results | named by its folder, with a note | test_a_log_without_a_report_is_named_by_its_folder |
| mixed-metrics | one call reads both tasks | test_tasks_with_other_metrics_are_read_by_one_call |
| model-order | it calibrates | test_another_order_and_a_further_model_calibrate |
| nan-metric | refused by default, left out with a note by drop | test_a_metric_that_is_nan_is_missing |
| output-path-json | two models, 1.0 and 0.0 | test_two_runs_in_one_folder_are_two_models |
| pandas-index | read, with a note on the index | test_the_index_of_a_frame_is_left_out |
| pool-change | a model is taken out; further models are no error | test_pools.py, and the one of model-order |
| relative-path | the model is named by its folder | test_a_relative_path_names_the_folder |
| shell-hints | every remedy is typed in the shell | test_remedies_are_those_of_the_shell |
| silent-drop | 34 of 40 left out is said everywhere | test_what_training_leaves_out_is_said |
| stream-bad-line | an error in its place, and a status | test_a_bad_line_has_an_error_in_its_place |
"""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from racer_jax.cli.main import main
from racer_jax.data import load
from racer_jax.racer.racer import Racer
from tests.data.test_logs_told_apart import FIRST, SECOND, rows, write_log, write_report


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command in a folder of its own, and gives back what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words, status=0):
        assert main([str(word) for word in words]) == status
        printed = capsys.readouterr()
        if status:
            assert printed.err.startswith("racer-jax: ")
            assert printed.err.count("\n") == 1
        return printed

    return run


def summary(run, *words):
    """The table of a summary as JSON: accuracy of each model, and notes."""
    printed = json.loads(run("data", "summary", *words, "--json").out)
    return printed["groups"][-1]["accuracies"], printed["notes"]


def test_the_text_of_a_chat_is_the_message_of_the_user(run):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it so?"}]
    requests = {"gen_args_0": {"arg_0": [json.dumps(chat)], "arg_1": {}}}
    write_log(Path("org__a"), "toy", FIRST, rows([1.0, 0.0], doc={"x": 1}, arguments=requests))
    run("data", "convert", "org__a", "t.csv")
    assert load("t.csv").texts == ("Is it so?",) * 2


def test_one_line_says_what_is_wrong(run):
    about = '{"version": 1, "rows": 2, "label_rule": "as given", "notes": []}'
    text = f"#racer_jax_table {about}\r\nquery_id,query,model,correct\r\nq,a?,x,1\r\n"
    Path("input.csv").write_text(text)
    said = run("data", "summary", "input.csv", status=1).err
    assert "input.csv, line 1, field 'price': must stand in the first line" in said
    (row,) = rows([1.0], metric="acc")
    responses = [["-1.5", "False"], ["-2.5", "False"]]
    row |= {"filtered_resps": responses, "target": "THERE"}
    text = json.dumps(row)
    for target in ('"' + "9" * 5000 + '"', "9" * 5000):
        Path("input.jsonl").write_text(text.replace('"THERE"', target) + "\n")
        assert "input.jsonl, row 1" in run("data", "summary", "input.jsonl", status=1).err


def test_a_graded_metric_called_acc_is_read_by_its_rule(run):
    responses = [["-2.5", "False"], ["-1.5", "False"]]
    log = rows([0.6, 0.9], metric="acc", filtered_resps=responses, target=0)
    write_log(Path("out/org__a"), "toy", FIRST, log)
    accuracy, _ = summary(run, "out", "--label-rule", "score > 0.5")
    assert accuracy == {"org__a": 1.0}


def test_a_compressed_log_is_read(run):
    path = write_log(Path("org__a"), "toy", FIRST, rows([1.0, 1.0, 0.0]))
    packed = Path(f"{path}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    accuracy, _ = summary(run, packed)
    assert accuracy == {"org__a": pytest.approx(2 / 3)}


def test_what_cannot_be_a_label(run):
    write_log(Path("b"), "toy", FIRST, rows([999], metric="bypass"))
    assert "--predict_only, which scores nothing" in run("data", "summary", "b", status=1).err
    write_log(Path("c"), "toy", FIRST, rows([["x", "y"]], metric="bleu"))
    said = run("data", "summary", "c", status=1).err
    assert "got metrics that are lists: ['bleu']" in said
    assert "--metric" not in said
    words = ("c", "--metric", "bleu", "--label-rule", "score > 0.5")
    said = run("data", "summary", *words, status=1).err
    assert "field 'bleu': is a list in each row, and so cannot say right or wrong" in said
    assert "--metric" not in said


def test_a_note_names_what_is_not_read(run):
    Path("data").mkdir()
    text = json.dumps([{"question": "a?", "scores": {"x": 1.0, "y": 0.0}}])
    for name in ("mmlu_test.json", "ceval.json"):
        (Path("data") / name).write_text(text)
    accuracy, notes = summary(run, "data")
    assert accuracy == {"x": 1.0, "y": 0.0}
    assert "not read: ceval.json" in notes


def test_a_log_without_a_report_is_named_by_its_folder(run):
    write_log(Path("out"), "toy", FIRST, rows([1.0]))
    write_log(Path("out"), "other", SECOND, rows([0.0]))
    write_report(Path("out"), f"results_{SECOND}.json", "org/beta")
    said = run("data", "summary", "out", status=1).err
    assert "(org/beta 1, out 1)" in said
    assert "is named by its folder, 'out': no report of its run is there" in said


def test_tasks_with_other_metrics_are_read_by_one_call(run):
    log = [row | {"metrics": ["a", "b"], "a": 0.0, "b": 1.0} for row in rows([1.0], metric="x")]
    write_log(Path("out/org__a"), "ifeval", FIRST, log)
    write_log(Path("out/org__a"), "sum", FIRST, rows([1.0]))
    said = run("data", "summary", "out", status=1).err
    assert "pass --metric ifeval=a" in said
    table = load("out", metric={"ifeval": "b"})
    run("data", "convert", "out", "t.npz", "--metric", "ifeval=b")
    assert load("t.npz").correct.tolist() == table.correct.tolist() == [[True], [True]]


def test_a_metric_that_is_nan_is_missing(run):
    write_log(Path("out/org__a"), "toy", FIRST, rows([1.0, float("nan")]))
    assert "1 of 2 are missing (org__a 1)" in run("data", "summary", "out", status=1).err
    accuracy, notes = summary(run, "out", "--missing", "drop")
    assert accuracy == {"org__a": 1.0}
    assert "left out 1 of 2 queries that lack a model's result" in notes


def test_two_runs_in_one_folder_are_two_models(run):
    for name, stamp, value in (("alpha", FIRST, 1.0), ("beta", SECOND, 0.0)):
        write_log(Path("out"), "toy", stamp, rows([value] * 2))
        write_report(Path("out"), f"{name}_{stamp}.json", f"org/{name}")
    accuracy, _ = summary(run, "out")
    assert accuracy == {"org/alpha": 1.0, "org/beta": 0.0}


def test_the_index_of_a_frame_is_left_out(run):
    Path("wide.csv").write_text(",query,x,y\n0,a?,1,0\n1,b?,1,1\n")
    accuracy, notes = summary(run, "wide.csv")
    assert accuracy == {"x": 1.0, "y": 0.5}
    assert any("is the index of a data frame" in note for note in notes)


def test_a_relative_path_names_the_folder(run, monkeypatch):
    path = write_log(Path("some-model"), "toy", FIRST, rows([1.0]))
    monkeypatch.chdir("some-model")
    for words in (".", path.name):
        assert summary(run, words)[0] == {"some-model": 1.0}


def test_remedies_are_those_of_the_shell(run):
    write_log(Path("short/org__a"), "toy", FIRST, rows([1.0]))
    more = {"n-samples": {"toy": {"original": 9, "effective": 9}}}
    write_report(Path("short/org__a"), f"results_{FIRST}.json", "org/a", **more)
    assert "pass --no-check-results" in run("data", "summary", "short", status=1).err
    assert summary(run, "short", "--no-check-results")[0] == {"org/a": 1.0}
    Path("wide.csv").write_text("query,kind,x,y\na?,kitchen,1,0\nb?,garden,1,1\n")
    assert "pass --models x,y" in run("data", "summary", "wide.csv", status=1).err
    assert summary(run, "wide.csv", "--models", "x,y")[0] == {"x": 1.0, "y": 0.5}
    Path("rdc").mkdir()
    text = json.dumps([{"question": "a?", "scores": {"x": 1.0, "y": 0.0}}])
    Path("rdc/humaneval_test.json").write_text(text)
    said = run("data", "summary", "rdc", status=1).err
    assert "--label-rule 'humaneval=score > 0.5'" in said
    words = ("rdc", "--label-rule", "humaneval=score > 0.5")
    assert summary(run, *words)[0] == {"x": 1.0, "y": 0.0}
    Path("monthly").mkdir()
    for name in ("jan", "feb"):
        Path(f"monthly/{name}.csv").write_text(f"query,model,correct\n{name}?,x,1\n")
    said = run("data", "summary", "monthly", status=1).err
    assert "name the files, monthly/feb.csv monthly/jan.csv" in said
    assert summary(run, "monthly/feb.csv", "monthly/jan.csv")[0] == {"x": 1.0}


@pytest.mark.long
@pytest.mark.parametrize("missing", ["drop", "keep"])
def test_what_training_leaves_out_is_said(run, missing):
    rng = np.random.default_rng(0)
    lines = ["query,model,correct"]
    for i in range(40):
        models = ("a", "b", "new") if i < 6 else ("a", "b")
        lines += [f"question {i}?,{model},{rng.integers(2)}" for model in models]
    Path("logs.csv").write_text("\n".join(lines) + "\n")
    words = ("train", "logs.csv", "--missing", missing, "-o", "a.racer", "--router", "knn")
    note = "left out 34 of 40 queries that lack a model's result"
    printed = run(*words)
    assert f"note: {note}\n" in printed.err
    assert ("cannot keep queries that lack one" in printed.err) == (missing == "keep")
    shutil.rmtree("a.racer")
    assert note in json.loads(run(*words, "--json").out)["notes"]
    assert any(note in text for text in Racer.load("a.racer").notes)


@pytest.mark.long
def test_another_order_and_a_further_model_calibrate(folder, run):
    table = load(folder / "calibration.npz")
    turned = table.select(models=list(table.models)[::-1])
    lines = ["query,group,model,correct"]
    labels = turned.correct.astype(int)
    for text, group, row in zip(turned.texts, turned.group, labels, strict=True):
        lines += [f'"{text}",{group},{m},{c}' for m, c in zip(turned.models, row, strict=True)]
        lines.append(f'"{text}",{group},further,1')
    Path("later.csv").write_text("\n".join(lines) + "\n")
    run("calibrate", folder / "bare.racer", "later.csv", "--alpha", "0.3", "-o", "x.racer")
    run("calibrate", folder / "bare.racer", folder / "calibration.npz", "--alpha", "0.3")
    ours, plain = Racer.load("x.racer"), Racer.load(folder / "bare.racer")
    assert ours.models == plain.models == table.models
    thresholds = [racer.calibration.thresholds(["0.3"])[0] for racer in (ours, plain)]
    np.testing.assert_array_equal(*thresholds)


@pytest.mark.long
def test_a_bad_line_has_an_error_in_its_place(folder, run, capsys):
    Path("queries.jsonl").write_text('{"text": "One?"}\n{"text": ""}\n{"text": "Three?"}\n')
    words = ["route", str(folder / "my.racer"), "--input", "queries.jsonl"]
    assert main(words) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(line) & {"models", "error"} for line in lines] == [
        {"models"},
        {"error"},
        {"models"},
    ]
    assert "line 2" in lines[1]["error"]
