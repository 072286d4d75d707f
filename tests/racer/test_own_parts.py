"""Scores, routers, encoders and orders of a user's own: calibrated, saved, loaded, and told apart."""

import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from racer_jax.core.nonconformity import NONCONFORMITIES, gap, register_nonconformity
from racer_jax.encoders import HashedNgrams
from racer_jax.encoders.adapters import as_encoder
from racer_jax.encoders.base import PartsError
from racer_jax.orders import ORDERS, register_order, static_order
from racer_jax.racer import artefact
from racer_jax.racer.errors import ArtefactError, OtherWeightsError
from racer_jax.racer.racer import Racer
from racer_jax.routers.adapters import as_router
from tests.racer.own_router import Gated, Unsaid
from tests.racer.test_racer import MODELS, table_of


def lengths(texts):
    """An encoder that is one function."""
    return [[len(text) / 50, text.count("a"), 1.0] for text in texts]


def by_length(embeddings):
    """A router that is one function."""
    return jax.nn.sigmoid(jnp.asarray(embeddings) @ jnp.array([[1.0, 0.2, -0.3]] * 3).T)


def by_other_length(embeddings):
    return by_length(embeddings) * 0.9


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(41)
    return tuple(table_of(rng, num, start=start).table for num, start in ((64, 0), (64, 500)))


def same_decisions(first, second, table):
    texts, groups = table.texts[:8], table.group[:8]
    wanted, got = (racer.route(texts, groups) for racer in (first, second))
    assert got.sets.tolist() == wanted.sets.tolist()
    np.testing.assert_allclose(got.scores, wanted.scores, atol=1e-6)


@pytest.mark.parametrize("name", ["gap", "static", pytest.param("J", marks=pytest.mark.long)])
def test_functions_from_the_first_line_to_the_artefact(tables, tmp_path, name):
    training, calibration = tables
    racer = Racer.from_router(lengths, by_length, MODELS, training=training, nonconformity=name)
    racer = racer.calibrate(calibration, 0.3)
    assert len(racer.unseen(training)) == 0
    racer.save(tmp_path / "a")
    same_decisions(
        racer, Racer.load(tmp_path / "a", encoder=lengths, router=by_length), calibration
    )
    with pytest.raises(OtherWeightsError, match="made with a router of the kind by_length, which"):
        Racer.load(tmp_path / "a", encoder=lengths)
    with pytest.raises(OtherWeightsError, match="an encoder of the kind lengths, which it does"):
        Racer.load(tmp_path / "a")
    with pytest.raises(OtherWeightsError, match="was made with another router: on the texts it is"):
        Racer.load(tmp_path / "a", encoder=lengths, router=by_other_length)
    with pytest.raises(OtherWeightsError, match="was made with an encoder that gives"):
        Racer.load(tmp_path / "a", encoder=HashedNgrams(dim=8), router=by_length)
    smaller = racer.without("medium")
    smaller.save(tmp_path / "b")
    loaded = Racer.load(tmp_path / "b", encoder=lengths, router=by_length)
    same_decisions(smaller, loaded, calibration.aligned(smaller.models))


