"""Routers: embeddings `[n, d]` to scores `[n, m]` in [0, 1].

What is trained needs Flax and Optax and stands in modules of its own: `mlp`, `routerdc`, `finetune`
(with the encoder), `fit` (from a routing table).
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.routers.base import Router
    from racer_jax.routers.finetune import FinetuneConfig, FinetuneData
    from racer_jax.routers.fit import TextRouter
    from racer_jax.routers.knn import KNNR, KNNConfig, choose_neighbors, neighbor_weights
    from racer_jax.routers.mlp import MLPR, MLPConfig, fit_mlp, fit_mlps
    from racer_jax.routers.platt import Platt, PlattScaled
    from racer_jax.routers.registry import ROUTERS, named, register_router
    from racer_jax.routers.routerdc import RouterDC, RouterDCConfig, fit_routerdc, fit_routerdcs
    from racer_jax.routers.scores import Scores
    from racer_jax.routers.served_mlp import ServedMLP

# Each is imported when it is asked for: what needs Flax takes half a second.
_HOMES = {
    "base": ("Router",),
    "knn": ("KNNR", "KNNConfig", "choose_neighbors", "neighbor_weights"),
    "platt": ("Platt", "PlattScaled"),
    "scores": ("Scores",),
    "served_mlp": ("ServedMLP",),
    "finetune": ("FinetuneConfig", "FinetuneData"),
    "fit": ("TextRouter",),
    "registry": ("ROUTERS", "named", "register_router"),
    "mlp": ("MLPConfig", "MLPR", "fit_mlp", "fit_mlps"),
    "routerdc": ("RouterDC", "RouterDCConfig", "fit_routerdc", "fit_routerdcs"),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "KNNR",
    "MLPR",
    "ROUTERS",
    "FinetuneConfig",
    "FinetuneData",
    "KNNConfig",
    "MLPConfig",
    "Platt",
    "PlattScaled",
    "Router",
    "RouterDC",
    "RouterDCConfig",
    "Scores",
    "ServedMLP",
    "TextRouter",
    "choose_neighbors",
    "fit_mlp",
    "fit_mlps",
    "fit_routerdc",
    "fit_routerdcs",
    "named",
    "neighbor_weights",
    "register_router",
]
