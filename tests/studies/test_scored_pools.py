import re
import sys

import jax
import numpy as np
import pytest

from racer_jax.core import nonconformity
from racer_jax.data import DataError, RoutingTable
from racer_jax.data.synthetic import MODELS
from racer_jax.studies import checked_pools
from racer_jax.studies.corpora import unseen_questions
from racer_jax.studies.scored_pools import (
    matrix_pools,
    routerdc_pools,
    simulated_pools,
)

SCORES = np.random.default_rng(0).random((20, 3))
CORRECT = (SCORES > 0.5).astype(int)


def table(texts):
    ids = [str(i) for i in range(len(texts))]
    return RoutingTable(ids=ids, texts=texts, models=["a"], correct=np.ones((len(texts), 1)))


def test_repeated_and_trained_on_questions_are_left_out_and_counted():
    rows, note = unseen_questions(table(["one", "two"]), table(["three", "two", "three ", "four"]))
    assert list(rows.texts) == ["three", "four"]
    assert note == "left out 1 repeated and 1 trained-on questions"
    assert unseen_questions(table(["one"]), table(["two"]))[1] == ""


@pytest.mark.long
def test_simulated_pools_are_fixed_by_their_key():
    first, again = (simulated_pools(jax.random.key(1), "weak") for _ in range(2))
    assert [pool.name for pool in first] == ["gsm8k", "mmlu", "cmmlu", "arc_challenge"]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)
        assert a.scores.shape == a.correct.shape == (len(a.correct), len(MODELS))
    with pytest.raises(ValueError, match="quality must be one of"):
        simulated_pools(jax.random.key(1), "perfect")


def test_a_saved_matrix_is_one_pool(tmp_path):
    np.savez(tmp_path / "mine.npz", scores=SCORES, correct=CORRECT)
    (pool,) = matrix_pools(tmp_path / "mine.npz")
    assert pool.name == "mine"
    np.testing.assert_array_equal(pool.scores, SCORES.astype(np.float32))
    np.testing.assert_array_equal(pool.correct, CORRECT)


def test_groups_are_pools_and_repeated_questions_are_left_out(tmp_path):
    texts = [f"question {i % 18}" for i in range(20)]
    group = ["one"] * 10 + ["two"] * 10
    np.savez(tmp_path / "mine.npz", scores=SCORES, correct=CORRECT, texts=texts, group=group)
    one, two = matrix_pools(tmp_path / "mine.npz")
    assert (one.name, two.name) == ("one", "two")
    np.testing.assert_array_equal(two.correct, CORRECT[10:18])
    assert (one.note, two.note) == ("", "left out 2 repeated questions")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scores": SCORES}, "field 'correct'"),
        (
            {"scores": SCORES, "correct": CORRECT[:3]},
            "field 'scores': must have the shape of correct, (3, 3)",
        ),
        ({"scores": SCORES + 1, "correct": CORRECT}, "row 1, field 'scores': must be in [0, 1]"),
        ({"scores": SCORES, "correct": CORRECT + 1}, "field 'correct': must be 0 or 1, got 2"),
    ],
)
def test_a_malformed_matrix_is_named(arrays, message, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        matrix_pools(tmp_path / "bad.npz")
    assert str(tmp_path / "bad.npz") in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="must be a folder of RouterDC's JSON files"):
        routerdc_pools(tmp_path / "none")


def test_an_own_function_is_imported_by_its_place_and_registered(tmp_path, monkeypatch):
    (tmp_path / "my_scores.py").write_text(
        "from racer_jax import inverse_probability\n"
        "def doubled(scores, null):\n"
        "    return 2 * inverse_probability(scores, null)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        assert checked_pools.score_names("my_scores:doubled,gap") == ("doubled", "gap")
        assert checked_pools.score_names("my_scores:doubled") == ("doubled",)  # again
    finally:
        nonconformity.NONCONFORMITIES.pop("doubled", None)
        sys.modules.pop("my_scores", None)
    for text, message in (
        ("nowhere_at_all:f", "cannot be imported: No module named 'nowhere_at_all'"),
        ("math:nothing", "cannot be imported: module 'math' has no attribute 'nothing'"),
    ):
        with pytest.raises(ValueError, match=message):
            checked_pools.score_names(text)
