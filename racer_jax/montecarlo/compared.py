"""What a verdict on the bounds looks at."""

from typing import Protocol

import numpy as np


class Compared(Protocol):
    """What a verdict looks at, arrays by alpha `[a]`; see `BoundCheck`.

    Use this when you check the type of what `verdicts` takes.
    """

    @property
    def risk(self) -> np.ndarray:
        """Mean test risk."""

    @property
    def risk_error(self) -> np.ndarray:
        """Its standard error."""

    @property
    def exact(self) -> np.ndarray:
        """Exact mean over all splits."""

    @property
    def lower(self) -> np.ndarray:
        """The lower bound."""

    @property
    def upper(self) -> np.ndarray:
        """The upper bound."""

    @property
    def lower_applies(self) -> np.ndarray:
        """Whether the lower bound is promised."""
