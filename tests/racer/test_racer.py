"""The racer against the core's own functions and plain loops, its order of steps, and every error it raises."""

import json
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import racer_jax as core
import racer_jax.encoders.registry
import racer_jax.routers.registry
from racer_jax import encoders, routers
from racer_jax.core.aggregation import answer_codes, majority_vote, voted_right, weighted_vote
from racer_jax.data import RoutingTable
from racer_jax.encoders import HashedNgrams, ReducedEncoder
from racer_jax.racer.decision import Decision, Reason
from racer_jax.racer.errors import NotCalibratedError, OverlapError, UnknownGroupWarning
from racer_jax.racer.fingerprints import question_fingerprints, question_ties
from racer_jax.racer.racer import Racer
from racer_jax.risk_control.bounds import sharp_risk
from racer_jax.risk_control.high_probability import calibrate_with_probability
from racer_jax.risk_control.mondrian import calibrate_by_group
from racer_jax.routers import KNNR, KNNConfig, Scores

MODELS = ("small", "medium", "large")
SCORES = {"gap": core.gap, "inverse_probability": core.inverse_probability}
WORDS = (
    "sum",
    "prime",
    "river",
    "poem",
    "verb",
    "atom",
    "tax",
    "king",
    "graph",
    "cell",
    "law",
    "note",
)


def table_of(rng, num, *, groups=True, start=0, answers=False, cost=False):
    """Questions whose scores say something of who is right, with ties among the scores."""
    scores = rng.integers(0, 11, (num, len(MODELS))) / 10
    correct = rng.random(scores.shape) < 0.8 * scores
    words = [" ".join(rng.choice(WORDS, 6)) for _ in range(num)]
    given = np.where(correct, "right", rng.choice(["x", "y"], scores.shape)).astype(object)
    given[rng.random(scores.shape) < 0.1] = None
    table = RoutingTable(
        ids=[f"q{start + i}" for i in range(num)],
        texts=[f"{line} {start + i}?" for i, line in enumerate(words)],
        models=MODELS,
        correct=correct & (given != None) if answers else correct,  # noqa: E711
        group=["a" if i % 3 else "b" for i in range(num)] if groups else None,
        answers=given if answers else None,
        cost=np.tile([0.001, 0.01, 0.1], (num, 1)) if cost else None,
    )
    return SimpleNamespace(table=table, scores=scores.astype(np.float32))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return SimpleNamespace(
        calibration=table_of(rng, 90, answers=True, cost=True),
        test=table_of(rng, 60, start=1000, answers=True, cost=True),
    )


@pytest.fixture(scope="module")
def racer(data):
    part = data.calibration
    return Racer.from_scores(MODELS, seed=7).calibrate(part.table, 0.2, scores=part.scores)


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(1)
    train, calibration = table_of(rng, 80).table, table_of(rng, 60, start=500).table
    encoder = ReducedEncoder.fit(jax.random.key(0), train.texts, 8, HashedNgrams(dim=64))
    racer = Racer.fit(jax.random.key(1), train, KNNConfig(k=7), encoder)
    return SimpleNamespace(train=train, calibration=calibration, racer=racer, encoder=encoder)


