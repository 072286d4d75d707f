"""What an attack counts."""

import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LOST, FOREIGN, BEYOND = "lost", "foreign exceptions", "beyond limits"


@dataclass
class Tally:
    """Counts of one attack.

    Attributes:
      tried: How often it was tried.
      outcomes: How often each harmless outcome came.
      problems: What did not hold, with its kind.
    """

    tried: int = 0
    outcomes: Counter = field(default_factory=Counter)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def problem(self, kind: str, what: object) -> None:
        """Counts something that did not hold."""
        self.problems.append((kind, str(what)[-700:]))

    def count(self, kind: str) -> int:
        return sum(kind == other for other, _ in self.problems)

    def attempt(
        self,
        call: Callable[[], Any],
        expected: type[BaseException] | tuple[type[BaseException], ...],
        what: object,
        seconds: float = 5.0,
    ) -> Any:
        """The result of a call; None where it ended in an error of the expected kind."""
        self.tried += 1
        start, result = time.thread_time(), None
        try:
            result = call()
            self.outcomes["accepted"] += 1
        except expected:
            self.outcomes["refused"] += 1
        except Exception:
            self.problem(FOREIGN, f"{what}: {traceback.format_exc()}")
        if (took := time.thread_time() - start) > seconds:
            self.problem(BEYOND, f"{what}: {took:.1f} s")
        return result

    def __str__(self) -> str:
        said = ", ".join(f"{self.count(kind)} {kind}" for kind in (LOST, FOREIGN, BEYOND))
        more = ", ".join(f"{num} {name}" for name, num in sorted(self.outcomes.items()))
        return f"{self.tried} tried ({more}): {said}"
