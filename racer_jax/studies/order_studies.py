"""Training rows, test rows, and the orders learned from training.

What a study of sizes starts from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np

from racer_jax.core.nonconformity import NullMode, inverse_probability
from racer_jax.data import RoutingTable
from racer_jax.encoders.compound import ReducedEncoder
from racer_jax.encoders.hashing import HashedNgrams
from racer_jax.orders.racer_j import RacerJ
from racer_jax.routers import KNNR

Nonconformity = Callable[[NullMode], jax.Array]


@dataclass(frozen=True)
class OrdersConfig:
    """What every study of the orders of models asks for.

    Use this when you write a study of orders.
    """

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


def hashed_embeddings(
    key: jax.Array, train: RoutingTable, test: RoutingTable
) -> tuple[np.ndarray, np.ndarray]:
    """Hashed character n-grams of both parts, reduced to 256 numbers on the training texts.

    Use this when a study of orders needs embeddings without a download.

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
    """RACER-P on k nearest neighbours, the static order and RACER-J blend, from training rows.

    Use this when a study compares orders.

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
    racer_j = RacerJ.fit(x, train.correct, groups=train.group, k=min(neighbors, len(x)), w=blend)
    return {
        "P, KNN": lambda null: inverse_probability(knn, null),
        "static": lambda null: static(z, test.group, null),
        "J blend": lambda null: racer_j(z, test.group, null),
    }


def calibration_size(share: float, num: int) -> int:
    """Number of calibration queries of a split of so many, at least one on either side.

    Use this when a study splits test rows into halves.
    """
    return min(max(1, round(num * share)), num - 1)
