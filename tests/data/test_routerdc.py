"""RouterDC's JSON, against the figures its files are known to hold."""

import json

import jax
import numpy as np
import pytest

from racer_jax.data import DataError, read_routerdc, read_routerdc_parts

RECORD = {"question": "1 + 1?", "scores": {"a": 0.6, "b": 0}}


def write(folder, records, name="mmlu_test.json"):
    path = folder / name
    path.write_text(records if isinstance(records, str) else json.dumps(records), encoding="utf-8")
    return path


def test_the_pool_of_the_paper(data_dir):
    train, test = read_routerdc_parts(data_dir / "routerdc")
    assert test.groups == ("gsm8k", "mmlu", "cmmlu", "arc_challenge")
    rates, sizes = {}, {}
    for group in test.groups:
        part = test.select(group=group)
        rates[group] = round(float((~part.correct.any(axis=1)).mean()), 3)
        sizes[group] = (len(part), len(train.select(group=group)))
    assert rates == {"gsm8k": 0.162, "mmlu": 0.147, "cmmlu": 0.204, "arc_challenge": 0.276}
    assert sizes == {
        "gsm8k": (1319, 1000),
        "mmlu": (4213, 2000),
        "cmmlu": (3475, 2000),
        "arc_challenge": (352, 820),
    }
    mmlu = test.select(group="mmlu")
    accuracy = dict(zip(mmlu.models, mmlu.correct.mean(axis=0).round(3).tolist(), strict=True))
    assert accuracy["mistralai/Mistral-7B-v0.1"] == 0.621
    assert accuracy["HuggingFaceH4/zephyr-7b-beta"] == 0.598
    assert accuracy["meta-llama/Meta-Llama-3-8B"] == 0.646
    assert len(np.unique(mmlu.question_ids)) == 4205  # eight questions stand twice
    assert test.label_rule["gsm8k"] == "score > 0.5"
    assert mmlu.label_rule == "score > 0"


@pytest.mark.parametrize(
    ("rule", "rate"), [("score > 0", 0.045), ("score > 0.5", 0.162), ("score >= 1", 0.325)]
)
def test_the_label_rule_moves_the_all_wrong_rate(data_dir, rule, rate):
    table = read_routerdc(data_dir / "routerdc" / "gsm8k-test.json", label_rule=rule)
    assert (~table.correct.any(axis=1)).mean() == pytest.approx(rate, abs=6e-4)
    assert table.label_rule == rule


def test_one_attempt_is_drawn_with_the_key(data_dir):
    path = data_dir / "routerdc" / "gsm8k-test.json"
    first = read_routerdc(path, label_rule="one attempt", key=jax.random.key(3))
    again = read_routerdc(path, label_rule="one attempt", key=jax.random.key(3))
    np.testing.assert_array_equal(first.correct, again.correct)
    assert first.correct[first.graded == 0].sum() == 0
    assert first.correct[first.graded == 1].all()
    error = np.sqrt((first.graded * (1 - first.graded)).sum()) / first.graded.size
    assert abs(first.correct.mean() - first.graded.mean()) < 5 * error


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ("", "mmlu_test.json: must not be empty"),
        ("[{", r"mmlu_test.json, row 1 \(line 1\): must be JSON"),
        ("[" * 100_000, "nested less deeply"),
        ("{}", "must be a JSON list of objects, got dict"),
        ("[]", "at least one record"),
        ([RECORD, 3], "row 2: must be an object, got 3"),
        ([RECORD, {"question": 3, "scores": {}}], "row 2, field 'question': must be a text, got 3"),
        ([RECORD, {"question": "x"}], "row 2, field 'scores': must be an object, got null"),
        ([RECORD, {"question": "x", "scores": {"a": 1}}], "row 2, field 'scores': .* lacks 'b'"),
        (
            [RECORD, {"question": "x", "scores": {"a": 1, "b": 1, "c": 1}}],
            "row 2, field 'scores': .* adds 'c'",
        ),
        (
            [RECORD, {"question": "x", "scores": {"a": 1, "b": "1"}}],
            r"row 2, field 'scores.b': .* got \"1\"",
        ),
        (
            [RECORD, {"question": "x", "scores": {"a": 1, "b": True}}],
            "row 2, field 'scores.b': .* got true",
        ),
        (
            [RECORD, {"question": "x", "scores": {"a": 1, "b": 1.5}}],
            "row 2, field 'scores.b': .* got 1.5",
        ),
        (
            [RECORD, {"question": "x", "scores": {"a": 1, "b": float("nan")}}],
            "row 2, field 'scores.b': .* got NaN",
        ),
        ([RECORD, {"question": "x", "scores": {"a": 1, "b": 10**400}}], "row 2, field 'scores.b'"),
        (
            '[{"question": "x", "scores": {"a": 1, "a": 0}}]',
            "row 1, field 'scores.a': must be named once",
        ),
        (
            '[{"question": "x", "question": "y", "scores": {}}]',
            "row 1, field 'question': must be named once",
        ),
        (
            [{"question": "\ud800", "scores": {"a": 1}}],
            "row 1, field 'question': must be text that UTF-8 can write",
        ),
        (
            [{"question": "x", "scores": {"\ud800": 1}}],
            "must hold a valid table: models must be text that UTF-8 can",
        ),
        ([{"question": "x", "scores": {}}], "row 1, field 'scores': must name at least one model"),
    ],
)
def test_malformed_files_are_refused_with_file_row_and_field(tmp_path, records, message):
    with pytest.raises(DataError, match=message):
        read_routerdc(write(tmp_path, records))


def test_not_utf8_is_refused_with_its_line(tmp_path):
    path = tmp_path / "mmlu_test.json"
    path.write_bytes(b"[\n\xff]")
    with pytest.raises(DataError, match="line 2: must be UTF-8, got byte 0xff at offset 2"):
        read_routerdc(path)


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="file not found"):
        read_routerdc(tmp_path / "mmlu_test.json")


def test_models_are_matched_by_name_across_files(tmp_path):
    write(tmp_path, [RECORD])
    write(tmp_path, [{"question": "2 + 2?", "scores": {"b": 0.9, "a": 0}}], "cmmlu_test.json")
    table = read_routerdc(tmp_path)
    assert table.models == ("a", "b")
    assert table.correct.tolist() == [[True, False], [False, True]]


def test_a_benchmark_without_a_default_rule_must_be_given_one(tmp_path):
    path = write(tmp_path, [RECORD], "humaneval_test.json")
    with pytest.raises(ValueError, match="must have a label rule for benchmark 'humaneval'"):
        read_routerdc(path)
    assert read_routerdc(path, label_rule="score >= 0.6").correct.tolist() == [[True, False]]


def test_a_folder_without_files_and_a_wrong_part_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"must hold files named <benchmark>_test\.json"):
        read_routerdc(tmp_path)
    with pytest.raises(ValueError, match="part must be 'train' or 'test', got 'dev'"):
        read_routerdc(tmp_path, part="dev")
    with pytest.raises(ValueError, match="must be a single file to name its benchmark"):
        read_routerdc(tmp_path, group="mmlu")
