"""Logs of lm-evaluation-harness as people send them: prompts of many kinds, and odd metrics."""

import json

import pytest

from racer_jax.data import DataError, load, read_lm_eval
from racer_jax.data.formats._lm_eval_text import text_of
from tests.data.test_logs_told_apart import FIRST, choices, rows, write_log, write_report

CHAT = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q?"}]


@pytest.mark.parametrize(
    "prompt",
    [
        {"messages": CHAT},
        json.dumps({"messages": CHAT}),
        str(CHAT),
        [str(CHAT)],
        [{"role": "user", "content": [{"type": "image_url"}, {"type": "text", "text": "Q?"}]}],
        [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": ""}],
        [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "A."}],
        [{"role": "user", "parts": [{"text": "Q?"}]}, {"role": "model", "parts": []}],
        [
            {"role": "User", "content": ["Q?"]},
            {"role": "assistant", "tool_calls": [], "content": None},
        ],
        ["Q?"],
    ],
)
def test_prompts_of_chats_in_many_spellings(prompt):
    arguments = {"gen_args_0": {"arg_0": prompt, "arg_1": {}}}
    assert text_of({"doc": {"x": 1}, "arguments": arguments}) == "Q?"


@pytest.mark.parametrize("prompt", ["[not a list", "{'a': 1}", "[1, 2]", "", "['role' in x]"])
def test_prompts_that_only_look_like_chats_are_texts(prompt):
    arguments = [[prompt, {"until": []}]]
    assert text_of({"doc": None, "arguments": arguments}) == prompt


@pytest.mark.parametrize(
    ("doc", "text"),
    [
        ({"Question": "Q?", "Options": ["x", "y"]}, "Q?\nA. x\nB. y"),
        ({"QUESTION": "Q?", "ARTICLE": "A."}, "A.\nQ?"),
        ({"flores_passage": "P.", "question": "Q?", "mc_answer1": "x", "mc_answer2": "y"}, "P.\nQ?\nA. x\nB. y"),
        ({"sentence": "The _ ran.", "option1": "x", "option2": "y"}, "The _ ran.\nA. x\nB. y"),
        ({"question": "Q?", "option_b": "y", "option_a": "x"}, "Q?\nA. x\nB. y"),
        ({"question": "Q?", "Choice 1": "x", "Choice 2": "y"}, "Q?\nA. x\nB. y"),
        ({"question": "Q?", "A": "x", "B": "y", "C": "z"}, "Q?\nA. x\nB. y\nC. z"),
        ({"question": "Q?", "choices": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]}, "Q?\na. x\nb. y"),
        ({"question": "Q?", "candidates": ["x"] * 27}, "Q?\n" + "\n".join(f"{i}. x" for i in range(1, 28))),
        ({"question": "Q?", "evidence": ["e1", "e2"], "text": "T."}, "e1\ne2\nT.\nQ?"),
        ({"question": "Q?", "context": "Q?"}, "Q?"),
        ({"question": " ", "query": "Q?"}, "Q?"),
        ({"question": "Q?", "answer1": "gold", "answer2": "gold"}, "Q?"),
        ({"question": "Q?", "choices": []}, "Q?"),
    ],
)  # fmt: skip
def test_passages_and_options_under_other_names(doc, text):
    assert text_of({"doc": doc, "arguments": None}) == text


def test_questions_that_differ_in_their_passage_alone_are_two(tmp_path):
    records = list(rows([1.0, 0.0]))
    for i, record in enumerate(records):
        record["doc"] = {"passage": f"Passage {i}.", "question": "Which is right?"}
    write_log(tmp_path / "m", "toy", FIRST, records)
    table = read_lm_eval(tmp_path / "m")
    assert len(set(table.question_ids.tolist())) == 2


@pytest.mark.parametrize("metric", [None, "acc", "bypass"])
def test_bypass_is_explained_whatever_is_passed(tmp_path, metric):
    records = [row | {"metrics": ["bypass"], "bypass": 999} for row in rows([1.0], metric="x")]
    for record in records:
        del record["x"]
    write_log(tmp_path / "m", "toy", FIRST, records)
    with pytest.raises(DataError, match="--predict_only, which scores nothing; run it without"):
        read_lm_eval(tmp_path / "m", metric=metric)


def test_a_log_without_a_metric_says_so(tmp_path):
    write_log(tmp_path / "m", "toy", FIRST, rows([1.0], metrics=[]))
    records = [{k: v for k, v in row.items() if k != "exact_match"} for row in rows([1.0])]
    write_log(tmp_path / "m", "toy", FIRST, [row | {"metrics": []} for row in records])
    with pytest.raises(DataError, match="must name a metric, got none: the run scored nothing"):
        read_lm_eval(tmp_path / "m")


def test_a_graded_acc_norm_needs_no_text_of_the_choices(tmp_path):
    """What a metric of 0 and 1 is checked by does not hold of a graded one."""
    records = [row | {"metrics": ["acc_norm"], "acc_norm": 0.6} for row in choices(0.6)]
    for record in records:
        del record["acc"]
        record["arguments"] = {}
    write_log(tmp_path / "m", "toy", FIRST, records)
    table = read_lm_eval(tmp_path / "m", label_rule="score > 0.5")
    assert table.correct.tolist() == [[True]]
    assert table.answers is None
    assert any(note.startswith("answers of toy were left out") for note in table.notes)


@pytest.mark.parametrize("value", ["NaN", "null"])
@pytest.mark.parametrize("rule", [None, "score > 0.5"])
def test_a_metric_nobody_knows_is_missing_under_any_rule(tmp_path, value, rule):
    path = write_log(tmp_path / "m", "toy", FIRST, rows([7.0, 1.0]))
    path.write_text(path.read_text().replace('"exact_match": 7.0', f'"exact_match": {value}'))
    write_report(
        tmp_path / "m", f"results_{FIRST}.json", "m", results={"toy": {"exact_match,none": 0.3}}
    )
    with pytest.raises(DataError, match="1 of 2 are missing"):
        read_lm_eval(tmp_path / "m", label_rule=rule)
    table = read_lm_eval(tmp_path / "m", label_rule=rule, missing="drop")
    assert table.ids == ("toy/1",)


@pytest.mark.parametrize("field", ["exact_match", "doc_id", "filtered_resps", "target"])
def test_an_integer_of_5000_digits_is_refused_with_file_and_row(tmp_path, field):
    path = write_log(tmp_path / "m", "toy", FIRST, [*rows([1.0, 1.0, 1.0])])
    lines = path.read_text().splitlines()
    record = json.loads(lines[2]) | {field: "HERE"}
    lines[2] = json.dumps(record).replace('"HERE"', "9" * 5000)
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"{path.name}, row 3 .*more than 4300 digits"):
        load(tmp_path / "m")


def test_a_number_of_a_question_beyond_64_bits_is_refused(tmp_path):
    records = list(rows([1.0]))
    records[0]["doc_id"] = 2**70
    write_log(tmp_path / "m", "toy", FIRST, records)
    with pytest.raises(
        DataError, match="field 'doc_id': must be a whole number of at most 64 bits"
    ):
        load(tmp_path / "m")
