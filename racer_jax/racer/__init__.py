"""`Racer`: a router, its nonconformity and its calibration in one frozen object; what it decides, how it is saved.

May use: all that computes (`core` to `orders`), `data` and `reporting`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.racer.calibration import Calibration
    from racer_jax.racer.decision import Decision, Decisions, Reason
    from racer_jax.racer.errors import ArtefactError, NotCalibratedError, OverlapError
    from racer_jax.racer.evaluation import Evaluation
    from racer_jax.racer.racer import Racer
    from racer_jax.racer.report import write_report

_HOMES = {
    "calibration": ("Calibration",),
    "decision": ("Decision", "Decisions", "Reason"),
    "errors": ("ArtefactError", "NotCalibratedError", "OverlapError"),
    "evaluation": ("Evaluation",),
    "racer": ("Racer",),
    "report": ("write_report",),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "ArtefactError",
    "Calibration",
    "Decision",
    "Decisions",
    "Evaluation",
    "NotCalibratedError",
    "OverlapError",
    "Racer",
    "Reason",
    "write_report",
]
