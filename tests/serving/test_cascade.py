"""`Cascade`: the steps of a query agree with the replay of logs; what is saved is what was made."""

import json
from dataclasses import replace
from math import inf

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import Cascade, RoutingTable
from racer_jax.core.nonconformity import TieBroken
from racer_jax.racer.errors import ArtefactError, CorruptError, NotCalibratedError, OverlapError
from racer_jax.racer.fingerprints import question_fingerprints
from racer_jax.racer.racer import Racer
from racer_jax.risk_control.stopping import LOSSES, stops_at
from racer_jax.sequential.host import HostScorer
from racer_jax.sequential.normal_forms import UnknownFormError, normal_form
from tests.sequential.pools import answered_table

TRAIN, CALIBRATION, TEST = slice(0, 200), slice(200, 400), slice(400, 500)


def key():
    return jax.random.key(3)


@pytest.fixture(scope="module")
def table():
    return answered_table(500, seed=4, groups=True)


@pytest.fixture(scope="module")
def fitted(table):
    return Cascade.fit(key(), table.select(TRAIN), reference="vote", form="letter")


@pytest.fixture(scope="module")
def calibrated(table, fitted):
    return fitted.calibrate(table.select(CALIBRATION), 0.05)


def run(cascade, table, row):
    """All steps of a logged query."""
    state = cascade.start(table.texts[row], table.group[row])
    while not state.done:
        answers = {m: table.answers[row, table.models.index(m)] for m in state.call}
        state = cascade.tell(state, answers)
    return state


def answer_of(table, row, code):
    present = sorted({a for a in table.answers[row] if a is not None})
    return None if code < 0 else present[code]


def agrees(cascade, table, loss):
    """Whether every query of a table is answered one step at a time as by the replay on arrays."""
    paths = cascade.replay(table)
    ties = jnp.asarray(cascade.tie_break(table))[:, None]
    num = len(table)
    limits = TieBroken(jnp.full(num, inf), jnp.full(num, 0xFFFFFFFF, jnp.uint32))
    if cascade.calibration is not None:
        groups = table.group if cascade.calibration.groups else None
        limits = cascade.calibration.thresholds(groups, num)
    stops = stops_at(paths.scores(loss)[:, None], limits, ties)
    last = np.flatnonzero(cascade.policy.ends)
    for row in range(num):
        state = run(cascade, table, row)
        calls, stopped = int(stops.calls[row, 0]), bool(stops.has_stop[row, 0])
        assert state.calls == calls
        assert (state.reason == "abstained") == (not stopped)
        if stopped:
            assert state.answer == answer_of(table, row, int(paths.leader[row, calls - 1]))
            assert calls - 1 in last
    return stops


@pytest.mark.long
@pytest.mark.parametrize("loss", LOSSES)
def test_steps_equal_the_replay(loss, table, fitted):
    alpha = 0.1 if loss == "wrong" else 0.02
    cascade = fitted.calibrate(table.select(CALIBRATION), alpha, loss=loss)
    stops = agrees(cascade, table.select(TEST), loss)
    assert 1 < np.mean(np.asarray(stops.calls)) < 5


@pytest.mark.long
def test_steps_equal_the_replay_in_batches_by_group_and_without_calibration(table, fitted):
    agrees(fitted, table.select(TEST), "regret")
    pairs = Cascade.fit(key(), table.select(TRAIN), batches=(2, 2), reference="vote", form="letter")
    assert len(pairs.start("?", "easy").call) == 2
    by_group = pairs.calibrate(table.select(CALIBRATION), 0.05, by_group=True)
    assert by_group.calibration.groups == ("easy", "hard") or len(by_group.calibration.groups) == 2
    agrees(by_group, table.select(TEST), "regret")
    assert "in each group" in by_group.guarantee()


@pytest.mark.long
def test_scores_on_the_host_equal_those_of_the_device_to_the_last_bit(table, fitted):
    rows = table.select(TEST)
    paths = fitted.replay(rows)
    order = list(fitted.policy.order)
    for loss in LOSSES:
        scorer = HostScorer(fitted.policy, loss)
        scores = np.asarray(paths.scores(loss))
        for row in range(len(rows)):
            answers = rows.answers[row, order].tolist()
            for j in range(5):
                state = scorer.state(answers[: j + 1], rows.group[row])
                assert state.is_decided == bool(paths.states.is_decided[row, j])
                if np.isfinite(scores[row, j]):
                    assert state.score == float(scores[row, j])


