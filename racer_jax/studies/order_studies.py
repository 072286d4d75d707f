"""Training rows, test rows, and the orders learned from training: what a study of sizes starts from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax
import numpy as np

from racer_jax.core.nonconformity import NullMode, inverse_probability
from racer_jax.data import RoutingTable, load, read_routerdc_parts, simulated_pool
from racer_jax.data.combine import concat
from racer_jax.data.load import guess
from racer_jax.encoders.compound import ReducedEncoder
from racer_jax.encoders.hashing import HashedNgrams
from racer_jax.orders.racer_j import RacerJ
from racer_jax.routers import KNNR
from racer_jax.studies.scored_pools import unseen_questions

Nonconformity = Callable[[NullMode], jax.Array]


@dataclass(frozen=True)
class OrdersConfig:
    """What every study of the orders of models asks for."""

    data: Annotated[
        Path | None, "RouterDC's folder or any table; the simulated pool when not given"
    ] = None
    missing: Annotated[Literal["error", "drop"], "queries without a result for every model"] = (
        "error"
    )
    share: Annotated[
        float, "share of the questions that train, where the data brings no training part"
    ] = 0.4
    null: Annotated[NullMode, "null mode"] = "free"
    calibration: Annotated[float, "share of each benchmark that calibrates"] = 0.5
    neighbors: Annotated[int, "neighbours of RACER-J blend"] = 200
    blend: Annotated[float, "weight of the neighbours in RACER-J blend"] = 0.3
    queries: Annotated[int, "queries of each group at most; 0 for all"] = 0
    seed: Annotated[int, "seed of everything"] = 0

    def __post_init__(self) -> None:
        for name in ("calibration", "share"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)}")


class Parts(NamedTuple):
    """Rows to learn from and rows to calibrate and test on, both with groups.

    Attributes:
      train: Training rows.
      test: Rows without repeats of a question and without questions of the training rows.
      notes: By group, what was left out; empty where nothing was.
    """

    train: RoutingTable
    test: RoutingTable
    notes: dict[str, str]


def read_parts(
    data: Path | None,
    key: jax.Array,
    *,
    share: float = 0.4,
    missing: str = "error",
    queries: int = 0,
) -> Parts:
    """The parts of RouterDC's files, of any other table split at random by question, or of the simulated pool.

    Args:
      data: A folder of RouterDC's JSON files, anything else that `racer_jax.data.load` reads, or
        None for simulation.
      key: A typed PRNG key, of the simulation or the split.
      share: Share of the questions that train, where the data brings no training part of its own.
      missing: What becomes of queries without a result for every model, in formats that have such:
        `error` or `drop`.
      queries: At most so many rows of each group in either part; 0 for all.

    Returns:
      The parts; a table without groups is one group, named after its file.

    Raises:
      DataError: If the data is not what it should be.
      ValueError: If an option does not fit it.
    """
    if data is None:
        simulated = simulated_pool(key)
        train, test = (
            concat([getattr(part, which) for part in simulated.values()])
            for which in ("train", "test")
        )
        notes = dict.fromkeys(test.groups, "")
    else:
        if data.is_dir() and guess(data) == "routerdc":
            train, whole = read_routerdc_parts(data)
        else:
            table = load(data, **({} if missing == "error" else {"missing": missing}))
            table = (
                table if table.group is not None else replace(table, group=[data.stem] * len(table))
            )
            rows = table.split(key, (share, 0, round(1 - share, 9)))
            train, whole = table.select(rows.calibration), table.select(rows.test)
        kept = {name: unseen_questions(train, whole.select(group=name)) for name in whole.groups}
        test = concat([rows for rows, _ in kept.values()])
        notes = {name: note for name, (_, note) in kept.items()}
    if queries:
        train, test = (first_of_each_group(table, queries) for table in (train, test))
    return Parts(train, test, notes)


def first_of_each_group(table: RoutingTable, num: int) -> RoutingTable:
    """At most so many rows of each group, in the order they came; the table must have groups."""
    groups = np.array(table.group)
    return table.select(
        np.sort(np.concatenate([np.flatnonzero(groups == name)[:num] for name in table.groups]))
    )


def for_pool(train: RoutingTable, models: Sequence[str]) -> RoutingTable:
    """Training rows with the models of a pool, in the pool's order.

    Args:
      train: The training table; models that are not in the pool are left out.
      models: Names of the pool's models.

    Returns:
      The table.

    Raises:
      ValueError: If a model of the pool is not in the training table: an order cannot be learned
        for it.

    >>> table = RoutingTable(ids=["a"], texts=["?"], models=["x", "y"], correct=[[1, 0]])
    >>> for_pool(table, ["y"]).models
    ('y',)
    """
    if absent := [name for name in models if name not in train.models]:
        raise ValueError(
            f"the training table must hold every model of the pool, {', '.join(map(repr, absent))} "
            f"{'is' if len(absent) == 1 else 'are'} not among {tuple(train.models)}"
        )
    return train if tuple(train.models) == tuple(models) else train.select(models=models)


def hashed_embeddings(
    key: jax.Array, train: RoutingTable, test: RoutingTable
) -> tuple[np.ndarray, np.ndarray]:
    """Hashed character n-grams of both parts, reduced to 256 numbers by what the training texts show.

    Args:
      key: A typed PRNG key.
      train: Training rows.
      test: Test rows.

    Returns:
      Embeddings of each, float32 `[n, 256]`.
    """
    encoder = ReducedEncoder.fit(key, train.texts, 256, HashedNgrams(dim=4096, sizes=(1, 2, 3)))
    return encoder.encode(train.texts), encoder.encode(test.texts)


def orders(
    x: np.ndarray,
    train: RoutingTable,
    z: np.ndarray,
    test: RoutingTable,
    *,
    neighbors: int,
    blend: float,
) -> dict[str, Nonconformity]:
    """RACER-P on k nearest neighbours, the static order and RACER-J blend, learned from training rows alone.

    Args:
      x: Embeddings of the training rows, `[n, d]`.
      train: Training rows, with groups.
      z: Embeddings of the test rows, `[t, d]`.
      test: Test rows, of the same groups.
      neighbors: Neighbours of the blend; of RACER-P 100, or all rows where there are fewer.
      blend: Weight of the neighbours.

    Returns:
      By name, a function from the null mode to nonconformity of the test rows, `[t, m + 1]`.
    """
    knn = KNNR.fit(x, train.correct, k=min(100, len(x)))(z)
    static = RacerJ.fit(x, train.correct, groups=train.group, k=1, w=0.0)
    blended = RacerJ.fit(x, train.correct, groups=train.group, k=min(neighbors, len(x)), w=blend)
    return {
        "P, KNN": lambda null: inverse_probability(knn, null),
        "static": lambda null: static(z, test.group, null),
        "J blend": lambda null: blended(z, test.group, null),
    }


def calibration_size(share: float, num: int) -> int:
    """Number of calibration queries of a split of so many, at least one on either side."""
    return min(max(1, round(num * share)), num - 1)