# --- against the core -----------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("seed", [None, 3], ids=["ties", "broken"])
@pytest.mark.parametrize("null", ["paper", "free", "never"])
@pytest.mark.parametrize("name", SCORES)
def test_thresholds_and_sets_are_those_of_the_core(data, name, null, seed):
    part, test = data.calibration, data.test
    racer = Racer.from_scores(MODELS, nonconformity=name, null=null, seed=seed)
    matrix, fresh = SCORES[name](part.scores, null), SCORES[name](test.scores, null)

    def ties(table):
        return (
            None
            if seed is None
            else jax.numpy.asarray(question_ties(question_fingerprints(table), seed, 4))
        )

    critical = core.critical_scores(matrix, part.table.correct, ties(part.table))
    for alpha in (0.02, 0.29, 0.5):
        got = racer.calibrate(part.table, alpha, scores=part.scores, by_group=False)
        wanted = core.calibrate(critical, alpha)
        sets = core.prediction_sets(fresh, wanted, ties(test.table))
        value, tie = (wanted, None) if seed is None else wanted
        assert got.calibration.threshold.tolist() == [float(value)]
        # At an infinite threshold the tie decides nothing; elsewhere the same bits do.
        assert (
            tie is None or np.isinf(value) or got.calibration.threshold_tie.tolist() == [int(tie)]
        )
        routed = got.route_scores(test.scores, ids=test.table.texts)
        assert routed.sets.tolist() == sets.tolist()

        grouped = racer.calibrate(part.table, alpha, scores=part.scores)
        by_group = calibrate_by_group(critical, part.table.group, alpha)
        value = by_group.threshold.value if seed is not None else by_group.threshold
        assert grouped.calibration.threshold.tolist() == value.tolist()
        own = by_group.of(test.table.group)
        second = None if seed is None else ties(test.table)[:, None]
        sets = core.prediction_sets(fresh[:, None], own, second)
        assert (
            grouped.route_scores(test.scores, test.table.group, ids=test.table.texts).sets.tolist()
            == sets[:, 0].tolist()
        )


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 99), st.booleans(), st.sampled_from(["all", "pooled"]))
def test_another_alpha_needs_no_data(data, percent, by_group, fallback):
    part, alpha = data.calibration, f"0.{percent:02d}"
    options = {"scores": part.scores, "by_group": by_group, "fallback": fallback}
    first = Racer.from_scores(MODELS).calibrate(part.table, 0.5, **options)
    again = Racer.from_scores(MODELS).calibrate(part.table, alpha, **options)
    assert (
        first.at(alpha).calibration.threshold_key.tolist()
        == again.calibration.threshold_key.tolist()
    )
    assert first.at(alpha).alpha == alpha


def test_the_pooled_fallback_is_that_of_the_core(data):
    part = data.calibration
    critical = core.critical_scores(core.gap(part.scores), part.table.correct)
    racer = Racer.from_scores(MODELS, nonconformity="gap", seed=None)
    got = racer.calibrate(part.table, 0.02, scores=part.scores, fallback="pooled")
    wanted = calibrate_by_group(critical, part.table.group, 0.02, "pooled")
    assert wanted.too_small == ("b",)
    assert got.calibration.threshold.tolist() == wanted.threshold.tolist()
    assert "group 'b'" in got.warnings()[0]
    assert "pooled" in got.warnings()[0]


def test_high_probability(data):
    part = data.calibration
    critical = core.critical_scores(core.gap(part.scores), part.table.correct)
    racer = Racer.from_scores(MODELS, nonconformity="gap", seed=None)
    got = racer.calibrate(part.table, 0.3, scores=part.scores, by_group=False, delta=0.1)
    assert got.calibration.threshold.tolist() == [
        float(calibrate_with_probability(critical, 0.3, 0.1))
    ]
    assert "with 90% confidence" in got.guarantee()
    assert "cannot promise" in got.at(0.001).warnings()[0]


# --- the statistics -------------------------------------------------------------------------------


@pytest.mark.long  # that thresholds and sets are those of the core is in the default
def test_the_risk_follows_its_exact_law():
    rng, num = np.random.default_rng(5), 400
    part = table_of(rng, 120, groups=False)
    racer, risks = Racer.from_scores(MODELS, seed=11), []
    for _ in range(num):
        rows = rng.permutation(120)
        chosen, rest = rows[:49], rows[49:]
        made = racer.calibrate(part.table.select(chosen), 0.2, scores=part.scores[chosen])
        routed = made.route_scores(part.scores[rest], ids=[part.table.texts[i] for i in rest])
        risks.append(np.asarray(core.misrouted(routed.sets, part.table.correct[rest])).mean())
    error = np.std(risks) / np.sqrt(num)
    assert abs(np.mean(risks) - sharp_risk(0.2, 49)) < 5 * error


def test_ties_are_uniform_and_differ_by_seed_and_question():
    questions = np.arange(4000, dtype=np.uint64)
    ties = question_ties(questions, 1, 5)
    assert ties.shape == (4000, 5)
    assert len(np.unique(ties)) > 19_990
    counts = np.bincount((ties >> np.uint32(28)).ravel(), minlength=16)
    assert ((counts - 1250) ** 2 / 1250).sum() < 50  # chi-square, 15 degrees of freedom
    assert (ties != question_ties(questions, 2, 5)).mean() > 0.999
    assert abs(np.corrcoef(ties.T.astype(float))[0, 1]) < 0.08


