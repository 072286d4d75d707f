"""Models are matched by name in every command; a retired one is taken out of an artefact."""

import json
from pathlib import Path

import numpy as np
import pytest

from racer_jax.cli.main import main
from racer_jax.data import load, save
from racer_jax.racer.racer import Racer
from tests.racer.test_racer import MODELS

pytestmark = pytest.mark.long


def run(line, capsys, status=0):
    """What a command prints on both streams."""
    assert main(line.split()) == status
    return capsys.readouterr()


def test_other_orders_and_further_models_are_the_same_pool(folder, made, capsys):
    table = load("calibration.npz")
    turned = table.select(models=["large", "small", "medium"])
    save(turned, "turned.csv")
    lines = Path("turned.csv").read_text().splitlines()[1:]  # without the line of the package
    columns = lines[0].split(",")
    first = dict(zip(columns, lines[1].split(","), strict=True))
    further = ",".join({**first, "model": "huge"}[name] for name in columns)
    Path("further.csv").write_text("\n".join([*lines, further]) + "\n")
    run("calibrate bare.racer calibration.npz --alpha 0.3 -o plain.racer", capsys)
    plain = Racer.load("plain.racer").calibration
    for name in ("turned.csv", "further.csv"):
        printed = run(f"calibrate bare.racer {name} --alpha 0.3 -o x.racer --json", capsys)
        found = Racer.load("x.racer")
        assert found.models == MODELS
        np.testing.assert_array_equal(
            found.calibration.thresholds(["0.3"])[0], plain.thresholds(["0.3"])[0]
        )
    note = "left out 1 of 4 models, which the pool does not hold: huge"
    assert note in json.loads(printed.out)["notes"]
    assert f"note: {note}" in printed.err
    assert f"calibration: {note}" in json.loads(Path("x.racer/racer.json").read_text())["notes"]
    assert note in json.loads(run("evaluate x.racer further.csv --json", capsys).out)["notes"]
    assert f"note: {note}" in run("evaluate x.racer further.csv", capsys).out
    printed = run("report x.racer --data further.csv --json", capsys)
    assert note in json.loads(printed.out)["notes"]
    assert note in Path("report.html").read_text()


def test_scores_are_matched_by_name_too(folder, made, capsys):
    scores = dict(np.load("scores.npz"))
    run("calibrate plain.racer scores.npz --alpha 0.3 --from-scores", capsys)
    turned = [2, 0, 1]
    np.savez(
        "turned.npz",
        scores=scores["scores"][:, turned],
        correct=scores["correct"][:, turned],
        models=scores["models"][turned],
        texts=scores["texts"],
    )
    for line in ("calibrate plain.racer turned.npz --alpha 0.3 -o x.racer",):
        run(line, capsys)
    plain, found = Racer.load("plain.racer").calibration, Racer.load("x.racer").calibration
    np.testing.assert_array_equal(plain.thresholds(["0.3"])[0], found.thresholds(["0.3"])[0])
    printed = run("evaluate x.racer turned.npz --missing drop --metric acc", capsys, 1)
    assert "read without options; leave out --missing and --metric" in printed.err


def test_a_retired_model_is_taken_out_as_the_error_says(folder, made, capsys):
    save(load("calibration.npz").select(models=["small", "large"]), "two.csv")
    for line in (
        "calibrate my.racer two.csv --alpha 0.3",
        "evaluate my.racer two.csv",
        "report my.racer --data two.csv",
    ):
        said = run(line, capsys, 1).err
        assert "two.csv: the table has no model " in said
        assert "no model 'medium'" in said
        assert "calibrate it with --without medium" in said
    line = "calibrate my.racer two.csv --alpha 0.3 --without medium -o two.racer --json"
    assert json.loads(run(line, capsys).out)["models"] == ["small", "large"]
    two = Racer.load("two.racer")
    assert two.models == ("small", "large")
    assert "taken out of the pool: medium" in two.notes
    run("evaluate two.racer two.csv", capsys)
    run("evaluate two.racer test.npz", capsys)
    said = run("evaluate my.racer test.npz --models small", capsys, 1).err
    assert "--models must name all models of the artefact" in said
