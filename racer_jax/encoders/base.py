"""What every encoder shares.

The protocol, the check of the texts, and the warning about texts that were cut.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np

Side = Literal["left", "right"]
SIDES: tuple[str, ...] = get_args(Side)

_LOGGER = logging.getLogger(__name__)

Arrays: TypeAlias = dict[str, np.ndarray]
# An object in pieces: a description in plain values, and arrays by name.
Parts: TypeAlias = tuple[dict[str, Any], Arrays]
# Saves, and reads, an object inside another one: the object and the prefix of its arrays' names.
Save: TypeAlias = Callable[[Any, str], Parts]
Read: TypeAlias = Callable[[Mapping[str, Any], str], Any]


# Kinds of a description whose object is a caller's own: see `racer_jax.racer.own_parts`.
OWN_KINDS = ("own", "external", "flax")


class Stages(NamedTuple):
    """`encode` in two steps, of which the second can be compiled together with a router.

    Use this when an encoder has a part that can run on the device; `Encoder.encode` is enough
    otherwise.

    Attributes:
      front: Texts to an array, on the host.
      arrays: What `back` needs besides the result of `front`.
      back: A pure function of `arrays` and the result of `front` to embeddings; None where `front`
        gives the embeddings already.
    """

    front: Callable[[Sequence[str]], np.ndarray]
    arrays: Any = ()
    back: Callable[[Any, Any], Any] | None = None


class PartsError(ValueError):
    """An object that cannot be saved, or a description and arrays that do not make one.

    Use this when you catch what can be wrong with a stored encoder, router or order.
    """


def array_of(
    arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """An array by its name, of a shape where that is known.

    Use this when an object is made from stored arrays.

    Raises:
      PartsError: If there is none, or it has another shape.
    """
    if name not in arrays:
        raise PartsError(f"the array {name!r} is missing")
    array = np.asarray(arrays[name])
    if shape is not None and array.shape != shape:
        raise PartsError(f"the array {name!r} must have shape {shape}, got {array.shape}")
    return array


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns texts into one vector each.

    Equal texts give equal vectors, whatever else is in the batch.

    Use this when you write an encoder of your own: this one method is enough to train and route,
    but not to save.
    """

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of the texts, float32 `[n, d]`, in their order.

        Use this when you need vectors of texts.
        """
        ...


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list, after a check that none of them is empty.

    Use this when you write an encoder of your own and its `encode` shall refuse bad texts as the
    others do.

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


def check_side(side: str) -> None:
    """Refuses an unknown end of a text.

    Use this when an encoder takes `truncation_side`.

    Raises:
      ValueError: If it is neither `"left"` nor `"right"`.
    """
    if side not in SIDES:
        raise ValueError(f"truncation_side must be one of {SIDES}, got {side!r}")


def report_truncated(num_truncated: int, num_texts: int, limit: str, side: str) -> None:
    """Logs how many texts were read only in part; logs nothing where there are none.

    Use this when an encoder cut texts.
    """
    if num_truncated:
        _LOGGER.warning(
            "%d of %d texts were longer than %s and cut on the %s",
            num_truncated,
            num_texts,
            limit,
            side,
        )
