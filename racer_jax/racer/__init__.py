"""`Racer`: a router, its nonconformity and its calibration in one frozen object.

What it decides, how it is evaluated, and how it is saved.

May use: all that computes (`core` to `orders`), `data` and `reporting`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.racer.calibration import Calibration
    from racer_jax.racer.decision import Decision, Decisions, Reason
    from racer_jax.racer.errors import (
        ArtefactError,
        ForkedError,
        NotCalibratedError,
        OverlapError,
    )
    from racer_jax.racer.racer import Racer
    from racer_jax.racer.report import write_report
    from racer_jax.racer.results import Evaluation

_HOMES = {
    "calibration": ("Calibration",),
    "decision": ("Decision", "Decisions", "Reason"),
    "errors": ("ArtefactError", "ForkedError", "NotCalibratedError", "OverlapError"),
    "racer": ("Racer",),
    "report": ("write_report",),
    "results": ("Evaluation",),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "ArtefactError",
    "Calibration",
    "Decision",
    "Decisions",
    "Evaluation",
    "ForkedError",
    "NotCalibratedError",
    "OverlapError",
    "Racer",
    "Reason",
    "write_report",
]
