"""Clusters by k-means.

As good as the best partition of few points, and as scikit-learn's of many.
"""

from itertools import product

import jax
import numpy as np
import pytest

from racer_jax.routers import clusters
from racer_jax.routers.clusters import cluster_queries

pytestmark = pytest.mark.long


def inertia(points: np.ndarray, labels: np.ndarray) -> float:
    """Sum of squared distances to the mean of the own cluster, in float64."""
    points = np.asarray(points, np.float64)
    parts = [points[labels == label] for label in np.unique(labels)]
    return sum(((part - part.mean(axis=0)) ** 2).sum() for part in parts)


@pytest.fixture(scope="module")
def blobs():
    """Points [60, 3] around three centres far apart, in turn, and far from the origin."""
    rng = np.random.default_rng(0)
    return (100 + 20 * np.eye(3)[np.arange(60) % 3] + rng.normal(size=(60, 3))).astype(np.float32)


def test_blobs_are_told_apart(blobs):
    labels = cluster_queries(jax.random.key(0), blobs, 3)
    assert labels.dtype == np.int32
    assert [len(set(labels[i::3])) for i in range(3)] == [1, 1, 1]
    assert set(labels) == {0, 1, 2}
    np.testing.assert_array_equal(labels, cluster_queries(jax.random.key(0), blobs, 3))


@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_all_partitions_of_few_points(seed):
    points = np.random.default_rng(seed).normal(size=(8, 2)).astype(np.float32)
    best = min(inertia(points, np.array(labels)) for labels in product(range(3), repeat=8))
    result = inertia(points, cluster_queries(jax.random.key(seed), points, 3))
    # Lloyd's steps end at a local minimum; the best of several starts is seldom far above.
    assert best - 1e-9 <= result <= 1.1 * best


def test_every_point_is_nearest_to_the_mean_of_its_cluster():
    points = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
    labels = cluster_queries(jax.random.key(1), points, 7)
    means = np.array([points[labels == k].mean(axis=0, dtype=np.float64) for k in range(7)])
    distances = ((points[:, None] - means) ** 2).sum(axis=2)
    chosen = np.take_along_axis(distances, labels[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(chosen, distances.min(axis=1), rtol=1e-4)


@pytest.mark.parametrize(("num", "size"), [(1, 8), (8, 8), (2, 8)])
def test_any_number_of_clusters(num, size):
    points = np.random.default_rng(2).normal(size=(size, 2)).astype(np.float32)
    assert len(set(cluster_queries(jax.random.key(0), points, num))) == num


def test_fewer_rows_that_differ_than_clusters():
    points = np.repeat(np.array([[0.0, 1.0], [5.0, 5.0]], np.float32), 4, axis=0)
    labels = cluster_queries(jax.random.key(0), points, 3)
    assert set(labels) <= {0, 1, 2}
    assert inertia(points, labels) == 0
    assert set(cluster_queries(jax.random.key(0), np.zeros((8, 2), np.float32), 3)) <= {0, 1, 2}


def test_an_empty_cluster_moves_to_the_farthest_point():
    points = np.array([[0.0], [1.0], [10.0], [11.0], [40.0]], np.float32)
    centres = np.array([[5.0], [-900.0], [900.0]], np.float32)
    labels, total = jax.jit(clusters._lloyd)(points, centres)
    assert [set(np.flatnonzero(labels == k)) for k in (labels[0], labels[2], labels[4])] == [
        {0, 1},
        {2, 3},
        {4},
    ]
    assert float(total) == pytest.approx(1.0)


@pytest.mark.extra
def test_as_good_as_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(6, 16))
    mixture = centres[rng.integers(0, 6, 1000)] + rng.normal(size=(1000, 16))
    for points in (rng.normal(size=(1000, 16)), mixture):
        points = points.astype(np.float32)
        ours, theirs = [], []
        for seed in range(5):
            ours.append(inertia(points, cluster_queries(jax.random.key(seed), points, 5)))
            means = cluster.KMeans(5, n_init=4, random_state=seed)
            theirs.append(inertia(points, means.fit_predict(points)))
        assert np.mean(ours) <= 1.01 * np.mean(theirs)


@pytest.mark.parametrize("num", [0, 61])
def test_a_number_that_does_not_fit_is_named(blobs, num):
    message = f"num_clusters must be between 1 and the 60 queries, got {num}"
    with pytest.raises(ValueError, match=message):
        cluster_queries(jax.random.key(0), blobs, num)