@pytest.mark.long
def test_a_flax_router_comes_back_by_the_path_of_its_class(tables, tmp_path):
    router = Gated(3, 3, slope=2.0, rngs=nnx.Rngs(4))
    router.eval()
    racer = Racer.from_router(lengths, router, MODELS).calibrate(tables[1], 0.3)
    racer.save(tmp_path / "a")
    described = json.loads((tmp_path / "a" / "racer.json").read_text())
    assert described["router"]["class"] == "tests.racer.own_router:Gated"
    assert described["router"]["arguments"] == {"dim": 3, "num_models": 3, "slope": 2.0}
    same_decisions(racer, Racer.load(tmp_path / "a", encoder=lengths), tables[1])
    same_decisions(racer, Racer.load(tmp_path / "a", encoder=lengths, router=router), tables[1])
    other = Gated(3, 3, slope=2.0, rngs=nnx.Rngs(5))
    other.eval()
    with pytest.raises(OtherWeightsError, match="was made with another router"):
        Racer.load(tmp_path / "a", encoder=lengths, router=other)
    for change, match in (
        ({"arguments": {"dim": 3, "num_models": 3}}, "states router.fingerprint|another router"),
        ({"class": "tests.racer.own_router:Gone"}, "cannot be imported"),
        ({"class": "no_such_module:Gated"}, "cannot be imported"),
        ({"class": "json:JSONDecoder"}, "as the class of a Flax router, which it is not"),
    ):
        edited = dict(described, router=dict(described["router"], **change))
        edited["checksum"] = artefact._checksum(edited)
        (tmp_path / "a" / "racer.json").write_text(json.dumps(edited))
        with pytest.raises(ArtefactError, match=match):
            Racer.load(tmp_path / "a", encoder=lengths)


