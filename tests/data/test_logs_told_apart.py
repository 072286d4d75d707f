"""Logs as people have them: whose a log is, what a question is, what is a label."""

import gzip
import json
import math

import pytest

from racer_jax.data import DataError, RoutingTable, load, read_lm_eval, read_routerdc
from racer_jax.data.formats._lm_eval_text import text_of

FIRST, SECOND = "2026-01-01T00-00-00.000001", "2026-01-02T00-00-00.000001"


def rows(values, metric="exact_match", **more):
    """Rows of a log of an open task, one for each value."""
    for i, value in enumerate(values):
        row = {
            "doc_id": i,
            "doc": {"question": f"Question {i}?"},
            "target": "1",
            "arguments": {"gen_args_0": {"arg_0": f"Prompt {i}", "arg_1": {}}},
            "filtered_resps": ["x"],
            "filter": "none",
            "metrics": [metric],
            "doc_hash": f"h{i}",
            metric: value,
        }
        yield row | more


def write_log(folder, task, stamp, records):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    path = folder / f"samples_{task}_{stamp}.jsonl"
    path.write_text(text)
    return path


def write_report(folder, name, model, **more):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"model_name": model, "results": {}} | more))


def accuracies(table):
    return dict(zip(table.models, table.correct.mean(axis=0).tolist(), strict=True))


def test_the_report_of_an_output_path_is_that_of_its_time_stamp(tmp_path):
    for stem, stamp, value in (("alpha", FIRST, 1.0), ("beta", SECOND, 0.0)):
        write_report(tmp_path, f"{stem}_{stamp}.json", f"org/{stem}")
        write_log(tmp_path, "toy", stamp, rows([value] * 3))
    table = load(tmp_path)
    assert accuracies(table) == {"org/alpha": 1.0, "org/beta": 0.0}
    assert table.notes == ("read as lm_eval, guessed from the content",)


def test_a_log_without_a_report_is_not_credited_to_another_model(tmp_path):
    out = tmp_path / "out"
    write_report(out, f"results_{SECOND}.json", "org/beta")
    write_log(out, "toy", SECOND, rows([0.0] * 3))
    write_log(out, "toy", FIRST, rows([1.0] * 3))
    table = read_lm_eval(out)
    assert accuracies(table) == {"org/beta": 0.0, "out": 1.0}
    (note,) = table.notes
    assert "is named by its folder, 'out'" in note
    assert FIRST in note
    write_log(out, "other", FIRST, rows([1.0] * 3))
    with pytest.raises(DataError, match=r"are missing .*is named by its folder, 'out'"):
        read_lm_eval(out)


def test_two_runs_of_nobody_knows_which_model_are_refused(tmp_path):
    for stamp, value in ((FIRST, 1.0), (SECOND, 0.0)):
        path = write_log(tmp_path / "out", "toy", stamp, rows([value] * 3))
    with pytest.raises(DataError, match="two runs on 'toy' in one folder without a report"):
        read_lm_eval(tmp_path / "out")
    assert accuracies(read_lm_eval(path)) == {"out": 0.0}
    for stamp, value in ((FIRST, 1.0), (SECOND, 0.0)):
        write_log(tmp_path / "org__a", "toy", stamp, rows([value] * 3))
    table = read_lm_eval(tmp_path / "org__a")  # a folder that the harness made for one model
    assert accuracies(table) == {"org__a": 0.0}
    assert any(note.startswith("ignored ") for note in table.notes)


def test_a_folder_named_after_its_model_vouches_for_logs_without_a_report(tmp_path):
    folder = tmp_path / "org__beta"
    write_report(folder, f"results_{SECOND}.json", "org/beta")
    write_log(folder, "toy", SECOND, rows([0.0] * 3))
    write_log(folder, "older", FIRST, rows([1.0] * 3))
    assert read_lm_eval(folder).models == ("org/beta",)


def test_two_reports_of_one_time_stamp_are_refused(tmp_path):
    write_report(tmp_path, f"alpha_{FIRST}.json", "org/alpha")
    write_report(tmp_path, f"beta_{FIRST}.json", "org/beta")
    write_log(tmp_path, "toy", FIRST, rows([1.0]))
    with pytest.raises(DataError, match="must be the only report of its time stamp"):
        read_lm_eval(tmp_path)


def test_runs_with_other_numbers_of_examples_are_told_apart(tmp_path):
    for stamp, shots, value in ((FIRST, 5, 1.0), (SECOND, 0, 0.0)):
        report = {"n-shot": {"toy": shots}}
        write_report(tmp_path, f"results_{stamp}.json", "org/a", **report)
        write_log(tmp_path, "toy", stamp, rows([value] * 3))
    with pytest.raises(DataError, match=r"got runs with 0 and 5 worked .*pass num_fewshot=0"):
        read_lm_eval(tmp_path)
    assert accuracies(read_lm_eval(tmp_path, num_fewshot=5)) == {"org/a": 1.0}
    assert accuracies(read_lm_eval(tmp_path, num_fewshot=0)) == {"org/a": 0.0}
    with pytest.raises(DataError, match="must hold runs with 3 worked examples, got 0 and 5"):
        read_lm_eval(tmp_path, num_fewshot=3)


