"""The method itself: nonconformity, calibration, prediction sets, votes.

Pure functions of arrays that run under the caller's `jit` and `vmap`. May use: JAX, NumPy
and SciPy, and nothing else of this package.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.core.aggregation import majority_vote, prefix_answers, voted_right, weighted_vote
    from racer_jax.core.calibration import (
        calibrate,
        critical_scores,
        threshold_at_budget,
        threshold_at_rank,
    )
    from racer_jax.core.conformal_training import soft_set_size, soft_threshold
    from racer_jax.core.loss_calibration import calibrate_loss
    from racer_jax.core.losses import SetLoss, grade_loss, loss_at, set_loss, weighted_loss
    from racer_jax.core.nonconformity import (
        TieBroken,
        augment,
        augmented_truth,
        gap,
        inverse_probability,
        nonconformity_name,
        null_score,
        register_nonconformity,
    )
    from racer_jax.core.prediction_sets import (
        abstains,
        avoidably_missed,
        misrouted,
        prediction_sets,
        set_size,
    )
    from racer_jax.core.proportions import clopper_pearson_upper
    from racer_jax.core.risk_levels import budget_of, miss_budget, parse_alphas
    from racer_jax.core.sort_keys import critical_keys, critical_places, entry_keys, ordered_keys
    from racer_jax.core.tie_breaking import smooth, tie_break

_HOMES = {
    "aggregation": ("majority_vote", "prefix_answers", "voted_right", "weighted_vote"),
    "calibration": (
        "calibrate",
        "critical_scores",
        "threshold_at_budget",
        "threshold_at_rank",
    ),
    "conformal_training": ("soft_set_size", "soft_threshold"),
    "loss_calibration": ("calibrate_loss",),
    "losses": ("SetLoss", "grade_loss", "loss_at", "set_loss", "weighted_loss"),
    "nonconformity": (
        "TieBroken",
        "augment",
        "augmented_truth",
        "gap",
        "inverse_probability",
        "nonconformity_name",
        "null_score",
        "register_nonconformity",
    ),
    "prediction_sets": ("abstains", "avoidably_missed", "misrouted", "prediction_sets", "set_size"),
    "proportions": ("clopper_pearson_upper",),
    "risk_levels": ("budget_of", "miss_budget", "parse_alphas"),
    "sort_keys": ("critical_keys", "critical_places", "entry_keys", "ordered_keys"),
    "tie_breaking": ("smooth", "tie_break"),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "SetLoss",
    "TieBroken",
    "abstains",
    "augment",
    "augmented_truth",
    "avoidably_missed",
    "budget_of",
    "calibrate",
    "calibrate_loss",
    "clopper_pearson_upper",
    "critical_keys",
    "critical_places",
    "critical_scores",
    "entry_keys",
    "gap",
    "grade_loss",
    "inverse_probability",
    "loss_at",
    "majority_vote",
    "misrouted",
    "miss_budget",
    "nonconformity_name",
    "null_score",
    "ordered_keys",
    "parse_alphas",
    "prediction_sets",
    "prefix_answers",
    "register_nonconformity",
    "set_loss",
    "set_size",
    "smooth",
    "soft_set_size",
    "soft_threshold",
    "threshold_at_budget",
    "threshold_at_rank",
    "tie_break",
    "voted_right",
    "weighted_loss",
    "weighted_vote",
]
