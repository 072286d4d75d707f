"""A racer with an order learned from training rows.

Its sets are the core's, its law is exact, it is kept whole.
"""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import racer_jax as core
from racer_jax.cli.main import main
from racer_jax.data import RoutingTable, save
from racer_jax.encoders import HashedNgrams, ReducedEncoder
from racer_jax.montecarlo.exact import split_law
from racer_jax.orders.coverage_gain import static_order
from racer_jax.orders.learned_gains import LearnedGains
from racer_jax.orders.model_orders import NEIGHBORS, ORDERS, OTHER, WEIGHT, fit_order
from racer_jax.orders.racer_j import RacerJ
from racer_jax.racer import artefact, errors
from racer_jax.racer.decision import Reason
from racer_jax.racer.errors import UnknownGroupWarning
from racer_jax.racer.fingerprints import question_fingerprints, question_ties
from racer_jax.racer.racer import Racer
from racer_jax.risk_control.bounds import sharp_risk
from racer_jax.routers import KNNConfig
from tests.racer.test_racer import MODELS, table_of

pytestmark = pytest.mark.long

NULLS = ("paper", "free", "never")


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(6)
    # Halves of 64 rows share compiled code.
    train, pool = table_of(rng, 90).table, table_of(rng, 128, start=500).table
    encoder = ReducedEncoder.fit(jax.random.key(0), train.texts, 12, HashedNgrams(dim=128))
    racers = {
        name: Racer.fit(
            jax.random.key(1), train, KNNConfig(k=9), encoder, nonconformity=name, null="free"
        )
        for name in ORDERS
    }
    return SimpleNamespace(train=train, pool=pool, encoder=encoder, racers=racers)


def by_hand(name, made, table, null, groups):
    """The nonconformity by the core's and the routers' own functions, group by group; no groups.

    One for all rows.
    """
    train, x, z = (
        made.train,
        made.encoder.encode(made.train.texts),
        made.encoder.encode(table.texts),
    )
    known = None if groups is None else train.group
    if name == "J":
        return np.asarray(
            RacerJ.fit(x, train.correct, groups=known, k=min(NEIGHBORS, 90), w=WEIGHT)(
                z, groups, null
            )
        )
    if name == "J_learned":
        return np.asarray(LearnedGains.fit(x, train.correct, groups=known)(z, groups, null))
    if known is None:
        return np.tile(static_order(train.correct, null), (len(z), 1))
    rows = {g: static_order(train.correct[np.array(known) == g], null) for g in set(known)}
    return np.stack([rows[g] for g in groups])


@pytest.mark.parametrize(
    ("name", "null"),
    [*(("static", null) for null in NULLS), ("J", "free"), ("J_learned", "paper")],
)
def test_sets_are_those_of_the_core(made, name, null):
    racer = replace(made.racers[name], null=null)
    calibration, test = made.pool.select(slice(0, 64)), made.pool.select(slice(64, 128))
    matrix = by_hand(name, made, calibration, null, calibration.group)
    np.testing.assert_allclose(racer.score(calibration).nonconformity, matrix, atol=2e-6)
    ties = [
        jax.numpy.asarray(question_ties(question_fingerprints(p), racer.seed, 4))
        for p in (calibration, test)
    ]
    got = racer.calibrate(calibration, 0.2, by_group=False)
    exact, fresh_exact = (racer.score(part).nonconformity for part in (calibration, test))
    threshold = core.calibrate(core.critical_scores(exact, calibration.correct, ties[0]), 0.2)
    wanted = core.prediction_sets(fresh_exact, threshold, ties[1])
    routed = got.route(test.texts, test.group)
    assert routed.sets.tolist() == wanted.tolist()
    assert [len(d.models) for d in routed] == core.set_size(wanted).tolist()
    alone = [
        got.route(text, group).models
        for text, group in zip(test.texts[:9], test.group[:9], strict=True)
    ]
    assert alone == [decision.models for decision in routed[:9]]


@pytest.mark.parametrize("name", ORDERS)
def test_a_group_without_training_rows_has_the_order_of_all(made, name):
    other = replace(made.pool, group=["new"] * len(made.pool))
    got = made.racers[name].score(other).nonconformity
    np.testing.assert_allclose(got, by_hand(name, made, other, "free", None), atol=2e-6)
    calibrated = made.racers[name].calibrate(other.select(slice(0, 64)), 0.2)
    assert calibrated.route("what?", "new").reason is Reason.OK
    with pytest.warns(UnknownGroupWarning, match="'newer' is unknown"):
        assert calibrated.route("what?", "newer").reason is Reason.UNKNOWN_GROUP


