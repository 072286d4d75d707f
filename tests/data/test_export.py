"""Predictions as CSV and as JSON lines: the same facts in both."""

import csv
import json

import numpy as np
import pytest

from racer_jax.data import write_predictions

IDS, MODELS = ["q1", "q,2\r", "q3"], ["a", "b;c"]
CALLED = np.array([[True, True], [False, False], [False, True]])
ANSWERS = ["42", None, None]


def rows_of(path):
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update(
            models=json.loads(row["models"]),
            num_models=int(row["num_models"]),
            abstained=row["abstained"] == "1",
        )
        if "answer" in row:
            row["answer"] = row["answer"] or None
    return rows


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_one_row_for_each_query(tmp_path, suffix):
    path = tmp_path / f"predictions{suffix}"
    write_predictions(path, IDS, MODELS, CALLED, ANSWERS)
    assert rows_of(path) == [
        {
            "query_id": "q1",
            "models": ["a", "b;c"],
            "num_models": 2,
            "abstained": False,
            "answer": "42",
        },
        {"query_id": "q,2\r", "models": [], "num_models": 0, "abstained": True, "answer": None},
        {"query_id": "q3", "models": ["b;c"], "num_models": 1, "abstained": True, "answer": None},
    ]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_without_answers_only_an_empty_set_abstains(tmp_path, suffix):
    path = tmp_path / f"predictions{suffix}"
    write_predictions(path, IDS, MODELS, CALLED)
    assert [row["abstained"] for row in rows_of(path)] == [False, True, False]
    assert "answer" not in rows_of(path)[0]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"path": "a.txt"}, ValueError, r"path must end in \.csv, \.jsonl or \.parquet"),
        ({"called": CALLED.astype(int)}, TypeError, "called must be boolean, got dtype int64"),
        (
            {"called": CALLED[:2]},
            ValueError,
            r"called must have shape \(3, 2\) for ids and models, got \(2, 2\)",
        ),
        (
            {"answers": ["x"]},
            ValueError,
            "answers must hold one answer for each of the 3 ids, got 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, changes, error, message):
    options = {
        "path": "a.csv",
        "ids": IDS,
        "models": MODELS,
        "called": CALLED,
        "answers": ANSWERS,
    } | changes
    options["path"] = tmp_path / options["path"]
    with pytest.raises(error, match=message):
        write_predictions(**options)
