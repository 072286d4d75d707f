"""A racer calibrated for a loss of graded answers: thresholds, words, artefact, command."""

import json

import jax
import numpy as np
import pytest

from racer_jax import Racer
from racer_jax.cli.main import main
from racer_jax.core.loss_calibration import calibrate_loss
from racer_jax.core.losses import grade_loss, loss_at
from racer_jax.core.nonconformity import TieBroken
from racer_jax.data import RoutingTable
from racer_jax.racer import artefact
from racer_jax.racer.state import earlier_guarantees_of, earlier_warnings_of

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


@pytest.mark.long
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


@pytest.mark.long
def test_it_says_what_it_promises_and_survives_the_disk(table, tmp_path):
    racer = Racer.from_scores(MODELS).calibrate(table, 0.3, scores=SCORES, loss="grade")
    promise = racer.guarantee()
    assert "the mean of 1 - the best grade among the called models (a question on" in promise
    assert "'none of them') is at most 0.3, in each group, on average" in promise
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


@pytest.mark.long
def test_a_level_out_of_reach_is_said(table):
    racer = Racer.from_scores(MODELS).calibrate(
        table, 0.01, scores=SCORES, loss="grade", by_group=False
    )
    assert racer.guarantee().startswith("Nothing is promised")
    assert "no threshold reaches alpha = 0.01" in racer.calibration.warnings()[0]


@pytest.mark.parametrize("null", ["paper", "free", "never"])
@pytest.mark.parametrize("loss", ["grade", "shortfall"])
def test_what_a_promise_of_grades_says_is_what_is_calibrated(table, null, loss):
    racer = Racer.from_scores(MODELS, null=null).calibrate(table, 0.9, scores=SCORES, loss=loss)
    decisions, grades = racer.route_scores(SCORES, table.group, ids=table.texts), table.graded
    best = np.where(decisions.called, grades, 0).max(axis=1)
    nothing, in_set = grades.max(axis=1) == 0, decisions.sets[:, -1]
    counted = {
        "paper": np.where(nothing & in_set, 0, 1 - best),
        "free": np.where(nothing, 0, 1 - best),
        "never": 1 - best,
    }
    words = {
        "paper": "(a question on which every grade is 0 counts as no loss if its set holds the null "
        "model, 'none of them')",
        "free": "(a question on which every grade is 0 counts as no loss)",
        "never": "(also where every grade is 0)",
    }
    promise = racer.guarantee()
    assert [name for name, text in words.items() if text in promise] == [null] * (loss == "grade")
    calibration = racer.calibration
    steps = grade_loss(
        calibration.record.nonconformity,
        grades,
        np.asarray(calibration.loss.tie),
        against="perfect" if loss == "grade" else "pool",
    )
    codes = calibration.codes(table.group, N)
    limits = TieBroken(calibration.threshold[codes], calibration.threshold_tie[codes])
    measured = np.asarray(loss_at(steps, limits))
    if loss == "grade":
        np.testing.assert_allclose(measured, counted[null], atol=1e-6)
    else:  # at most that: calibration counts no null model in the set as a loss
        assert (grades.max(axis=1) - best <= measured + 1e-6).all()


@pytest.fixture(scope="module")
def with_a_bad_group():
    """Group `y` has low grades, such that no threshold brings its mean loss to 0.2."""
    high = np.where(np.arange(N)[:, None] % 2 == 0, 0.95, 0.3) * np.ones((N, 3))
    return RoutingTable(
        ids=[f"q{i}" for i in range(N)],
        texts=[""] * N,
        models=MODELS,
        correct=high > 0.5,
        group=["x", "y"] * (N // 2),
        graded=high,
    )


@pytest.mark.parametrize("fallback", ["all", "pooled"])
@pytest.mark.parametrize("alpha", [0.2, 0.5])
def test_a_group_without_a_threshold_of_its_own_is_promised_nothing(
    with_a_bad_group, tmp_path, alpha, fallback
):
    racer = Racer.from_scores(MODELS).calibrate(
        with_a_bad_group, alpha, scores=SCORES, loss="grade", fallback=fallback
    )
    promise, pools = racer.guarantee(), fallback == "pooled" and alpha == 0.5
    assert promise.startswith("For new queries of group x drawn like")
    assert promise.endswith("For group y nothing is promised.")
    end = "the pooled threshold is used, with no promise" if pools else "every model is called"
    assert racer.warnings() == (
        f"group 'y': no threshold reaches alpha = {alpha} on 30 calibration queries; {end}",
    )
    assert np.isfinite(racer.calibration.threshold[1]) == pools
    racer.save(tmp_path / "art")
    assert Racer.load(tmp_path / "art").guarantee() == promise
    # As a version before wrote it.
    path = tmp_path / "art" / artefact.DESCRIPTION
    described = json.loads(path.read_text(encoding="utf-8"))
    earlier = earlier_guarantees_of(racer)[1]
    assert "(x 30, y 30), the mean of 1 - the best grade among the called models is" in earlier
    described |= {"guarantee": earlier, "warnings": list(earlier_warnings_of(racer))}
    described["checksum"] = artefact._checksum(described)
    path.write_text(json.dumps(described), encoding="utf-8")
    assert Racer.load(tmp_path / "art").guarantee() == promise


def test_a_capped_loss_says_the_cap(with_a_bad_group):
    racer = Racer.from_scores(MODELS).calibrate(
        with_a_bad_group, 0.2, scores=SCORES, loss="grade", max_models=2
    )
    assert "; no query calls more than 2 models" in racer.warnings()[-1]


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
