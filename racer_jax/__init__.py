"""RACER in JAX: small sets of LLMs from any router's scores, calibrated to a risk of at most alpha."""

from racer_jax.calibration import calibrate, critical_scores, miss_budget
from racer_jax.nonconformity import augment, gap, inverse_probability, null_score, tie_break
from racer_jax.sets import abstains, avoidably_missed, misrouted, prediction_sets, set_size

__version__ = "0.1.0"

__all__ = [
    "abstains",
    "augment",
    "avoidably_missed",
    "calibrate",
    "critical_scores",
    "gap",
    "inverse_probability",
    "misrouted",
    "miss_budget",
    "null_score",
    "prediction_sets",
    "set_size",
    "tie_break",
]
