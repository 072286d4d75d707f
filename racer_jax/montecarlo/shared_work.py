"""A range of work that threads share, while whoever began it does something else."""

from collections import deque
from collections.abc import Callable
from threading import Thread
from typing import Any, NamedTuple


class Started(NamedTuple):
    """Work that is under way.

    Use this when something is begun before it is needed.

    Attributes:
      wait: Waits for it and returns its result; raises what it raised.
      cancel: Keeps what has not begun from beginning, where nobody will wait.
    """

    wait: Callable[[], Any]
    cancel: Callable[[], None]


class SharedWork:
    """Pieces of a range, taken one after the other by threads that begin at once.

    An executor would refuse work while the interpreter ends, where a script has left its work to a
    thread. Here whoever waits does what no thread could be started for.

    Use this when a function in C, or another that lets go of the interpreter, has much to do.

    Args:
      num: The range is 0 to `num` - 1.
      piece: Numbers of a piece.
      num_threads: How many threads share it at most.
      work: Called with the first number of a piece and the one behind its last.
    """

    def __init__(
        self, num: int, piece: int, num_threads: int, work: Callable[[int, int], None]
    ) -> None:
        self._num, self._piece, self._work = num, piece, work
        self._begins = deque(range(0, num, piece))
        self._errors: list[BaseException] = []
        self._threads: list[Thread] = []
        try:
            for _ in range(min(num_threads, len(self._begins))):
                thread = Thread(target=self._run)  # the interpreter waits for it before it ends
                thread.start()
                self._threads.append(thread)
        except RuntimeError:  # no more threads, or the interpreter is at its end
            pass
        except BaseException:
            self.cancel()
            raise

    def _run(self) -> None:
        while self._begins:
            try:
                begin = self._begins.popleft()
            except IndexError:  # another thread was sooner
                return
            try:
                self._work(begin, min(begin + self._piece, self._num))
            except BaseException as error:
                self._errors.append(error)
                self.cancel()

    def cancel(self) -> None:
        """Lets no further piece begin. Use this when nobody will wait."""
        self._begins.clear()

    def wait(self) -> None:
        """Waits for all pieces, and raises what one of them raised.

        Use this when what they wrote is read.
        """
        try:
            if not self._threads:
                self._run()
            for thread in self._threads:
                thread.join()
        except BaseException:  # Control-C
            self.cancel()
            raise
        if self._errors:
            raise self._errors[0]