@pytest.mark.long
def test_a_single_model_as_reference(table):
    rows = table.select(TRAIN)
    cascade = Cascade.fit(
        key(), rows, reference="best", objective="dollars", form="letter", alpha=0.1
    )
    assert cascade.policy.reference == "best"
    # Not calibrated it calls that model alone; calibrated, cheaper ones first.
    state = run(cascade, table, 450)
    assert (state.calls, state.reason) == (1, "decided")
    assert state.answer == table.answers[450, 1]
    calibrated = cascade.calibrate(table.select(CALIBRATION), 0.1)
    assert calibrated.start("?").call != ("large",)
    agrees(calibrated, table.select(TEST), "regret")


@pytest.mark.long
def test_calibration_holds_on_the_calibration_rows_themselves(table, calibrated):
    rows = table.select(CALIBRATION)
    lost = 0
    for row in range(len(rows)):
        state = run(calibrated, rows, row)
        answers = np.array(rows.answers[row])
        right = set(answers[rows.correct[row]].tolist())
        full = answer_of(rows, row, int(calibrated.replay(rows.select([row])).reference[0]))
        lost += state.answer not in right and full in right
    assert lost <= 0.05 * 201 - 1


@pytest.mark.long
def test_thresholds_do_not_see_training_rows_and_overlap_is_refused(table, fitted):
    with pytest.raises(OverlapError, match="200 of 200 calibration questions were trained on"):
        fitted.calibrate(table.select(TRAIN), 0.05)
    loose = fitted.calibrate(table.select(TRAIN), 0.05, allow_overlap=True)
    assert loose.guarantee().startswith("Nothing is promised")
    assert np.isin(loose.trained_on, question_fingerprints(table.select(TRAIN))).all()


def test_differs_is_calibrated_without_labels(table, fitted):
    rows = table.select(CALIBRATION)
    unlabelled = RoutingTable(
        rows.ids,
        rows.texts,
        rows.models,
        np.zeros((200, 5), bool),
        answers=rows.answers,
        group=rows.group,
        missing=np.ones((200, 5), bool),
    )
    blind = fitted.calibrate(unlabelled, 0.05, loss="differs")
    sighted = fitted.calibrate(rows, 0.05, loss="differs")
    assert blind.calibration.threshold(None) == sighted.calibration.threshold(None)
    assert "differs from that of the vote of all models" in blind.guarantee()
    assert "whether the answers are right is not part of the promise" in blind.guarantee()
    with pytest.raises(ValueError, match="the loss 'differs', which needs none"):
        fitted.calibrate(unlabelled, 0.05)


def without_labels(rows):
    nothing = np.zeros(rows.correct.shape, bool)
    return replace(rows, correct=nothing, missing=~nothing)


@pytest.mark.long
def test_fitted_and_calibrated_without_a_single_label(table):
    train, rows = table.select(TRAIN), table.select(CALIBRATION)
    blind = Cascade.fit(key(), without_labels(train), loss="differs", form="letter")
    # Labels are not read: wrong ones change nothing, but for what says that there are some.
    lies = replace(train, correct=~train.correct, missing=None)
    assert without_labels(lies) == without_labels(train)
    assert blind.policy.reference == "vote"
    # Who agrees with the full vote counts as right, so to regret is to differ.
    regret, differs = (blind.policy.risk[name] for name in ("regret", "differs"))
    assert (regret.coefficients == differs.coefficients).all()
    assert np.abs(differs.coefficients).max() > 0.1
    calibrated = blind.calibrate(without_labels(rows), 0.05)
    assert calibrated.loss == "differs"
    assert "differs from that of the vote of all models" in calibrated.guarantee()
    agrees(calibrated, table.select(TEST), "differs")
    alone, at = calibrated.evaluate(without_labels(table.select(TEST)))
    assert (alone.differs, alone.risk) == (0, 0)
    assert np.isnan(at.accuracy)
    assert at.risk == at.differs
    assert at.calls < alone.calls
    for options in ({"loss": "regret"}, {"loss": "differs", "reference": "best"}):
        with pytest.raises(ValueError, match="label"):
            Cascade.fit(key(), without_labels(train), **options)


