"""Logs of lm-evaluation-harness: the figures it printed, and the ways its folders differ."""

import json
import shutil

import numpy as np
import pytest

from racer_jax.data import DataError, read_lm_eval
from tests.data import samples

PICKED = {"filter": "strict-match"}


def logs(folder, task):
    return sorted(folder.rglob(f"*{task}*.jsonl"))


def edit(path, change):
    """Rewrites a log row by row."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    rows = change(rows) or rows
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


PRINTED = {
    "toy_arc_challenge": {"acc": [0.2083, 0.25, 0.1667], "acc_norm": [0.5, 0.5, 0.4167]},
    "toy_gsm8k": {
        "strict-match": [0.6667, 0.2917, 0.2917],
        "flexible-extract": [0.7917, 0.5, 0.4583],
    },
    "toy_mmlu_anatomy": {"acc": [0.25, 0.4167, 0.0833]},
    "toy_mmlu_astronomy": {"acc": [0.25, 0.5, 0.1667]},
}


@pytest.mark.parametrize("task", PRINTED)
def test_the_accuracies_the_harness_printed(data_dir, task):
    for choice, expected in PRINTED[task].items():
        options = {"filter": choice} if task == "toy_gsm8k" else {"metric": choice}
        table = read_lm_eval(data_dir / "lm_eval", tasks=task, **options)
        assert table.models == ("org/toy-7b", "org/toy-8b-chat", "other/toy-13b")
        assert table.correct.mean(axis=0).round(4).tolist() == expected


def test_real_answers_agree_with_real_labels(data_dir):
    table = read_lm_eval(data_dir / "lm_eval", filter="flexible-extract")
    assert len(table) == 72
    for labels, answers in zip(table.correct, table.answers, strict=True):
        right = {answer for answer, label in zip(answers, labels, strict=True) if label}
        wrong = {answer for answer, label in zip(answers, labels, strict=True) if not label}
        assert len(right) <= 1
        assert not right & wrong


def test_mmlu_subjects_become_one_group(data_dir):
    table = read_lm_eval(data_dir / "lm_eval", tasks="toy_mmlu_*", groups={"toy_mmlu_*": "mmlu"})
    assert table.groups == ("mmlu",)
    assert len(table) == 24  # doc_id restarts in each file, and no question is lost


@pytest.mark.parametrize("layout", [samples.lm_eval, samples.lm_eval_old])
def test_both_layouts_read_the_same(tmp_path, layout):
    table = read_lm_eval(layout(tmp_path), **PICKED)
    assert table.models == tuple(sorted(samples.MODELS))
    table = table.select(models=samples.MODELS)
    assert table.groups == ("toy_arc", "toy_gsm8k")
    assert table.ids[:2] == ("toy_arc/0", "toy_arc/1")
    for group in table.groups:
        np.testing.assert_array_equal(
            table.select(group=group).correct, np.array(samples.CORRECT, bool)
        )
    assert table.rules == {"toy_arc": "acc = 1", "toy_gsm8k": "exact_match, strict-match = 1"}
    assert table.select(group="toy_arc").answers.tolist() == [
        ["B", "B"],
        ["C", "B"],
        ["C", "C"],
        ["B", "C"],
    ]
    assert table.select(group="toy_gsm8k").answers.tolist()[2] == [None, None]  # [invalid]
    assert table.texts[0] == f"{samples.QUESTIONS[0]}\n1. two\n2. four\n3. eight"
    assert read_lm_eval(tmp_path, filter="flexible-extract").select(group="toy_gsm8k").correct.all()


def test_old_and_new_logs_join_by_the_hash_of_the_document(tmp_path):
    new, old = samples.lm_eval(tmp_path), samples.lm_eval_old(tmp_path)
    shutil.rmtree(new / "org__strong-8b")
    shutil.rmtree(old / "run0")
    table = read_lm_eval(tmp_path, **PICKED)
    assert table.missing is None
    np.testing.assert_array_equal(
        table.select(group="toy_arc", models=samples.MODELS).correct,
        np.array(samples.CORRECT, bool),
    )


def test_rows_are_joined_by_document_never_by_order(tmp_path):
    folder = samples.lm_eval(tmp_path)
    expected = read_lm_eval(folder, **PICKED)
    edit(logs(folder, "toy_arc")[0], lambda rows: rows[::-1])
    assert read_lm_eval(folder, **PICKED) == expected


def test_the_filter_must_be_picked_where_there_is_a_choice(tmp_path):
    folder = samples.lm_eval(tmp_path)
    with pytest.raises(
        DataError, match="must hold one filter, got strict-match and flexible-extract; pass filter="
    ):
        read_lm_eval(folder)
    with pytest.raises(
        DataError, match="must hold filter 'loose', got strict-match and flexible-extract"
    ):
        read_lm_eval(folder, filter="loose")
    assert read_lm_eval(folder, tasks="toy_arc").groups == ("toy_arc",)
    assert read_lm_eval(folder, filter={"*gsm8k": "strict-match"}) == read_lm_eval(folder, **PICKED)


def test_filters_without_names_are_numbered_when_no_report_names_them(tmp_path):
    folder = samples.lm_eval_old(tmp_path)
    path = logs(folder, "toy_gsm8k")[0]
    (path.parent / "results.json").unlink()
    with pytest.raises(DataError, match="must hold one filter, got 1 and 2"):
        read_lm_eval(path)
    assert read_lm_eval(path, filter="1").models == ("run0",)  # the folder's name is all there is


def test_the_metric_is_chosen_or_told(tmp_path):
    folder = samples.lm_eval(tmp_path)
    arc = {"tasks": "toy_arc", "answers": False, "check_results": False}
    assert not read_lm_eval(folder, metric="acc_norm", **arc).correct.any()
    with pytest.raises(
        DataError, match=r"field 'f1': must be among the metrics of the log, \['acc', 'acc_norm'\]"
    ):
        read_lm_eval(folder, metric="f1", **arc)

    def rename(rows):
        for row in rows:
            row["em"], row["f1"] = row.pop("acc"), row.pop("acc_norm") + 0.5
            row["metrics"] = ["em", "f1"]

    for path in logs(folder, "toy_arc"):
        edit(path, rename)
    with pytest.raises(
        DataError, match=r"field 'metrics': must be one metric, got \['em', 'f1'\]; pass metric="
    ):
        read_lm_eval(folder, **arc)
    with pytest.raises(
        DataError, match=r"field 'f1': must be 0 or 1, got 0\.5; .*pass, for example: label_rule="
    ):
        read_lm_eval(folder, metric="f1", **arc)
    graded = read_lm_eval(folder, metric="f1", label_rule="score > 0.4", **arc)
    assert graded.correct.all()
    assert graded.graded.tolist() == [[0.5, 0.5]] * 4
    assert graded.label_rule == "f1 > 0.4"


def test_acc_norm_answers_by_likelihood_per_character(tmp_path):
    folder = samples.lm_eval(tmp_path)

    def lengthen(rows):
        for row in rows:  # per character "two" loses to the longer "eight"
            row["filtered_resps"] = [["-3.0", "False"], ["-9.0", "False"], ["-4.0", "False"]]
            row["target"], row["acc_norm"] = "2", 1.0

    for path in logs(folder, "toy_arc"):
        edit(path, lengthen)
    table = read_lm_eval(folder, tasks="toy_arc", metric="acc_norm", check_results=False)
    assert set(table.answers.reshape(-1)) == {"C"}
    edit(logs(folder, "toy_arc")[0], lambda rows: rows[0].update(arguments={}))
    with pytest.raises(
        DataError, match=r"row 1 .*field 'arguments': must hold the text of each choice"
    ):
        read_lm_eval(folder, tasks="toy_arc", metric="acc_norm", check_results=False)


def test_the_newest_run_wins_and_the_older_is_named(tmp_path):
    folder = samples.lm_eval(tmp_path)
    newest = logs(folder, "toy_arc")[0]
    older = newest.with_name(newest.name.replace("2026-01", "2025-01"))
    shutil.copy(newest, older)
    edit(older, lambda rows: rows[:1])
    table = read_lm_eval(folder, **PICKED)
    assert table.notes == (f"ignored {older.name} of {table.models[0]}, older than {newest.name}",)
    np.testing.assert_array_equal(table.select(group="toy_arc").correct[0], [True, True])


def test_two_logs_of_one_run_are_refused(tmp_path):
    folder = samples.lm_eval(tmp_path)
    shutil.copytree(folder / "org__weak-7b", folder / "again")
    with pytest.raises(
        DataError, match="must be the only newest log of 'org/weak-7b' on 'toy_arc'"
    ):
        read_lm_eval(folder, **PICKED)


def test_a_pair_that_is_missing_is_reported(tmp_path):
    folder = samples.lm_eval(tmp_path)
    edit(logs(folder, "toy_arc")[0], lambda rows: rows[:3])
    options = {**PICKED, "check_results": False}
    with pytest.raises(DataError, match=r"1 of 16 are missing .*first for query 'toy_arc/3'"):
        read_lm_eval(folder, **options)
    dropped = read_lm_eval(folder, missing="drop", **options)
    assert "toy_arc/3" not in dropped.ids
    assert dropped.notes == ("left out 1 of 8 queries that lack a model's result",)
    assert read_lm_eval(folder, missing="keep", **options).missing.sum() == 1


def test_one_number_for_two_documents_is_two_questions(tmp_path):
    folder = samples.lm_eval(tmp_path)
    edit(logs(folder, "toy_arc")[0], lambda rows: rows[1].update(doc_hash="0" * 64))
    with pytest.raises(DataError, match="2 of 18 are missing"):
        read_lm_eval(folder, **PICKED)
    table = read_lm_eval(folder, missing="drop", **PICKED)
    assert (
        "1 questions are not the same document for all models, such as doc_id 1 of toy_arc"
        in table.notes
    )


def test_a_log_that_is_not_the_one_reported_on_is_refused(tmp_path):
    folder = samples.lm_eval(tmp_path)
    path = logs(folder, "toy_gsm8k")[0]
    edit(path, lambda rows: rows[1:])
    with pytest.raises(
        DataError, match="must hold the 4 questions of the run, got 3; pass check_results=False"
    ):
        read_lm_eval(folder, **PICKED)
    samples.lm_eval(tmp_path / "b")
    path = logs(tmp_path / "b", "toy_gsm8k")[0]
    edit(path, lambda rows: rows[0].update(exact_match=1.0 - rows[0]["exact_match"]))
    with pytest.raises(
        DataError, match=r"field 'exact_match': must have the mean 0\.5 that the harness reported"
    ):
        read_lm_eval(tmp_path / "b", **PICKED)


def test_answers_of_several_generations_are_left_out_with_a_note(tmp_path):
    folder = samples.lm_eval(tmp_path)
    edit(logs(folder, "toy_gsm8k")[0], lambda rows: rows[0].update(filtered_resps=[["8", "7"]]))
    table = read_lm_eval(folder, **PICKED)
    assert table.answers is None
    assert table.notes == (
        "answers of toy_gsm8k were left out: responses are neither one text nor 2 to 26 choices",
    )


def test_answers_take_the_form_the_metric_compares(tmp_path):
    folder = samples.lm_eval(tmp_path)
    edit(logs(folder, "toy_gsm8k")[0], lambda rows: rows[0].update(filtered_resps=["$1,008."]))
    assert read_lm_eval(folder, **PICKED).select(group="toy_gsm8k").answers[0, 0] == "1008"
    path = next(logs(folder, "toy_gsm8k")[0].parent.glob("results_*"))
    report = json.loads(path.read_text())
    rule = {"metric": "exact_match", "regexes_to_ignore": [",", "(broken", 3], "ignore_case": True}
    report["configs"] = {"toy_gsm8k": {"metric_list": [{"metric": "f1"}, rule]}}
    path.write_text(json.dumps(report))
    edit(logs(folder, "toy_gsm8k")[0], lambda rows: rows[0].update(filtered_resps=["$1,00B."]))
    assert read_lm_eval(folder, **PICKED).select(group="toy_gsm8k").answers[0, 0] == "$100b."
    report["configs"]["toy_gsm8k"]["metric_list"][1]["ignore_punctuation"] = True
    path.write_text(json.dumps(report))
    assert read_lm_eval(folder, **PICKED).select(group="toy_gsm8k").answers[0, 0] == "100b"


def test_questions_of_unknown_fields_are_their_prompt(tmp_path):
    folder = samples.lm_eval(tmp_path)
    for path in logs(folder, "toy_gsm8k"):
        edit(path, lambda rows: [row | {"doc": {"stem": "?"}} for row in rows])
    table = read_lm_eval(folder, tasks="toy_gsm8k", **PICKED)
    assert table.texts[0] == f"Question: {samples.QUESTIONS[0]}\nAnswer:"


def test_cmmlu_documents(tmp_path):
    folder = samples.lm_eval(tmp_path)
    doc = {"Question": "哪个是四", "A": "三", "B": "四", "C": "五", "D": "六", "Answer": "B"}
    for path in logs(folder, "toy_arc"):
        edit(path, lambda rows: [row | {"doc": doc} for row in rows])
    table = read_lm_eval(folder, tasks="toy_arc")
    assert table.texts[0] == "哪个是四\nA. 三\nB. 四\nC. 五\nD. 六"


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("arc", {"doc_id": "0"}, "row 2 .*field 'doc_id': must be a whole number, got \"0\""),
        ("arc", {"doc_id": True}, "row 2 .*field 'doc_id': must be a whole number, got true"),
        (
            "arc",
            {"doc_id": 0},
            "row 2 .*field 'doc_id': must be given once for each filter, got 0 in row 1",
        ),
        ("arc", {"doc_hash": 3}, "row 2 .*field 'doc_hash': must be a text, got 3"),
        ("arc", {"filter": 3}, "row 2 .*field 'filter': must be a text, got 3"),
        (
            "arc",
            {"doc": {"question": "\ud800"}, "doc_hash": "x"},
            "row 2 .*field 'doc': must be text that UTF-8 can",
        ),
        (
            "arc",
            {"filtered_resps": ["\udc00"]},
            "row 2 .*field 'filtered_resps': must be text that UTF-8 can",
        ),
        ("arc", {"acc": 2}, "row 2 .*field 'acc': must be 0 or 1, got 2"),
        ("arc", {"acc": "1"}, "row 2 .*field 'acc': must be 0 or 1, got \"1\""),
        ("arc", {"acc": 10**400}, "row 2 .*field 'acc': must be (a number|0 or 1)"),
        (
            "arc",
            {"filtered_resps": None},
            "row 2 .*field 'filtered_resps': must be a list of responses, got null",
        ),
        (
            "arc",
            {"filtered_resps": [["x", False], [0, False]]},
            'row 2 .*must hold log-likelihoods, got "x"',
        ),
        (
            "arc",
            {"filtered_resps": [[0, False], [-1, False]]},
            "row 2 .*must agree with acc: choice 0 is the most",
        ),
    ],
)
def test_rows_that_are_wrong_are_named(tmp_path, task, change, message):
    folder = samples.lm_eval(tmp_path)
    edit(
        next(path for path in logs(folder, task) if "strong" in str(path)),
        lambda rows: rows[1].update(change),
    )
    with pytest.raises(DataError, match=message):
        read_lm_eval(folder, tasks="toy_arc")


def test_folders_without_logs_are_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"must hold files samples_<task>_<timestamp>\.jsonl, got none"
    ):
        read_lm_eval(tmp_path)
    with pytest.raises(DataError, match="file not found"):
        read_lm_eval(tmp_path / "nowhere")
    folder = samples.lm_eval(tmp_path)
    with pytest.raises(
        DataError,
        match=r"must hold a log of tasks \['mmlu'\], got logs of \['toy_arc', 'toy_gsm8k'\]",
    ):
        read_lm_eval(folder, tasks="mmlu")
    next(folder.rglob("results*")).write_text("[]")
    with pytest.raises(DataError, match="must be a JSON object, got list"):
        read_lm_eval(folder)


def test_other_options_are_checked(tmp_path):
    folder = samples.lm_eval(tmp_path)
    with pytest.raises(ValueError, match="missing must be one of"):
        read_lm_eval(folder, missing="zero")
    with pytest.raises(
        DataError,
        match="group 'all' must have one label rule, got 'acc = 1' and 'exact_match, strict",
    ):
        read_lm_eval(folder, groups={"*": "all"}, **PICKED)
