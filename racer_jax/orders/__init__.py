"""Orders of the models by what each adds to those before it.

RACER-J, learned gains, the static order.

May use: `core`, `routers`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.orders.coverage_gain import static_order
    from racer_jax.orders.joint_laws import (
        PatternLaw,
        factor,
        fit_loadings,
        pattern_law,
        tilt,
        tilted,
    )
    from racer_jax.orders.learned_gains import LearnedGains
    from racer_jax.orders.model_orders import ORDERS, Order, fit_order, register_order
    from racer_jax.orders.racer_j import RacerJ
    from racer_jax.orders.static_orders import Prices, StaticOrder

_HOMES = {
    "coverage_gain": ("static_order",),
    "joint_laws": ("PatternLaw", "factor", "fit_loadings", "pattern_law", "tilt", "tilted"),
    "learned_gains": ("LearnedGains",),
    "model_orders": ("ORDERS", "Order", "fit_order", "register_order"),
    "racer_j": ("RacerJ",),
    "static_orders": ("Prices", "StaticOrder"),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "ORDERS",
    "LearnedGains",
    "Order",
    "PatternLaw",
    "Prices",
    "RacerJ",
    "StaticOrder",
    "factor",
    "fit_loadings",
    "fit_order",
    "pattern_law",
    "register_order",
    "static_order",
    "tilt",
    "tilted",
]