@pytest.mark.parametrize("name", ORDERS)
def test_without_groups(made, name):
    bare = SimpleNamespace(**{**vars(made), "train": replace(made.train, group=None)})
    racer = Racer.fit(
        jax.random.key(1), bare.train, KNNConfig(k=9), made.encoder, nonconformity=name, null="free"
    )
    table = replace(made.pool, group=None)
    np.testing.assert_allclose(
        racer.score(table).nonconformity, by_hand(name, bare, table, "free", None), atol=2e-6
    )
    assert racer.calibrate(table, 0.2).route("what?").reason is Reason.OK


@pytest.mark.parametrize("name", ORDERS)
def test_the_mean_risk_over_splits_follows_the_exact_law(made, name):
    """Over random splits of the pool the risk of what `calibrate` and `route` do is floor(alpha (n + 1)) / (n + 1)."""
    racer, pool, rng = made.racers[name], made.pool, np.random.default_rng(1)
    ties = jax.numpy.asarray(question_ties(question_fingerprints(pool), racer.seed, 4))
    matrix = racer.score(pool).nonconformity
    law = split_law(matrix, pool.correct, num_calibration=64, alpha=[0.25], tie_break=ties)
    mean, error = float(law.risk_mean[0]), float(law.risk_std[0]) / np.sqrt(40)
    assert mean == pytest.approx(float(sharp_risk([0.25], 64)[0]))
    risks = []
    for _ in range(40):
        rows = rng.permutation(len(pool))
        split = racer.calibrate(pool.select(rows[:64]), 0.25, by_group=False)
        test = pool.select(rows[64:])
        risks.append(
            float(
                np.asarray(
                    core.misrouted(split.route(test.texts, test.group).sets, test.correct)
                ).mean()
            )
        )
    assert abs(np.mean(risks) - mean) < 5 * error
    # The law's values are the only ones there are.
    assert set(np.round(risks, 9)) <= set(np.round(law.risk_support[0], 9))


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_is_learned_from_training_rows_alone(made, name):
    """Calibration leaves it as it is, whatever its labels; other training labels change it."""
    racer, pool = made.racers[name], made.pool
    flipped = replace(pool, correct=~pool.correct)
    for table in (pool, flipped):
        assert racer.calibrate(table, 0.3).scorer is racer.scorer
    order = fit_order(
        name, made.encoder.encode(made.train.texts), made.train.correct, made.train.group
    )
    x = made.encoder.encode(pool.texts)
    np.testing.assert_allclose(
        order(x, pool.group, "free"), racer.score(pool).nonconformity, atol=2e-6
    )
    other = fit_order(
        name, made.encoder.encode(made.train.texts), made.train.correct[:, ::-1], made.train.group
    )
    assert not np.allclose(other(x, pool.group, "free"), order(x, pool.group, "free"))


@pytest.mark.parametrize("name", ORDERS)
def test_saved_and_loaded_in_another_process(made, name, tmp_path):
    racer = made.racers[name].calibrate(made.pool, 0.2)
    racer.save(tmp_path / "a")
    described = json.loads((tmp_path / "a" / "racer.json").read_text())
    assert (described["format"], described["nonconformity"], described["order"]["kind"]) == (
        3,
        name,
        name,
    )
    assert described["order"]["groups"][-1] == OTHER
    again = Racer.load(tmp_path / "a")
    texts = list(made.pool.texts[:20])
    first, second = racer.route(texts, "a"), again.route(texts, "a")
    assert list(first) == list(second)
    if name == "J":  # one process is enough
        code = (
            "import sys, json; from racer_jax.racer.racer import Racer; texts = "
            "json.loads(sys.argv[2]); "
            "print(json.dumps(Racer.load(sys.argv[1]).route(texts, 'a').sets.tolist()))"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "a"), json.dumps(texts)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert json.loads(told) == first.sets.tolist()
    described["order"]["kind"] = "K"
    described["checksum"] = artefact._checksum(described)
    (tmp_path / "a" / "racer.json").write_text(json.dumps(described))
    with pytest.raises(errors.CorruptError, match="an order of kind 'K' is not known"):
        Racer.load(tmp_path / "a")


