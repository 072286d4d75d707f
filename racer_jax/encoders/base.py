"""What every encoder shares: the protocol, and the check of the texts that enter."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns texts into one vector each.

    Equal texts give equal vectors, whatever else is in the batch.
    """

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of the texts, float32 `[n, d]`, in their order."""
        ...


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list, if each of them says something.

    Args:
      texts: At least one string; none empty or all white space.

    Returns:
      A new list of the same strings.

    Raises:
      TypeError: If `texts` is a single string, or holds anything but strings.
      ValueError: If it is empty, or a text is empty or only white space.

    >>> check_texts(("2 + 2 = ?",))
    ['2 + 2 = ?']
    """
    if isinstance(texts, str):
        raise TypeError("texts must be a sequence of strings, got a single string; pass [text]")
    texts = list(texts)
    if not texts:
        raise ValueError("texts must hold at least one text, got none")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts must be strings, got {type(text).__name__} at [{i}]")
        if not text or text.isspace():
            raise ValueError(f"texts must not be empty or only white space, got {text!r} at [{i}]")
    return texts