@pytest.mark.long
def test_flax_routers_that_cannot_be_made_again(tmp_path):
    class Local(Unsaid):
        pass

    for router, match in (
        (Unsaid(3, rngs=nnx.Rngs(0)), "give Unsaid an attribute arguments, such as"),
        (Local(3, rngs=nnx.Rngs(0)), "must be of a class that another process can import"),
    ):
        with pytest.raises(PartsError, match=match):
            Racer.from_router(lengths, router, MODELS).save(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_part_may_name_itself(tables, tmp_path):
    class Named:
        """A router that looks its texts up, and so cannot be tried on others."""

        def __init__(self, name):
            self.name = name

        def fingerprint(self):
            return self.name

        def __call__(self, embeddings):
            return np.full((len(embeddings), 3), 0.5, np.float32)

    racer = Racer.from_router(lengths, Named("v1"), MODELS).calibrate(tables[1], 0.3)
    racer.save(tmp_path / "a")
    same_decisions(
        racer, Racer.load(tmp_path / "a", encoder=lengths, router=Named("v1")), tables[1]
    )
    with pytest.raises(OtherWeightsError, match="with fingerprint v1, got one with v2"):
        Racer.load(tmp_path / "a", encoder=lengths, router=Named("v2"))
    known = dict.fromkeys(tables[1].texts, (1.0, 2.0))
    lookup = Racer.from_router(lambda texts: [known[text] for text in texts], by_length, MODELS)
    with pytest.raises(PartsError, match=r"they fail with KeyError.*give it a method fingerprint"):
        lookup.save(tmp_path / "b")


def test_a_part_that_is_not_wanted_or_none_at_all(tables, tmp_path):
    scores = np.full((64, 3), 0.5, np.float32)
    Racer.from_scores(MODELS).calibrate(tables[1], 0.3, scores=scores).save(tmp_path / "a")
    with pytest.raises(OtherWeightsError, match="holds a router of its own: load it without"):
        Racer.load(tmp_path / "a", router=by_length)
    with pytest.raises(TypeError, match="a router must be callable with embeddings"):
        Racer.from_router(lengths, 3, MODELS)
    with pytest.raises(TypeError, match="an encoder must have a method encode or transform"):
        Racer.from_router(3, by_length, MODELS)
    with pytest.raises(ValueError, match="'J' is learned from labelled questions: pass them as"):
        Racer.from_router(lengths, by_length, MODELS, nonconformity="J")
    with pytest.raises(ValueError, match=r"one row for each text, got .* \[1, 3\]"):
        as_encoder(lambda texts: [[1.0, 2.0, 3.0]]).encode(["a", "b"])
    with pytest.raises(ValueError, match="finite numbers, got NaN"):
        as_encoder(lambda texts: [[np.nan]]).encode(["a"])


def test_a_flax_router_whose_scores_are_no_chances_is_refused(tables):
    class Logits(nnx.Module):
        def __call__(self, embeddings):
            return 3 + embeddings

    racer = Racer.from_router(lengths, Logits(), MODELS)
    with pytest.raises(ValueError, match=r"the router's scores must be finite and in \[0, 1\]"):
        racer.calibrate(tables[1], 0.3)


def test_an_own_nonconformity_is_known_again(tables, tmp_path):
    register_nonconformity("half", lambda scores, null: gap(scores, null) / 2)
    try:
        racer = Racer.from_router(lengths, by_length, MODELS, nonconformity="half")
        racer = racer.calibrate(tables[1], 0.3)
        racer.save(tmp_path / "a")
        loaded = Racer.load(tmp_path / "a", encoder=lengths, router=by_length)
        same_decisions(racer, loaded, tables[1])
        NONCONFORMITIES["half"] = gap
        with pytest.raises(OtherWeightsError, match="calibrated with another nonconformity 'half'"):
            Racer.load(tmp_path / "a", encoder=lengths, router=by_length)
    finally:
        del NONCONFORMITIES["half"]


class Reversed:
    """An order of a user's own: the static order backwards."""

    groups = None

    def __init__(self, real):
        self.real = real

    def __call__(self, embeddings, groups, null):
        last = {"free": -np.inf, "never": np.inf, "paper": 0.5}[null]
        row = np.append(self.real, np.float32(last))
        return np.tile(row, (len(np.asarray(embeddings)), 1)).astype(np.float32)


def test_an_own_order(tables, tmp_path):
    def fit(embeddings, correct, groups):
        return Reversed(1 - np.asarray(static_order(correct))[:-1])

    register_order("reversed", fit)
    try:
        racer = Racer.from_router(
            lengths, by_length, MODELS, training=tables[0], nonconformity="reversed"
        ).calibrate(tables[1], 0.3)
        for one in (racer, racer.without("small")):
            one.save(tmp_path / "a")
            parts = {"encoder": lengths, "router": by_length}
            order = racer.scorer.order.model
            again = Racer.load(tmp_path / "a", **parts, order=order)
            same_decisions(one, again, tables[1].aligned(one.models))
            with pytest.raises(OtherWeightsError, match="an order of the kind Reversed"):
                Racer.load(tmp_path / "a", **parts)
            with pytest.raises(OtherWeightsError, match="was made with another order"):
                Racer.load(tmp_path / "a", **parts, order=Reversed(order.real + 0.1))
    finally:
        del ORDERS["reversed"]


def test_a_racer_of_functions_pickles(tables):
    racer = Racer.from_router(lengths, by_length, MODELS).calibrate(tables[1], 0.3)
    same_decisions(racer, pickle.loads(pickle.dumps(racer)), tables[1])


@pytest.mark.extra
@pytest.mark.long
def test_a_scikit_learn_pipeline(tables, tmp_path):
    pytest.importorskip("sklearn")
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline

    training, calibration = tables
    for classifier in (
        OneVsRestClassifier(LogisticRegression()),
        KNeighborsClassifier(9),
    ):
        encoder = TfidfVectorizer(max_features=40).fit(training.texts)
        pipeline = make_pipeline(encoder, classifier)
        pipeline.fit(training.texts, training.correct.astype(int))
        racer = Racer.from_router(
            pipeline[:-1], pipeline[-1], MODELS, training=training, nonconformity="J"
        ).calibrate(calibration, 0.3)
        racer.save(tmp_path / "a")
        loaded = Racer.load(tmp_path / "a", encoder=pipeline[:-1], router=pipeline[-1])
        same_decisions(racer, loaded, calibration)
        wanted = pipeline.predict_proba(calibration.texts[:8])
        if isinstance(wanted, list):
            wanted = np.stack([chances[:, 1] for chances in wanted], axis=1)
        got = racer.route(calibration.texts[:8], "a").scores
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    constant = KNeighborsClassifier(1).fit(np.eye(3), [[0, 1, 0], [1, 1, 0], [0, 1, 0]])
    scores = as_router(constant)(np.eye(3, dtype=np.float32))
    assert scores.tolist() == [[0, 1, 0], [1, 1, 0], [0, 1, 0]]
