"""RACER-J and the static order for scores from outside: from the first line to the artefact."""

import jax
import numpy as np
import pytest

from racer_jax import Racer
from racer_jax.data import RoutingTable
from racer_jax.orders.coverage_gain import static_order
from racer_jax.orders.racer_j import RacerJ
from racer_jax.routers.scores import Scores

MODELS = ("a", "b", "c")
GROUPS = ("even", "odd")


def labelled(seed, num=48, groups=False):
    """A table and scores that say something of it."""
    rng = np.random.default_rng(seed)
    scores = rng.random((num, 3)).astype(np.float32)
    table = RoutingTable(
        ids=[f"{seed}-{i}" for i in range(num)],
        texts=[f"question {i} of part {seed}" for i in range(num)],
        models=list(MODELS),
        correct=rng.random((num, 3)) < 0.2 + 0.7 * scores,
        group=[GROUPS[i % 2] for i in range(num)] if groups else None,
    )
    return table, scores


@pytest.fixture(
    scope="module",
    params=[
        "static",
        pytest.param("J", marks=pytest.mark.long),
        pytest.param("J by group", marks=pytest.mark.long),
    ],
)
def parts(request):
    kind, _, by_group = request.param.partition(" ")
    # More than the neighbours of a query, so that it matters which they are.
    training, training_scores = labelled(0, 260, groups=bool(by_group))
    racer = Racer.from_scores(
        MODELS,
        nonconformity=kind,
        null="free",
        training=training,
        training_scores=training_scores if kind == "J" else None,
    )
    table, scores = labelled(1, groups=bool(by_group))
    return racer.calibrate(table, 0.25, scores=scores), table, scores, training, training_scores


def test_two_queries_are_ordered_differently_by_their_scores(parts):
    racer = parts[0]
    seen = racer.calibration.record.nonconformity
    num_orders = len(np.unique(seen, axis=0))
    assert num_orders == 1 if racer.nonconformity == "static" else num_orders > 10


def test_the_order_is_the_one_of_the_training_questions(parts):
    racer, table, scores, training, training_scores = parts
    seen = racer.calibration.record.nonconformity
    if racer.nonconformity == "static":
        whole = np.asarray(static_order(training.correct, "free"))
        np.testing.assert_allclose(seen, np.tile(whole, (len(seen), 1)), atol=1e-6)
        return
    model = RacerJ.fit(training_scores, training.correct, groups=training.group, k=200)
    np.testing.assert_allclose(seen, model(scores, table.group, "free"), atol=1e-6)


def test_it_routes_alone_as_among_others_and_after_a_load(parts, tmp_path):
    racer, table, scores, *_ = parts
    groups = table.group
    decisions = racer.route_scores(scores, groups=groups, ids=table.texts)
    one = racer.route_scores(scores[5:6], groups=groups and groups[5:6], ids=table.texts[5:6])
    assert one[0].models == decisions[5].models
    missed = [
        not any(table.correct[i, MODELS.index(name)] for name in decision.models)
        for i, decision in enumerate(decisions)
        if table.correct[i].any()
    ]
    assert np.mean(missed) <= 0.25 + 1e-9  # those that calibrated
    racer.save(tmp_path / "artefact")
    again = Racer.load(tmp_path / "artefact")
    assert again.nonconformity == racer.nonconformity
    for first, second in zip(
        decisions, again.route_scores(scores, groups=groups, ids=table.texts), strict=True
    ):
        assert first == second


def test_without_a_model_it_is_as_if_that_had_never_been(parts):
    racer, table, scores, training, training_scores = parts
    keep = [0, 2]
    smaller = racer.without("b")
    rows = [(table, scores), (training, training_scores)]
    (few, few_scores), (few_training, few_training_scores) = (
        (part.aligned(["a", "c"]), values[:, keep]) for part, values in rows
    )
    fresh = Racer.from_scores(
        ["a", "c"],
        nonconformity=racer.nonconformity,
        null="free",
        training=few_training,
        training_scores=few_training_scores if racer.nonconformity == "J" else None,
    ).calibrate(few, 0.25, scores=few_scores)
    np.testing.assert_allclose(
        smaller.calibration.record.nonconformity, fresh.calibration.record.nonconformity, atol=1e-5
    )
    left = smaller.route_scores(few_scores, groups=few.group, ids=few.texts)
    new = fresh.route_scores(few_scores, groups=few.group, ids=few.texts)
    assert [one.models for one in left] == [one.models for one in new]


def test_scores_are_matched_by_name_and_questions_of_training_are_refused():
    training, training_scores = labelled(0)
    turned = Scores(training_scores[:, ::-1], MODELS[::-1])
    racer = Racer.from_scores(
        MODELS, nonconformity="J", null="free", training=training, training_scores=turned
    )
    np.testing.assert_allclose(
        racer.scores_order.model.train,
        training_scores / np.linalg.norm(training_scores, axis=1, keepdims=True),
        rtol=1e-5,
    )
    with pytest.raises(ValueError, match="calibration questions were trained on"):
        racer.calibrate(training, 0.2, scores=training_scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nonconformity": "static"}, "pass them as training="),
        ({"nonconformity": "J", "training": True}, "pass these as training_scores="),
        ({"nonconformity": "J_learned", "training": True}, "is learned from texts"),
        ({"training_scores": True}, "training_scores are for the order 'J'"),
        ({"nonconformity": "J", "training": True, "training_scores": 5}, "row for each of the 48"),
        ({"nonconformity": "static", "training": True, "cost_weight": 0.5}, "needs the cost"),
    ],
    ids=str,
)
def test_what_is_missing_is_named(options, message):
    training, training_scores = labelled(0)
    if "training" in options:
        options = {**options, "training": training}
    if "training_scores" in options:
        num = None if options["training_scores"] is True else options["training_scores"]
        options = {**options, "training_scores": training_scores[:num]}
    with pytest.raises(ValueError, match=message):
        Racer.from_scores(MODELS, **options)


def test_an_order_by_group_wants_groups(parts):
    racer, _, scores, training, _ = parts
    if training.group is None:
        assert len(racer.route_scores(scores[:2])) == 2
        return
    with pytest.raises(ValueError, match="queries must have groups"):
        racer.route_scores(scores[:2])
    assert racer.warm_up(2) is racer
    assert jax.numpy.isfinite(racer.calibration.threshold).any()
