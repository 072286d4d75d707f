"""What a racer's state says of questions it has used, of groups and of scores from outside."""

from types import SimpleNamespace

import numpy as np
import pytest

from racer_jax.data.table import RoutingTable
from racer_jax.racer.errors import NotCalibratedError
from racer_jax.racer.fingerprints import question_fingerprints
from racer_jax.racer.state import RacerState, stated
from racer_jax.routers.scores import Scores


def table(num=6, models=("a", "b"), **more):
    names = [f"question {i}" for i in range(num)]
    return RoutingTable(
        ids=names, texts=names, models=models, correct=np.ones((num, len(models)), bool), **more
    )


def state(trained=(), calibrated=None, **facts):
    """A state that was trained on some rows of the table, and calibrated on others."""
    prints = question_fingerprints(table())
    calibration = None
    if calibrated is not None:
        facts = {"alpha": "0.1", "label_rule": "as given", "groups": None} | facts
        calibration = SimpleNamespace(
            questions=np.sort(prints[list(calibrated)]),
            num_queries=np.array([3, 4]),
            warnings=lambda: ("few rows",),
            guarantee=lambda null: f"promise under {null}",
            to_parts=lambda: ({"alpha": "0.1"}, {}),
            **facts,
        )
    trained_on = np.sort(prints[list(trained)])
    return RacerState(("a", "b"), trained_on=trained_on, calibration=calibration)


def test_rows_that_were_used_are_left_out():
    racer = state([0, 1], [1, 2])
    assert racer.unseen(table()).ids == tuple(f"question {i}" for i in (3, 4, 5))
    assert racer.unseen(table(), calibrated=False).ids == tuple(
        f"question {i}" for i in (2, 3, 4, 5)
    )
    assert state([5]).unseen(table()).ids == tuple(f"question {i}" for i in range(5))


def test_what_was_left_out_is_said():
    racer = state([0, 1], [1, 2, 3])  # row 1 counts as trained on
    assert racer.unseen_notes(table()) == [
        "--unseen left out 4 of 6 questions: 2 trained on, 2 calibrated on"
    ]
    left, again = racer.unseen_notes(table(), recalibrating=True)
    assert left == "--unseen left out 2 of 6 questions: 2 trained on"
    assert again.startswith("2 questions were calibrated on before and may be used again")
    assert state().unseen_notes(table()) == []
    assert state([], []).unseen_notes(table(), recalibrating=True) == []
    assert len(state([], [0]).unseen_notes(table())) == 1
    assert len(state([0], [0]).unseen_notes(table(), recalibrating=True)) == 1
    assert len(state([], [0]).unseen_notes(table(), recalibrating=True)) == 1


def test_a_group_is_refused_only_where_unknown_groups_are_an_error():
    assert state().refused_group("x") is None
    for policy in ("all", "pooled"):
        assert state([], [], unknown_group=policy, groups=("x",)).refused_group("y") is None
    strict = state([], [], unknown_group="error", groups=("x", "z"))
    assert strict.refused_group("x") is None
    assert "'y'" in strict.refused_group("y")
    assert strict.refused_group(None) is not None
    # Without groups no name is unknown.
    assert state([], [], unknown_group="error").refused_group("y") is None
    assert state([], [], unknown_group="error").refused_group(None) is None


def test_an_order_by_group_needs_the_group_of_a_query():
    racer = state([], [], unknown_group="error")
    for by_group, refused in ((True, True), (False, False)):
        order = SimpleNamespace(by_group=by_group, kind=racer.nonconformity)
        object.__setattr__(racer, "scorer", SimpleNamespace(order=order))
        assert (racer.refused_group(None) is not None) == refused
        assert racer.refused_group("x") is None
    object.__setattr__(racer, "scorer", SimpleNamespace(order=order, __call__=None))
    order.by_group = True
    with pytest.raises(ValueError, match="table must have groups: the order"):
        racer.score(table())
    asked = []

    class Scorer:
        def __call__(self, *arguments):
            asked.append(arguments)
            return "scores"

    scorer = Scorer()
    scorer.order = order
    object.__setattr__(racer, "scorer", scorer)
    grouped = table(group=["x"] * 6)
    assert racer.score(grouped) == "scores"
    assert asked[0][1:] == ("inverse_probability", "paper", grouped.group)
    with pytest.raises(ValueError, match="this racer has a router of its own"):
        racer.score(grouped, np.ones((6, 2)))


