"""A bar on the error stream while a command works: what it does, and that time goes on."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from racer_jax.racer.stages import FitStage

# Seconds between two drawings of the bar, and between two lines where there is no terminal.
_SECONDS = 0.5
_LINE_SECONDS = 30.0
_LAYOUT = "{desc} |{bar:20}| {n_fmt} of {total_fmt} steps done, {elapsed}"


class WorkBar:
    """The steps of a command, on a bar.

    Use this when a command does work that may take seconds.

    Attributes:
      report: The report of the router's training, once there is one.
    """

    def __init__(self, bar: Any, names: tuple[str, ...]) -> None:
        self.report: Any = None
        self._bar = bar
        self._names = names

    def next(self) -> None:
        """Shows the next of the steps. Use this when the one before it is done."""
        self._show(self._names[self._bar.n + 1], self._bar.n + 1, len(self._names))

    def __call__(self, stage: "FitStage") -> None:
        """Shows a stage of training. Use this when `Racer.fit` calls it: nobody else does."""
        name = stage.name or "measure what calling one by one saves"
        self._show(name, stage.number, stage.total + 1)  # what is measured after the last stage
        self.report = stage.report

    def _show(self, name: str, number: int, total: int) -> None:
        self._bar.total = total
        self._bar.n = number
        self._bar.set_description_str(name)


@contextmanager
def work_bar(*names: str) -> Iterator[WorkBar]:
    """The bar of some steps, of which the first begins, and a clock that goes on meanwhile.

    Where there is no terminal, a line says every half minute what is being done.

    Use this when a command does work that may take seconds. Results are printed after it.

    Args:
      names: What each step does, in words.
    """
    from tqdm import tqdm

    end, start = threading.Event(), time.monotonic()
    stream = sys.stderr
    hidden = stream is None or stream.closed or not stream.isatty()
    total = len(names)
    with tqdm(desc=names[0], total=total, disable=hidden, leave=False, bar_format=_LAYOUT) as bar:
        work = WorkBar(bar, names)
        bar.set_description_str(names[0], refresh=False)  # a bar that is not shown has it too

        def draw() -> None:
            while not end.wait(_SECONDS):
                bar.refresh()

        def write() -> None:
            while not end.wait(_LINE_SECONDS):
                done = f"{bar.n} of {bar.total} steps done"
                passed = tqdm.format_interval(time.monotonic() - start)
                with suppress(OSError, ValueError, AttributeError):  # the stream is closed
                    sys.stderr.write(f"{bar.desc}: {done}, {passed}\n")
                    sys.stderr.flush()

        clock = threading.Thread(target=write if hidden else draw, daemon=True)
        clock.start()
        try:
            yield work
        finally:
            end.set()
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
        f"{head}, of which {report.num_held_out:,} were held out to check it: on these the model "
        f"that it scores best is right {report.accuracy:.1%} of the time, the best single model "
        f"{report.best_single:.1%}"
    )
