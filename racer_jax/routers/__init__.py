"""Routers: embeddings `[n, d]` to scores `[n, m]` in [0, 1]."""

from racer_jax.routers.base import Router
from racer_jax.routers.knn import KNNR, neighbor_weights

__all__ = ["KNNR", "Router", "neighbor_weights"]