# --- evaluation -----------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("by_group", [True, False])
def test_evaluation_equals_a_plain_loop(data, by_group):
    part, test = data.calibration, data.test
    racer = Racer.from_scores(MODELS, seed=7).calibrate(
        part.table, 0.2, scores=part.scores, by_group=by_group
    )
    found = racer.evaluate(test.table, ["0.05", 0.4], scores=test.scores, temperatures=(0.5,))
    assert found.alphas == ("0.05", "0.2", "0.4")
    assert [group.group for group in found.groups] == ["all", "b", "a"]
    codes, correct = answer_codes(test.table.answers), test.table.correct
    for a, alpha in enumerate(found.alphas):
        routed = racer.at(alpha).route_scores(test.scores, test.table.group, ids=test.table.texts)
        sets = routed.sets
        for group in found.groups:
            rows = np.array([group.group in ("all", name) for name in test.table.group])
            assert group.num_queries == rows.sum()
            wanted = {
                "risk": core.misrouted(sets, correct),
                "size": core.set_size(sets),
                "abstention": core.abstains(sets),
                "avoidable_miss": core.avoidably_missed(sets, correct),
                "cost": (sets[:, :-1] * [0.001, 0.01, 0.1]).sum(axis=1),
            }
            for name, values in wanted.items():
                assert getattr(group, name)[a] == pytest.approx(
                    np.asarray(values)[rows].mean(), abs=1e-12
                ), name
            for j, model in enumerate(MODELS):
                assert group.called[model][a] == pytest.approx(sets[rows, j].mean())
            voted = {
                "majority": majority_vote(sets, codes, test.scores),
                "score, T = 0.5": weighted_vote(sets, codes, test.scores, test.scores, 0.5),
            }
            for name, winners in voted.items():
                right = np.asarray(voted_right(winners, codes, correct))
                assert group.accuracy[name][a] == pytest.approx(right[rows].mean()), name
            judged = (sets[:, :-1] & correct).any(axis=1)
            assert group.accuracy["a judge picks"][a] == pytest.approx(judged[rows].mean())
            assert group.beta == pytest.approx((~correct[rows].any(axis=1)).mean())
            assert group.promised == (by_group or group.group == "all")
            if group.promised:
                assert group.upper[a] == pytest.approx(float(alpha))
                assert group.lower[a] < group.expected[a] <= group.upper[a]
            else:
                assert np.isnan(group.upper[a])


@pytest.mark.long
def test_baselines(data):
    part, test = data.calibration, data.test
    racer = Racer.from_scores(MODELS).calibrate(part.table, 0.2, scores=part.scores, by_group=False)
    whole = racer.evaluate(test.table, "0.1:0.3:0.1", scores=test.scores).groups[0]
    correct = test.table.correct
    best = int(np.argmax(part.table.correct.mean(axis=0)))
    lines = {line.name: line for line in whole.baselines}
    assert list(lines) == [
        "best single",
        "static order, 1 model",
        "static order, 2 models",
        "full ensemble",
    ]
    assert lines["best single"].models == (MODELS[best],)
    assert lines["best single"].accuracy["majority"] == pytest.approx(correct[:, best].mean())
    assert lines["full ensemble"].avoidable_miss == 0
    assert lines["full ensemble"].cost == pytest.approx(0.111)
    first = lines["static order, 1 model"].models[0]
    # The static order begins with the model that covers most of the calibration queries.
    assert part.table.correct[:, MODELS.index(first)].sum() == part.table.correct.sum(axis=0).max()
    assert whole.oracle == pytest.approx(correct.any(axis=1).mean())
    assert whole.random == pytest.approx(correct.mean())


@pytest.mark.long
def test_the_spread_of_the_risk_is_that_of_the_beta_binomial(data):
    from racer_jax.risk_control.bounds import miss_law

    part, test = data.calibration, data.test
    racer = Racer.from_scores(MODELS).calibrate(part.table, 0.2, scores=part.scores, by_group=False)
    whole = racer.evaluate(test.table, [0.1], scores=test.scores).groups[0]
    for i, alpha in enumerate((0.1, 0.2)):
        law = miss_law(alpha, 90, 60)
        assert whole.std[i] == pytest.approx(law.std() / 60)
        assert whole.expected[i] == pytest.approx(law.mean() / 60)