def test_models_run_with_other_numbers_of_examples_are_noted(tmp_path):
    for name, shots in (("a", 5), ("b", 0)):
        report = {"n-shot": {"toy": shots}}
        write_report(tmp_path / name, f"results_{FIRST}.json", name, **report)
        write_log(tmp_path / name, "toy", FIRST, rows([1.0]))
    (note,) = read_lm_eval(tmp_path).notes
    assert note == "the models were run on toy with 0 and 5 worked examples"
    assert read_lm_eval(tmp_path, num_fewshot=5).models == ("a",)


def test_every_file_that_is_not_read_is_named(tmp_path):
    write_report(tmp_path / "a", f"results_{FIRST}.json", "a")
    write_log(tmp_path / "a", "toy", FIRST, rows([1.0]))
    write_log(tmp_path / "a", "law", FIRST, rows([1.0]))
    (tmp_path / "a" / "run.log").write_text("done")
    (note,) = read_lm_eval(tmp_path, tasks="toy").notes
    assert note == f"not read: a/run.log, a/samples_law_{FIRST}.jsonl"


def test_files_of_routerdc_that_are_not_read_are_named(tmp_path):
    for name in ("mmlu_test", "mmlu_train", "ceval"):
        (tmp_path / f"{name}.json").write_text('[{"question": "Q", "scores": {"a": 0.5}}]')
    assert load(tmp_path).notes[0] == "not read: ceval.json, mmlu_train.json"


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_file_called_train_or_test_is_a_benchmark_called_as_its_folder(tmp_path, name):
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    (folder / f"{name}.json").write_text('[{"question": "Q", "scores": {"a": 0.6}}]')
    assert read_routerdc(folder / f"{name}.json").group == ("gsm8k",)
    assert read_routerdc(folder, part=name).group == ("gsm8k",)


@pytest.mark.parametrize("path", [".", f"samples_toy_{FIRST}.jsonl"])
def test_a_relative_path_names_the_folder_too(tmp_path, monkeypatch, path):
    folder = tmp_path / "my-model"
    write_log(folder, "toy", FIRST, rows([1.0]))
    monkeypatch.chdir(folder)
    assert load(path).models == ("my-model",)


def test_compressed_logs_are_read(tmp_path):
    path = write_log(tmp_path / "m", "toy", FIRST, rows([1.0, 0.0]))
    whole = load(path)
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    table = load(tmp_path / "m")
    assert table.correct.tolist() == whole.correct.tolist()
    assert table.ids == whole.ids


def test_a_metric_that_is_nan_is_a_missing_value(tmp_path):
    report = {"results": {"toy": {"exact_match,none": math.nan}}}
    write_report(tmp_path / "a", f"results_{FIRST}.json", "a", **report)
    write_log(tmp_path / "a", "toy", FIRST, rows([1.0, math.nan, 0.0]))
    write_log(tmp_path / "b", "toy", FIRST, rows([1.0, 1.0, None]))
    with pytest.raises(DataError, match="2 of 6 are missing"):
        read_lm_eval(tmp_path)
    assert read_lm_eval(tmp_path, missing="drop").ids == ("toy/0",)
    kept = read_lm_eval(tmp_path, missing="keep")
    assert kept.missing.tolist() == [[False, False], [True, False], [False, True]]


def choices(value, target="0"):
    likelihoods = [["-1.0", "False"], ["-2.0", "False"]]
    return list(rows([value], metric="acc", filtered_resps=likelihoods, target=target))


def test_the_check_of_the_choice_is_for_metrics_of_0_and_1(tmp_path):
    write_log(tmp_path / "m", "toy", FIRST, choices(0.6))
    table = read_lm_eval(tmp_path, label_rule="score > 0.5")
    assert accuracies(table) == {"m": 1.0}
    assert table.answers.tolist() == [["A"]]
    write_log(tmp_path / "m", "toy", FIRST, choices(0.0))
    graded = read_lm_eval(tmp_path, label_rule="score > 0.5")
    assert accuracies(graded) == {"m": 0.0}
    with pytest.raises(DataError, match="must agree with acc: choice 0 is the most likely"):
        read_lm_eval(tmp_path)
    write_log(tmp_path / "m", "toy", FIRST, choices(1.0, target="9" * 5000))
    with pytest.raises(DataError, match="99999 is right, got acc 1"):
        read_lm_eval(tmp_path)


def test_a_metric_that_is_a_list_is_explained_once(tmp_path):
    records = [
        row | {"metrics": ["strict", "each"], "strict": True, "each": [True, False]}
        for row in rows([1.0])
    ]
    write_log(tmp_path / "m", "ifeval", FIRST, records)
    assert read_lm_eval(tmp_path).label_rule == "strict = 1"
    with pytest.raises(DataError, match=r"'each': is a list in each row.*metric='strict'"):
        read_lm_eval(tmp_path, metric="each")
    lists = [row | {"metrics": ["bleu"], "bleu": ["t", "x"]} for row in rows([1.0])]
    write_log(tmp_path / "m", "ifeval", FIRST, lists)
    with pytest.raises(DataError, match="no other metric of the log is one number"):
        read_lm_eval(tmp_path, metric="bleu", label_rule="score > 0.5")
    with pytest.raises(DataError, match="got metrics that are lists"):
        read_lm_eval(tmp_path)


