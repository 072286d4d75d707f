"""A racer calibrated for a loss of graded answers: thresholds, words, artefact, command."""

import json

import jax
import numpy as np
import pytest

from racer_jax import Racer
from racer_jax.cli.main import main
from racer_jax.core.loss_calibration import calibrate_loss
from racer_jax.core.losses import grade_loss
from racer_jax.data import RoutingTable

MODELS = ["a", "b", "c"]
N = 60


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    right = rng.random((N, 3)) < np.array([0.5, 0.6, 0.8])
    return RoutingTable(
        ids=[f"q{i}" for i in range(N)],
        texts=[f"question {i}" for i in range(N)],
        models=MODELS,
        correct=right,
        group=["x", "y"] * (N // 2),
        graded=right * rng.choice([0.5, 0.75, 1.0], right.shape),
    )


SCORES = np.random.default_rng(1).random((N, 3)).astype(np.float32)


@pytest.mark.long
@pytest.mark.parametrize("by_group", [True, False])
def test_the_thresholds_are_those_of_calibrate_loss(table, by_group):
    racer = Racer.from_scores(MODELS).calibrate(
        table, 0.3, scores=SCORES, by_group=by_group, loss="shortfall"
    )
    calibration = racer.calibration
    loss = grade_loss(
        calibration.record.nonconformity,
        table.graded,
        np.asarray(calibration.loss.tie),
        against="pool",
    )
    groups = ("x", "y") if by_group else (None,)
    for place, name in enumerate(groups):
        mask = np.array([name in (None, group) for group in table.group])
        expected = calibrate_loss(loss, 0.3, mask)
        assert calibration.threshold[place] == float(expected.value)
        assert calibration.threshold_tie[place] == int(expected.tie)
    assert racer.at(0.5).calibration.threshold[0] < calibration.threshold[0]


def test_right_and_wrong_are_grades_too(table):
    graded = RoutingTable(
        **{
            **{name: getattr(table, name) for name in ("ids", "texts", "models", "correct")},
            "graded": table.correct.astype(float),
        }
    )
    plain = Racer.from_scores(MODELS).calibrate(graded, 0.2, scores=SCORES)
    loss = Racer.from_scores(MODELS).calibrate(graded, 0.2, scores=SCORES, loss="grade")
    assert plain.calibration.threshold_key.tolist() == loss.calibration.threshold_key.tolist()


def test_it_says_what_it_promises_and_survives_the_disk(table, tmp_path):
    racer = Racer.from_scores(MODELS).calibrate(table, 0.3, scores=SCORES, loss="grade")
    promise = racer.guarantee()
    assert "the mean of 1 - the best grade among the called models is at most 0.3" in promise
    racer.save(tmp_path / "art")
    again = Racer.load(tmp_path / "art")
    assert again.guarantee() == promise
    np.testing.assert_array_equal(again.calibration.threshold_key, racer.calibration.threshold_key)
    decisions = [r.route_scores(SCORES[:9], "x", ids=table.ids[:9]) for r in (racer, again)]
    assert [d.models for d in decisions[0]] == [d.models for d in decisions[1]]
    evaluation = racer.evaluate(table, "0.1:0.3:0.1", scores=SCORES)
    assert evaluation is not None
    with pytest.raises(ValueError, match="calibrate again on the table"):
        racer.without("a")


def test_a_level_out_of_reach_is_said(table):
    racer = Racer.from_scores(MODELS).calibrate(
        table, 0.01, scores=SCORES, loss="grade", by_group=False
    )
    assert racer.guarantee().startswith("Nothing is promised")
    assert "no threshold reaches alpha = 0.01" in racer.calibration.warnings()[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "regret"}, "loss must be one of"),
        ({"loss": "grade", "graded": None}, "needs a table with graded scores"),
        ({"loss": "grade", "graded": 7.0}, r"needs grades in \[0, 1\] of every answer; 180 are"),
    ],
)
def test_what_does_not_fit_is_refused(table, options, message):
    fields = {name: getattr(table, name) for name in ("ids", "texts", "models", "correct")}
    graded = table.graded
    if "graded" in options:
        value = options.pop("graded")
        graded = None if value is None else np.full(graded.shape, value)
    with pytest.raises(ValueError, match=message):
        Racer.from_scores(MODELS).calibrate(
            RoutingTable(**fields, graded=graded), 0.3, scores=SCORES, **options
        )


def test_the_command_refuses_a_loss_without_a_table(table, tmp_path, capsys):
    Racer.from_scores(MODELS).calibrate(table, 0.3, scores=SCORES).save(tmp_path / "art")
    assert main(["calibrate", str(tmp_path / "art"), "--alpha", "0.2", "--loss", "grade"]) == 1
    assert "--loss is about the rows of a table" in capsys.readouterr().err


@pytest.mark.long
def test_the_command_calibrates_for_a_loss(table, tmp_path, capsys):
    from racer_jax.data import save

    train, rest = table.select(range(20)), table.select(range(20, N))
    Racer.fit(jax.random.key(0), train, "knn").save(tmp_path / "art")
    save(rest, tmp_path / "rest.npz")
    arguments = ["calibrate", str(tmp_path / "art"), str(tmp_path / "rest.npz"), "--alpha", "0.4"]
    assert main([*arguments, "--loss", "shortfall", "--no-groups", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert "the best grade of the pool" in json.dumps(printed)
