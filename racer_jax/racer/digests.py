"""Digits that stand for a description, its arrays, or a pool.

Neither JAX nor NumPy is imported at first: whether a folder is an artefact is said before a command
waits for them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def digest(description: Any, arrays: Mapping[str, np.ndarray] | None = None) -> str:
    """32 hexadecimal digits that stand for a description and its arrays.

    Use this when two descriptions may be of the same object.
    """
    state = hashlib.sha256(json.dumps(description, sort_keys=True, ensure_ascii=False).encode())
    if arrays:
        import numpy as np

    for name, array in sorted((arrays or {}).items()):
        state.update(f"{name} {array.dtype} {array.shape}".encode())
        state.update(np.ascontiguousarray(array).view(np.uint8).data)
    return state.hexdigest()[:32]


def named(models: Sequence[str]) -> str:
    """The fingerprint of a pool: its models in their order.

    Use this when two artefacts may be of the same pool.
    """
    return digest(list(models))
