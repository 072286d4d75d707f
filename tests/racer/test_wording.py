"""Promises in words: how sure they are, and the words of the version before."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from racer_jax.core.prediction_sets import misrouted
from racer_jax.core.risk_levels import confidence_name
from racer_jax.data import RoutingTable
from racer_jax.racer import artefact
from racer_jax.racer.errors import CorruptError
from racer_jax.racer.racer import Racer
from racer_jax.racer.state import earlier_guarantees_of, earlier_warnings_of
from tests.racer.test_racer import MODELS, table_of

GOLDEN = Path(__file__).parents[1] / "golden" / "format_3"


@pytest.mark.parametrize(
    ("delta", "name"),
    [(0.05, "95%"), (0.1, "90%"), (0.001, "99.9%"), (1e-9, "99.9999999%"), (0.5, "50%")],
)
def test_confidence_is_what_delta_leaves(delta, name):
    assert confidence_name(delta) == name


def test_the_words_of_the_version_before_are_read_and_others_refused(tmp_path):
    """A promise in the words before is one of this format; with another number it is not."""
    folder = tmp_path / "art"
    shutil.copytree(GOLDEN / "golden.racer", folder)
    racer = Racer.load(folder)
    path = folder / artefact.DESCRIPTION
    described = json.loads(path.read_text(encoding="utf-8"))
    before = described["guarantee"]
    assert before == earlier_guarantees_of(racer)[0] != racer.guarantee()
    described["guarantee"] = before.replace("at most 0.2", "at most 0.1")
    assert described["guarantee"] != before
    described["checksum"] = artefact._checksum(described)
    path.write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(CorruptError, match="states guarantee"):
        Racer.load(folder)


@pytest.mark.parametrize("null", ["paper", "free", "never"])
def test_each_null_mode_says_what_counts_where_no_model_is_right(null):
    calibration = Racer.load(GOLDEN / "golden.racer").calibration
    promise = calibration.guarantee(null)
    assert promise.startswith(
        "For new queries drawn like (exchangeable with) the calibration queries of"
    )
    words = {
        "paper": "no called model is right (a question that no model can answer counts as right if "
        "its set holds the null model, 'none of them')",
        "free": "no called model is right (although some model of the pool could answer)",
        "never": "(also where no model could answer)",
    }
    assert [name for name, text in words.items() if text in promise] == [null]


MISS = "no called model is right (although some model of the pool could answer)"


@pytest.fixture(scope="module")
def part():
    """Questions of the groups a (40), b (40), c (10), in which `a` is easy for the first model."""
    drawn = table_of(np.random.default_rng(5), 90)
    groups = ["a"] * 40 + ["b"] * 40 + ["c"] * 10
    correct = np.zeros((90, len(MODELS)), bool)
    correct[:40, 0] = correct[40:, 1] = True
    scores = np.tile(np.array([0.9, 0.5, 0.1], np.float32), (90, 1))
    return replace(drawn.table, group=groups, correct=correct, graded=None), scores


def calibrated(part, alpha, **options):
    table, scores = part
    return Racer.from_scores(MODELS, null="free").calibrate(table, alpha, scores=scores, **options)


def test_a_confidence_is_that_of_each_group_by_itself(part, tmp_path):
    """Of three groups with 50% confidence all keep alpha with an eighth, if they are independent."""
    racer = calibrated(part, 0.2, delta=0.5)
    assert racer.guarantee().endswith(
        "is at most 0.2, in each group, with 50% confidence for each of them by itself."
    )
    for fewer in (calibrated(part, 0.2, delta=0.5, by_group=False), calibrated(part, 0.2)):
        assert "by itself" not in fewer.guarantee()
    path = tmp_path / "before.racer"
    racer.save(path)
    place = path / artefact.DESCRIPTION
    described = json.loads(place.read_text(encoding="utf-8"))
    described["guarantee"] = racer.guarantee().replace(" for each of them by itself", "")
    described["checksum"] = artefact._checksum(described)
    place.write_text(json.dumps(described), encoding="utf-8")
    assert Racer.load(path).guarantee() == racer.guarantee()


def test_a_promise_names_the_groups_that_it_is_for_and_the_cap_apart(part):
    on_average = "on average over calibration sets."
    assert calibrated(part, 0.1).guarantee() == (
        "For new queries drawn like (exchangeable with) the calibration queries of their group "
        f"(a 40, b 40, c 10), the chance that {MISS} is at most 0.1, in each group, {on_average}"
    )
    capped = calibrated(part, 0.1, max_models=1)
    assert capped.guarantee() == (
        "For new queries of group a drawn like (exchangeable with) its 40 calibration queries, the "
        f"chance that {MISS} is at most 0.1, {on_average} For groups b and c nothing is promised. "
        "No query calls more than 1 model."
    )
    # Ten queries are too few for this level: two models called may miss where all three would not.
    few = calibrated(part, 0.05, max_models=2, min_models=1)
    assert few.guarantee() == (
        "For new queries of groups a and b drawn like (exchangeable with) the calibration queries "
        f"of their group (a 40, b 40), the chance that {MISS} is at most 0.05, in each of these "
        f"groups, {on_average} For group c nothing is promised. No query calls more than 2 models. "
        "Every query calls at least 1 model."
    )
    assert np.isnan(few.evaluate(part[0], [0.05], scores=part[1]).groups[3].upper).all()
    assert calibrated(part, 0.05).guarantee().endswith(f"in each group, {on_average}")
    pooled = calibrated(part, 0.05, fallback="pooled").guarantee()
    assert pooled.endswith("For group c nothing is promised.")
    alone = calibrated(part, 0.1, by_group=False, max_models=2)
    assert alone.guarantee() == (
        "For new queries drawn like (exchangeable with) the 90 calibration queries, the chance that "
        f"{MISS} is at most 0.1, {on_average} No query calls more than 2 models."
    )


@pytest.mark.parametrize("null", ["paper", "free", "never"])
def test_figures_and_sentence_promise_the_same_groups(part, null):
    """With `never` a group of too few queries has a risk: calling every model may miss too."""
    table, scores = part
    bare = Racer.from_scores(MODELS, null=null)
    for fallback in ("all", "pooled"):
        for alpha, most in ((0.1, None), (0.1, 1), (0.05, None), (0.05, 2), (0.001, None)):
            racer = bare.calibrate(table, alpha, scores=scores, max_models=most, fallback=fallback)
            promise = racer.guarantee()
            groups = racer.evaluate(table, [alpha], scores=scores).groups[1:]
            without = {group.group for group in groups if np.isnan(group.upper).all()}
            words = promise.partition(" nothing is promised.")[0].rpartition("For group")[2]
            named = set(words.removeprefix("s").replace(" and ", ", ").strip().split(", "))
            if promise.startswith("Nothing is promised"):
                named = {"a", "b", "c"}
            elif "nothing is promised." not in promise:
                named = set()
            assert without == named


# What the words say, written as they are read: from what is called and right, and no core.
AS_READ = {
    "paper": lambda called, right, null_in_set: (
        not (called & right).any() and not (not right.any() and null_in_set)
    ),
    "free": lambda called, right, null_in_set: not (called & right).any() and right.any(),
    "never": lambda called, right, null_in_set: not (called & right).any(),
}


@pytest.mark.parametrize("null", ["paper", "free", "never"])
def test_what_a_promise_says_is_what_calibration_counts(null):
    """Most questions have no answer, and sets hold models and the null model together."""
    rng = np.random.default_rng(3)
    scores = (rng.uniform(size=(300, 3)) / 2).astype(np.float32)
    right = rng.uniform(size=(300, 3)) < scores * 0.8
    bare = Racer.from_scores(MODELS, null=null)
    ids = [f"q{i}" for i in range(300)]
    table = RoutingTable(ids=ids, texts=[""] * 300, models=MODELS, correct=right)
    decisions = bare.calibrate(table, 0.3, scores=scores).route_scores(scores, ids=ids)
    called, in_set = decisions.called, decisions.sets[:, -1]
    events = [AS_READ[null](*row) for row in zip(called, right, in_set, strict=True)]
    assert events == np.asarray(misrouted(decisions.sets, right)).tolist()
    if null == "paper":  # what an earlier sentence said, abstaining, is not what is counted
        excused = ~right.any(axis=1) & ~called.any(axis=1)
        assert (~(called & right).any(axis=1) & ~excused).sum() > sum(events)


def test_a_warning_says_what_to_do(part):
    warning = calibrated(part, 0.0001).warnings()[0]
    assert warning == (
        "group 'a': alpha = 0.0001 takes at least 9,999 calibration queries, got 40; every model "
        "is called; take a larger alpha (at least 0.025 here) or more questions"
    )
    assert calibrated(part, 0.025).warnings()[0].startswith("group 'c'")
    assert calibrated(part, 0.01, delta=0.05, by_group=False).warnings() == (
        "all queries: 90 calibration queries cannot promise alpha = 0.01, delta = 0.05; take a "
        "larger alpha or delta, or more questions",
    )


def test_sentences_of_versions_before_are_read_and_others_refused(part, tmp_path):
    racer = calibrated(part, 0.02, max_models=1)
    racer.save(tmp_path / "art")
    path = tmp_path / "art" / artefact.DESCRIPTION
    described = json.loads(path.read_text(encoding="utf-8"))
    before = (
        f"For new queries drawn like (exchangeable with) the calibration queries of their group "
        f"(a 40, b 40, c 10), the chance that {MISS} is at most 0.02, in each group, and no query "
        "calls more than 1 model, on average over calibration sets."
    )
    assert before in earlier_guarantees_of(racer)
    warnings = earlier_warnings_of(racer)
    assert warnings[0].endswith(
        "takes at least 49 calibration queries, got 40; the first model is called"
    )
    for guarantee, sentences in ((before, warnings), (racer.guarantee(), warnings[:-1])):
        described |= {"guarantee": guarantee, "warnings": sentences}
        described["checksum"] = artefact._checksum(described)
        path.write_text(json.dumps(described), encoding="utf-8")
        if sentences is warnings:
            assert Racer.load(tmp_path / "art").guarantee() == racer.guarantee()
        else:
            with pytest.raises(CorruptError, match="states warnings"):
                Racer.load(tmp_path / "art")