@pytest.mark.long
def test_evaluation_says_what_was_seen_and_how_labels_were_made(data, racer):
    again = racer.evaluate(data.calibration.table, [0.1], scores=data.calibration.scores)
    assert again.num_seen == 90
    assert (
        "optimistic: 90 of these 90 questions were used for training or calibration"
        in again.notes[0]
    )
    other = RoutingTable(
        ids=["z"],
        texts=["new?"],
        models=MODELS,
        correct=[[1, 0, 0]],
        group=["a"],
        label_rule="score > 0.5",
    )
    assert any(
        "'score > 0.5'" in note
        for note in racer.evaluate(other, [0.1], scores=np.full((1, 3), 0.5)).notes
    )


@pytest.mark.long
def test_evaluation_prints_and_is_plain(data, racer):
    found = racer.evaluate(data.test.table, [0.1], scores=data.test.scores)
    printed = str(found)
    for word in (
        "risk",
        "best single",
        "static order, 2 models",
        "full ensemble",
        "exchangeable",
        "majority",
    ):
        assert word in printed
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["groups"][0]["risk"] == found.groups[0].risk.tolist()
    assert plain["alphas"][found.row] == "0.2"


def test_costs_that_are_not_known(data):
    part = data.calibration
    bare = table_of(np.random.default_rng(8), 90)
    racer = Racer.from_scores(MODELS).calibrate(bare.table, 0.2, scores=bare.scores)
    found = racer.evaluate(bare.table, [0.1], scores=bare.scores)
    assert found.groups[0].cost is None
    assert found.groups[0].cost_saved is None
    assert "a judge picks" in str(found)
    # A table without costs borrows the mean costs of the calibration.
    known = Racer.from_scores(MODELS).calibrate(part.table, 0.2, scores=part.scores)
    assert known.evaluate(bare.table, [0.1], scores=bare.scores).groups[0].baselines[
        -1
    ].cost == pytest.approx(0.111)


# --- reasons --------------------------------------------------------------------------------------


def test_an_infeasible_alpha_calls_every_model(data, racer):
    routed = racer.at(0.001).route_scores(data.test.scores, data.test.table.group)
    assert set(routed.reasons) == {Reason.INFEASIBLE}
    assert routed.called.all()
    assert len(routed[0].models) == 3
    assert "takes at least 999 calibration queries, got 60" in " ".join(racer.at(0.001).warnings())
    assert "no threshold in group 'b' keeps the risk to at most 0.001" in routed[0].explain()


@pytest.mark.long
def test_null_mode_never_may_be_out_of_reach(data):
    part = data.calibration
    racer = Racer.from_scores(MODELS, null="never").calibrate(
        part.table, 0.1, scores=part.scores, by_group=False
    )
    assert racer.route_scores(data.test.scores)[0].reason is Reason.INFEASIBLE
    assert "null mode 'never' counts each as a miss" in racer.warnings()[0]
    whole = racer.evaluate(data.test.table, [0.1], scores=data.test.scores).groups[0]
    assert np.isnan(whole.upper[0])
    assert whole.risk[0] == pytest.approx(whole.beta)


@pytest.mark.parametrize("groups", [None, "z", ["z", None]])
def test_an_unknown_group_calls_every_model(racer, groups):
    with pytest.warns(UnknownGroupWarning, match="every model is called"):
        decisions = racer.at(0.2).route_scores(np.full((2, 3), 0.5, np.float32), groups)
    assert set(decisions.reasons) == {Reason.UNKNOWN_GROUP}
    assert decisions.called.all()
    assert "Call every model" in decisions[0].explain()


@pytest.mark.parametrize("group", [1, 0.5, float("nan"), b"z", ["z"], True], ids=repr)
def test_a_group_that_is_no_string_is_refused(racer, group):
    with pytest.raises(TypeError, match=r"groups must be strings or None, got .* for query 1"):
        racer.at(0.2).route_scores(np.full((2, 3), 0.5, np.float32), ["z", group])