@pytest.mark.long
def test_models_are_matched_by_name(table, fitted):
    rows = table.select(TEST)
    more = rows.aligned(tuple(reversed(rows.models)))
    assert fitted.evaluate(more) == fitted.evaluate(rows)
    with pytest.raises(ValueError, match="the table has no model "):
        fitted.evaluate(rows.select(models=["small", "large"]))


@pytest.mark.long
def test_too_few_rows_say_how_many_it_takes(table, fitted):
    rows = table.select(slice(200, 250))
    with pytest.raises(ValueError, match=r"alpha = 0.01 takes at least 99 .*there are 50"):
        fitted.calibrate(rows, 0.01)
    with pytest.raises(ValueError, match=r"group 'easy' has \d+|group 'hard' has \d+"):
        fitted.calibrate(table.select(CALIBRATION), 0.005, by_group=True)
    with pytest.raises(NotCalibratedError):
        fitted.at(0.1)


@pytest.mark.long
def test_a_level_out_of_reach_is_refused(table):
    # The calls end with the best model; where it is wrong, no model called later can be right.
    best = Cascade.fit(key(), table.select(TRAIN), loss="covers", reference="best")
    rows = table.select(CALIBRATION)
    lost = np.isposinf(best.replay(rows).critical("covers")).sum()
    assert len(best.policy.calls) < len(best.models)
    assert lost > 0.02 * len(rows)
    with pytest.raises(ValueError, match=rf"keeps alpha = 0.02 .*{lost} lose after the last call"):
        best.calibrate(rows, 0.02)
    with pytest.raises(ValueError, match=r"of group '.*' .* lose after the last call"):
        best.calibrate(rows, 0.02, by_group=True)
    with pytest.raises(ValueError, match=r"alpha = 0.03 and delta = 0.1 on the loss"):
        best.calibrate(rows, 0.03, delta=0.1)
    within = best.calibrate(rows, (lost + 2) / (len(rows) + 1))
    assert np.isfinite(within.calibration.threshold(None)[0])
    whole = Cascade.fit(key(), table.select(TRAIN), loss="covers", reference="vote")
    assert whole.calibrate(rows, 0.02).calibration.threshold(None)[0] < np.inf


def test_at_another_level(table, fitted, calibrated):
    again = fitted.calibrate(table.select(CALIBRATION), 0.02)
    assert calibrated.at(0.02).calibration.threshold(None) == again.calibration.threshold(None)
    surely = fitted.calibrate(table.select(CALIBRATION), 0.05, delta=0.1)
    assert surely.calibration.threshold(None) >= calibrated.calibration.threshold(None)
    assert "with 90% confidence" in surely.guarantee()


@pytest.mark.long
def test_evaluation(table, calibrated):
    rows = table.select(TEST)
    alone, at = calibrated.evaluate(rows)
    assert alone.difference == alone.regret == alone.risk == 0
    assert at.calls < alone.calls < 5
    assert at.full_accuracy == alone.accuracy
    assert sum(at.stopped_after) == pytest.approx(1)
    assert sum(at.reasons.values()) == pytest.approx(1)
    states = [run(calibrated, rows, row) for row in range(len(rows))]
    assert at.calls == pytest.approx(np.mean([state.calls for state in states]))
    reasons = [state.reason for state in states]
    assert at.reasons == pytest.approx({r: reasons.count(r) / 100 for r in at.reasons})
    why = [(state.reason, state.calls) for state in states]
    for reason, shares in at.stopped_because.items():
        assert shares == pytest.approx([why.count((reason, k)) / 100 for k in range(1, 6)])
    assert "alpha = 0.05" in str(at)
    spent = [
        sum(rows.cost[i, rows.models.index(m)] for m in s.answers) for i, s in enumerate(states)
    ]
    assert at.dollars == pytest.approx(np.mean(spent))


def test_costs(table, calibrated):
    state = calibrated.start("?")
    model = state.call[0]
    assert (state.calls, state.cost) == (0, 0)
    place = calibrated.policy.calls.index(model)
    assert calibrated.tell(state, {model: None}).cost == calibrated.policy.mean_cost[place]
    assert calibrated.tell(state, {model: "A"}, {model: 0.5}).cost == 0.5


# --- bad input ------------------------------------------------------------------------------------