def test_scores_from_outside_are_read_by_name_or_by_place():
    racer, values = state(), np.linspace(0, 1, 12).reshape(6, 2)
    by_place = racer.score(table(), values)
    np.testing.assert_allclose(by_place.scores, values)
    assert by_place.nonconformity.shape == (6, 3)
    named = racer.score(
        table(), Scores(models=("c", "b", "a"), values=np.c_[values[:, 0], values[:, ::-1]])
    )
    np.testing.assert_array_equal(named.scores, by_place.scores)
    other = table(models=("b", "a"))
    np.testing.assert_array_equal(
        racer.score(other, Scores(models=("a", "b"), values=values)).scores, by_place.scores
    )
    for scores, message in (
        (None, "this racer has no router of its own: pass scores="),
        (values[1:], "scores must have a row for each of the 6 queries, got 5"),
        (Scores(models=("a", "c"), values=values), "missing of 'b'"),
    ):
        with pytest.raises(ValueError, match=message):
            racer.score(table(), scores)
    with pytest.raises(ValueError, match=r"in that order, where scores are columns without names"):
        racer.score(other, values)


def test_what_is_said_before_and_after_calibration():
    racer = state([0])
    for step in ("alpha", "guarantee"):
        with pytest.raises(NotCalibratedError, match=step):
            getattr(racer, step) if step == "alpha" else racer.guarantee()
    assert racer.warnings() == ()
    assert repr(racer).endswith("null mode 'paper', not calibrated)")
    calibrated = state([0], [1])
    assert (calibrated.alpha, calibrated.guarantee()) == ("0.1", "promise under paper")
    assert calibrated.warnings() == ("few rows",)
    assert "alpha = 0.1, calibrated on 7 queries" in repr(calibrated)
    # Another rule matters only to a router that was trained under one.
    other = state([0], [1], label_rule="other")
    assert other.warnings() == ("few rows",)
    object.__setattr__(other, "scorer", SimpleNamespace(order=None))
    assert other.warnings()[1].startswith("trained under the label rule 'as given', calibrated")
    assert calibrated.warnings() == ("few rows",)


def test_what_a_description_states():
    racer = state([0, 1])
    plain = stated(racer)
    assert plain["guarantee"] is None
    assert plain["calibration"] is None
    assert plain["static_order"] is None
    assert (plain["tie_break"], plain["seed"]) == ("exact", 0)
    assert plain["training"] == {"num_questions": 2, "label_rule": "as given"}
    assert not {"serving", "notes"} & set(plain)
    full = RacerState(
        ("a", "b"),
        seed=None,
        static_order=(1, 0),
        normal_form="letters",
        notes=("calibration: old", "left out 1"),
        calibration=state([], [1]).calibration,
    )
    description = stated(full)
    assert (description["tie_break"], description["seed"]) == ("none", None)
    assert description["static_order"] == ["b", "a"]
    assert description["serving"] == {"normal_form": "letters"}
    assert description["calibration"] == {"alpha": "0.1"}
    assert description["guarantee"] == "promise under paper"
    assert description["notes"] == ["calibration: old", "left out 1"]
    # The notes of an earlier calibration give way to those of the next.
    noted = full._noted(table(notes=("read loosely",)))
    assert noted == ("left out 1", "calibration: read loosely")
    assert full._ties(np.zeros(2, np.uint64), None) is None


def test_second_keys_depend_on_question_and_seed():
    scores = SimpleNamespace(nonconformity=np.zeros((3, 4)))
    questions = np.array([5, 6, 5], np.uint64)
    keys = state()._ties(questions, scores)
    assert keys.shape == (3, 4)
    np.testing.assert_array_equal(keys[0], keys[2])
    assert (keys[0] != keys[1]).any()
    other = RacerState(("a", "b"), seed=1)._ties(questions, scores)
    assert (other[0] != keys[0]).any()
