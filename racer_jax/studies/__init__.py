"""What the experiments share.

Benchmarks with routers' scores, strategies, the shell that runs a study and writes it.

May use: everything but `serving` and `cli`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.studies.benchmarks import Benchmark, StudyConfig
    from racer_jax.studies.runner import Report, run_experiment
    from racer_jax.studies.scored_pools import matrix_pools, routerdc_pools, simulated_pools
    from racer_jax.studies.strategies import Difference, StrategyMetrics
    from racer_jax.studies.vote_strategies import VoteConfig
    from racer_jax.studies.vote_study import vote_study

_HOMES = {
    "benchmarks": ("Benchmark", "StudyConfig"),
    "runner": ("Report", "run_experiment"),
    "scored_pools": ("matrix_pools", "routerdc_pools", "simulated_pools"),
    "strategies": ("Difference", "StrategyMetrics"),
    "vote_strategies": ("VoteConfig",),
    "vote_study": ("vote_study",),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "Benchmark",
    "Difference",
    "Report",
    "StrategyMetrics",
    "StudyConfig",
    "VoteConfig",
    "matrix_pools",
    "routerdc_pools",
    "run_experiment",
    "simulated_pools",
    "vote_study",
]
