"""What changes without data, against a calibration on the same queries from the start."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from racer_jax.data import RoutingTable
from racer_jax.encoders import HashedNgrams, ReducedEncoder
from racer_jax.racer.errors import NoRecordError, UnknownGroupError, UnknownGroupWarning
from racer_jax.racer.racer import Racer
from racer_jax.risk_control.bounds import sharp_risk
from racer_jax.routers import KNNConfig
from tests.racer.test_racer import MODELS, table_of

LEFT = ("small", "large")


@pytest.fixture(scope="module")
def part():
    return table_of(np.random.default_rng(21), 90, cost=True)


@pytest.fixture(scope="module")
def test_part():
    return table_of(np.random.default_rng(22), 40, start=1000)


@pytest.fixture(scope="module")
def racer(part):
    return Racer.from_scores(MODELS, seed=5).calibrate(part.table, 0.2, scores=part.scores)


def same(first, second):
    """Whether two calibrations decide alike at every alpha."""
    levels = ["0.02", "0.1", "0.3"]
    keys = [made.calibration.threshold_keys(levels).tolist() for made in (first, second)]
    assert keys[0] == keys[1]
    assert first.calibration.accuracy.tolist() == second.calibration.accuracy.tolist()
    assert first.guarantee() == second.guarantee()


def test_a_smaller_pool_is_what_calibrating_it_gives(part, test_part, racer):
    for name, null, seed in (
        ("gap", "paper", 5),
        ("inverse_probability", "free", None),
        ("gap", "never", 5),
    ):
        whole = Racer.from_scores(MODELS, nonconformity=name, null=null, seed=seed)
        whole = whole.calibrate(part.table, 0.2, scores=part.scores)
        smaller = whole.without("medium")
        columns = [0, 2]
        anew = Racer.from_scores(LEFT, nonconformity=name, null=null, seed=seed)
        anew = anew.calibrate(part.table.aligned(LEFT), 0.2, scores=part.scores[:, columns])
        same(smaller, anew)
        routed = smaller.route_scores(test_part.scores[:, columns], test_part.table.group)
        wanted = anew.route_scores(test_part.scores[:, columns], test_part.table.group)
        assert routed.sets.tolist() == wanted.sets.tolist()
    assert smaller.models == LEFT
    assert smaller.cost.tolist() == pytest.approx([0.001, 0.1])
    assert [smaller.models[j] for j in smaller.static_order] == [
        MODELS[j] for j in racer.static_order if j != 1
    ]


def test_two_steps_are_one_and_bad_names_are_refused(racer):
    one = racer.without("medium", "small")
    same(one, racer.without("medium").without("small"))
    assert one.models == ("large",)
    for models, match in (
        ((), "at least one model, got none"),
        (("medum",), "'medum' is not a model of the pool: did you mean 'medium'"),
        (MODELS, "must leave at least one"),
    ):
        with pytest.raises(ValueError, match=match):
            racer.without(*models)
    bare = Racer.from_scores(MODELS).without("small")
    assert (bare.models, bare.calibration) == (("medium", "large"), None)


@pytest.mark.long
def test_the_risk_of_the_smaller_pool_follows_its_law_and_the_old_threshold_breaks_it():
    """The best model dies: exact mean risk of both thresholds over random calibration sets."""
    rng, num, n = np.random.default_rng(9), 150, 49
    part = table_of(rng, 120, groups=False)
    right = part.table.correct | (rng.random((120, 3)) < [0.0, 0.0, 0.7])
    scores = np.where(right, 0.7, 0.3).astype(np.float32) + rng.random((120, 3), np.float32) / 4
    table = replace(part.table, correct=right)
    racer, own, old = Racer.from_scores(MODELS, nonconformity="gap", seed=11), [], []
    racer = replace(racer, static_order=(0, 1, 2), cost=np.ones(3))  # not to be learned each time
    for _ in range(num):
        rows = rng.permutation(120)
        chosen, rest = rows[:n], rows[n:]
        whole = racer.calibrate(table.select(chosen), 0.2, scores=scores[chosen])
        smaller, ids = whole.without("large"), [table.texts[i] for i in rest]
        for made, risks in ((smaller, own), (replace(smaller, calibration=whole.calibration), old)):
            routed = made.route_scores(scores[rest][:, :2], ids=ids)
            truth = np.concatenate([right[rest][:, :2], ~right[rest][:, :2].any(1)[:, None]], 1)
            risks.append((~(routed.sets & truth).any(axis=1)).mean())
    error = np.std(own) / np.sqrt(num)
    assert abs(np.mean(own) - sharp_risk(0.2, n)) < 5 * error
    assert np.mean(old) > 0.2 + 5 * error


@pytest.mark.long
@pytest.mark.parametrize("name", ["static", "J", "J_learned", "gap"])
def test_a_router_and_its_order_go_on_without_a_model(part, test_part, name, tmp_path):
    train = table_of(np.random.default_rng(23), 80, start=3000).table
    encoder = ReducedEncoder.fit(jax.random.key(0), train.texts, 8, HashedNgrams(dim=64))

    def fitted(table):
        made = Racer.fit(jax.random.key(1), table, KNNConfig(k=7), encoder, nonconformity=name)
        return made.calibrate(part.table.aligned(table.models), 0.2)

    smaller, anew = fitted(train).without("medium"), fitted(train.aligned(LEFT))
    got, wanted = smaller.score(test_part.table), anew.score(test_part.table)
    np.testing.assert_allclose(got.scores, wanted.scores, atol=1e-6)
    if name != "J_learned":  # whose gains are not fitted anew
        np.testing.assert_allclose(got.nonconformity, wanted.nonconformity, atol=2e-6)
        thresholds = (made.calibration.threshold for made in (smaller, anew))
        np.testing.assert_allclose(*thresholds, atol=2e-6)
    # What calibration sees anew is what routing computes.
    again = smaller.calibrate(part.table.aligned(LEFT), 0.2)
    np.testing.assert_allclose(
        again.calibration.record.nonconformity,
        smaller.calibration.record.nonconformity,
        atol=2e-6,
    )
    smaller.save(tmp_path / "a")
    loaded = Racer.load(tmp_path / "a")
    routed = [
        made.route(test_part.table.texts, test_part.table.group) for made in (smaller, loaded)
    ]
    assert routed[0].sets.tolist() == routed[1].sets.tolist()
    same(loaded.without("small"), smaller.without("small"))


def test_other_options_are_what_calibrating_with_them_gives(part):
    bare = Racer.from_scores(MODELS, seed=5)
    first = bare.calibrate(part.table, 0.2, scores=part.scores, delta=0.1)
    for options in (
        {"by_group": False},
        {"delta": None},
        {"fallback": "pooled"},
        {"unknown_group": "pooled", "max_models": 2},
    ):
        wanted = bare.calibrate(part.table, 0.3, scores=part.scores, **{"delta": 0.1, **options})
        same(first.recalibrate(0.3, **options), wanted)
        assert first.recalibrate(**options).alpha == "0.2"
    same(first.recalibrate(), first)
    with pytest.raises(TypeError, match=r"an option must be one of by_group, .*got 'null'"):
        first.recalibrate(null="free")


def test_what_it_saw_is_saved_and_an_older_artefact_says_that_it_lacks_it(part, racer, tmp_path):
    racer.save(tmp_path / "a")
    again = Racer.load(tmp_path / "a")
    for name in ("scores", "nonconformity", "correct", "questions", "code"):
        first, second = (getattr(made.calibration.record, name) for made in (racer, again))
        assert first.dtype == second.dtype
        assert first.tolist() == second.tolist()
    assert again.calibration.record.group == part.table.group
    same(again.without("small"), racer.without("small"))
    size = sum(file.stat().st_size for file in (tmp_path / "a").glob("*.safetensors"))
    assert size < 100 * 90
    old = replace(racer, calibration=replace(racer.calibration, record=None))
    for step in (lambda: old.without("small"), lambda: old.recalibrate(by_group=False)):
        with pytest.raises(NoRecordError, match="calibrate it once more on labelled queries"):
            step()
    same(old.recalibrate(0.3, delta=0.1), racer.recalibrate(0.3, delta=0.1))


# --- groups without calibration queries ------------------------------------------------------------------


def test_unknown_groups_warn_once_each_and_name_what_was_meant(part, racer):
    named = replace(part.table, group=["mmlu" if g == "a" else "arc" for g in part.table.group])
    made = Racer.from_scores(MODELS).calibrate(named, 0.2, scores=part.scores)
    scores = part.scores[:2]
    with pytest.warns(UnknownGroupWarning) as caught:
        made.route_scores(scores, ["Mmul", None])
    messages = [str(warning.message) for warning in caught]
    assert messages == [
        "the group 'Mmul' is unknown (did you mean 'mmlu'?); every model is called",
        "no group was given, and there is a threshold for each of 'arc', 'mmlu'; every model is "
        "called",
    ]
    made.route_scores(scores, ["Mmul", None])  # said already
    made.route_scores(scores, "mmlu")
    with pytest.warns(
        UnknownGroupWarning, match=r"'law' is unknown \(calibrated on 'arc', 'mmlu'\)"
    ):
        made.route_scores(scores, ["law", "mmlu"])


def test_the_policy_for_unknown_groups_is_kept_and_named(part, racer, tmp_path):
    scores = part.scores[:6]
    pooled = racer.recalibrate(unknown_group="pooled")
    pooled.save(tmp_path / "pooled")
    described = json.loads((tmp_path / "pooled" / "racer.json").read_text())
    assert described["calibration"]["unknown_group"] == "pooled"
    loaded = Racer.load(tmp_path / "pooled")
    with pytest.warns(UnknownGroupWarning, match="the threshold of all groups together is used"):
        decisions = loaded.route_scores(scores, "new")
    wanted = racer.recalibrate(by_group=False).route_scores(scores)
    assert decisions.sets.tolist() == wanted.sets.tolist()
    assert decisions.threshold.tolist() == wanted.threshold.tolist()
    assert {reason.value for reason in decisions.reasons} == {"unknown group, pooled threshold"}
    assert "no calibration query of group 'new', so the threshold of all" in decisions[0].explain()
    strict = racer.recalibrate(unknown_group="error")
    assert "error" in repr(strict.calibration.unknown_group)
    for groups, match in (("A", "did you mean 'a'"), (None, "no group was given")):
        with pytest.raises(UnknownGroupError, match=match):
            strict.route_scores(scores, groups)
    assert len(strict.route_scores(scores, "a")) == 6
    with pytest.raises(ValueError, match=r"unknown_group must be one of .*'all'"):
        racer.recalibrate(unknown_group="none")


# --- a larger pool --------------------------------------------------------------------------------


@pytest.mark.long
def test_a_larger_pool_is_trained_and_calibrated_on_the_same_questions(part):
    rng = np.random.default_rng(24)
    train = table_of(rng, 80, start=3000).table
    encoder = ReducedEncoder.fit(jax.random.key(0), train.texts, 8, HashedNgrams(dim=64))
    options = {"delta": 0.2, "unknown_group": "pooled"}
    how = {"nonconformity": "inverse_probability"}  # what is learned from rows minds their order
    small = Racer.fit(jax.random.key(1), train.aligned(LEFT), KNNConfig(k=7), encoder, **how)
    small = small.calibrate(part.table.aligned(LEFT), 0.3, **options)
    extra = table_of(rng, 5, start=9000).table
    rows = rng.permutation(len(train) + len(part.table) + len(extra))
    whole = joined(train, part.table, extra).select(rows)
    larger = small.extended(jax.random.key(5), whole)
    order = [*LEFT, "medium"]
    assert larger.models == tuple(order)
    assert larger.trained_on.tolist() == small.trained_on.tolist()
    assert larger.calibration.questions.tolist() == small.calibration.questions.tolist()
    assert (larger.alpha, larger.calibration.delta) == ("0.3", 0.2)
    assert larger.calibration.unknown_group == "pooled"
    anew = Racer.fit(jax.random.key(5), train.aligned(order), KNNConfig(k=7), encoder, **how)
    anew = replace(anew, seed=larger.seed).calibrate(part.table.aligned(order), 0.3, **options)
    for group in ("a", "b"):
        places = [made.calibration.groups.index(group) for made in (larger, anew)]
        pairs = zip((larger, anew), places, strict=True)
        first, second = (made.calibration.threshold_key[place] for made, place in pairs)
        assert first == second
    fewer = joined(train.select(slice(1, None)), part.table)
    with pytest.raises(ValueError, match="1 of 80 training questions are missing"):
        small.extended(jax.random.key(5), fewer)
    with pytest.raises(ValueError, match="10 of 90 calibration questions are missing"):
        small.extended(jax.random.key(5), joined(train, part.table.select(slice(10, None))))
    with pytest.raises(ValueError, match="must hold a model that is not in the pool"):
        small.extended(jax.random.key(5), whole.aligned(LEFT))
    with pytest.raises(ValueError, match=r"make a new one \(Racer.from_scores\)"):
        Racer.from_scores(LEFT).calibrate(
            part.table.aligned(LEFT), 0.3, scores=part.scores[:, :2]
        ).extended(jax.random.key(5), whole)


def joined(*tables):
    """The rows of several tables of one pool."""
    return RoutingTable(
        ids=[name for table in tables for name in table.ids],
        texts=[text for table in tables for text in table.texts],
        models=tables[0].models,
        correct=np.concatenate([table.correct for table in tables]),
        group=[group for table in tables for group in table.group],
    )


@pytest.mark.long
def test_a_warm_racer_compiles_nothing_for_its_first_query(part):
    train = table_of(np.random.default_rng(25), 40, start=5000).table
    encoder = HashedNgrams(dim=64)
    racer = Racer.fit(
        jax.random.key(1), train, KNNConfig(k=5), encoder, nonconformity="gap", null="free"
    ).calibrate(part.table.select(slice(0, 32)), 0.3)
    assert racer.warm_up(1, 4) is racer
    compiled = racer.scorer._forward._cache_size()
    racer.route("what?", "a")
    racer.route(["what?", "why?", "how?"], "a")
    assert racer.scorer._forward._cache_size() == compiled
    assert Racer.from_scores(MODELS).warm_up().models == MODELS
    with pytest.raises(ValueError, match="batches must be at least 1, got 0"):
        racer.warm_up(0)