def test_telling_what_was_not_asked(calibrated):
    state = calibrated.start("?")
    first = state.call[0]
    with pytest.raises(ValueError, match="'tiny' was not asked: the models asked are"):
        calibrated.tell(state, {"tiny": "A"})
    after = calibrated.tell(state, {first: "A"})
    with pytest.raises(ValueError, match="has an answer already"):
        calibrated.tell(after, {first: "A"})
    while not after.done:
        after = calibrated.tell(after, dict.fromkeys(after.call, "A"))
    rest = set(calibrated.models) - set(after.answers)
    with pytest.raises(ValueError, match="this query has its answer"):
        calibrated.tell(after, {rest.pop(): "A"})
    assert state.calls == 0  # a state is not changed


def test_answers_of_all_kinds(calibrated):
    state = calibrated.start("?")
    model = state.call[0]
    for bad in (1, 2.5, float("nan"), ["A"], b"A"):
        with pytest.raises(TypeError, match="must be a string, or None for no answer, got"):
            calibrated.tell(state, {model: bad})
    for nothing in ("", "   ", "I refuse.", "A" * 100_000, None):
        assert calibrated.tell(state, {model: nothing}).answers == {model: None}
    assert calibrated.tell(state, {model: " (B) "}).answers == {model: "B"}
    long = replace(calibrated, form="text")
    told = long.tell(long.start("?"), {model: "x" * 100_000})
    assert len(told.answers[model]) == 100_000
    with pytest.raises(TypeError, match="query must be a string"):
        calibrated.start(7)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, {"large": "A"}), TypeError, "state must be what start or tell returned"),
        (("state", "A"), TypeError, "answers must be by model"),
        (("state", [("large", "A")]), TypeError, "answers must be by model"),
        (("state", {"large": "A"}, 3), TypeError, "dollars must be by model"),
        (("state", {"large": "A"}, {"large": "x"}), TypeError, "must be a number, got 'x'"),
        (("state", {"large": "A"}, {"large": float("nan")}), ValueError, "must be at least 0"),
        (("state", {"large": "A"}, {"large": -1.0}), ValueError, "must be at least 0, got -1.0"),
        (
            ("state", {"large": "A"}, {"tiny": 1.0}),
            ValueError,
            "models that answer now, got 'tiny'",
        ),
    ],
)
def test_steps_that_are_none(calibrated, arguments, error, message):
    state, *rest = arguments
    with pytest.raises(error, match=message):
        calibrated.tell(calibrated.start("?") if state else None, *rest)


def test_what_is_no_table_no_loss_and_no_form(table, fitted):
    for call in (fitted.calibrate, fitted.evaluate, fitted.replay):
        with pytest.raises(TypeError, match="table must be a RoutingTable, got NoneType"):
            call(None)
    with pytest.raises(ValueError, match="loss must be one of"):
        fitted.calibrate(table.select(CALIBRATION), 0.1, loss="accuracy")
    with pytest.raises(TypeError, match="table must be a RoutingTable"):
        Cascade.fit(key(), [])
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\)"):
        Cascade.fit(key(), table.select(TRAIN), alpha=2.0)
    with pytest.raises(TypeError, match="has no option 'lost': it has form, forms, loss, refer"):
        Cascade.fit(key(), table.select(TRAIN), lost="regret")
    with pytest.raises(UnknownFormError, match="named by a string"):
        Cascade.fit(key(), table.select(TRAIN), form=3)
    own = replace(fitted, form="own", forms={"own": len})
    with pytest.raises(TypeError, match="must give a string, or None for no answer, got int"):
        own.tell(own.start("?"), {own.start("?").call[0]: "A"})


def test_nobody_answers(calibrated):
    state = calibrated.start("?")
    while not state.done:
        state = calibrated.tell(state, dict.fromkeys(state.call))
    assert (state.answer, state.reason) == (None, "all called")
    assert state.calls == 5


def test_nobody_stops_before_there_is_an_answer(calibrated):
    """Not even where any answer at all would be safe enough."""
    eager = calibrated.at(0.9)
    first = eager.start("?").call[0]
    assert eager.tell(eager.start("?"), {first: "A"}).reason in ("risk", "decided")
    state = eager.tell(eager.start("?"), {first: None})
    assert not state.done
    while not state.done:
        state = eager.tell(state, dict.fromkeys(state.call))
    assert (state.answer, state.reason, state.calls) == (None, "all called", 5)


