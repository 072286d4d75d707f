"""Tiny runs of every table and figure of the paper."""

import csv
import json

import numpy as np
import pytest

from experiments import (
    accuracy_table,
    ensemble_tradeoff,
    histograms,
    paper,
    risk_table,
    selection_heatmap,
    set_size,
)
from racer_jax.data import save
from tests.studies.test_benchmarks import MODELS, table

pytestmark = pytest.mark.long

VOTES = (accuracy_table, ensemble_tradeoff, selection_heatmap)
PICTURES = {
    risk_table: "risk.png",
    histograms: "histograms.png",
    set_size: "size.png",
    accuracy_table: "accuracy.png",
    ensemble_tradeoff: "tradeoff.png",
    selection_heatmap: "heatmap.png",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The two corpora in small.

    RouterDC's JSON with correctness alone, RouterBench's CSV with answers and costs.
    """
    root = tmp_path_factory.mktemp("corpora")
    for part in ("routerdc", "routerbench"):
        (root / part).mkdir()
    for part, num, seed in (("train", 60, 3), ("test", 80, 4)):
        rows = table(num, seed)
        records = [
            {
                "question": f"{part} {text}",
                "scores": dict(zip(MODELS, map(float, right), strict=True)),
            }
            for text, right in zip(rows.texts, rows.correct, strict=True)
        ]
        (root / "routerdc" / f"arc_challenge_{part}.json").write_text(json.dumps(records))
    rows = table(100, 5)
    columns = ["sample_id", "prompt", "eval_name", *MODELS]
    columns += [f"{model}|{what}" for what in ("model_response", "total_cost") for model in MODELS]
    letters = {"right": "A", "x": "B", "y": "C", None: "I do not know"}
    with (root / "routerbench" / "tiny.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for i, (name, text) in enumerate(zip(rows.ids, rows.texts, strict=True)):
            replies = [str([letters[answer]]) for answer in rows.answers[i]]
            writer.writerow(
                [
                    name,
                    f"{text} {i}",
                    "arc-challenge",
                    *rows.correct[i].astype(float),
                    *replies,
                    *rows.cost[i],
                ]
            )
    return root


def read_rows(folder):
    """The lines of `results.csv`."""
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# The run of the whole paper goes through all six; each command by itself compiles anew.
ALONE = [
    module if module is set_size else pytest.param(module, marks=pytest.mark.slow)
    for module in PICTURES
]


@pytest.mark.parametrize("module", ALONE, ids=lambda module: module.__name__.split(".")[1])
def test_each_runs_on_any_table(module, tmp_path, capsys):
    save(table(120, groups=("maths",)), tmp_path / "logs.npz")
    arguments = ["--data", str(tmp_path / "logs.npz"), "--routers", "knn", "--neighbors", "10"]
    arguments += ["--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    arguments += ["--splits", "40"] if module is not set_size else ["--alphas", "0.1,0.3"]
    arguments += ["--repeats", "1"] if module in VOTES else []
    assert module.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "maths" in printed
    assert "KNNR + RACER-G" in printed
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "results.json",
        "results.csv",
        "tables.txt",
        PICTURES[module],
    }
    assert (out / PICTURES[module]).read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "results.json").read_text())["config"]["routers"] == "knn"
    assert len(read_rows(out)) > 1
    again = ["--redraw", str(out), "--figures", "pdf", "--width", "column"]
    assert module.main(again) == 0
    assert (out / PICTURES[module]).with_suffix(".pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.long
def test_the_whole_paper_in_one_run(folder, tmp_path, capsys):
    arguments = [
        "--data",
        str(folder),
        "--routers",
        "knn",
        "--risk-splits",
        "50",
        "--splits",
        "10",
        "--repeats",
        "2",
    ]
    assert (
        paper.main(
            [*arguments, "--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out")]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "In all" in printed
    names = {module.__name__.split(".")[1] for module in PICTURES}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    for module, picture in PICTURES.items():
        assert (tmp_path / "out" / module.__name__.split(".")[1] / picture).exists()
    # Each command by itself prints the same, for the splits are the same.
    alone = [
        "--data",
        str(folder / "routerbench"),
        "--routers",
        "knn,prior",
        "--splits",
        "10",
        "--repeats",
        "2",
    ]
    assert (
        ensemble_tradeoff.main(
            [*alone, "--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "one")]
        )
        == 0
    )
    one = (tmp_path / "one" / "tables.txt").read_text()
    assert one == (tmp_path / "out" / "ensemble_tradeoff" / "tables.txt").read_text()


@pytest.mark.long
def test_where_only_correctness_is_known(folder, tmp_path, capsys):
    arguments = ["--data", str(folder / "routerdc"), "--routers", "knn", "--neighbors", "10"]
    assert accuracy_table.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "no vote can be counted" in printed
    assert "coverage % (calls)" in printed
    rows = read_rows(tmp_path / "out")
    assert {row["kind"] for row in rows} == {"coverage"}
    covered = [float(row["covered"]) for row in rows if row["way"] == "KNNR + RACER-P"]
    calls = [float(row["calls"]) for row in rows if row["way"] == "KNNR + RACER-P"]
    # a larger alpha calls fewer models and covers less
    assert covered == sorted(covered, reverse=True)
    assert calls == sorted(calls, reverse=True)
    for module in (ensemble_tradeoff, selection_heatmap):
        assert module.main([*arguments, "--output", str(tmp_path / "none")]) == 2
        assert "must have answers to vote on" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    assert paper.main(["--data", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "routerdc" in capsys.readouterr().err


def test_the_oracle_calls_one_right_model_where_it_must():
    correct = np.array([[1, 0], [1, 1], [0, 0], [0, 1], [0, 0]], bool)
    row = set_size.oracle("b", correct, "paper", ("0.1", "0.5", "0.9"))
    np.testing.assert_allclose(row.size, [0.5, 0.1, 0])
    np.testing.assert_allclose(row.avoidable_miss, [0.1, 0.5, 0.6])
    np.testing.assert_allclose(row.risk, [0.1, 0.5, 0.6])
    never = set_size.oracle("b", correct, "never", ("0.1", "0.5", "0.9"))
    np.testing.assert_allclose(never.size, [0.6, 0.5, 0.1])
    np.testing.assert_allclose(never.risk, [0.4, 0.5, 0.9])


def test_bins_hold_equally_many_values_and_none_on_an_edge():
    values = np.array([3, 4, 4, 9, 17]) / 40
    edges = histograms.bin_edges(values, 40, 5)
    assert np.histogram(values, edges)[0].sum() == 5
    widths = np.diff(edges) * 40
    np.testing.assert_allclose(widths, widths[0])
    assert widths[0] == pytest.approx(round(widths[0]))
    assert np.abs(edges * 40 - np.rint(edges * 40)).min() > 0.4


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (risk_table, {"splits": 1}, "splits must be at least 2"),
        (risk_table, {"significance": 0.0}, "significance must be in"),
        (histograms, {"alpha": "1.5"}, "alpha"),
        (histograms, {"bins": 1}, "bins must be at least 2"),
        (set_size, {"alphas": "x"}, "alphas must be like"),
    ],
)
def test_misuse_is_named(module, options, message):
    with pytest.raises(ValueError, match=message):
        module.Config(**options)
