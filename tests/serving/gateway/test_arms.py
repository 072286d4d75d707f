"""Routes against each other: who gets which, and a comparison that may be made at any time."""

import json
from math import log

import numpy as np
import pytest
from scipy.special import betaln

from racer_jax.cli.main import main
from racer_jax.data.errors import DataError
from racer_jax.serving.gateway._arms import arm_of, compare, evidence, interval
from racer_jax.serving.gateway._records import DecisionRow, Feedback
from racer_jax.serving.gateway._store import Store
from tests.serving.gateway.test_state import settled

KEY = b"a key"


def test_arms_have_their_shares_and_units_keep_theirs():
    arms = [arm_of({"old": 3.0, "new": 1.0}, KEY, "trial", f"user {i}") for i in range(2000)]
    assert abs(arms.count("new") / 2000 - 0.25) < 0.04
    again = [arm_of({"old": 3.0, "new": 1.0}, KEY, "trial", f"user {i}") for i in range(50)]
    assert again == arms[:50]
    others = [arm_of({"old": 3.0, "new": 1.0}, KEY, "other", f"user {i}") for i in range(2000)]
    both = sum(a == b == "new" for a, b in zip(arms, others, strict=True)) / 2000
    assert abs(both - 1 / 16) < 0.03


def log_mixture(right, num, rate):
    """The logarithm of M(p), by SciPy."""
    return (
        betaln(0.5 + right, 0.5 + num - right)
        - betaln(0.5, 0.5)
        - (right * np.log(rate) + (num - right) * np.log1p(-rate))
    )


@pytest.mark.parametrize(
    ("first", "second"), [((3, 9), (8, 11)), ((0, 4), (6, 6)), ((2, 2), (5, 5)), ((0, 0), (1, 7))]
)
def test_the_evidence_is_the_least_over_all_common_rates(first, second):
    grid = np.linspace(1e-6, 1 - 1e-6, 200_001)
    least = (log_mixture(*first, grid) + log_mixture(*second, grid)).min()
    assert evidence(first, second) == pytest.approx(np.exp(least), rel=1e-4)


@pytest.mark.parametrize(("right", "num"), [(0, 5), (5, 5), (3, 10), (170, 200)])
def test_the_interval_holds_the_rates_with_little_evidence_against_them(right, num):
    grid = np.linspace(1e-6, 1 - 1e-6, 100_001)
    inside = grid[log_mixture(right, num, grid) < log(20)]
    lower, upper = interval(right, num, 0.05)
    assert lower == pytest.approx(inside[0], abs=2e-5)
    assert upper == pytest.approx(inside[-1], abs=2e-5)


def test_the_mixture_is_a_martingale_at_the_true_rate():
    """The mean over the next label is the value before it: nothing else makes Ville's rule hold."""
    for right, num, rate in ((0, 0, 0.3), (4, 9, 0.7), (11, 12, 0.05)):
        after = rate * np.exp(log_mixture(right + 1, num + 1, rate)) + (1 - rate) * np.exp(
            log_mixture(right, num + 1, rate)
        )
        assert after == pytest.approx(np.exp(log_mixture(right, num, rate)))


def test_equal_arms_seldom_ever_differ_and_others_do():
    rng = np.random.default_rng(3)
    false = 0
    for _ in range(100):
        draws = rng.random((60, 2)) < 0.7
        right = draws.cumsum(axis=0)
        false += any(evidence((r[0], n), (r[1], n)) >= 10 for n, r in enumerate(right.tolist(), 1))
    assert false <= 10
    assert evidence((180, 200), (120, 200)) > 20


@pytest.fixture
def experiment(start, upstreams, artefacts, tmp_path):
    upstreams.reset()
    route = {
        "artefact": str(artefacts / "my.racer"), "form": "letter", "judge": "judge", "group": "a"
    }  # fmt: skip
    return start(
        routes__new=route,
        experiments={"trial": {"arms": {"my": 1.0, "new": 1.0}}},
        state={"path": str(tmp_path / "gateway.db")},
        audit={"share": 1.0},
    )


def answered(store, name, route, unit, right, experiment="trial"):
    """A request that a route answered, with its label."""
    row = DecisionRow(
        name, 1.0, route, answered="m", audited=True, experiment=experiment, unit=unit
    )
    store.add(row)
    return store.feedback(Feedback(id=name, answer_correct=int(right), source="audit"))


