"""Results of routers' benchmarks.

LLMRouterBench, EmbedLLM, RouterArena, and the close calls of guessing.
"""

import json

import numpy as np
import pytest

from racer_jax.data import (
    DataError,
    guess,
    load,
    read_embedllm,
    read_llmrouterbench,
    read_routerarena,
    write_routerarena,
)
from tests.data import log_samples as logs
from tests.data import samples
from tests.data.samples import CORRECT, MODELS, QUESTIONS

RIGHT = np.array(CORRECT, dtype=bool)


def ordered(table):
    """Columns of the pool's models."""
    return [[name.replace("__", "/") for name in table.models].index(name) for name in MODELS]


def test_llmrouterbench_joins_files_by_dataset_split_and_index(tmp_path):
    table = load(logs.llmrouterbench(tmp_path))
    order = ordered(table)
    assert (table.correct[:, order] == RIGHT).all()
    assert table.ids == tuple(f"arc/test/{i}" for i in range(1, 5))
    assert table.texts == tuple(QUESTIONS)
    assert table.groups == ("arc",)
    assert (table.cost[:, 0] == [0.25, 1.25, 2.25, 3.25]).all()
    assert (table.tokens[:, 0] == [5, 6, 7, 8]).all()
    assert (table.answers[:, order] == np.array([["A0", "A1"]] * 4)).all()
    whole = read_llmrouterbench(tmp_path, whole_prompt=True)
    assert whole.texts[0].startswith("Question: ")


def test_llmrouterbench_reads_the_newest_whole_run(tmp_path):
    folder = logs.llmrouterbench(tmp_path)
    logs.llmrouterbench_file(tmp_path, 0, stamp="20250101_000000")
    logs.llmrouterbench_file(tmp_path, 0, stamp="20270101_000000", demo=True)
    table = load(folder)
    assert (table.correct[:, ordered(table)] == RIGHT).all()
    assert any("older than" in note for note in table.notes)
    assert any("a trial run" in note for note in table.notes)


def test_llmrouterbench_takes_names_from_the_path_where_the_file_has_none(tmp_path):
    path = logs.llmrouterbench_file(tmp_path)
    value = json.loads(path.read_text(encoding="utf-8"))
    for name in ("model_name", "dataset_name", "split"):
        del value[name]
    value["records"][0]["score"] = None
    path.write_text(json.dumps(value), encoding="utf-8")
    table = load(path, missing="keep")
    assert table.models == ("org__weak-7b",)
    assert table.ids[0] == "arc/test/1"
    assert table.missing[:, 0].tolist() == [True, False, False, False]


def test_embedllm_rows_become_a_table(tmp_path):
    table = load(logs.embedllm(tmp_path))
    assert table.models == tuple(MODELS)
    assert (table.correct == RIGHT).all()
    assert table.ids == ("0", "1", "2", "3")
    assert table.texts == tuple(QUESTIONS)
    assert table.group == ("g0", "g0", "g1", "g1")


def test_embedllm_repeated_rows_agree_or_are_judged_by_a_rule(tmp_path):
    table = read_embedllm(logs.embedllm(tmp_path, repeat=[(0, 0, 1)]))
    assert (table.correct == RIGHT).all()
    assert "1 pairs of prompt and model stand in several rows" in table.notes
    path = logs.embedllm(tmp_path, repeat=[(0, 0, 0), (1, 0, 1)])
    with pytest.raises(
        DataError, match=r"row 9 .*must agree .*'score > 0', which is what EmbedLLM does"
    ):
        read_embedllm(path)
    lenient = read_embedllm(path, label_rule="score > 0")
    assert lenient.correct[:, 0].tolist() == [True, True, False, True]
    assert lenient.graded[:2, 0].tolist() == [0.5, 0.5]


def test_embedllm_refuses_a_prompt_with_two_texts(tmp_path):
    path = logs.embedllm(tmp_path)
    text = path.read_text(encoding="utf-8").replace("spider", "beetle", 1)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"row 2 .*same in every row of prompt_id '0'"):
        load(path)


