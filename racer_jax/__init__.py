"""RACER in JAX: small sets of LLMs from any router's scores, with a risk of at most alpha."""

import lazy_loader

from racer_jax._distribution import __version__ as __version__

TYPE_CHECKING = False  # to those who read types it is True; `typing` itself takes time to import
if TYPE_CHECKING:
    from racer_jax.core.calibration import calibrate, critical_scores
    from racer_jax.core.nonconformity import augment, gap, inverse_probability, null_score
    from racer_jax.core.prediction_sets import (
        abstains,
        avoidably_missed,
        misrouted,
        prediction_sets,
        set_size,
    )
    from racer_jax.core.risk_levels import miss_budget
    from racer_jax.core.tie_breaking import tie_break
    from racer_jax.data.loading import load
    from racer_jax.data.table import RoutingTable
    from racer_jax.racer.racer import Racer
    from racer_jax.serving.cascade import Cascade

__all__ = [
    "Cascade",
    "Racer",
    "RoutingTable",
    "abstains",
    "augment",
    "avoidably_missed",
    "calibrate",
    "critical_scores",
    "gap",
    "inverse_probability",
    "load",
    "misrouted",
    "miss_budget",
    "null_score",
    "prediction_sets",
    "set_size",
    "tie_break",
]

# Each name is imported when it is first asked for, and nothing beside it: the command has to be
# ready for Ctrl-C before JAX is there, which takes a second, and a user who calibrates does not
# wait for Flax.
_HOMES = {
    "core.calibration": ("calibrate", "critical_scores"),
    "core.nonconformity": ("augment", "gap", "inverse_probability", "null_score"),
    "core.risk_levels": ("miss_budget",),
    "core.tie_breaking": ("tie_break",),
    "core.prediction_sets": (
        "abstains",
        "avoidably_missed",
        "misrouted",
        "prediction_sets",
        "set_size",
    ),
    "data.loading": ("load",),
    "data.table": ("RoutingTable",),
    "racer.racer": ("Racer",),
    "serving.cascade": ("Cascade",),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)
