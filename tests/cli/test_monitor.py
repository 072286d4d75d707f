"""`monitor`: a state alone is shown; decisions and labels give the misses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from racer_jax.cli.main import main
from racer_jax.data import RoutingTable
from racer_jax.data.loading import save
from racer_jax.racer.errors import UnknownGroupWarning
from racer_jax.racer.racer import Racer
from racer_jax.serving.monitor import RiskMonitor

MODELS = ["x", "y"]


@pytest.fixture(scope="module")
def scored():
    rng = np.random.default_rng(3)
    scores = rng.random((80, 2)).astype(np.float32)
    table = RoutingTable(
        ids=[f"q{i}" for i in range(80)],
        texts=[f"What is {i}?" for i in range(80)],
        models=MODELS,
        correct=rng.random((80, 2)) < scores,
    )
    return table, scores


@pytest.fixture(params=["free", "paper", "never"])
def racer(request, scored):
    table, scores = scored
    bare = Racer.from_scores(MODELS, null=request.param)
    return bare.calibrate(table.select(range(40)), 0.4, scores=scores[:40])


def written(racer, scored, names):
    """Decisions on the last 40 queries, by these names, and their labels in a file."""
    table, scores = scored
    rest = table.select(range(40, 80))
    decisions = racer.route_scores(scores[40:], ids=rest.texts)
    lines = [
        json.dumps({"id": name, **decision.to_dict()}) + "\n"
        for name, decision in zip(names(rest), decisions, strict=True)
    ]
    Path("decisions.jsonl").write_text("".join(lines))
    save(rest, "labels.npz")
    return rest, decisions


@pytest.mark.parametrize("names", [lambda t: t.ids, lambda t: t.texts], ids=["id", "text"])
def test_misses_are_computed_from_decisions_and_labels(
    tmp_path, monkeypatch, capsys, racer, scored, names
):
    """They are those that `evaluate` counts, in each null mode, if the artefact says which."""
    monkeypatch.chdir(tmp_path)
    rest, decisions = written(racer, scored, names)
    racer.save("my.racer")
    line = ["monitor", "--decisions", "decisions.jsonl", "--labels", "labels.npz", "--json"]
    assert main([*line, "--artefact", "my.racer"]) in (0, 3)
    told = json.loads(capsys.readouterr().out)
    evaluation = racer.evaluate(rest, [0.4], scores=scored[1][40:])
    assert told["num"] == 40
    assert told["misses"] == round(40 * evaluation.groups[0].risk[evaluation.row])
    assert told["alpha"] == 0.4
    assert main(line) in (0, 3)
    avoidable = json.loads(capsys.readouterr().out)["misses"]
    called = np.array([[model in d.models for model in MODELS] for d in decisions])
    missed = rest.correct.any(axis=1) & ~(rest.correct & called).any(axis=1)
    assert avoidable == int(missed.sum())
    assert not Path("state.json").exists()


def test_a_state_counts_each_decision_once_and_alone_is_shown(
    tmp_path, monkeypatch, capsys, scored
):
    monkeypatch.chdir(tmp_path)
    table, scores = scored
    racer = Racer.from_scores(MODELS).calibrate(table.select(range(40)), 0.4, scores=scores[:40])
    written(racer, scored, lambda t: [*t.ids[:-1], "a query without a label"])
    line = ["monitor", "state.json", "--decisions", "decisions.jsonl", "--labels", "labels.npz"]
    for _ in range(2):
        assert main(line) in (0, 3)
        assert RiskMonitor.load("state.json").num == 39
    told = capsys.readouterr()
    assert "39 lines were counted before" in told.out
    assert "1 decisions without a label of every model left out" in told.err
    before = Path("state.json").read_bytes()
    assert main(["monitor", "state.json"]) in (0, 3)
    assert "39 queries counted" in capsys.readouterr().out
    assert Path("state.json").read_bytes() == before


def test_errors_in_the_place_of_decisions_are_left_out_with_a_note(
    tmp_path, monkeypatch, capsys, scored
):
    """What `route` writes for a line that it could not read ends no monitor."""
    monkeypatch.chdir(tmp_path)
    table, scores = scored
    racer = Racer.from_scores(MODELS).calibrate(table.select(range(40)), 0.4, scores=scores[:40])
    written(racer, scored, lambda t: t.ids)
    with Path("decisions.jsonl").open("a") as file:
        file.write('{"id": 7, "error": "must be a string"}\n')
    line = ["monitor", "--decisions", "decisions.jsonl", "--labels", "labels.npz", "--json"]
    assert main(line) in (0, 3)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["num"] == 40
    assert printed.err.endswith("note: 1 lines with an 'error' and no decision left out\n")
    line = "monitor drift.json --kind exchangeability --reference decisions.jsonl --input"
    assert main([*line.split(), "decisions.jsonl", "--json"]) in (0, 3)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["num"] == 40
    assert printed.err == "note: 1 lines with an 'error' and no decision left out\n"


def test_labels_are_read_as_the_error_says(tmp_path, monkeypatch, capsys, scored):
    monkeypatch.chdir(tmp_path)
    table, scores = scored
    racer = Racer.from_scores(MODELS).calibrate(table.select(range(40)), 0.4, scores=scores[:40])
    rest, _ = written(racer, scored, lambda t: t.ids)
    save(rest, "labels.csv")
    text = Path("labels.csv").read_text().split("\n", 1)[1]  # without what says it is our table
    Path("labels.csv").write_text(text.replace("correct", "is_correct", 1))
    line = ["monitor", "--decisions", "decisions.jsonl", "--labels", "labels.csv"]
    assert main(line) == 1
    said = capsys.readouterr().err
    assert said.endswith("pass --columns correct=is_correct\n")
    assert main([*line, *said.split()[-2:]]) in (0, 3)
    assert "40 queries counted" in capsys.readouterr().out
    assert main(["monitor", "s.json", "--input", "decisions.jsonl", "--missing", "drop"]) == 1
    assert "--missing says how --labels is read: give --labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("", "decisions.jsonl: is empty"),
        ("x\n", "line 1: must be a JSON object; Expecting value"),
        ("[]\n", "line 1: must be one JSON object on each line, got a list"),
        ('{"id": "q1", "id": "q2"}\n', "line 1, field 'id': must be named once"),
        ('{"id": "q1", "error": "x"}\n', "at least one decision, got 1 lines with an 'error'"),
        ('{"models": []}\n', "line 1: must have an 'id'"),
        ('{"id": "q1", "models": []}\n', "line 1: a decision must have the fields that"),
    ],
)
def test_decisions_that_are_not(tmp_path, monkeypatch, capsys, scored, lines, problem):
    monkeypatch.chdir(tmp_path)
    save(scored[0], "labels.npz")
    Path("decisions.jsonl").write_text(lines)
    line = ["monitor", "state.json", "--decisions", "decisions.jsonl", "--labels", "labels.npz"]
    assert main(line) == 1
    assert problem in capsys.readouterr().err
    assert not Path("state.json").exists()


def test_decisions_at_two_levels_or_at_another_than_promised(tmp_path, monkeypatch, capsys, scored):
    monkeypatch.chdir(tmp_path)
    table, scores = scored
    racer = Racer.from_scores(MODELS).calibrate(table.select(range(40)), 0.4, scores=scores[:40])
    written(racer, scored, lambda t: t.ids)
    line = ["monitor", "--decisions", "decisions.jsonl", "--labels", "labels.npz"]
    assert main([*line, "--alpha", "0.1"]) == 1
    assert "decisions at alpha = 0.4, and alpha = 0.1 is to be tested" in capsys.readouterr().err
    text = Path("decisions.jsonl").read_text()
    Path("decisions.jsonl").write_text(text + text.splitlines()[0].replace('"0.4"', '"0.3"'))
    assert main(line) == 1
    assert "must be of one alpha, got 0.3 after 0.4" in capsys.readouterr().err
    Path("decisions.jsonl").write_text(text.replace('"id": "q', '"id": "r'))
    assert main(line) == 1
    assert "none of them has a label of every model" in capsys.readouterr().err


def test_decisions_without_a_promise_are_not_counted_against_it(
    tmp_path, monkeypatch, capsys, scored
):
    """Of a group that calibration did not see, and of one in which alpha is out of reach."""
    monkeypatch.chdir(tmp_path)
    table, scores = scored
    # In group b no model is ever right, which the null mode `never` counts as a miss.
    groups = ["a", "b"] * 40
    right = np.array(groups)[:, None] == np.array(["a", "a"])
    grouped = replace(table, group=groups, correct=right)
    racer = Racer.from_scores(MODELS, null="never").calibrate(
        grouped.select(range(40)), 0.4, scores=scores[:40], unknown_group="pooled"
    )
    assert racer.guarantee().endswith("For group b nothing is promised.")
    rest = grouped.select(range(40, 80))
    with pytest.warns(UnknownGroupWarning):
        decisions = racer.route_scores(
            scores[40:], ["a"] * 10 + ["b"] * 10 + ["new"] * 20, ids=rest.texts
        )
    lines = zip(rest.ids, decisions, strict=True)
    text = "".join(json.dumps({"id": i, **one.to_dict()}) + "\n" for i, one in lines)
    Path("decisions.jsonl").write_text(text)
    save(rest, "labels.npz")
    racer.save("my.racer")
    line = ["monitor", "--decisions", "decisions.jsonl", "--labels", "labels.npz", "--json"]
    counts = []
    for more, num in (["--artefact", "my.racer"], 10), ([], 20):
        main([*line, *more])
        shown = capsys.readouterr()
        assert f"{40 - num} decisions for which nothing was promised left out" in shown.err
        counts.append(json.loads(shown.out)["num"])
    assert counts == [10, 20]
    Path("decisions.jsonl").write_text("".join(text.splitlines(keepends=True)[20:]))
    assert main([*line, "--artefact", "my.racer"]) == 1
    assert "nothing was promised for any of them" in capsys.readouterr().err