def test_it_abstains_where_nothing_is_plausible(data):
    part = data.calibration
    racer = Racer.from_scores(MODELS, nonconformity="inverse_probability").calibrate(
        part.table, 0.5, scores=part.scores, by_group=False
    )
    decision = racer.route_scores(np.full((1, 3), 0.01, np.float32))[0]
    assert decision.reason is Reason.ABSTAIN
    assert decision.abstained
    assert decision.models == ()
    assert "Call no model" in decision.explain()
    assert decision.expected_cost == 0


# --- decisions ------------------------------------------------------------------------------------


def test_a_decision_in_full(data, racer):
    decision = racer.route_scores(np.array([[0.1, 0.9, 0.95]], np.float32), "a")[0]
    assert decision.models == ("large", "medium")
    assert decision.scores == pytest.approx({"small": 0.1, "medium": 0.9, "large": 0.95})
    assert decision.threshold == racer.calibration.threshold[1]
    for model, margin in decision.margins.items():
        assert margin == pytest.approx(decision.threshold - (1 - decision.scores[model]), abs=1e-6)
        assert (margin >= 0) == (model in decision.models)
    assert decision.expected_cost == pytest.approx(0.11)
    assert decision.explain().startswith(
        "Call large, then medium: 2 of 3 models are plausible enough at alpha = 0.2"
    )
    assert "Expected cost $0.11" in decision.explain()
    assert Decision.from_json(decision.to_json()) == decision


numbers = st.floats(allow_nan=False, width=32)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.text(min_size=1, max_size=8).filter(lambda s: s.isprintable()),
        min_size=1,
        max_size=4,
        unique=True,
    ),
    st.data(),
)
def test_decisions_survive_json(names, data):
    decision = Decision(
        models=tuple(data.draw(st.lists(st.sampled_from(names), unique=True))),
        scores={name: data.draw(st.floats(0, 1)) for name in names},
        margins={name: data.draw(numbers) for name in names},
        threshold=data.draw(numbers),
        reason=data.draw(st.sampled_from(Reason)),
        alpha="0.1",
        group=data.draw(st.none() | st.text(max_size=4)),
        expected_cost=data.draw(st.none() | st.floats(0, 1e6)),
    )
    assert Decision.from_json(decision.to_json()) == decision
    assert decision.explain()


PLAIN = Decision(("a",), {"a": 0.5}, {"a": 0.1}, 0.6, Reason.OK, "0.1").to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must be a JSON object, got list"),
        ("{}", "must have the fields"),
        (json.dumps({**PLAIN, "models": 1}), "not a decision"),
        (json.dumps({**PLAIN, "reason": "why"}), "not a decision: 'why'"),
    ],
)
def test_what_is_no_decision_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Decision.from_json(text)


def test_decisions_are_a_sequence(data, racer):
    routed = racer.route_scores(data.test.scores, data.test.table.group, ids=data.test.table.texts)
    assert len(routed) == 60
    assert routed[-1] == list(routed)[59]
    assert routed[2:4] == [routed[2], routed[3]]
    with pytest.raises(IndexError, match="between -60 and 59, got 60"):
        routed[60]
    # A query is decided alone as it is among others.
    for i in range(5):
        alone = racer.route_scores(
            data.test.scores[i : i + 1], data.test.table.group[i], ids=[data.test.table.texts[i]]
        )
        assert alone[0] == routed[i]


# --- aggregation ----------------------------------------------------------------------------------


@pytest.mark.long
def test_aggregate(racer):
    decision = racer.at(0.05).route_scores(np.array([[0.8, 0.9, 0.95]], np.float32), "a")[0]
    assert decision.models == ("large", "medium", "small")
    answers = {"large": "A", "medium": "B", "small": "B"}
    assert racer.aggregate(decision, answers) == "B"
    assert racer.aggregate(decision, answers, "score", 0.01) == "A"
    assert racer.aggregate(decision, answers, "log_odds", 0.1) == "A"
    sure = {"large": 0.1, "medium": 1.0, "small": 0.1}
    assert racer.aggregate(decision, answers, "confidence", 0.1, sure) == "B"
    assert racer.aggregate(decision, {"large": None, "medium": None, "small": None}) is None
    assert racer.aggregate(decision, {"large": None, "medium": "C", "small": None}) == "C"
    with pytest.raises(ValueError, match="answers must be of the called models"):
        racer.aggregate(decision, {"large": "A"})
    with pytest.raises(
        ValueError, match="weighting must be majority, score, log_odds or confidence, got 'best'"
    ):
        racer.aggregate(decision, answers, "best")
    with pytest.raises(ValueError, match="confidence must be of the called models"):
        racer.aggregate(decision, answers, "confidence")


