"""Encoders of a caller's own: a function of texts, or what transforms them, such as a pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer_jax._arrays import given
from racer_jax.encoders.base import Encoder, check_texts


@dataclass(frozen=True)
class FunctionEncoder:
    """A function of texts to embeddings, as an encoder.

    Attributes:
      function: Texts to numbers `[n, d]`; a sparse matrix will do.

    Use this when an encoder is one function; `as_encoder` makes it.
    """

    function: Callable[[Sequence[str]], Any]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of the texts, float32 `[n, d]`.

        Use this when texts are to be embedded.

        Raises:
          ValueError: If the function does not give one row of numbers for each text.
        """
        return embeddings_of(self.function(check_texts(texts)), len(texts))


@dataclass(frozen=True)
class TransformEncoder:
    """What has a method `transform`, such as a fitted scikit-learn pipeline, as an encoder.

    Attributes:
      pipeline: It; `transform` takes texts and gives numbers `[n, d]`, sparse or not.

    Use this when texts are embedded by scikit-learn; `as_encoder` makes it.
    """

    pipeline: Any

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of the texts, float32 `[n, d]`.

        Use this when texts are to be embedded.

        Raises:
          ValueError: If the pipeline does not give one row of numbers for each text.
        """
        return embeddings_of(self.pipeline.transform(check_texts(texts)), len(texts))


def embeddings_of(result: Any, num: int) -> np.ndarray:
    """What an encoder of a caller's own returned, as float32 `[n, d]`.

    Use this when embeddings come from code of a caller.

    Raises:
      ValueError: If it is not one row of finite numbers for each text.
    """
    dense = result.toarray() if hasattr(result, "toarray") else result
    embeddings = np.asarray(given("the encoder's embeddings", dense))
    if embeddings.ndim != 2 or len(embeddings) != num or embeddings.dtype.kind not in "fiub":
        raise ValueError(
            f"an encoder must give numbers of shape [{num}, d], one row for each text, got "
            f"{embeddings.dtype} {list(embeddings.shape)}"
        )
    embeddings = embeddings.astype(np.float32)
    if not np.isfinite(embeddings).all():
        raise ValueError("an encoder must give finite numbers, got NaN or infinity")
    return embeddings


def as_encoder(part: Any) -> Encoder:
    """An encoder of what a caller has: one, a function of texts, or what has `transform`.

    Args:
      part: It.

    Raises:
      TypeError: If it is none of these.

    Use this when you pass an encoder of your own on; `Racer.from_router` and `Racer.fit` do it.

    >>> as_encoder(lambda texts: [[len(text)] for text in texts]).encode(["abc"]).tolist()
    [[3.0]]
    """
    if isinstance(part, Encoder):
        return part
    if hasattr(part, "transform"):
        return TransformEncoder(part)
    if callable(part):
        return FunctionEncoder(part)
    raise TypeError(
        f"an encoder must have a method encode or transform, or be a function of texts, got "
        f"{type(part).__name__}"
    )
