"""Queries that are scores alone: by what their ties are broken, and what holds where by nothing."""

import json
from io import BytesIO

import numpy as np
import pytest

from racer_jax import Racer
from racer_jax.data import RoutingTable
from racer_jax.racer.fingerprints import question_fingerprints
from racer_jax.serving.json_lines import BadLine, Query, read_queries, route_lines, route_queries

MODELS = ["a", "b", "c"]
# A router with few different scores: the rows of calibration and of use are the same ones.
RNG = np.random.default_rng(0)
LEVELS = np.repeat(np.float32([0.5, 0.7, 0.9])[RNG.integers(3, size=(60, 1))], 3, axis=1)
LEVELS[:20] = np.float32([0.25, 0.75])[RNG.integers(2, size=(20, 3))]
CORRECT = RNG.uniform(size=(60, 3)) < LEVELS
NEW = [f"new question {i}?" for i in range(60)]


def racer_of(scores=LEVELS, alpha=0.2, **options):
    ids = [f"q{i}" for i in range(60)]
    table = RoutingTable(ids=ids, texts=[f"{i}?" for i in ids], models=MODELS, correct=CORRECT)
    null = options.pop("null", "free")
    seed = options.pop("seed", 0)
    racer = Racer.from_scores(MODELS, null=null, nonconformity="inverse_probability", seed=seed)
    return racer.calibrate(table, alpha, scores=scores, **options)


@pytest.mark.parametrize("null", ["paper", "free", "never"])
def test_without_ids_a_set_holds_that_of_every_draw(null):
    for seed, alpha in enumerate([0.1, 0.2, 0.3, 0.4]):
        racer = racer_of(alpha=alpha, null=null, seed=seed)
        bare = racer.route_scores(LEVELS)
        for names in (NEW, NEW[::-1], [f"{name} again" for name in NEW]):
            assert (bare.sets >= racer.route_scores(LEVELS, ids=names).sets).all()
        threshold = racer.calibration.threshold[0]
        assert bare.sets.tolist() == (bare.nonconformity <= threshold).tolist()


@pytest.mark.parametrize("score", [0.5, 0.8])
def test_equal_scores_of_all_queries_keep_the_promise_without_ids(score):
    scores = np.full((60, 3), score, np.float32)
    racer = racer_of(scores)
    assert racer.route_scores(scores).called.all()
    share = racer.route_scores(scores, ids=NEW).called.mean()
    assert 0 < share < 1


def test_a_query_without_an_id_changes_no_other():
    racer = racer_of()
    names = [name if i % 3 else None for i, name in enumerate(NEW)]
    mixed = racer.route_scores(LEVELS, ids=names)
    wanted = racer.route_scores(LEVELS, ids=NEW).sets.copy()
    wanted[::3] = racer.route_scores(LEVELS).sets[::3]
    assert mixed.sets.tolist() == wanted.tolist()
    for row in (0, 1, 2, 59):
        alone = racer.route_scores(LEVELS[row : row + 1], ids=names[row : row + 1])
        assert alone[0] == mixed[row]


def lines_of(racer, records, batch=64):
    file = BytesIO("\n".join(json.dumps(record) for record in records).encode())
    lines = route_lines(racer, read_queries(file, "lines", racer, strict=False), batch)
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("other", [{}, {"id": ""}, {"text": " "}])
def test_a_line_is_decided_alone_as_in_a_batch(other):
    racer = racer_of()
    scores = [dict(zip(MODELS, row, strict=True)) for row in LEVELS.tolist()]
    named = [{"id": i, "scores": row} for i, row in enumerate(scores)]
    records = [*named[:30], {**other, "scores": scores[40]}, *named[30:]]
    together = lines_of(racer, records)
    assert together == [lines_of(racer, [record])[0] for record in records]
    assert together == lines_of(racer, records, batch=7)
    bare = racer.route_scores(LEVELS[40:41])[0]
    assert set(together[30]["models"]) == set(bare.models)


def test_a_line_has_the_ties_of_its_text_and_else_of_its_id():
    racer = racer_of()
    rows = LEVELS.tolist()
    by_text = [Query(1, NEW[i], rows[i], None, i) for i in range(60)]
    by_id = [Query(1, " ", rows[i], None, NEW[i]) for i in range(60)]
    wanted = list(racer.route_scores(LEVELS, ids=NEW))
    for queries in (by_text, by_id):
        assert [item.decision for item in route_queries(racer, queries, 64)] == wanted


@pytest.mark.parametrize("options", [{"max_models": 1}, {"min_models": 1}])
def test_limits_of_sets_need_ids(options):
    racer = racer_of(**options)
    with pytest.raises(ValueError, match=r"ids must name every query, got none for query 0: .*"):
        racer.route_scores(LEVELS)
    with pytest.raises(ValueError, match="got none for query 59"):
        racer.route_scores(LEVELS, ids=[*NEW[:59], None])
    assert len(racer.route_scores(LEVELS, ids=NEW)) == 60
    scores = dict.fromkeys(MODELS, 0.5)
    records = [{"id": 0, "scores": scores}, {"scores": scores}, {"text": "x", "scores": scores}]
    lines = lines_of(racer, records)
    assert ["error" in line for line in lines] == [False, True, False]
    assert "lines, line 2, field 'id': must name the query" in lines[1]["error"]
    file = BytesIO(json.dumps(records[1]).encode())
    assert [type(item) for item in read_queries(file, "x", racer, strict=False)] == [BadLine]
    unbroken = racer_of(seed=None, **options)
    assert unbroken.route_scores(LEVELS)[0] == unbroken.route_scores(LEVELS, ids=NEW)[0]


def test_rows_with_blank_texts_are_questions_of_their_own():
    blank = ["", " ", "\t\n", "\u2003"]
    models, correct = ["a"], [[1]] * 4
    table = RoutingTable(ids=list("wxyz"), texts=blank, models=models, correct=correct)
    named = RoutingTable(ids=list("wxyz"), texts=list("wxyz"), models=models, correct=correct)
    assert question_fingerprints(table).tolist() == question_fingerprints(named).tolist()


def test_ids_that_are_none():
    racer = racer_of()
    for name in ("", " ", "\t\n"):
        with pytest.raises(ValueError, match=r"ids must not be blank, got .* for query 1"):
            racer.route_scores(LEVELS[:2], ids=["x", name])
    for name in (1, b"x", 0.5):
        with pytest.raises(TypeError, match=r"ids must be strings or None, got .* for query 0"):
            racer.route_scores(LEVELS[:2], ids=[name, "x"])