def test_bypass_means_that_nothing_was_scored(tmp_path):
    write_log(tmp_path / "m", "toy", FIRST, rows([1.0], metrics=["bypass"]))
    with pytest.raises(DataError, match="--predict_only, which scores nothing; run it without"):
        read_lm_eval(tmp_path)


def test_metric_and_rule_may_differ_from_task_to_task(tmp_path):
    write_log(tmp_path / "m", "sum", FIRST, rows([1.0, 0.0]))
    write_log(tmp_path / "m", "bleu_x", FIRST, rows([0.3, 0.9], metric="bleu"))
    table = read_lm_eval(tmp_path, metric={"bleu*": "bleu"}, label_rule={"bleu*": "score > 0.5"})
    assert table.rules == {"bleu_x": "bleu > 0.5", "sum": "exact_match = 1"}
    assert dict(zip(table.ids, table.correct[:, 0].tolist(), strict=True)) == {
        "bleu_x/0": False,
        "bleu_x/1": True,
        "sum/0": True,
        "sum/1": False,
    }
    with pytest.raises(DataError, match=r"'bleu': must be among .*metric=\{'\*': 'bleu', 'sum'"):
        read_lm_eval(tmp_path, metric="bleu", label_rule="score > 0.5")


CHAT = [
    {"role": "system", "content": "You are kind."},
    {"role": "user", "content": "Is it so?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
]


@pytest.mark.parametrize("prompt", [[json.dumps(CHAT)], json.dumps(CHAT), CHAT, [CHAT]])
def test_the_text_of_a_chat_is_the_last_message_of_the_user(prompt):
    record = {"doc": {"premise": "p"}, "arguments": {"gen_args_0": {"arg_0": prompt}}}
    assert text_of(record) == "And now?"
    whole = text_of(record, whole_prompt=True)
    assert whole == "You are kind.\n\nIs it so?\n\nYes.\n\nAnd now?"


@pytest.mark.parametrize(
    ("doc", "text"),
    [
        ({"passage": "P.", "question": "Q?"}, "P.\nQ?"),
        ({"article": "A.", "question": "Q?", "options": ["x", "y"]}, "A.\nQ?\nA. x\nB. y"),
        ({"context": "C.", "question": "Q?", "answerA": "x", "answerB": "y"}, "C.\nQ?\nA. x\nB. y"),
        (
            {"premise": "P.", "question": "cause", "choice1": "x", "choice2": "y"},
            "P.\ncause\nA. x\nB. y",
        ),
        ({"goal": "G", "sol1": "x", "sol2": "y"}, "G\nA. x\nB. y"),
        (
            {"question": "Q?", "opa": "x", "opb": "y", "opc": "z", "opd": "w"},
            "Q?\nA. x\nB. y\nC. z\nD. w",
        ),
        ({"QUESTION": "Q?", "CONTEXTS": ["1.", "2."]}, "1.\n2.\nQ?"),
        (
            {"question_stem": "Q?", "choices": {"text": ["x", "y"], "label": ["a", "b"]}},
            "Q?\na. x\nb. y",
        ),
        ({"question": "Q?", "options": {"A": "x", "B": "y"}}, "Q?\nA. x\nB. y"),
        (
            {"question": "Q?", "mc1_targets": {"choices": ["x", "y"], "labels": [1, 0]}},
            "Q?\nA. x\nB. y",
        ),
    ],
)
def test_what_a_question_is_about_belongs_to_it(doc, text):
    assert text_of({"doc": doc, "arguments": None}) == text


def test_an_empty_text_is_noted_at_load(tmp_path):
    records = list(rows([1.0, 0.0]))
    records[1] |= {"doc": {}, "arguments": {}}
    path = write_log(tmp_path / "m", "toy", FIRST, records)
    assert f"1 of 2 questions of m have no text, the first is that of {path.name}, row 2" in (
        read_lm_eval(tmp_path / "m").notes
    )


def test_the_same_pool_in_another_order_is_the_same_pool():
    table = RoutingTable(
        ids=["a", "b"],
        texts=["1?", "2?"],
        models=["x", "y", "z"],
        correct=[[1, 0, 0], [0, 1, 0]],
        price=[1.0, 2.0, 3.0],
    )
    turned = table.aligned(["z", "x", "y"])
    assert turned.models == ("z", "x", "y")
    assert turned.correct.tolist() == [[False, True, False], [False, False, True]]
    assert turned.price.tolist() == [3.0, 1.0, 2.0]
    assert turned.notes == ()
    assert table.aligned(table.models) is table
    assert turned.aligned(table.models) == table
    (note,) = table.aligned(["y", "x"]).notes
    assert note == "left out 1 of 3 models, which the pool does not hold: z"
    with pytest.raises(DataError, match="the table has no model 'w'; it has: x, y, z"):
        table.aligned(["x", "w"])
