"""RouterBench's CSV: rows joined, prompts cut to their last question, answers and costs."""

import numpy as np
import pytest

from racer_jax.data import DataError, read_routerbench
from tests.data import samples

CORRECT = np.array(samples.CORRECT, bool)


def put(folder, text, name="data.csv"):
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_routerbench(tmp_path):
    table = read_routerbench(samples.routerbench(tmp_path))
    assert table.ids == tuple(samples.IDS)
    assert table.texts == tuple(f"{text}\nAnswer:" for text in samples.QUESTIONS)
    np.testing.assert_array_equal(table.correct, CORRECT)
    assert table.answers.tolist() == [["A" if c else None for c in row] for row in CORRECT]
    assert table.cost.tolist() == [[0.5, 0.25]] * 4
    assert table.group == ("arc-challenge",) * 4


def test_routerbench_whole_prompts_and_free_answers(tmp_path):
    table = read_routerbench(samples.routerbench(tmp_path), whole_prompt=True, multiple_choice=[])
    assert table.texts[0].startswith("What is 1 + 1?\nAnswer:\nB\n\n")
    assert table.answers[2].tolist() == ["I do", "I do"]


def test_the_real_routerbench(data_dir):
    table = read_routerbench(data_dir / "routerbench")
    assert len(table) == 1470
    assert table.notes[0] == "joined 14 repeated rows: 1484 rows are 1470 questions"
    assert table.missing is None
    accuracy = dict(zip(table.models, table.correct.mean(axis=0).round(3).tolist(), strict=True))
    assert accuracy["gpt-4-1106-preview"] == 0.954
    missing = np.equal(table.answers, None).mean(axis=0)
    refusals = dict(zip(table.models, missing.round(2).tolist(), strict=True))
    assert refusals["claude-v2"] == 0.38
    assert refusals["gpt-4-1106-preview"] == 0
    letters = set(table.answers.reshape(-1)) - {None}
    assert letters == set("ABCDE")
    for labels, answers in zip(table.correct, table.answers, strict=True):
        right = {a for a, c in zip(answers, labels, strict=True) if c} - {None}
        assert not right & {a for a, c in zip(answers, labels, strict=True) if not c}
    # The row that holds both prompts holds twice the price; the cost is that of one call.
    twice = table.ids.index("arc-challenge.val.172")
    assert table.cost[twice, table.models.index("gpt-3.5-turbo-1106")] == 0.00048499999999999997


def test_the_files_of_routerbench_need_each_other(data_dir):
    path = data_dir / "routerbench" / "arc_challenge_test.csv"
    with pytest.raises(DataError, match="51 of 4884 are missing"):
        read_routerbench(path)
    assert len(read_routerbench(path, missing="drop")) == 438


BENCH = (
    "sample_id,prompt,eval_name,m,k,m|model_response,m|total_cost,k|total_cost,"
    "oracle_model_to_route_to\n"
)


def bench(*rows):
    return BENCH + "".join(row + ",m\n" for row in rows)


def test_complementary_rows_are_joined(tmp_path):
    text = bench(
        "a,\"['1?', '1?']\",arc-challenge,,0,['A'],0.2,0.4",
        "a,['1?'],arc-challenge,1,,['B)\\n'],0.1,0.3",
    )
    table = read_routerbench(put(tmp_path, text))
    assert table.correct.tolist() == [[True, False]]
    assert table.answers.tolist() == [["B", None]]
    assert table.cost.tolist() == [[0.1, 0.3]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["a,1?,g,1,0,A,0,0", "a,1?,g,0,,A,0,0"],
            "row 2, field 'm': must not contradict .*, got 0 after 1",
        ),
        (
            ["a,1?,g,1,0,A,0,0", "a,2?,g,1,0,A,0,0"],
            "row 2, field 'prompt': must be the same in all rows",
        ),
        (["a,1?,g,1,0,A,0,0", "a,1?,h,1,0,A,0,0"], "row 2, field 'eval_name': must be the same"),
        (
            ["a,1?,g,0.5,0,A,0,0"],
            "row 1 .*field 'm': must be 0/1 .* for graded scores pass, for example: label_rule",
        ),
        ([",1?,g,1,0,A,0,0"], "row 1 .*field 'sample_id': must not be empty"),
        (["a,1?,,1,0,A,0,0"], "row 1 .*field 'eval_name': must not be empty"),
        (
            ["a,['1?,g,1,0,A,0,0"],
            "row 1 .*field 'prompt': must be a text or a Python list of texts",
        ),
        (["a,[],g,1,0,A,0,0"], "row 1 .*field 'prompt': must be a text or a Python list of texts"),
        (["a,1?,g,1,0,A,x,0"], "row 1 .*field 'm|total_cost': must be a number of at least 0"),
    ],
)
def test_routerbench_rows_that_are_wrong(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        read_routerbench(put(tmp_path, bench(*rows)))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("sample_id,prompt,m,m|total_cost", "field 'eval_name': must be a column"),
        (
            "sample_id,prompt,eval_name,m",
            "must hold columns <model>.model_response or <model>.total_cost, got none",
        ),
        ("sample_id,prompt,eval_name,k|total_cost,m", "field 'k': must be a column"),
    ],
)
def test_routerbench_headers_that_are_wrong(tmp_path, header, message):
    with pytest.raises(DataError, match=message):
        read_routerbench(put(tmp_path, header + "\n"))


def test_a_model_without_answers_and_costs_is_not_taken_for_one_and_named(tmp_path):
    rows = "sample_id,prompt,eval_name,m,new,m|total_cost,o\na,1?,g,1,1,0,\n"
    table = read_routerbench(put(tmp_path, rows.replace(",o\n", ",oracle_model_to_route_to\n")))
    assert table.models == ("m",)
    assert table.notes[-1] == "ignored columns 'new'"


def test_routerbench_graded_scores_and_other_folders(tmp_path):
    put(tmp_path, bench("a,1?,mtbench,0.9,0.2,A,0,0"))
    table = read_routerbench(tmp_path, label_rule="score >= 0.9")
    assert table.correct.tolist() == [[True, False]]
    assert table.graded.tolist() == [[0.9, 0.2]]
    put(tmp_path, "sample_id,prompt,eval_name,m,m|total_cost,o\nb,1?,g,1,0,\n", "z.csv")
    with pytest.raises(
        DataError, match=r"z\.csv, field 'k': must hold the models of the first file, lacks 'k'"
    ):
        read_routerbench(tmp_path, label_rule="score >= 0.9")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"must hold \.csv files, got none"):
        read_routerbench(tmp_path / "empty")
