"""Monte Carlo of random splits as others would write it: what the package is measured against."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import racer_jax as racer
from racer_jax.montecarlo.step_functions import Pool


class Problem(NamedTuple):
    """A pool and what to do with it.

    Attributes:
      nonconformity: float32 `[N, m + 1]`, null model last, no ties.
      correct: bool `[N, m]`.
      num_calibration: n.
      alphas: Risk levels, as decimals.
    """

    nonconformity: np.ndarray
    correct: np.ndarray
    num_calibration: int
    alphas: tuple[str, ...]

    @property
    def ranks(self) -> np.ndarray:
        """Rank n - b of each alpha's threshold."""
        return self.num_calibration - racer.miss_budget(self.alphas, self.num_calibration)


def problem(num_queries: int, num_models: int, alphas: tuple[str, ...], seed: int = 0) -> Problem:
    """Nonconformity without ties, and models that are right the more often the lower theirs is."""
    rng = np.random.default_rng(seed)
    shape = (num_queries, num_models + 1)
    size = shape[0] * shape[1]
    # Whole numbers below 2**24 are distinct in float32: every variant means the same by "at most
    # the threshold".
    nonconformity = rng.permutation(size).reshape(shape).astype(np.float32)
    if size > 1 << 24:
        raise ValueError(f"float32 has too few numbers for {size} entries without ties")
    correct = rng.random((num_queries, num_models)) > nonconformity[:, :-1] / size
    return Problem(nonconformity, correct, num_queries // 2, alphas)


# Workloads: N = 8,000 queries, 99 alphas; N = 100,000, 20 alphas. 7 models and the null model.
SPLITS = {"W1": 10_000, "W2": 1_000}


def workload(name: str) -> Problem:
    """The pool and alphas of a workload."""
    if name == "W1":
        return problem(8_000, 7, tuple(f"{i / 100:g}" for i in range(1, 100)))
    return problem(100_000, 7, tuple(f"{i / 20 - 0.025:g}" for i in range(1, 21)))


# --- NumPy ----------------------------------------------------------------------------------------


def naive_numpy(problem: Problem, rng: np.random.Generator, num_splits: int) -> np.ndarray:
    """What comes to mind first: permute, partition for each alpha, compare. [3, s, a].

    Risk, size, abstention.
    """
    nonconformity, correct, num, _ = problem
    truth = np.concatenate([correct, ~correct.any(axis=1, keepdims=True)], axis=1)
    critical = np.where(truth, nonconformity, np.inf).min(axis=1)
    out = np.empty((3, num_splits, len(problem.ranks)), np.float32)
    for s in range(num_splits):
        order = rng.permutation(len(critical))
        calibration, test = critical[order[:num]], order[num:]
        for a, rank in enumerate(problem.ranks):
            inside = nonconformity[test] <= np.partition(calibration, rank - 1)[rank - 1]
            called = inside[:, :-1].sum(axis=1)
            out[:, s, a] = (
                (~(inside & truth[test]).any(axis=1)).mean(),
                called.mean(),
                (called == 0).mean(),
            )
    return out


class _Counted(NamedTuple):
    """The steps of a metric for NumPy.

    Whose they are, and how many act at each threshold position.
    """

    query: np.ndarray
    upto: np.ndarray


def _counted(pool: Pool, name: str) -> _Counted:
    steps = pool.metrics[name]
    upto = np.searchsorted(steps.first, np.arange(pool.num_queries + 1), side="right")
    return _Counted(steps.query.astype(np.int64), upto)


class BestNumpy:
    """The fastest we could write.

    Pool sorted once, a split is one partition, every alpha a prefix sum.

    A split is the n smallest of N random words; metrics are counted by packing the bits of the test
    queries in order of effect and summing the bits of 64-bit words.
    """

    def __init__(self, problem: Problem, pool: Pool) -> None:
        self.num, self.ranks = problem.num_calibration, problem.ranks
        self.pool = pool
        self.size, self.abstention = _counted(pool, "size"), _counted(pool, "abstention")

    def _count(self, test: np.ndarray, steps: _Counted, position: np.ndarray) -> np.ndarray:
        """Steps of test queries among the first ones."""
        upto = steps.upto[position]
        bits = np.packbits(np.take(test, steps.query), bitorder="little")
        bits = np.concatenate([bits, np.zeros(8 + -len(bits) % 8, np.uint8)]).view(np.uint64)
        count = np.bitwise_count(bits)
        before = np.cumsum(count, dtype=np.int64) - count
        word, bit = upto >> 6, (upto & 63).astype(np.uint64)
        return before[word] + np.bitwise_count(bits[word] & ((np.uint64(1) << bit) - np.uint64(1)))

    def counts(
        self, calibration: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Positions, misses, models called and abstentions of one split, a mask over positions."""
        position = np.flatnonzero(calibration)[self.ranks - 1]
        test = ~calibration
        num_test = len(test) - self.num
        misses = len(test) - 1 - position - (self.num - self.ranks)
        called = self._count(test, self.size, position)
        return position, misses, called, num_test - self._count(test, self.abstention, position)

    def run(self, rng: np.random.Generator, num_splits: int) -> np.ndarray:
        """Risk, size and abstention `[3, s, a]`."""
        size = self.pool.num_queries
        out = np.empty((3, num_splits, len(self.ranks)), np.float32)
        for s in range(num_splits):
            words = rng.integers(0, 2**64, size, dtype=np.uint64)  # ties have a chance of 1e-12
            calibration = words < np.partition(words, self.num)[self.num]
            out[:, s] = self.counts(calibration)[1:]
        return out / np.float32(size - self.num)


# --- naive JAX ------------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("num", "num_splits"))
def naive_jax(
    key: jax.Array,
    nonconformity: jax.Array,
    correct: jax.Array,
    ranks: jax.Array,
    num: int,
    num_splits: int,
) -> jax.Array:
    """Permutation and sort under vmap, one alpha after the other: `[3, a, s]`."""
    truth = jnp.concatenate([correct, ~correct.any(axis=1, keepdims=True)], axis=1)
    critical = jnp.where(truth, nonconformity, jnp.inf).min(axis=1)

    def one_split(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        order = jax.random.permutation(key, len(critical))
        return jnp.sort(critical[order[:num]]), order[num:]

    calibration, test = jax.vmap(one_split)(jax.random.split(key, num_splits))

    def one_alpha(rank: jax.Array) -> jax.Array:
        threshold = calibration[:, rank - 1]
        inside = nonconformity[test] <= threshold[:, None, None]
        called = inside[..., :-1].sum(axis=-1)
        missed = ~(inside & truth[test]).any(axis=-1)
        return jnp.stack([missed.mean(axis=-1), called.mean(axis=-1), (called == 0).mean(axis=-1)])

    return lax.map(one_alpha, ranks).transpose(1, 0, 2)
