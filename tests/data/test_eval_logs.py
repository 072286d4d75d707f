"""The logs of evaluation tools.

What each reader makes of a small pool that is known, and of real files.
"""

import json
import sys
import zipfile

import jax
import numpy as np
import pytest

from racer_jax.data import (
    DataError,
    load,
    read_every_eval_ever,
    read_helm,
    read_inspect,
    read_promptfoo,
)
from racer_jax.data.formats import _zip
from tests.data import log_samples as logs
from tests.data.samples import CORRECT, IDS, MODELS, QUESTIONS

RIGHT = np.array(CORRECT, dtype=bool)
WITH_OPTIONS = [f"{text}\nA. two\nB. four\nC. eight" for text in QUESTIONS]
RULE = "score > 0.5"


def edited(path, change):
    """A JSON file after a change of its value."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


# --- Inspect AI -----------------------------------------------------------------------------------


def test_inspect_joins_the_logs_of_a_folder(tmp_path):
    table = load(logs.inspect_logs(tmp_path))
    assert table.models == tuple(MODELS)
    assert (table.correct == RIGHT).all()
    assert table.ids == ("arc/1", "arc/2", "arc/3", "arc/4")
    assert table.texts == tuple(WITH_OPTIONS)
    assert set(table.group) == {"arc"}
    assert (table.answers == np.where(RIGHT, "B", "A")).all()
    assert (table.tokens == np.array([[5, 5], [6, 6], [7, 7], [8, 8]])).all()
    assert table.label_rule == "choice = C"
    assert "read as inspect, guessed from the content" in table.notes


def test_inspect_epochs_need_a_rule_or_the_number_of_one(tmp_path):
    path = logs.inspect_eval(tmp_path, epochs=2)
    with pytest.raises(DataError, match=r"one epoch of each question, got 2 .*attempt=1"):
        read_inspect(path)
    assert not read_inspect(path, attempt=1).correct.any()
    assert read_inspect(path, attempt=2).correct.all()
    graded = read_inspect(path, label_rule=RULE)
    assert (graded.graded == 0.5).all()
    assert not graded.correct.any()
    assert any("2 epochs" in note for note in graded.notes)
    drawn = read_inspect(path, label_rule="one attempt", key=jax.random.key(0))
    assert drawn.label_rule == "one attempt"
    with pytest.raises(DataError, match=r"must hold epoch 3, got \[1, 2\]"):
        read_inspect(path, attempt=3)


@pytest.mark.parametrize(
    ("value", "score"), [("P", 0.5), ("N", 0.0), (0.25, 0.25), (True, 1.0), ("yes", 1.0)]
)
def test_inspect_values_are_numbers_under_a_rule(tmp_path, value, score):
    def change(log):
        log["samples"][0]["scores"]["choice"]["value"] = value

    path = edited(logs.inspect_json(tmp_path), change)
    assert read_inspect(path, label_rule=RULE).graded[0, 0] == score
    if score not in (0, 1):
        with pytest.raises(DataError, match=r"row 1.*0 or 1, got 0\..*label_rule"):
            read_inspect(path)
    if value == "N":
        assert read_inspect(path).answers[0, 0] is None


def test_inspect_asks_which_of_several_scorers(tmp_path):
    def change(log):
        for sample in log["samples"]:
            sample["scores"]["model_graded"] = {"value": {"style": 0, "facts": 1}}

    path = edited(logs.inspect_json(tmp_path), change)
    with pytest.raises(DataError, match=r"one scorer, got \['choice', 'model_graded'\]"):
        read_inspect(path)
    assert (read_inspect(path, scorer="choice").correct[:, 0] == RIGHT[:, 0]).all()
    with pytest.raises(DataError, match=r"one value, got \['facts', 'style'\].*model_graded/style"):
        read_inspect(path, scorer="model_graded")
    assert read_inspect(path, scorer="model_graded/facts").correct.all()
    with pytest.raises(DataError, match="must hold the scorer 'f1'"):
        read_inspect(path, scorer="f1")


def test_inspect_counts_a_failed_sample_as_not_evaluated(tmp_path):
    def change(log):
        log["status"] = "error"
        log["samples"][0]["error"] = {"message": "timeout"}
        del log["samples"][3]

    path = edited(logs.inspect_json(tmp_path), change)
    with pytest.raises(DataError, match="1 of 3 are missing"):
        read_inspect(path)
    table = read_inspect(path, missing="keep")
    assert table.missing[:, 0].tolist() == [True, False, False]
    assert 'log0.json has status "error": 3 of 4 samples' in table.notes


def test_inspect_reads_the_newest_log_of_a_model(tmp_path):
    folder = logs.inspect_logs(tmp_path)
    older = logs.inspect_json(folder / "old", 1, created="2025-01-01T00:00:00+00:00")
    edited(older, lambda log: log["samples"].pop())
    table = read_inspect(folder)
    assert (table.correct == RIGHT).all()
    assert any("ignored log1.json" in note for note in table.notes)
    logs.inspect_json(folder / "again", 1)
    with pytest.raises(DataError, match="only newest log"):
        read_inspect(folder)


def test_inspect_tells_runs_with_other_arguments_apart(tmp_path):
    logs.inspect_eval(tmp_path / "a", task_args={"subject": "law"})
    logs.inspect_eval(tmp_path / "b", task_args={"subject": "art"})
    table = read_inspect(tmp_path)
    assert len(table) == 8
    assert set(table.groups) == {'arc{"subject": "law"}', 'arc{"subject": "art"}'}


def test_inspect_says_why_a_log_has_no_labels(tmp_path):
    path = edited(logs.inspect_json(tmp_path), lambda log: log.update(samples=None))
    with pytest.raises(DataError, match="--no-log-samples"):
        read_inspect(path)
    path = edited(
        logs.inspect_json(tmp_path),
        lambda log: [sample.pop("scores") for sample in log["samples"]],
    )
    with pytest.raises(DataError, match="inspect score"):
        read_inspect(path)
    unfinished = tmp_path / "cut.eval"
    with zipfile.ZipFile(unfinished, "w") as archive:
        archive.writestr("_journal/start.json", "{}")
    with pytest.raises(DataError, match="inspect log recover"):
        load(unfinished)


def test_inspect_archives_packed_by_zstd_are_read_or_name_the_extra(tmp_path, monkeypatch):
    with_zstd = zipfile  # Python's own reads it from 3.14 on
    if sys.version_info < (3, 14):
        with_zstd = pytest.importorskip("backports.zstd.zipfile", reason="extra inspect")
    packed = logs.inspect_eval(tmp_path, method=with_zstd.ZIP_ZSTANDARD, module=with_zstd)
    plain = logs.inspect_eval(tmp_path / "plain")
    assert read_inspect(packed) == read_inspect(plain)
    if sys.version_info >= (3, 14):
        return
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[inspect\]'"):
        load(packed)


def test_an_archive_that_declares_too_much_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = logs.inspect_eval(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # the last entry of the directory, that of header.json
    data[at + 24 : at + 28] = (1 << 31).to_bytes(4, "little")
    path.write_bytes(bytes(data))

    def refuse(*_):
        raise AssertionError("a member was read")

    monkeypatch.setattr(_zip.Members, "read", refuse)
    with pytest.raises(DataError, match="must unpack to at most 1 GiB a member"):
        read_inspect(path)


def test_inspect_reads_real_logs_as_the_tool_reported_them(data_dir):
    folder = data_dir / "logs" / "inspect"
    for name in ("data_arc_qwen", "data_arc_sonnet"):
        path = folder / f"{name}.json"
        reported = json.loads(path.read_text(encoding="utf-8"))["results"]["scores"][0]["metrics"]
        assert load(path).correct.mean() == pytest.approx(reported["accuracy"]["value"])
    table = load(folder / "log_streaming.eval", label_rule="score >= 0")
    assert table.graded.mean() == 0.75  # its accuracy, a mean over two epochs
    with pytest.raises(DataError, match="inspect score"):
        load(folder / "popularity_a.eval")


# --- Every Eval Ever ------------------------------------------------------------------------------


def test_every_eval_ever_joins_models_by_the_hash_of_a_sample(tmp_path):
    table = load(logs.every_eval_ever(tmp_path))
    order = [table.models.index(model) for model in MODELS]
    assert (table.correct[:, order] == RIGHT).all()
    assert table.ids == tuple(f"arc/{name}" for name in IDS)
    assert table.texts == tuple(WITH_OPTIONS)
    assert (table.answers[:, order] == np.array([["A0", "A1"]] * 4)).all()
    assert (table.tokens[:, 0] == [5, 6, 7, 8]).all()
    whole = read_every_eval_ever(tmp_path / "data", whole_prompt=True)
    assert whole.texts[1] == f"Q: {QUESTIONS[1]}\nA:"


def test_every_eval_ever_labels_and_scores(tmp_path):
    path = logs.every_eval_ever_file(tmp_path)
    graded = read_every_eval_ever(path, label_rule="score >= 0.75")
    assert (graded.graded[:, 0] == 0.75 * RIGHT[:, 0]).all()
    assert (graded.correct == read_every_eval_ever(path).correct).all()


def test_every_eval_ever_reads_one_metric_of_several(tmp_path):
    folder = logs.every_eval_ever(tmp_path, metrics=("accuracy", "f1"))
    with pytest.raises(
        DataError, match=r"one metric .*'arc.accuracy' and 'arc.f1'.*pass, for example: metric"
    ):
        load(folder)
    table = load(folder, metric="arc.f1")
    assert (table.select(models=MODELS).correct == RIGHT).all()
    assert "ignored the records of 1 other metrics" in table.notes
    with pytest.raises(
        DataError, match=r"records of metric 'bleu', got \['arc.accuracy', 'arc.f1'"
    ):
        load(folder, metric="bleu")


def test_every_eval_ever_takes_several_runs_as_attempts(tmp_path):
    path = tmp_path / "a_samples.jsonl"
    records = [logs.every_eval_ever_record(0, 0, run=run) for run in ("2", "1")]
    records[1]["evaluation"]["is_correct"] = False
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    with pytest.raises(DataError, match="one run of each question"):
        read_every_eval_ever(path)
    assert not read_every_eval_ever(path, attempt=1).correct.any()
    assert read_every_eval_ever(path, attempt=2).correct.all()
    path.write_text(json.dumps(records[0]) + "\n" + json.dumps(records[0]), encoding="utf-8")
    with pytest.raises(DataError, match=r"row 2 \(line 2\).*in row 1 already"):
        read_every_eval_ever(path, label_rule=RULE)


def test_every_eval_ever_leaves_out_samples_that_failed(tmp_path):
    record = logs.every_eval_ever_record(0, 0) | {"error": "timeout", "output": None}
    path = tmp_path / "a_samples.jsonl"
    path.write_text(json.dumps(record), encoding="utf-8")
    assert read_every_eval_ever(path, missing="keep").missing.all()


def test_every_eval_ever_reads_the_real_sample(data_dir):
    table = load(data_dir / "logs" / "every_eval_ever")
    assert table.ids == ("demo-source.demo_bench/demo_0001",)
    assert table.correct.all()
    assert table.answers[0, 0] == "4"


# --- promptfoo ------------------------------------------------------------------------------------


def test_promptfoo_labels_come_from_the_assertions_about_quality(tmp_path):
    table = load(logs.promptfoo(tmp_path))
    order = [table.models.index(model) for model in MODELS]
    assert (table.correct[:, order] == RIGHT).all()
    assert table.label_rule == "all assertions but those of cost, latency pass"
    assert table.ids == ("test 0", "test 1", "test 2", "test 3")
    assert table.texts == tuple(QUESTIONS)
    assert (table.cost[:, 0] == [0.25, 1.25, 2.25, 3.25]).all()
    assert (table.tokens[:, 0] == [5, 6, 7, 8]).all()
    # With cost and latency the right answers that came late are wrong, as `success` says.
    assert not load(logs.promptfoo(tmp_path), ignore=[]).correct.any()


def test_promptfoo_scores_are_means_by_weight(tmp_path):
    def change(export):
        parts = export["results"]["results"][0]["gradingResult"]["componentResults"]
        parts[2]["assertion"]["weight"] = 3
        parts[3]["assertion"]["weight"] = 0

    path = edited(logs.promptfoo(tmp_path), change)
    table = read_promptfoo(path, label_rule="score > 0.85")
    first = table.models.index(MODELS[1])
    assert table.graded[0, first] == 1.0  # the rubric of 0.8 has no weight
    assert table.graded[1, first] == pytest.approx(0.9)


def test_promptfoo_test_thresholds_and_sets_of_assertions(tmp_path):
    def change(export):
        result = export["results"]["results"][0]
        result["testCase"]["threshold"] = 0.4
        parts = result["gradingResult"]["componentResults"]
        parts[2] |= {"pass": False, "score": 0}
        inner = [dict(parts[1]), dict(parts[2])]
        parts[2] = {"pass": False, "score": 0, "componentResults": inner}

    table = read_promptfoo(edited(logs.promptfoo(tmp_path), change))
    assert table.correct[0, table.models.index(MODELS[1])]  # (0 + 0.8) / 2 reaches 0.4


def test_promptfoo_errors_of_a_provider_are_no_answers(tmp_path):
    def change(export):
        result = export["results"]["results"][0]
        result |= {"failureReason": 2, "gradingResult": None, "response": None, "cost": 0}

    path = edited(logs.promptfoo(tmp_path), change)
    with pytest.raises(DataError, match="1 of 8 are missing"):
        read_promptfoo(path)
    assert read_promptfoo(path, missing="keep").missing.sum() == 1


def test_promptfoo_repeats_are_attempts(tmp_path):
    results = [logs.promptfoo_result(0, 0, test) for test in (0, 1)]
    results[1]["gradingResult"]["componentResults"][2]["pass"] = False
    path = logs.promptfoo(tmp_path, results)
    with pytest.raises(DataError, match="one attempt of each question, got 2 for 'test 0'"):
        read_promptfoo(path)
    assert read_promptfoo(path, attempt=1).correct.all()
    assert not read_promptfoo(path, attempt=2).correct.any()


def test_promptfoo_tells_prompts_and_labels_apart(tmp_path):
    results = [logs.promptfoo_result(i, 0) for i in range(2) for _ in range(4)]
    for number, result in enumerate(results):
        result["promptId"] = f"p{number % 2}"
        result["provider"]["label"] = f"temperature {number // 2 % 2}"
    table = read_promptfoo(logs.promptfoo(tmp_path, results))
    assert table.models == (f"{MODELS[0]} (temperature 0)", f"{MODELS[0]} (temperature 1)")
    assert table.ids == (
        "test 0, prompt 1",
        "test 0, prompt 2",
        "test 1, prompt 1",
        "test 1, prompt 2",
    )


def test_promptfoo_needs_an_assertion_about_quality(tmp_path):
    def change(export):
        parts = export["results"]["results"][0]["gradingResult"]["componentResults"]
        del parts[2:]

    path = edited(logs.promptfoo(tmp_path), change)
    with pytest.raises(DataError, match=r"about quality, got \['cost', 'latency'\]; .*ignore=\[\]"):
        read_promptfoo(path)
    path = edited(logs.promptfoo(tmp_path), lambda export: export["results"].update(version=2))
    with pytest.raises(DataError, match="of version 3"):
        read_promptfoo(path)


# --- HELM -----------------------------------------------------------------------------------------


def test_helm_joins_runs_by_scenario_and_instance(tmp_path):
    table = load(logs.helm(tmp_path))
    order = [table.models.index(model) for model in MODELS]
    group = "mmlu:subject=philosophy,method=multiple_choice_joint"
    assert (table.correct[:, order] == RIGHT).all()
    assert table.ids == tuple(f"{group}/{name}" for name in IDS)
    assert table.groups == (group,)
    assert table.texts == tuple(WITH_OPTIONS)
    assert table.label_rule == "exact_match = 1"
    assert (table.answers[:, order] == np.where(RIGHT, "B", "A")).all()
    whole = read_helm(tmp_path, whole_prompt=True)
    assert whole.texts[1].startswith("Shots.\n\n")


def test_helm_reads_the_metric_that_is_named(tmp_path):
    folder = logs.helm(tmp_path)
    assert load(folder, metric="quasi_exact_match").correct.all()
    with pytest.raises(DataError, match=r"row 1.*statistic 'f1', got \['exact_match'"):
        load(folder, metric="f1")
    graded = load(folder, metric="logprob", label_rule="score > -1")
    assert (graded.graded == -0.5).all()


def test_helm_trials_are_attempts_and_perturbed_copies_are_left_out(tmp_path):
    folder = logs.helm(tmp_path, trials=2, perturbed=True)
    with pytest.raises(DataError, match="one train trial of each question, got 2"):
        load(folder)
    first = load(folder, attempt=1)
    order = [first.models.index(model) for model in MODELS]
    assert (first.correct[:, order] == RIGHT).all()
    assert load(folder, attempt=2).correct.all()
    assert (load(folder, label_rule=RULE).graded[:, order] == (RIGHT + 1) / 2).all()
    assert sum("left out 8 perturbed instances" in note for note in first.notes) == 2


def test_helm_refuses_files_that_do_not_belong_together(tmp_path):
    stats = logs.helm_run(tmp_path)
    with pytest.raises(DataError, match="must be a run folder of HELM"):
        load(stats)
    edited(stats, lambda records: records[0].update(instance_id="id9"))
    with pytest.raises(DataError, match=r"row 1.*scenario_state\.json as well"):
        load(tmp_path)


def test_helm_reads_the_real_run(data_dir):
    table = load(data_dir / "logs" / "helm")
    assert table.models == ("openai/gpt2",)
    assert table.correct.mean() == 0.1
    assert table.texts[0].endswith("D. meaning in an afterlife")
