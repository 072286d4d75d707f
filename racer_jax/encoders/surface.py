"""Encoder of a text's surface: lengths, answer options, digits, symbols.

It gives 19 numbers, for any language, without a download.

The surface of a question says about as much about its difficulty as its embedding does: long word
problems are answered wrongly more often than short ones. Beside an embedding (`JoinedEncoder`), the
features add what it leaves out.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer_jax.encoders.base import Parts, Read, Save, array_of, check_texts

_OPTION = re.compile(r"^\s*\(?[A-J][.):]\s*(.*)$", re.MULTILINE)
_SYMBOLS = frozenset("=+-*/^<>√∑∫%$\\{}")


def surface(text: str) -> list[float]:
    """The features of one text.

    Use this when you want the numbers that `SurfaceEncoder` uses, for one text.
    """
    first = _OPTION.search(text)
    question = text[: first.start()] if first else text
    options = [option.strip() for option in _OPTION.findall(text)]
    lengths = [len(option) for option in options] or [0]
    mean = sum(lengths) / len(lengths)

    def share(kind: Callable[[str], bool]) -> float:
        return sum(map(kind, text)) / len(text)

    return [
        np.log1p(len(text)),
        np.log1p(len(question)),
        np.log1p(mean),
        np.log1p(max(lengths)),
        float(np.std(lengths)) / (1 + mean),
        len(options),
        sum(bool(option) and not any(c.isalpha() for c in option) for option in options)
        / len(lengths),
        share(str.isdigit),
        share(str.isascii),
        share(str.isupper),
        share(str.isspace),
        share(_SYMBOLS.__contains__),
        float("_" in text),
        float("\\" in text),
        np.log1p(sum(text.count(c) for c in "?？")),
        np.log1p(sum(text.count(c) for c in ".。!！;；")),
        np.log1p(sum(map(str.isdigit, question))),
        np.log1p(text.count("\n")),
        float(any(c in question for c in "(（")),
    ]


@dataclass(frozen=True, eq=False)
class SurfaceEncoder:
    """Surface features, standardised on training texts.

    Use this when you want to add length, options and symbols of a question to another encoder's
    vectors; make one with `fit` and put both into a `JoinedEncoder`.

    Attributes:
      mean: Mean of each feature over the training texts, float32 `[d]`.
      deviation: Standard deviation of each feature, float32 `[d]`; 1 where it is constant.
      scale: What one standard deviation becomes; 0.2 is meant for a place beside embeddings of
        length 1.
    """

    mean: np.ndarray
    deviation: np.ndarray
    scale: float

    @classmethod
    def fit(cls, texts: Sequence[str], scale: float = 0.2) -> "SurfaceEncoder":
        """Keeps mean and deviation of each feature.

        Use this when training texts are at hand; `encode` then serves any texts.

        Args:
          texts: The training texts.
          scale: What one standard deviation becomes, above 0.

        Raises:
          TypeError: If `texts` is a single string, or holds anything but strings.
          ValueError: If `texts` is empty, a text is empty or only white space, or the scale is not
            positive.
        """
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale must be positive and finite, got {scale}")
        features = np.array([surface(text) for text in check_texts(texts)])
        deviation = features.std(axis=0)
        deviation = np.where(deviation > 1e-9, deviation, 1.0)
        return cls(
            features.mean(axis=0).astype(np.float32), deviation.astype(np.float32), float(scale)
        )

    def to_parts(self, prefix: str, save: Save) -> Parts:
        """The encoder in pieces.

        Use this when you store the encoder in a format of your own; `Racer.save` does so for you.
        """
        arrays = {f"{prefix}.mean": self.mean, f"{prefix}.deviation": self.deviation}
        return {"kind": "surface", "scale": self.scale}, arrays

    @classmethod
    def from_parts(
        cls,
        description: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        prefix: str,
        read: Read,
    ) -> "SurfaceEncoder":
        """The encoder of `to_parts`. Use this when you read what `to_parts` gave."""
        mean, deviation = (array_of(arrays, f"{prefix}.{name}") for name in ("mean", "deviation"))
        return cls(mean, deviation, float(description["scale"]))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Standardised features of the texts, clipped at 4 deviations, float32 `[n, d]`.

        Use this when you need vectors of texts.
        """
        features = np.array([surface(text) for text in check_texts(texts)], np.float32)
        return np.asarray(
            np.clip((features - self.mean) / self.deviation, -4, 4) * self.scale, np.float32
        )