def test_users_with_many_labels_make_no_difference_of_equal_routes(tmp_path):
    """Four users, two of each route, who differ: 300 labels of each say what four labels do."""
    path = str(tmp_path / "gateway.db")
    store = Store(path, 1e12)
    chances = {1: ("old", 0.9), 2: ("old", 0.9), 3: ("new", 0.5), 4: ("new", 0.5)}
    rng = np.random.default_rng(0)
    for i in range(1200):
        unit = 1 + i % 4
        route, chance = chances[unit]
        answered(store, f"d{i}", route, unit, rng.random() < chance)
    for i in range(50):  # not drawn
        answered(store, f"e{i}", "old", None, True, experiment=None)
    store.ask(lambda connection: None).result()
    done = compare(path, "old", "new")
    assert [arm.num for arm in done.arms] == [2, 2]
    assert [arm.decisions for arm in done.arms] == [600, 600]
    assert done.better is None
    assert evidence((540, 600), (300, 600)) > 1e6  # what the requests would have said
    answered(store, "f1", "old", 5, True, experiment="other")
    answered(store, "f2", "new", 6, True, experiment="other").result()
    with pytest.raises(DataError, match="--experiment, one of other, trial"):
        compare(path, "old", "new")
    assert [arm.num for arm in compare(path, "old", "new", experiment="other").arms] == [1, 1]
    store.close()


@pytest.mark.parametrize("others", [("d2", "d3"), ("d3", "d2")])
@pytest.mark.parametrize("first", [{"missed": 0}, {"answer_correct": 0}])
def test_the_first_label_of_a_unit_stays_the_first(tmp_path, first, others):
    """Else what was counted could still change, and no test of it would hold at any time."""
    path = tmp_path / "gateway.db"
    store = Store(str(path), 1e12)
    facts = {"pool": ("a", "b"), "decided": ("a", "b"), "audited": True, "experiment": "trial"}
    for name, route, unit in (("d1", "old", 1), ("d2", "old", 1), ("d3", "new", 2)):
        store.add(DecisionRow(name, 1.0, route, answered="a", unit=unit, **facts))
    wrong, right = {"a": 0, "b": 1}, {"a": 1, "b": 1}
    store.feedback(Feedback(id="d1", source="audit", **first)).result(10)
    for name in others:
        store.feedback(Feedback(id=name, source="audit", correct=right)).result(10)
    before = compare(path, "old", "new").arms[0]
    # What was shown for d1 was wrong: known from its first label on, or after that of d2.
    assert (before.num, before.right) == (1, int("missed" in first))
    store.feedback(Feedback(id="d1", source="audit", correct=wrong)).result(10)
    assert compare(path, "old", "new").arms[0] == before
    store.close()


@pytest.mark.long
def test_an_experiment_is_run_and_compared(experiment, capsys):
    ask = experiment.chat
    arms = {}
    for i in range(24):
        got = ask(f"large question {i}", model="racer/trial", user=f"user {i % 18}")
        arm = got.json["racer"]["arm"]
        assert got.headers["x-racer-arm"] == arm
        assert arms.setdefault(i % 18, arm) == arm
        settled(experiment)
        large = int(arm == "new")
        label = [{"id": got.json["id"], "correct": {"small": 0, "medium": 0, "large": large}}]
        assert experiment.admin("POST", "/audit", label).json["labels"][0]["new"]
        experiment.ask("POST", "/v1/feedback", {"id": got.json["id"], "answer_correct": 1})
    assert set(arms.values()) == {"my", "new"}
    # Who asks for a route itself was not drawn, and does not count.
    chosen = ask("large ?").json
    assert "arm" not in chosen["racer"]
    settled(experiment)
    label = [{"id": chosen["id"], "correct": {"small": 0, "medium": 0, "large": 1}}]
    assert experiment.admin("POST", "/audit", label).json["labels"][0]["new"]
    assert "racer/trial" in [m["id"] for m in experiment.ask("GET", "/v1/models").json["data"]]
    state = experiment.gateway.settings.state.path
    assert main(["compare", state, "my", "new", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["better"] == "new"
    assert [arm["right"] for arm in said["arms"]] == [0, said["arms"][1]["num"]]
    assert said["experiment"] == "trial"
    assert said["arms"][0]["num"] + said["arms"][1]["num"] == 18
    assert said["arms"][0]["decisions"] + said["arms"][1]["decisions"] == 24
    assert main(["compare", state, "my", "new", "--users"]) == 0
    assert "no difference is shown so far" in capsys.readouterr().out
    for wrong, words in ((["my", "my"], "must be two"), (["my", "none"], "no decision of a route")):
        assert main(["compare", state, *wrong]) != 0
        assert words in capsys.readouterr().err
