"""Guarantees: their bounds and laws, and calibration beyond one level on average.

By group (Mondrian), with high probability, under covariate shift, to a budget in dollars, of the
selective risk; and the calibrated stop of models that are called one after another. May use:
`core`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.risk_control.alpha_choice import knee, within_budget, within_error
    from racer_jax.risk_control.bounds import (
        RiskBounds,
        SplitRiskLaw,
        miss_law,
        risk_bounds,
        risk_law,
        risk_std,
        sharp_risk,
        smallest_calibration_size,
        split_risk_law,
    )
    from racer_jax.risk_control.costs import (
        Attainable,
        BudgetThreshold,
        attainable_alpha,
        calibrate_budget,
        call_at_least,
        cap_models,
    )
    from racer_jax.risk_control.covariate_shift import (
        DensityRatio,
        WeightedCalibration,
        calibrate_weighted,
        estimate_density_ratio,
    )
    from racer_jax.risk_control.group_scores import GroupedScores, group_codes, group_scores
    from racer_jax.risk_control.high_probability import (
        calibrate_uniform,
        calibrate_with_probability,
        uniform_budget,
    )
    from racer_jax.risk_control.high_probability_budgets import (
        high_probability_budget,
        smallest_size,
    )
    from racer_jax.risk_control.loss_guarantees import (
        GroupedLossThreshold,
        calibrate_loss_by_group,
        calibrate_loss_with_probability,
        loss_bounds,
    )
    from racer_jax.risk_control.mondrian import (
        GroupedThreshold,
        calibrate_by_group,
        calibrate_table,
    )
    from racer_jax.risk_control.selective import Selective, calibrate_selective
    from racer_jax.risk_control.stopping import (
        Stops,
        path_nonconformity,
        stop_critical_scores,
        stop_losses,
        stops_at,
    )
    from racer_jax.risk_control.vote_path import (
        PathStates,
        path_states,
        state_features,
        stopping_scores,
    )

_HOMES = {
    "alpha_choice": ("knee", "within_budget", "within_error"),
    "bounds": (
        "RiskBounds",
        "SplitRiskLaw",
        "miss_law",
        "risk_bounds",
        "risk_law",
        "risk_std",
        "sharp_risk",
        "smallest_calibration_size",
        "split_risk_law",
    ),
    "costs": (
        "Attainable",
        "BudgetThreshold",
        "attainable_alpha",
        "calibrate_budget",
        "call_at_least",
        "cap_models",
    ),
    "covariate_shift": (
        "DensityRatio",
        "WeightedCalibration",
        "calibrate_weighted",
        "estimate_density_ratio",
    ),
    "group_scores": ("GroupedScores", "group_codes", "group_scores"),
    "high_probability": (
        "calibrate_uniform",
        "calibrate_with_probability",
        "uniform_budget",
    ),
    "high_probability_budgets": ("high_probability_budget", "smallest_size"),
    "loss_guarantees": (
        "GroupedLossThreshold",
        "calibrate_loss_by_group",
        "calibrate_loss_with_probability",
        "loss_bounds",
    ),
    "mondrian": ("GroupedThreshold", "calibrate_by_group", "calibrate_table"),
    "selective": ("Selective", "calibrate_selective"),
    "stopping": (
        "Stops",
        "path_nonconformity",
        "stop_critical_scores",
        "stop_losses",
        "stops_at",
    ),
    "vote_path": ("PathStates", "path_states", "state_features", "stopping_scores"),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "Attainable",
    "BudgetThreshold",
    "DensityRatio",
    "GroupedLossThreshold",
    "GroupedScores",
    "GroupedThreshold",
    "PathStates",
    "RiskBounds",
    "Selective",
    "SplitRiskLaw",
    "Stops",
    "WeightedCalibration",
    "attainable_alpha",
    "calibrate_budget",
    "calibrate_by_group",
    "calibrate_loss_by_group",
    "calibrate_loss_with_probability",
    "calibrate_selective",
    "calibrate_table",
    "calibrate_uniform",
    "calibrate_weighted",
    "calibrate_with_probability",
    "call_at_least",
    "cap_models",
    "estimate_density_ratio",
    "group_codes",
    "group_scores",
    "high_probability_budget",
    "knee",
    "loss_bounds",
    "miss_law",
    "path_nonconformity",
    "path_states",
    "risk_bounds",
    "risk_law",
    "risk_std",
    "sharp_risk",
    "smallest_calibration_size",
    "smallest_size",
    "split_risk_law",
    "state_features",
    "stop_critical_scores",
    "stop_losses",
    "stopping_scores",
    "stops_at",
    "uniform_budget",
    "within_budget",
    "within_error",
]
