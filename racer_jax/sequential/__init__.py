"""Calling one model after another, with a calibrated stop: what is learned, and replay on logs.

A `Policy` (order, vote weights, reference, risk models) is learned from training rows; `replay`
gives the paths of logged queries, whose critical scores calibration takes as they are. In a user's
hands it is `racer_jax.serving.Cascade`. May use: `core`, `risk_control`, `montecarlo`, `data`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.sequential.caller import CallState
    from racer_jax.sequential.evaluation import PathEvaluation, evaluate_paths
    from racer_jax.sequential.normal_forms import normal_form
    from racer_jax.sequential.policy import Policy, fit_policy
    from racer_jax.sequential.replay import Paths, replay, stopping_pool
    from racer_jax.sequential.weights import fit_vote_weights

_HOMES = {
    "caller": ("CallState",),
    "evaluation": ("PathEvaluation", "evaluate_paths"),
    "normal_forms": ("normal_form",),
    "policy": ("Policy", "fit_policy"),
    "replay": ("Paths", "replay", "stopping_pool"),
    "weights": ("fit_vote_weights",),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "CallState",
    "PathEvaluation",
    "Paths",
    "Policy",
    "evaluate_paths",
    "fit_policy",
    "fit_vote_weights",
    "normal_form",
    "replay",
    "stopping_pool",
]