@pytest.mark.long
def test_replay_does_not_stop_before_there_is_an_answer(table, calibrated):
    eager = calibrated.at(0.9)
    first = eager.policy.calls[0]
    rows = table.select(slice(400, 402))
    answers = np.array(rows.answers)
    answers[0, :] = None
    answers[1, rows.models.index(first)] = None
    silent = replace(rows, answers=answers, correct=np.zeros((2, 5), bool))
    (_, at) = eager.evaluate(silent)
    assert at.stopped_after[0] == 0
    assert at.stopped_after[4] >= 0.5


def test_part_of_a_batch_is_awaited(table):
    pairs = Cascade.fit(key(), table.select(TRAIN), batches=(3,), reference="vote", form="letter")
    state = pairs.start("?")
    one, two, three = state.call
    part = pairs.tell(state, {two: "A"})
    assert (part.call, part.done) == ((one, three), False)
    all_told = pairs.tell(part, {three: "A", one: "B"})
    assert all_told == pairs.tell(state, {one: "B", two: "A", three: "A"})


# --- normal forms and the artefact ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "response", "expected"),
    [
        ("text", " Paris ", "Paris"),
        ("letter", "(C)", "C"),
        ("number", "so 1,024.0 in all", "1024"),
        ("json:answer", '{"answer": {"b": 1, "a": 2}}', '{"a": 2, "b": 1}'),
        ("json:answer", '{"answer": " x "}', "x"),
        ("json:answer", '{"answer": null}', None),
        ("json:answer", "[1]", None),
        ("json:answer", "[" * 100_000, None),
        ("first word", "Yes, it is", "Yes,"),
    ],
)
def test_normal_forms(form, response, expected):
    forms = {"first word": lambda text: text.split()[0]}
    assert normal_form(form, forms)(response) == expected


def test_unknown_forms_are_named(table):
    for name in ("letters", "json:", ""):
        with pytest.raises(UnknownFormError, match="json:FIELD"):
            Cascade.fit(key(), table.select(TRAIN), form=name)


def test_what_is_loaded_is_what_was_saved(tmp_path, table, calibrated):
    calibrated.save(tmp_path / "one.cascade")
    loaded = Cascade.load(tmp_path / "one.cascade", models=table.models)
    rows = table.select(TEST)
    assert [run(loaded, rows, i) for i in range(9)] == [run(calibrated, rows, i) for i in range(9)]
    assert loaded.guarantee() == calibrated.guarantee()
    assert repr(loaded) == repr(calibrated)
    description = json.loads((tmp_path / "one.cascade" / "racer.json").read_text())
    assert description["kind"] == "cascade"
    assert description["normal_form"] == "letter"
    loaded.at(0.1).save(tmp_path / "one.cascade")  # replaced in place
    assert Cascade.load(tmp_path / "one.cascade").calibration.alpha == "0.1"


def test_artefacts_that_are_damaged_or_of_something_else(tmp_path, fitted):
    place = tmp_path / "one"
    fitted.save(place)
    text = (place / "racer.json").read_text()
    (place / "racer.json").write_text(text.replace('"letter"', '"number"'))
    with pytest.raises(CorruptError, match="checksum"):
        Cascade.load(place)
    with pytest.raises(ArtefactError, match="folder not found"):
        Cascade.load(tmp_path / "nowhere")


def test_racers_and_cascades_are_told_apart(tmp_path, table, fitted):
    fitted.save(tmp_path / "cascade")
    with pytest.raises(
        ArtefactError, match=r"artefact of a Cascade, not of a Racer: load it with Cascade\.load"
    ):
        Racer.load(tmp_path / "cascade")
    Racer.from_scores(table.models).save(tmp_path / "racer")
    with pytest.raises(
        ArtefactError, match=r"artefact of a Racer, not of a Cascade: load it with Racer\.load"
    ):
        Cascade.load(tmp_path / "racer")


def test_a_form_of_ones_own_is_saved_by_name(tmp_path, table):
    forms = {"first word": lambda text: text.split()[0]}
    one = Cascade.fit(key(), table.select(TRAIN), form="first word", forms=forms)
    one.save(tmp_path / "one")
    with pytest.raises(UnknownFormError, match="'first word' is not known"):
        Cascade.load(tmp_path / "one")
    assert Cascade.load(tmp_path / "one", forms=forms).form == "first word"
