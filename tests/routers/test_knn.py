"""KNNR against a plain NumPy search, and its ties against the mean over all ways to break them."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racer_jax.routers import KNNR, Router, choose_neighbors, neighbor_weights


def plain_scores(queries, train, correct, k):
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    train = train / np.linalg.norm(train, axis=1, keepdims=True)
    nearest = np.argsort(-(queries @ train.T), axis=1, kind="stable")[:, :k]
    return correct[nearest].mean(axis=1)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(300, 16)).astype(np.float32)
    return rng.normal(size=(70, 16)).astype(np.float32), train, rng.random((300, 5)) < 0.4


@pytest.mark.long
@pytest.mark.parametrize("k", [1, 7, 300])
def test_equals_the_plain_search(problem, k):
    queries, train, correct = problem
    scores = KNNR.fit(train, correct, k=k)(queries)
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, plain_scores(queries, train, correct, k), atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("block_size", [1, 32, 70, 1000])
def test_block_size_changes_nothing(problem, block_size):
    queries, train, correct = problem
    train = np.concatenate([train, train[:150]])  # duplicates, tied with their originals
    correct = np.concatenate([correct, ~correct[:150]])
    expected = KNNR.fit(train, correct, k=10, block_size=17)(queries)
    np.testing.assert_allclose(
        KNNR.fit(train, correct, k=10, block_size=block_size)(queries), expected, atol=1e-6
    )


@pytest.mark.long
def test_order_of_the_training_rows_changes_nothing(problem):
    queries, train, correct = problem
    train, correct = np.concatenate([train, train]), np.concatenate([correct, ~correct])
    order = np.random.default_rng(1).permutation(len(train))
    shuffled = KNNR.fit(train[order], correct[order], k=9)(queries)
    np.testing.assert_allclose(KNNR.fit(train, correct, k=9)(queries), shuffled, atol=1e-6)


@pytest.mark.long
@given(
    st.lists(st.integers(0, 2), min_size=6, max_size=6), st.sampled_from([1, 4]), st.integers(0, 63)
)
@settings(deadline=None, max_examples=40)
def test_ties_are_the_mean_over_all_ways_to_break_them(levels, k, bits):
    correct = np.array([bits >> i & 1 for i in range(6)])[:, None]
    angles = np.array([0.0, 0.5, 1.0])[levels]
    train = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    levels = np.array(levels)
    # The choices of k rows that a tie-break could make: no row left out is nearer than a row
    # chosen.
    choices = [
        list(c) for c in combinations(range(len(levels)), k)
        if max(levels[list(c)]) <= min(np.delete(levels, list(c)), default=9)
    ]  # fmt: skip
    expected = np.mean([correct[c].mean() for c in choices])
    got = KNNR.fit(train, correct, k=k)(np.array([[1.0, 0.0]], np.float32))
    np.testing.assert_allclose(got, [[expected]], atol=1e-6)


@pytest.mark.long
def test_neighbor_weights_are_the_scores_weights(problem, transform):
    queries, train, correct = problem
    weights = transform(lambda q, t: neighbor_weights(q, t, k=11))(queries, train)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    assert int((weights > 0).sum(1).min()) == 11
    np.testing.assert_allclose(
        weights @ correct, KNNR.fit(train, correct, k=11)(queries), atol=1e-6
    )


@pytest.mark.long
def test_zero_rows_and_extreme_lengths():
    train = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    router = KNNR.fit(train, np.eye(3), k=1)
    queries = np.array([[1e30, 0], [0, 1e-30], [-1, -1]], np.float32)
    np.testing.assert_allclose(router(queries), np.eye(3), atol=1e-6)
    np.testing.assert_allclose(router(np.zeros((1, 2), np.float32)), [[1 / 3] * 3], atol=1e-6)


@pytest.mark.long
def test_works_under_jit_and_as_a_pytree(problem):
    queries, train, correct = problem
    router = KNNR.fit(train, correct, k=5)
    jitted = jax.jit(lambda router, queries: router(queries))(router, queries)
    np.testing.assert_allclose(jitted, router(queries), atol=1e-6)


def test_one_model_one_class_and_one_row():
    router = KNNR.fit(np.ones((1, 3), np.float32), np.ones((1, 1)), k=1)
    assert router(np.ones((4, 3), np.float32)).tolist() == [[1.0]] * 4
    assert isinstance(router, Router)


def test_never_holds_all_similarities_at_once():
    train = jax.ShapeDtypeStruct((200_000, 384), jnp.float32)
    correct = jax.ShapeDtypeStruct((200_000, 7), jnp.float32)
    router = KNNR(train, correct, k=100)
    compiled = jax.jit(lambda router, queries: router(queries)).lower(router, train).compile()
    memory = compiled.memory_analysis()
    total = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    assert total < 4e9


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 4}, ValueError, "k must be between 1 and the number of training rows, 3, got 4"),
        ({"k": 0}, ValueError, "got 0"),
        ({"k": 2.0}, TypeError, "k must be an integer, got 2.0 of type float"),
        ({"block_size": 0}, ValueError, "block_size must be at least 1, got 0"),
        ({"embeddings": np.eye(3, dtype=int)}, TypeError, "embeddings must be floating"),
        ({"embeddings": np.ones(3)}, ValueError, r"embeddings must have shape \[n, d\]"),
        (
            {"embeddings": np.diag([1, np.nan, 1])},
            ValueError,
            r"embeddings must be finite, got nan at \[1, 1\]",
        ),
        ({"correct": np.eye(2)}, ValueError, r"correct must have shape \[n, m\]"),
        (
            {"correct": np.full((3, 2), 0.5)},
            ValueError,
            r"correct must be 0/1, got 0.5 at \[0, 0\]",
        ),
    ],
)
def test_bad_training_input(change, error, message):
    arguments = {"embeddings": np.eye(3, dtype=np.float32), "correct": np.eye(3), "k": 1} | change
    with pytest.raises(error, match=message):
        KNNR.fit(**arguments)


def test_bad_queries():
    router = KNNR.fit(np.eye(3, dtype=np.float32), np.eye(3), k=1)
    with pytest.raises(
        ValueError, match="embeddings must have 3 columns, as the router was fitted on, got 2"
    ):
        router(np.ones((1, 2), np.float32))


# --- the number of neighbours ---


def plain_choice(train, correct):
    """The rule in plain loops: each query left out in its turn."""
    train, losses = train / np.linalg.norm(train, axis=1, keepdims=True), {}
    for k in [k for k in (25, 50, 100, 200, 400) if k < len(train)]:
        losses[k] = []
        for i in range(len(train)):
            rest = np.delete(np.arange(len(train)), i)
            near = rest[np.argsort(-(train[rest] @ train[i]), kind="stable")[:k]]
            p = (correct[near].sum(axis=0) + 0.5) / (k + 1)
            losses[k].append(-np.log(np.where(correct[i], p, 1 - p)).mean())
    best = min(losses, key=lambda k: np.mean(losses[k]))
    behind = {k: np.array(loss) - losses[best] for k, loss in losses.items()}
    return max(k for k, d in behind.items() if d.mean() <= d.std(ddof=1) / np.sqrt(len(train)))


@pytest.mark.long
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_the_largest_number_of_neighbours_that_is_as_good(problem, strength):
    _, train, _ = problem
    rng = np.random.default_rng(3)
    correct = rng.random((300, 5)) < 1 / (1 + np.exp(-strength * train[:, :5]))
    expected = plain_choice(train, correct)
    assert (
        choose_neighbors(train, correct)
        == choose_neighbors(train, correct, block_size=77)
        == expected
    )
    assert strength or expected == 200  # nothing to be learned from the query: the smoothest


def test_few_training_queries_are_all_neighbours(problem):
    _, train, correct = problem
    assert [choose_neighbors(train[:n], correct[:n]) for n in (2, 25, 26, 50)] == [1, 24, 25, 25]


def test_what_cannot_choose_is_named(problem):
    _, train, correct = problem
    with pytest.raises(ValueError, match="at least two queries to leave one out, got 1"):
        choose_neighbors(train[:1], correct[:1])
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        choose_neighbors(train, correct, block_size=0)