def test_evaluated_and_explained(made):
    racer = made.racers["J"].calibrate(made.pool.select(slice(0, 64)), 0.2, by_group=False)
    test = made.pool.select(slice(64, 128))
    evaluation = racer.evaluate(test, "0.1,0.2")
    sets = racer.route(test.texts, test.group).sets
    row = evaluation.row
    assert evaluation.nonconformity == "J"
    assert evaluation.groups[0].risk[row] == pytest.approx(
        float(core.avoidably_missed(sets, test.correct).mean())
    )
    assert evaluation.groups[0].size[row] == pytest.approx(float(core.set_size(sets).mean()))
    decision = next(d for d in racer.route(test.texts, test.group) if 0 < len(d.models) < 3)
    told = decision.explain().split("the threshold: ")[1].split(". Threshold")[0].split("; ")
    called = ["(+" in part for part in told]
    assert called == sorted(called, reverse=True)  # by margin, so that what is called stands first
    assert [part.split(" ")[0] for part in told][: len(decision.models)] == list(decision.models)


def test_what_does_not_fit_is_refused(made):
    racer = made.racers["J"]
    bare = replace(made.pool, group=None)
    with pytest.raises(
        ValueError, match="table must have groups: the order 'J' was learned by group"
    ):
        racer.calibrate(bare, 0.2)
    calibrated = racer.calibrate(made.pool, 0.2, by_group=False)
    # it does not say which, so every model
    with pytest.warns(UnknownGroupWarning, match="no group was given"):
        assert calibrated.route("what?").reason is Reason.UNKNOWN_GROUP
    assert calibrated.route("what?", "a").reason is Reason.OK
    with pytest.raises(
        ValueError, match="groups must name one group for each of the 2 queries, got 1"
    ):
        calibrated.route(["what?", "why?"], ["a"])
    with pytest.raises(ValueError, match="'J' is learned from labelled questions: pass them as"):
        Racer.from_scores(MODELS, nonconformity="J")
    with pytest.raises(ValueError, match=r"nonconformity 'gap' must be that of the order .* 'J'"):
        replace(racer, nonconformity="gap")
    with pytest.raises(
        ValueError, match=r"nonconformity must be one of \(.*'J_learned'\), got 'K'"
    ):
        Racer.fit(jax.random.key(0), made.train, nonconformity="K")
    with pytest.raises(ValueError, match="an order must be one of"):
        fit_order("K", np.eye(2), np.eye(2, dtype=bool), None)


@pytest.mark.parametrize("name", ["J"])
def test_a_router_of_the_callers(made, name):
    """One that cannot be compiled with the rest gets the same sets."""
    racer = made.racers[name]

    class Plain:
        def __call__(self, embeddings):
            return racer.scorer.router(embeddings)

    scorer = type(racer.scorer)(made.encoder, Plain(), 3, racer.scorer.order)
    plain = replace(racer, scorer=scorer)
    for table in (made.pool, made.pool.select(slice(0, 5))):
        np.testing.assert_allclose(
            plain.score(table).nonconformity, racer.score(table).nonconformity, atol=2e-6
        )


