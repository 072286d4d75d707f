"""Routers: embeddings `[n, d]` to scores `[n, m]` in [0, 1].

What is trained needs Flax and Optax and stands in modules of its own: `mlp`, `routerdc`, `finetune` (with the encoder),
`fit` (from a routing table).
"""

from racer_jax.routers.base import Router
from racer_jax.routers.knn import KNNR, KNNConfig, choose_neighbors, neighbor_weights
from racer_jax.routers.platt import Platt, PlattScaled
from racer_jax.routers.scores import Scores

__all__ = ["KNNR", "KNNConfig", "Platt", "PlattScaled", "Router", "Scores", "choose_neighbors", "neighbor_weights"]
