"""The stages of training a racer, for whoever waits for it."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias


class FitStage(NamedTuple):
    """What training begins with next.

    Use this when you show how far `Racer.fit` is.

    Attributes:
      name: What begins, in words; empty at the end.
      number: How many stages are done.
      total: How many there are.
      report: The `TrainingReport` of the router, once it is trained; None before, and for a router
        that is not trained.
    """

    name: str
    number: int
    total: int
    report: Any = None


Progress: TypeAlias = Callable[[FitStage], None]


class Stages:
    """Counts stages and says each of them to a function.

    Use this when work of several stages reports where it is.
    """

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.report: Any = None
        self._total, self._number, self._progress = total, 0, progress

    def begin(self, name: str) -> None:
        """A stage begins. Use this when the one before it is done."""
        if self._progress is not None:
            self._progress(FitStage(name, self._number, self._total, self.report))
        self._number += 1
