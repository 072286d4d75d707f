"""Tiny runs of what promises cost in size and in dollars, and their files."""

import csv
import json

import numpy as np
import pytest

from experiments import dollars, promises
from racer_jax.data import RoutingTable

FEW = ["--queries", "150", "--neighbors", "20"]


@pytest.mark.long
def test_promises_are_kept_and_cost_more_the_sharper_they_are(tmp_path, capsys):
    status = promises.main(
        [*FEW, "--alphas", "0.1,0.3", "--deltas", "0.2,0.01", "--output", str(tmp_path)]
    )
    printed = capsys.readouterr().out
    assert status == 0
    assert "PASS" in printed
    assert (tmp_path / "promises.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((tmp_path / "results.json").read_text())["results"]
    cells = {(r["benchmark"], r["score"], r["promise"], r["alpha"]): r for r in result["promised"]}
    for (benchmark, score, promise, alpha), cell in cells.items():
        assert cell["risk"] <= float(alpha) + 1e-9
        if promise == "surely, delta = 0.01":
            looser = [
                cells[benchmark, score, p, alpha] for p in ("on average", "surely, delta = 0.2")
            ]
            assert cell["size"] >= looser[1]["size"] >= looser[0]["size"]
            assert cell["chance_above"] <= 0.01
    for row in result["grouped"]:
        if row["calibration"] == "by group" or row["benchmark"] == "all":
            assert row["risk"] <= float(row["alpha"]) + 1e-9
    pooled = [
        r["risk"] for r in result["grouped"] if r["calibration"] == "pooled" and r["alpha"] == "0.1"
    ]
    assert max(pooled) > 0.11
    for row in result["capped"]:
        size = np.array(row["size"], float)
        assert (np.isnan(size) | (size <= row["most"])).all()
    caps = [
        r["attainable"]
        for r in result["capped"]
        if (r["benchmark"], r["score"]) == ("mmlu", "J blend")
    ]
    assert (np.diff(caps) <= 1e-12).all()
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"on average", "pooled", "by group"} <= {row["promise"] for row in rows}


@pytest.mark.long
@pytest.mark.parametrize("null", [pytest.param("paper", marks=pytest.mark.slow), "never"])
def test_the_other_null_modes_run(null, tmp_path, capsys):
    assert promises.main([*FEW, "--null", null, "--alphas", "0.3", "--output", str(tmp_path)]) == 0
    assert f"null mode '{null}'" in capsys.readouterr().out


@pytest.mark.long
def test_dollars_are_what_the_called_answers_cost(tmp_path, capsys):
    options = [
        "--alphas",
        "0.1,0.3",
        "--budgets",
        "0.1,0.4",
        "--splits",
        "20",
        "--output",
        str(tmp_path),
    ]
    assert dollars.main([*FEW, *options]) == 0
    assert "PASS" in capsys.readouterr().out
    assert (tmp_path / "dollars.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((tmp_path / "results.json").read_text())["results"]
    for row in result["by_alpha"]:
        spent = np.array(row["dollars"], float)
        assert (np.diff(spent) <= 1e-12).all()
        assert (spent <= result["full"][row["benchmark"]]).all()
    mean = {
        score: np.mean([row["dollars"][0] for row in result["by_alpha"] if row["score"] == score])
        for score in ("static", "static, cost-aware")
    }
    assert mean["static, cost-aware"] < mean["static"]
    assert len(result["by_budget"]) == 4 * 5 * 2


def test_cumulative_cost_follows_the_order():
    nonconformity = np.array([[0.5, 0.1, 0.5, -np.inf]])
    ties = np.array([[2, 0, 1, 0]], np.uint32)
    actual = dollars.cumulative(nonconformity, ties, np.array([[1.0, 10.0, 100.0]]))
    assert actual.tolist() == [[0.0, 10.0, 110.0, 111.0]]


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (None, "it has no costs"),
        ([[1.0, np.nan]], "1 are not known, the first for query 'q' and model 'y'"),
    ],
)
def test_costs_that_are_not_known_are_named(cost, message):
    table = RoutingTable(ids=["q"], texts=["?"], models=["x", "y"], correct=[[1, 0]], cost=cost)
    with pytest.raises(ValueError, match=message):
        dollars.known_costs(table)


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (promises.main, ["--deltas", "a"], "--deltas must be numbers like 0.1,0.05, got 'a'"),
        (promises.main, ["--deltas", "2"], "--deltas must be in (0, 1), got 2.0"),
        (promises.main, ["--share", "1"], "--share must be in (0, 1), got 1.0"),
        (dollars.main, ["--splits", "1"], "--splits must be at least 2, got 1"),
        (dollars.main, ["--budgets", "2"], "--budgets must be shares above 0 and below 1"),
    ],
)
def test_usage_errors_are_named(main, arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_data_that_is_not_there_is_one_line(tmp_path, capsys):
    assert promises.main(["--data", str(tmp_path / "nothing.csv")]) == 2
    assert "nothing.csv" in capsys.readouterr().err