def test_nobody_called_gives_no_answer(racer):
    empty = Decision((), {"small": 0.1}, {"small": -0.1}, 0.5, Reason.ABSTAIN, "0.1")
    assert racer.aggregate(empty, {}) is None


# --- texts ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_text_scores_are_those_of_encoder_and_router(texts):
    racer = texts.racer.calibrate(texts.calibration, 0.2)
    routed = racer.route(texts.calibration.texts, texts.calibration.group)
    router = KNNR.fit(texts.encoder.encode(texts.train.texts), texts.train.correct, 7)
    wanted = router(texts.encoder.encode(texts.calibration.texts))
    np.testing.assert_allclose(routed.scores, wanted, atol=1e-6)
    for i in (0, 7, 59):
        alone = racer.route(texts.calibration.texts[i], texts.calibration.group[i])
        assert alone.models == routed[i].models
        assert alone.reason == routed[i].reason


@pytest.mark.long
def test_batches_of_any_size_compile_few_shapes(texts):
    racer = texts.racer.calibrate(texts.calibration, 0.2, by_group=False)
    for size in (1, 2, 3, 5, 7, 8, 9, 13, 16):
        racer.route(texts.calibration.texts[:size], texts.calibration.group[:size])
    # 1, 2, 4, 8, 16, and the 64 of the calibration.
    assert racer.scorer._forward._cache_size() <= 7


def test_it_refuses_to_calibrate_on_what_it_was_trained_on(texts):
    both = texts.train.select(slice(0, 5))
    with pytest.raises(
        OverlapError, match="5 of 5 calibration questions were trained on, first 'q0'"
    ):
        texts.racer.calibrate(both, 0.2)
    allowed = texts.racer.calibrate(both, 0.4, allow_overlap=True)
    assert "Nothing is promised: 5 calibration questions were trained on" in allowed.guarantee()
    assert "5 calibration questions were trained on: the risk is not promised" in allowed.warnings()
    assert not allowed.evaluate(texts.calibration, [0.4]).groups[0].promised
    assert len(texts.racer.unseen(texts.train)) == 0
    assert len(texts.racer.calibrate(texts.calibration, 0.2).unseen(texts.calibration)) == 0
    assert len(texts.racer.unseen(texts.calibration)) == 60


def test_fitting_is_deterministic(texts):
    again = Racer.fit(jax.random.key(1), texts.train, KNNConfig(k=7), texts.encoder)
    assert again.seed == texts.racer.seed
    assert (
        Racer.fit(
            jax.random.key(1), texts.train, KNNConfig(k=7), texts.encoder, tie_break=False
        ).seed
        is None
    )


def test_a_router_of_ones_own(texts):
    def router(embeddings):
        return np.tile(np.array([[0.2, 0.5, 0.9]], np.float32), (len(embeddings), 1))

    racer = Racer.from_router(texts.encoder, router, MODELS, trained_on=texts.train.texts)
    routed = racer.calibrate(texts.calibration, 0.3).route(texts.calibration.texts[:3], "a")
    np.testing.assert_allclose(routed.scores[0], [0.2, 0.5, 0.9])
    with pytest.raises(OverlapError):
        racer.calibrate(texts.train, 0.3)
    bad = Racer.from_router(texts.encoder, lambda x: np.full((len(x), 3), 2.0), MODELS)
    with pytest.raises(
        ValueError, match=r"the router's scores must be finite and in \[0, 1\], got 2.0"
    ):
        bad.calibrate(texts.calibration, 0.3)


def test_label_rules_that_differ_are_told(texts):
    from dataclasses import replace

    other = replace(texts.calibration, label_rule="score > 0.5")
    told = texts.racer.calibrate(other, 0.3).warnings()[0]
    assert "trained under the label rule 'as given', calibrated under 'score > 0.5'" in told


# --- errors ---------------------------------------------------------------------------------------


