"""Tasks that begin at once."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def started(work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """A task that has run up to its first wait.

    A call of a model is then sent at once, and not in the loop's next turn. Only tasks of our own
    are made so: anyio's groups of tasks fail where every task of a loop is. Before Python 3.12 a
    task begins in the next turn.

    Args:
      work: What it runs.
    """
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)
    return asyncio.ensure_future(work)
