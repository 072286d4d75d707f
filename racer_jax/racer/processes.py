"""Forks: what JAX cannot do in them is an error in place of a wait without end.

The threads of JAX do not exist in a forked process. One that was forked after JAX was used waits
for them for ever. A fork of a process in which JAX was only imported is as good as any process.
"""

import os
import sys

from racer_jax.racer.errors import ForkedError

_STATE = {"used": False, "stale": False}


def check_process() -> None:
    """Refuses to compute in a process that was forked after JAX was used.

    Use this when a function is about to compute with JAX.

    Raises:
      ForkedError: If this is such a process.
    """
    if _STATE["stale"]:
        raise ForkedError
    _STATE["used"] = True


def _backend_exists() -> bool:
    """Whether JAX has started its threads, as far as it can be seen."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(getattr(bridge, "_backends", None))


def _in_child() -> None:
    _STATE["stale"] = _STATE["stale"] or _STATE["used"] or _backend_exists()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