def test_steps_in_the_wrong_order(texts, data):
    bare = Racer.from_scores(MODELS)
    for step, call in {
        "route": lambda: texts.racer.route("x?"),
        "route_scores": lambda: bare.route_scores(data.test.scores),
        "evaluate": lambda: bare.evaluate(data.test.table, scores=data.test.scores),
        "at": lambda: bare.at(0.1),
        "alpha": lambda: bare.alpha,
        "guarantee": lambda: bare.guarantee(),
    }.items():
        with pytest.raises(
            NotCalibratedError, match=rf"{step} needs a threshold: call calibrate\("
        ):
            call()
    assert bare.warnings() == ()
    assert "not calibrated" in repr(bare)


def test_scores_and_texts_are_not_mixed(texts, data, racer):
    with pytest.raises(ValueError, match="no router of its own: give scores to route_scores"):
        racer.route("What?")
    with pytest.raises(ValueError, match="no router of its own: pass scores="):
        Racer.from_scores(MODELS).calibrate(data.test.table, 0.1)
    with pytest.raises(ValueError, match="has a router of its own"):
        texts.racer.calibrate(data.test.table, 0.1, scores=data.test.scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nonconformity": "best"}, "nonconformity must be one of"),
        ({"null": "no"}, "null must be one of"),
        ({"models": ()}, "models must hold at least one name"),
        ({"models": ("a", "a")}, "models must hold at least one name, each once"),
    ],
)
def test_options_that_are_not(options, message):
    with pytest.raises(ValueError, match=message):
        Racer.from_scores(**{"models": MODELS, **options})


def test_tables_that_do_not_fit(data, racer, texts):
    table, scores = data.test.table, data.test.scores
    with pytest.raises(ValueError, match="table must be of the models"):
        racer.evaluate(table.select(models=MODELS[::-1]), scores=scores)
    with pytest.raises(ValueError, match="table must hold at least one query"):
        racer.evaluate(table.select([]), scores=scores)
    lacking = RoutingTable(
        ids=["a"], texts=["b"], models=MODELS, correct=[[0, 0, 0]], missing=[[1, 0, 0]]
    )
    with pytest.raises(ValueError, match="a result of every model for every query"):
        racer.evaluate(lacking, scores=scores)
    with pytest.raises(ValueError, match="a row for each of the 60 queries, got 59"):
        racer.evaluate(table, scores=scores[1:])
    with pytest.raises(ValueError, match=r"scores must have shape \[n, 3\]"):
        racer.route_scores(scores[:, :2])
    with pytest.raises(TypeError, match="scores must be floating, got dtype int64"):
        racer.route_scores(np.zeros((2, 3), int))
    with pytest.raises(ValueError, match=r"finite and in \[0, 1\], got nan at \[0, 1\]"):
        racer.route_scores(np.array([[0.1, np.nan, 0.2]]))
    with pytest.raises(
        ValueError, match=r"scores must be of the models.* scores are missing of 'small'"
    ):
        racer.route_scores(Scores(np.full((1, 3), 0.5, np.float32), ["x", "y", "z"]))
    assert len(racer.route_scores(Scores(np.full((1, 3), 0.5, np.float32), MODELS), "a")) == 1
    with pytest.raises(ValueError, match="one group for each of the 60 queries, got 1"):
        racer.route_scores(scores, ["a"])
    with pytest.raises(ValueError, match="ids must name each of the 60 queries, got 1"):
        racer.route_scores(scores, "a", ids=["x"])
    with pytest.raises(ValueError, match="alpha must be in"):
        racer.at(1.5)
    with pytest.raises(ValueError, match="fallback must be one of"):
        Racer.from_scores(MODELS).calibrate(table, 0.1, scores=scores, fallback="none")
    with pytest.raises(ValueError, match="delta must be in"):
        Racer.from_scores(MODELS).calibrate(table, 0.1, scores=scores, delta=2.0)
    calibrated = texts.racer.calibrate(texts.calibration, 0.2)
    with pytest.raises(ValueError, match="must not be empty or only white space"):
        calibrated.route(" ")