def test_the_command(made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(made.train, "train.npz")
    save(made.pool, "pool.npz")
    line = "train train.npz -o j.racer --router knn --nonconformity J --null free"
    assert main(line.split()) == 0
    assert main(["calibrate", "j.racer", "pool.npz", "--alpha", "0.2"]) == 0
    assert "j.racer: 3 models, alpha = 0.2, calibrated on" in capsys.readouterr().out
    assert repr(Racer.load("j.racer")).startswith("Racer(3 models, J, null mode 'free'")
    assert main(["route", "j.racer", "--group", "a", "--json", "What is a prime?"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "ok"
    assert main(["evaluate", "j.racer", "pool.npz", "--alphas", "0.2"]) == 0
    assert "models ordered by 'J'" in capsys.readouterr().out
    assert (
        main(
            ["bound-check", "j.racer", "pool.npz", "--splits", "0", "--alphas", "0.2,0.4", "--json"]
        )
        == 0
    )
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert {check["nonconformity"] for check in checks} == {"J"}
    rows = np.array(made.pool.group) == checks[0]["pool"]
    matrix = Racer.load("j.racer").score(made.pool).nonconformity[rows]
    ties = core.tie_break(jax.random.split(jax.random.key(0))[0], matrix.shape)
    num, right = checks[0]["num_calibration"], made.pool.correct[rows]
    law = split_law(matrix, right, num_calibration=num, alpha=[0.2, 0.4], tie_break=ties)
    assert checks[0]["size"] == pytest.approx(np.asarray(law.size_mean).tolist())
    with pytest.raises(SystemExit, match="2"):
        main(
            [
                "calibrate",
                "new.racer",
                "pool.npz",
                "--alpha",
                "0.1",
                "--from-scores",
                "--nonconformity",
                "J",
            ]
        )


def test_the_report(made, tmp_path):
    pytest.importorskip("plotly", reason="extra report")
    from racer_jax.racer.report import write_report

    write_report(made.racers["J"].calibrate(made.pool, 0.2), made.pool, tmp_path / "r.html", "0.2")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "J (RACER-J: what a model adds near this question)" in page
    assert '"nonconformity": "J"' in page or '"nonconformity":"J"' in page


def test_redundant_models_are_left_out():
    """What it is for: two models that are right on the same questions count once."""
    rng = np.random.default_rng(0)
    right = rng.random((300, 2)) < [0.7, 0.6]
    correct = np.stack([right[:, 0], right[:, 0], right[:, 1]], axis=1)
    table = RoutingTable(
        ids=list(map(str, range(300))),
        texts=[f"{i}?" for i in range(300)],
        models=MODELS,
        correct=correct,
    )
    train, rest = table.select(slice(0, 150)), table.select(slice(150, 300))
    encoder = HashedNgrams(dim=32)
    sizes = {}
    for name in ("inverse_probability", "static"):
        racer = Racer.fit(
            jax.random.key(0), train, KNNConfig(k=50), encoder, nonconformity=name, null="free"
        )
        evaluation = racer.calibrate(rest, 0.1).evaluate(rest, "0.1")
        sizes[name] = evaluation.groups[0].size[0]
    assert sizes["static"] < 0.8 * sizes["inverse_probability"]


# --- costs ----------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("name", ["static", "J"])
def test_an_order_that_minds_the_cost(made, name, tmp_path):
    cost, gamma = np.array([0.001, 0.01, 0.1]), 0.5
    train = replace(made.train, cost=np.tile(cost, (len(made.train), 1)))
    options = {"nonconformity": name, "null": "free", "cost_weight": gamma}
    racer = Racer.fit(jax.random.key(1), train, KNNConfig(k=9), made.encoder, **options)
    got = racer.score(made.pool).nonconformity
    if name == "static":
        rows = [np.array([g == group for g in train.group]) for group in made.pool.group]
        wanted = [static_order(train.correct[row], cost=cost, gamma=gamma) for row in rows[:9]]
        np.testing.assert_allclose(got[:9], wanted, atol=2e-6)
    else:
        model = racer.scorer.order.model
        read = made.encoder.encode(made.pool.texts)
        wanted = model(read, made.pool.group, "free", cost=cost, gamma=gamma)
        np.testing.assert_allclose(got, wanted, atol=2e-6)
    calibrated = racer.calibrate(made.pool, 0.2)
    smaller = calibrated.without(made.train.models[0])
    for one in (calibrated, smaller):
        one.save(tmp_path / "a")
        again = Racer.load(tmp_path / "a")
        part = made.pool.aligned(one.models)
        assert again.score(part).nonconformity.tolist() == one.score(part).nonconformity.tolist()
    left = smaller.scorer.order.prices
    assert left.cost.tolist() == pytest.approx(cost[1:].tolist())


def test_costs_that_an_order_cannot_mind(made):
    train = replace(made.train, cost=np.ones(made.train.correct.shape))
    for table, name, match in (
        (train, "gap", "cost_weight is for an order of the models"),
        (train, "J_learned", "'static' or 'J', got it with nonconformity 'J_learned'"),
        (made.train, "J", "cost_weight needs the cost of every model"),
        (replace(train, cost=train.cost * 0), "J", "above 0"),
    ):
        with pytest.raises(ValueError, match=match):
            fit(table, made, name)


def fit(table, made, name):
    """A racer whose order minds the cost."""
    options = {"nonconformity": name, "cost_weight": 1.0}
    return Racer.fit(jax.random.key(1), table, KNNConfig(k=9), made.encoder, **options)