def test_routerarena_joins_the_cached_results_of_models(tmp_path):
    table = load(logs.routerarena(tmp_path))
    assert (table.correct[:, ordered(table)] == RIGHT).all()
    assert table.ids == tuple(f"arc_{i}" for i in range(4))
    assert table.groups == ("arc",)
    assert (table.cost[:, 0] == [0.25, 1.25, 2.25, 3.25]).all()
    assert table.answers[0, ordered(table)[1]] == "A1"


def test_routerarena_predictions_hold_one_model_a_question(tmp_path):
    path = logs.routerarena_predictions(tmp_path)
    with pytest.raises(DataError, match="4 of 8 are missing"):
        load(path)
    table = load(path, missing="keep")
    assert table.correct.sum() == 2
    assert guess(path) == "routerarena"


def test_routerarena_says_that_answers_were_not_judged(tmp_path):
    record = logs.routerarena_record(0, 0)
    del record["evaluation_result"]
    path = tmp_path / "model.jsonl"
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(DataError, match=r"run llm_evaluation/run\.py"):
        read_routerarena(path)


def test_a_set_is_reduced_to_one_model_for_routerarena(tmp_path):
    path = tmp_path / "router.json"
    called = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]], dtype=bool)
    scores = np.array([[0.1, 0.1, 0.9], [0.2, 0.3, 0.1], [0.9, 0.5, 0.6], [0.0, 0.9, 0.9]])
    models = ["a", "b", "c"]
    empty = write_routerarena(path, list("wxyz"), QUESTIONS, models, called, scores)
    entries = json.loads(path.read_text(encoding="utf-8"))
    assert empty == 1
    assert [entry["prediction"] for entry in entries] == ["a", "b", "c", "a"]
    assert entries[0] == {
        "global index": "w",
        "prompt": QUESTIONS[0],
        "prediction": "a",
        "generated_result": None,
        "cost": None,
        "accuracy": None,
        "for_optimality": False,
    }
    # Of the models called, the cheapest.
    write_routerarena(path, list("wxyz"), QUESTIONS, models, called, [-2.0, -1.0, -3.0])
    entries = json.loads(path.read_text(encoding="utf-8"))
    assert [entry["prediction"] for entry in entries] == ["b", "b", "b", "a"]


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"path": "router.csv"}, ValueError, "must end in .json"),
        ({"called": np.zeros((4, 2))}, TypeError, "must be boolean"),
        ({"called": np.zeros((4, 3), bool)}, ValueError, r"shape \(4, 2\)"),
        ({"preference": np.zeros(3)}, ValueError, "preference must be finite and have shape"),
        ({"preference": [np.nan, 0]}, ValueError, "preference must be finite"),
    ],
)
def test_routerarena_predictions_check_their_arguments(tmp_path, change, error, match):
    options = {"path": "router.json", "ids": list("wxyz"), "texts": QUESTIONS, "models": ["a", "b"]}
    options |= {"called": np.ones((4, 2), bool), "preference": np.zeros((4, 2))} | change
    options["path"] = tmp_path / options["path"]
    with pytest.raises(error, match=match):
        write_routerarena(**options)
    assert not options["path"].exists()


SINGLE = {
    "embedllm": logs.embedllm,
    "every_eval_ever": logs.every_eval_ever_file,
    "helm": logs.helm_run,
    "inspect": logs.inspect_json,
    "llmrouter": samples.llmrouter,
    "llmrouterbench": logs.llmrouterbench_file,
    "promptfoo": logs.promptfoo,
    "routellm": samples.routellm,
    "routerarena": logs.routerarena_file,
    "routerdc": samples.routerdc,
}
FOLDERS = {
    "every_eval_ever": logs.every_eval_ever,
    "helm": logs.helm,
    "inspect": logs.inspect_logs,
    "llmrouterbench": logs.llmrouterbench,
    "lm_eval": samples.lm_eval,
    "routerarena": logs.routerarena,
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_file_is_recognised_for_what_it_is(tmp_path, name):
    assert guess(SINGLE[name](tmp_path)) == name


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_recognised_for_what_it_is(tmp_path, name):
    assert guess(FOLDERS[name](tmp_path)) == name


def test_large_json_is_recognised_by_its_head(tmp_path, monkeypatch):
    monkeypatch.setattr("racer_jax.data.formats._heads.HEAD", 300)
    for name in ("inspect", "promptfoo", "llmrouterbench"):
        assert guess(SINGLE[name](tmp_path)) == name
