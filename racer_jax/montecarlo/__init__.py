"""Metrics over random splits: thousands of splits in one call, or the exact law over all of them.

May use: `core`, `risk_control`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.montecarlo.bootstrap import bootstrap_sizes
    from racer_jax.montecarlo.bound_check import (
        BoundCheck,
        BoundSpec,
        RiskHistogram,
        ScoredPool,
        check_bounds,
        check_bounds_broken,
        check_bounds_exactly,
    )
    from racer_jax.montecarlo.common_size import PlanSize, plan_size
    from racer_jax.montecarlo.exact import SplitLaw, pool_law, split_law
    from racer_jax.montecarlo.loss_check import check_losses, check_stops
    from racer_jax.montecarlo.loss_splits import LossTrials, exact_loss_means, loss_trials
    from racer_jax.montecarlo.replay import split_masks, split_parts
    from racer_jax.montecarlo.split_design import SplitSpec
    from racer_jax.montecarlo.step_functions import Pool, Steps, pool_steps
    from racer_jax.montecarlo.trials import Trials, split_trials, stream_trials
    from racer_jax.montecarlo.tuning import Selections, VoteTables, vote_tables

_HOMES = {
    "bootstrap": ("bootstrap_sizes",),
    "bound_check": (
        "BoundCheck",
        "BoundSpec",
        "RiskHistogram",
        "ScoredPool",
        "check_bounds",
        "check_bounds_broken",
        "check_bounds_exactly",
    ),
    "common_size": ("PlanSize", "plan_size"),
    "exact": ("SplitLaw", "pool_law", "split_law"),
    "loss_check": ("check_losses", "check_stops"),
    "loss_splits": ("LossTrials", "exact_loss_means", "loss_trials"),
    "replay": ("split_masks", "split_parts"),
    "split_design": ("SplitSpec",),
    "step_functions": ("Pool", "Steps", "pool_steps"),
    "trials": ("Trials", "split_trials", "stream_trials"),
    "tuning": ("Selections", "VoteTables", "vote_tables"),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "BoundCheck",
    "BoundSpec",
    "LossTrials",
    "PlanSize",
    "Pool",
    "RiskHistogram",
    "ScoredPool",
    "Selections",
    "SplitLaw",
    "SplitSpec",
    "Steps",
    "Trials",
    "VoteTables",
    "bootstrap_sizes",
    "check_bounds",
    "check_bounds_broken",
    "check_bounds_exactly",
    "check_losses",
    "check_stops",
    "exact_loss_means",
    "loss_trials",
    "plan_size",
    "pool_law",
    "pool_steps",
    "split_law",
    "split_masks",
    "split_parts",
    "split_trials",
    "stream_trials",
    "vote_tables",
]
