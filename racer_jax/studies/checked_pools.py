"""Pools of every kind that a check of the bounds takes; light, so that a command starts at once."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import jax
import numpy as np

from racer_jax.core.nonconformity import NONCONFORMITIES, register_nonconformity
from racer_jax.montecarlo.bound_check import ScoredPool
from racer_jax.studies.own_scores import own_function

if TYPE_CHECKING:
    from racer_jax.montecarlo.step_functions import Pool
    from racer_jax.risk_control.stopping import Loss
    from racer_jax.sequential.replay import Paths

# Losses of a chain of calls that stops early.
STOP_LOSSES = ("regret", "differs", "wrong")
# Orders of the models that learn from training rows.
LEARNED = ("static", "J", "J_learned")


class CheckedPool(NamedTuple):
    """A pool, and what else a check may want of its queries.

    Use this when a check goes beyond scores and 0/1 labels.

    Attributes:
      pool: Queries, scores and labels.
      matrices: Nonconformity `[n, m + 1]` by the name of its order, null model last.
      graded: How good each answer is, float64 `[n, m]` in [0, 1], or None.
    """

    pool: ScoredPool
    matrices: Mapping[str, np.ndarray]
    graded: np.ndarray | None

    @property
    def correct(self) -> np.ndarray:
        """Whether each model is right, bool `[n, m]`."""
        return self.pool.correct


class StopPool(NamedTuple):
    """Logged paths of a policy that calls one model after another.

    Use this when the calibrated stop is to be checked as sets are.

    Attributes:
      name: Of the benchmark.
      paths: The paths of queries that the policy was not learned on.
      note: What a reader should know of how it was made.
    """

    name: str
    paths: "Paths"
    note: str

    @property
    def correct(self) -> np.ndarray:
        """Whether each answer is right, bool `[n, m]`; all False where that is not known."""
        known = self.paths.correct
        return np.zeros(self.paths.codes.shape, bool) if known is None else known


def score_names(text: str) -> tuple[str, ...]:
    """The scores that an option names: `both` (P and G), or a list of names.

    Args:
      text: Names of `NONCONFORMITIES` and `ORDERS`, own ones included, joined by commas; or
        `module:function` of a nonconformity of yours, imported from the working folder too,
        and registered under the name of the function.

    Raises:
      ValueError: If one is unknown, named twice or cannot be imported.

    Use this when a command takes the scores to check.

    >>> score_names("both"), score_names("J,static")
    (('gap', 'inverse_probability'), ('J', 'static'))
    """
    if text == "both":
        return ("gap", "inverse_probability")
    names = tuple(own_name(name.strip()) for name in text.split(","))
    known = known_names()
    for name in names:
        if name not in known:
            raise ValueError(
                f"nonconformity must be both, or among {', '.join(known)}, got {name!r}"
            )
    if len(set(names)) < len(names):
        raise ValueError(f"nonconformity must name each score once, got {text!r}")
    return names


def own_name(name: str) -> str:
    """The name of a score; of `module:function`, the function's, once it is registered.

    Use this when a command line may name a function of a user's own.

    Raises:
      ValueError: If it cannot be imported, or is no nonconformity.
    """
    function = own_function(name)
    if function is None:
        return name
    attribute = name.partition(":")[2]
    if NONCONFORMITIES.get(attribute) is not function:
        register_nonconformity(attribute, function)
    return attribute


def known_names() -> tuple[str, ...]:
    """Every score and order by name, own ones included.

    Use this when an option names a nonconformity.
    """
    registered: tuple[str, ...] = ()
    if (orders := sys.modules.get("racer_jax.orders.model_orders")) is not None:
        registered = tuple(orders.ORDERS)
    return tuple(dict.fromkeys((*NONCONFORMITIES, *LEARNED, *registered)))


AnyPool: TypeAlias = "ScoredPool | CheckedPool | StopPool"


def scored(pool: AnyPool) -> ScoredPool:
    """Queries, scores and labels of a pool of sets.

    Use this when a pool of sets is checked.

    Raises:
      TypeError: If it is one of stops, which has no scores.
    """
    if isinstance(pool, StopPool):
        raise TypeError(f"the pool {pool.name!r} is of calls one after another and has no scores")
    return pool.pool if isinstance(pool, CheckedPool) else pool


def of_pool(pool: AnyPool) -> tuple[str, str, int, int]:
    """Name, note, number of queries and number of models of a pool of any kind.

    Use this when a report names a pool.
    """
    if isinstance(pool, StopPool):
        return pool.name, pool.note, len(pool.paths.codes), len(pool.paths.policy.calls)
    part = scored(pool)
    return part.name, part.note, len(part.correct), part.correct.shape[1]


def stop_steps(key: jax.Array, pool: StopPool, loss: "Loss") -> tuple["Pool", jax.Array]:
    """The paths of a pool in rank space, ties broken by a key; and a key for the splits.

    Use this when `check_stops` is to run on logged paths.
    """
    tie_key, split_key = jax.random.split(key)
    ties = jax.random.bits(tie_key, pool.paths.leader.shape, np.uint32)
    return pool.paths.pool(loss, ties), split_key