@pytest.mark.long
def test_models_are_matched_by_name(data, texts):
    part, turned = data.calibration, [2, 0, 1]
    names = [MODELS[j] for j in turned]
    table, scores = part.table.select(models=names), Scores(part.scores[:, turned], names)
    bare = Racer.from_scores(MODELS, seed=7)
    by_place = bare.calibrate(part.table, 0.2, scores=part.scores)
    by_name = bare.calibrate(table, 0.2, scores=scores)
    np.testing.assert_array_equal(by_name.calibration.value, by_place.calibration.value)
    assert by_name.static_order == by_place.static_order
    first = by_place.evaluate(part.table, [0.1], scores=part.scores)
    second = by_place.evaluate(table, [0.1], scores=scores)
    assert str(first) == str(second)
    fewer = Racer.from_scores(MODELS[:2], seed=7).calibrate(table, 0.2, scores=scores)
    again = fewer.evaluate(table, [0.1], scores=scores)
    assert any("left out 1 of 3 models" in note for note in again.notes)
    with pytest.raises(ValueError, match="the table has no model 'large'"):
        bare.calibrate(part.table.select(models=MODELS[:2]), 0.2, scores=scores)


def test_names_cannot_steer_a_terminal(data):
    names, part = ["\x1b[2Jsmall", "medium", "\u202elarge"], data.calibration
    table = RoutingTable(
        ids=part.table.ids,
        texts=part.table.texts,
        models=names,
        correct=part.table.correct,
        group=["g\x07" if name == "a" else name for name in part.table.group],
    )
    made = Racer.from_scores(names).calibrate(table, 0.2, scores=part.scores)
    printed = [str(made.evaluate(table, [0.1], scores=part.scores)), *made.at(0.001).warnings()]
    printed.append(made.route_scores(part.scores[:1], "g\x07")[0].explain())
    assert r"\x1b[2Jsmall" in printed[-1]
    for text in printed:
        assert all(character.isprintable() or character == "\n" for character in text), text


def test_a_racer_pickles(texts, data):
    racer = texts.racer.calibrate(texts.calibration, 0.2)
    again = pickle.loads(pickle.dumps(racer))
    queries = texts.calibration.texts[:4], texts.calibration.group[:4]
    assert list(again.route(*queries)) == list(racer.route(*queries))


_FORKED = """
import os, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from racer_jax.racer import ForkedError, Racer

def in_child(work):
    child = os.fork()
    if not child:
        try:
            work()
        except ForkedError as error:
            os._exit(7 if "spawn" in str(error) else 8)
        except BaseException:
            os._exit(9)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

scores = np.full((2, 3), 0.5, np.float32)
work = lambda: Racer.load(sys.argv[1]).route_scores(scores, "a")
print(in_child(work))
work()
print(in_child(work))
"""


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_after_jax_was_used_is_an_error_and_one_before_works(racer, tmp_path):
    racer.save(tmp_path / "a")
    command = [sys.executable, "-c", _FORKED, str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["0", "7"], done.stderr


def test_routers_and_encoders_of_ones_own_go_by_their_name(texts, monkeypatch):
    class Constant:
        def fit(self, key, embeddings, correct, questions):
            shares = correct.mean(axis=0).astype(np.float32)
            return lambda x: np.tile(shares, (len(x), 1))

    monkeypatch.setattr(routers.registry, "ROUTERS", dict(routers.ROUTERS))
    monkeypatch.setattr(encoders.registry, "ENCODERS", dict(encoders.ENCODERS))
    routers.register_router("constant", lambda num_rows: Constant())
    encoders.register_encoder("tiny", lambda key, batch: HashedNgrams(dim=8))
    racer = Racer.fit(jax.random.key(0), texts.train, "constant", "tiny")
    scores = racer.score(texts.calibration).scores
    np.testing.assert_allclose(scores[0], texts.train.correct.mean(axis=0), rtol=1e-6)
    with pytest.raises(ValueError, match=r"the router 'constant' .* is there already"):
        routers.register_router("constant", lambda num_rows: Constant())
    with pytest.raises(ValueError, match=r"the encoder 'tiny' .* is there already"):
        encoders.register_encoder("tiny", lambda key, batch: HashedNgrams())


@pytest.mark.long
def test_fits_that_cannot_be(texts):
    with pytest.raises(ValueError, match="router must be one of"):
        Racer.fit(jax.random.key(0), texts.train, "tree", texts.encoder)
    with pytest.raises(ValueError, match="encoder must be one of"):
        Racer.fit(jax.random.key(0), texts.train, "knn", "words")
    with pytest.raises(ValueError, match="training questions, got none"):
        Racer.fit(jax.random.key(0), texts.train.select([]), "knn")
