"""A bar on the error stream while a router is trained: which stage, and that time goes on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from racer_jax.racer.stages import FitStage

_SECONDS = 0.5


class TrainingBar:
    """What `Racer.fit` reports, on a bar; nothing is shown where there is no terminal.

    Use this when a command trains.

    Attributes:
      report: The report of the router's training, once there is one.
    """

    def __init__(self, bar: Any) -> None:
        self.report: Any = None
        self._bar = bar

    def __call__(self, stage: "FitStage") -> None:
        """Shows a stage. Use this when `Racer.fit` calls it: nobody else does."""
        self._bar.total = stage.total
        self._bar.n = stage.number
        self._bar.set_description_str(stage.name or "measure what calling one by one saves")
        self.report = stage.report


@contextmanager
def training_bar() -> Iterator[TrainingBar]:
    """The bar, and a clock that goes on while a stage lasts.

    Use this when a command trains.
    """
    from tqdm import tqdm

    end = threading.Event()
    layout = "{desc} |{bar:20}| {n_fmt} of {total_fmt} steps done, {elapsed}"
    with tqdm(
        desc="begin", total=1, unit="step", disable=None, leave=False, bar_format=layout
    ) as bar:

        def tick() -> None:
            while not end.wait(_SECONDS):
                bar.refresh()

        clock = threading.Thread(target=tick, daemon=True)
        if not bar.disable:
            clock.start()
        try:
            yield TrainingBar(bar)
        finally:
            end.set()
            if clock.is_alive():
                clock.join()


def training_sentence(num_questions: int, router: str, report: Any) -> str:
    """What was trained on how many questions, and how well it chooses one model.

    Use this when a router has been trained.

    Args:
      num_questions: Training questions.
      router: The router's name.
      report: Its `TrainingReport`; None for a router that is not trained.
    """
    head = f"trained the router {router!r} on {num_questions:,} questions"
    if report is None:
        return f"{head}; 'racer-jax evaluate' says how well it routes"
    return (
        f"{head}: the model it scores best is right on {report.accuracy:.1%} of those that it did "
        f"not see in training, the best single model on {report.best_single:.1%}"
    )
