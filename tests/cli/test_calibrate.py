"""`calibrate` without a table: what can be changed is, and what cannot be is refused."""

import json
from pathlib import Path

import pytest

from racer_jax.cli.main import main
from racer_jax.data import load, save
from racer_jax.racer.racer import Racer


def thresholds(path):
    return Racer.load(path).calibration.threshold_keys(["0.1", "0.3"]).tolist()


def test_options_and_pool_change_without_a_table(folder, made, capsys):
    for typed, wanted in (
        (["--delta", "0.2"], made.racer.recalibrate(delta=0.2)),
        (["--no-groups", "--alpha", "0.2"], made.racer.recalibrate(0.2, by_group=False)),
        (["--fallback", "pooled"], made.racer.recalibrate(fallback="pooled")),
        (["--unknown-group", "pooled"], made.racer.recalibrate(unknown_group="pooled")),
        (["--max-models", "2"], made.racer.recalibrate(max_models=2)),
        (["--without", "small", "--without", "large"], made.racer.without("small", "large")),
    ):
        assert main(["calibrate", "my.racer", "-o", "new.racer", "--json", *typed]) == 0
        described = json.loads(capsys.readouterr().out)
        assert described["guarantee"] == wanted.guarantee()
        assert described["models"] == list(wanted.models)
        assert thresholds("new.racer") == wanted.calibration.threshold_keys(["0.1", "0.3"]).tolist()
    assert main(["calibrate", "my.racer", "-o", "new.racer", "--delta", "0.2", "--overwrite"]) == 0
    assert main(["calibrate", "new.racer", "--delta", "none", "--max-models", "none"]) == 0
    assert Racer.load("new.racer").guarantee() == made.racer.guarantee()


NOT_APPLIED = [
    (["--unseen"], "--unseen is about the rows of a table"),
    (["--share", "0.5"], "--share is about the rows of a table"),
    (["--group", "a"], "--group is about the rows of a table"),
    (["--seed", "3"], "--seed is about the rows of a table"),
    (["--allow-overlap"], "--allow-overlap is about the rows of a table"),
    (["--format", "long_csv"], "--format is about the rows of a table"),
    (["--label-rule", "score > 1"], "--label-rule is about the rows of a table"),
    (["--nonconformity", "gap"], "--nonconformity is for an artefact that is made here"),
    (["--null", "free"], "--null is for an artefact that is made here"),
    (["--no-tie-break"], "--no-tie-break is for an artefact that is made here"),
    ([], "nothing is to be changed"),
]


@pytest.mark.parametrize(("typed", "problem"), NOT_APPLIED, ids=str)
def test_an_option_that_would_not_be_applied_is_refused(folder, capsys, typed, problem):
    before = Path("my.racer/racer.json").read_bytes()
    alpha = ["--alpha", "0.2"] if typed else []
    assert main(["calibrate", "my.racer", *alpha, *typed]) == 1
    captured = capsys.readouterr()
    assert problem in captured.err
    assert captured.out == ""
    assert Path("my.racer/racer.json").read_bytes() == before


def test_with_a_table_too(folder, capsys):
    for typed, problem in (
        ([], "a calibration on a table needs --alpha"),
        (["--alpha", "0.2", "--null", "free"], "--null is for an artefact that is made here"),
        (["--alpha", "0.2", "--from-scores", "--without", "small"], "--without leaves models out"),
    ):
        assert main(["calibrate", "my.racer", "calibration.npz", *typed]) == 1
        assert problem in capsys.readouterr().err
    assert main(["calibrate", "bare.racer", "--alpha", "0.2"]) == 1
    assert "bare.racer: has no calibration to change" in capsys.readouterr().err
    assert main(["calibrate", "my.racer", "--without", "smal"]) == 1
    assert "'smal' is not a model of the pool: did you mean 'small'?" in capsys.readouterr().err
    assert main(["calibrate", "my.racer", "--max-models", "0"]) == 1
    assert "--max-models must be at least 1, got 0" in capsys.readouterr().err


@pytest.mark.long
def test_calibrating_again_uses_the_same_questions_and_says_so(folder, capsys):
    command = ["calibrate", "my.racer", "calibration.npz", "--alpha", "0.3", "--unseen"]
    assert main([*command, "--share", "0.6"]) == 0
    first = Racer.load("my.racer").calibration
    assert "80 questions were calibrated on before" in capsys.readouterr().err
    assert main([*command, "--share", "0.6"]) == 0
    again = Racer.load("my.racer").calibration
    assert first.questions.tolist() == again.questions.tolist()
    assert main(["evaluate", "my.racer", "calibration.npz", "--unseen", "--alphas", "0.3"]) == 0
    used = len(first.questions)
    wanted = f"--unseen left out {used} of 80 questions: 0 trained on, {used} calibrated on"
    assert wanted in capsys.readouterr().out


@pytest.mark.long
def test_unknown_groups_of_queries(folder, made, capsys):
    text = made.test.texts[0]
    Path("in.jsonl").write_text(
        "".join(json.dumps({"text": text, "group": group}) + "\n" for group in ("A", "a", "A"))
    )
    assert main(["route", "my.racer", "--input", "in.jsonl"]) == 0
    captured = capsys.readouterr()
    assert captured.err == (
        "note: the group 'A' is unknown (did you mean 'a'?); every model is called\n"
    )
    reasons = [json.loads(line)["reason"] for line in captured.out.splitlines()]
    assert reasons[0] == reasons[2] == "unknown group"
    assert main(["calibrate", "my.racer", "--unknown-group", "error"]) == 0
    capsys.readouterr()
    assert main(["route", "my.racer", "--input", "in.jsonl"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["error" in line for line in lines] == [True, False, True]
    assert main(["route", "my.racer", "--group", "B", text]) == 1
    assert "the group 'B' is unknown (did you mean 'b'?)" in capsys.readouterr().err


@pytest.mark.long
def test_a_model_is_added_by_one_command(folder, capsys):
    tables = [load(f"{name}.npz") for name in ("train", "calibration")]
    smaller = [table.aligned(("small", "medium")) for table in tables]
    save(smaller[0], "small_train.npz")
    save(smaller[1], "small_calibration.npz")
    assert main(["train", "small_train.npz", "-o", "two.racer", "--router", "knn"]) == 0
    assert main(["calibrate", "two.racer", "small_calibration.npz", "--alpha", "0.4"]) == 0
    capsys.readouterr()
    assert main(["extend", "two.racer", "train.npz", "--json"]) == 1
    assert "80 of 80 calibration questions are missing" in capsys.readouterr().err
    command = ["extend", "two.racer", "train.npz", "calibration.npz", "-o", "three.racer", "--json"]
    assert main(command) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["models"], described["alpha"]) == (["small", "medium", "large"], "0.4")
    assert described["n"] == 80
    assert Racer.load("three.racer").models == ("small", "medium", "large")
