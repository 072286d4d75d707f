"""A nonconformity of the user's own, imported by its name; nothing here imports JAX."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any


def own_function(name: str) -> Callable[..., Any] | None:
    """The function that `module:function` names; None for a name without a colon.

    The module is imported from the working folder too, and may import JAX.

    Use this when a command line may name a function of a user's own.

    Raises:
      ValueError: If it cannot be imported.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        return None
    if (folder := os.getcwd()) not in sys.path:
        sys.path.append(folder)  # as of `python -m`; what is installed comes first
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"nonconformity {name!r} cannot be imported: {error}") from None
    return function
