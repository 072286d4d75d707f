import re

import jax
import numpy as np
import pytest

from racer_jax.data import DataError, RoutingTable
from racer_jax.data.synthetic import MODELS
from racer_jax.pools import matrix_pools, routerdc_pools, simulated_pools, unseen_questions

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


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scores": SCORES}, "field 'correct': must be there, got only ['scores']"),
        ({"scores": SCORES, "correct": CORRECT[:3]}, "must both be [n, m], got (20, 3) and (3, 3)"),
        ({"scores": SCORES[:0], "correct": CORRECT[:0]}, "must both be [n, m], got (0, 3) and (0, 3)"),
        ({"scores": SCORES + 1, "correct": CORRECT}, "scores must be in [0, 1]"),
        ({"scores": SCORES * np.nan, "correct": CORRECT}, "scores must be finite, got nan at [0, 0]"),
        ({"scores": CORRECT, "correct": CORRECT}, "scores must be floating, got dtype int"),
        ({"scores": SCORES, "correct": CORRECT + 1}, "correct must be 0/1, got 2.0"),
        ({"scores": SCORES, "correct": np.full((20, 3), "x")}, "correct"),
        ({"scores": np.array([[None]]), "correct": CORRECT}, "must be an .npz archive of plain arrays"),
    ],
)
def test_a_malformed_matrix_is_named(arrays, message, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        matrix_pools(tmp_path / "bad.npz")
    assert str(tmp_path / "bad.npz") in str(caught.value)


def test_files_that_are_no_archive_are_named(tmp_path):
    np.save(tmp_path / "array.npy", SCORES)
    (tmp_path / "text.npz").write_text("scores")
    np.savez(tmp_path / "whole.npz", scores=SCORES, correct=CORRECT)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:300])
    for name in ("array.npy", "text.npz", "cut.npz"):
        with pytest.raises(DataError, match=r"must be an \.npz archive of plain arrays"):
            matrix_pools(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        matrix_pools(tmp_path / "none.npz")
    with pytest.raises(DataError, match="must be a folder of RouterDC's JSON files"):
        routerdc_pools(tmp_path / "none")
