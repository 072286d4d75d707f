r"""Hashed character n-grams: an encoder for any language that needs no download and no training.

Every n-gram of code points is hashed (FNV-1a, then the finalizer of MurmurHash3, all in uint32).
The hash picks a bucket and a sign, and a bucket holds the signed square root of its signed count.
The vector is scaled to length 1, so an inner product is a cosine. The hash is arithmetic on code
points: the same in every process, on every machine.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from racer_jax.encoders.base import (
    Parts,
    Read,
    Save,
    Side,
    check_side,
    check_texts,
    report_truncated,
)

_FNV_OFFSET = np.uint32(0x811C9DC5)
_FNV_PRIME = np.uint32(0x01000193)
# Texts are hashed in groups: of so few that the counts stay in the processor's cache, and of no
# more than about this many characters, which bounds the memory of the temporary arrays.
_GROUP_TEXTS = 32
_GROUP_CHARS = 1 << 20
# Buckets up to which those of one text are counted one by one: more take longer than sorting.
_COUNTED_DIM = 1 << 14


def _normal_form(text: str) -> str:
    """Compatibility form without case, with single spaces and one at both ends, a word's edge."""
    return f" {' '.join(unicodedata.normalize('NFKC', text).casefold().split())} "


def _mix(h: np.ndarray) -> np.ndarray:
    """The 32-bit finalizer of MurmurHash3: every input bit reaches every output bit."""
    h = h ^ (h >> np.uint32(16))
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return h


@lru_cache
def _steps(sizes: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """What a hash of each size starts from, uint32 `[s, 1]`, and at each step the first size left.

    The size enters the hash, so that n-grams of different sizes never collide by construction.
    """
    starts = (_FNV_OFFSET ^ np.array(sizes, np.uint32))[:, None]
    return starts, tuple(sum(size <= j for size in sizes) for j in range(sizes[-1]))


def _unmixed_hashes(code_points: np.ndarray, sizes: tuple[int, ...]) -> list[np.ndarray]:
    """`ngram_hashes` of each size without the finalizer; `sizes` are ascending.

    All sizes go through each step together: for a short text, a call of NumPy costs more than its
    work.
    """
    starts, firsts = _steps(sizes)
    length = len(code_points)
    h = code_points ^ starts
    h *= _FNV_PRIME
    for j in range(1, sizes[-1]):
        longer = h[firsts[j] :, : max(0, length - j)]
        longer ^= code_points[j:]
        longer *= _FNV_PRIME
    return [row[: max(0, length - size + 1)] for row, size in zip(h, sizes, strict=True)]


def ngram_hashes(code_points: np.ndarray, size: int) -> np.ndarray:
    """Hashes of all the n-grams of one size in a row of code points.

    Use this when features of character n-grams are needed without an encoder.

    Args:
      code_points: uint32 `[c]`.
      size: Number of code points in an n-gram, at least 1.

    Returns:
      uint32 `[c - size + 1]`, empty where `c < size`.

    >>> ngram_hashes(np.array([97, 98], np.uint32), 2).tolist()
    [3617312787]
    """
    return _mix(_unmixed_hashes(code_points, (size,))[0])


@dataclass(frozen=True)
class HashedNgrams:
    """Encoder of hashed character n-grams.

    Use this when you want an encoder that needs no download, no training and no GPU; for shorter
    vectors put it into a `ReducedEncoder`.

    Attributes:
      dim: Length d of the vectors, a power of two.
      sizes: The sizes of the n-grams, in code points.
      max_chars: Only this many characters of a text are read.
      truncation_side: Which end of a longer text is cut off, `"right"` or `"left"`.

    Raises:
      ValueError: If `dim` is not a power of two, a size is below 1, `max_chars` below 1, or the
        side unknown.

    >>> texts = ["What is 2 + 2?", "what is  2 + 2?", "二加二等于几?"]
    >>> embeddings = HashedNgrams(dim=256).encode(texts)
    >>> embeddings.shape, bool((embeddings[0] == embeddings[1]).all())
    ((3, 256), True)
    """

    dim: int = 4096
    sizes: tuple[int, ...] = (2, 3, 4)
    max_chars: int = 20_000
    truncation_side: Side = "right"

    def __post_init__(self) -> None:
        if self.dim < 2 or self.dim & (self.dim - 1):
            raise ValueError(f"dim must be a power of two, at least 2, got {self.dim}")
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(
                f"sizes must hold at least one size, each at least 1, got {self.sizes}"
            )
        if self.max_chars < 1:
            raise ValueError(f"max_chars must be at least 1, got {self.max_chars}")
        check_side(self.truncation_side)

    def to_parts(self, prefix: str, save: Save) -> Parts:
        """The encoder in pieces; it has no arrays.

        Use this when you store the encoder in a format of your own; `Racer.save` does so for you.
        """
        description = {
            "kind": "hashed_ngrams",
            "dim": self.dim,
            "sizes": [int(size) for size in self.sizes],
            "max_chars": self.max_chars,
            "truncation_side": self.truncation_side,
        }
        return description, {}

    @classmethod
    def from_parts(
        cls,
        description: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        prefix: str,
        read: Read,
    ) -> "HashedNgrams":
        """The encoder of `to_parts`. Use this when you read what `to_parts` gave."""
        # The only side there was, in the first artefacts.
        side = description.get("truncation_side", "right")
        sizes = tuple(description["sizes"])
        return cls(int(description["dim"]), sizes, int(description["max_chars"]), side)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of length 1, from `counts`.

        Use this when you need vectors of texts.

        Args:
          texts: At least one string, none empty.

        Returns:
          float32 `[n, dim]`.

        Raises:
          TypeError: If `texts` is a single string, or holds anything but strings.
          ValueError: If it is empty, or a text is empty or only white space.
        """
        counts = self.counts(texts)
        embeddings = np.sqrt(np.abs(counts))
        np.copysign(embeddings, counts, out=embeddings)
        norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
        # Signed counts can cancel to nothing only in very few buckets; such a text keeps the zero
        # vector.
        return np.asarray(embeddings / np.where(norms > 0, norms, 1), dtype=np.float32)

    def counts(self, texts: Sequence[str]) -> np.ndarray:
        """Signed n-gram counts by bucket, whole numbers; `encode` makes the vectors from them.

        Texts cut to `max_chars` are counted in the log.

        Use this when you need the counts themselves, as `ReducedEncoder` does for its projection.

        Args:
          texts: At least one string, none empty.

        Returns:
          float32 `[n, dim]`.

        Raises:
          TypeError: If `texts` is a single string, or holds anything but strings.
          ValueError: If it is empty, or a text is empty or only white space.
        """
        forms = self._forms(texts)
        counts_by_form = np.empty((len(forms), self.dim), np.float32)
        start, chars = 0, 0
        for i, form in enumerate(forms):
            chars += len(form)
            if chars >= _GROUP_CHARS or i - start == _GROUP_TEXTS - 1 or i == len(forms) - 1:
                places, counts = self._sparse(forms[start : i + 1])
                counts_by_form[start : i + 1] = 0
                counts_by_form[start : i + 1].reshape(-1)[places] = counts
                start, chars = i + 1, 0
        return counts_by_form

    def sparse_counts(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`counts` at the places where there are n-grams.

        A text has n-grams in some hundred of its thousands of buckets.

        Use this when most buckets are empty and a dense matrix would be too large.

        Args:
          texts: A batch of strings, as in `counts`.

        Returns:
          Places in `counts(texts).ravel()`, ascending, integers `[b]`, and the counts there, int64
          `[b]`, perhaps some 0.
        """
        return self._sparse(self._forms(texts))

    def _forms(self, texts: Sequence[str]) -> list[str]:
        """What is read of each text; those that are cut are counted in the log."""
        texts = check_texts(texts)
        num_truncated = sum(len(text) > self.max_chars for text in texts)
        report_truncated(
            num_truncated, len(texts), f"{self.max_chars} characters", self.truncation_side
        )
        forms_of = (
            slice(self.max_chars)
            if self.truncation_side == "right"
            else slice(-self.max_chars, None)
        )
        return [_normal_form(text[forms_of]) for text in texts]

    def _sparse(self, forms: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """`sparse_counts` of what is read."""
        code_points = np.frombuffer("".join(forms).encode("utf-32-le", "surrogatepass"), np.uint32)
        sizes = tuple(sorted(self.sizes))
        hashes = _unmixed_hashes(code_points, sizes)
        mask = np.uint32(self.dim - 1)
        if len(forms) == 1 and self.dim <= _COUNTED_DIM:  # as a server has them: all it needs
            h = _mix(np.concatenate(hashes))
            signs = 1 - ((h >> np.uint32(30)) & np.uint32(2)).view(np.int32)
            sums = np.bincount(h & mask, signs, self.dim)
            places = (sums != 0).nonzero()[0]  # of truth values takes a fifth of that of numbers
            return places, sums[places].astype(np.int64)
        # A key is the text, the bucket and, as the last bit, the sign: sorted, all n-grams of a
        # bucket lie together.
        kind = np.dtype(np.uint32 if len(forms) * 2 * self.dim < 1 << 32 else np.uint64).type
        row = np.repeat(
            np.arange(len(forms), dtype=kind) * kind(2 * self.dim),
            [len(form) for form in forms],
        )
        rows = []
        for i, (h, size) in enumerate(zip(hashes, sizes, strict=True)):
            first = row[: len(h)]
            is_inside = first == row[size - 1 :][: len(h)]  # no n-gram across two texts
            hashes[i] = h[is_inside]
            rows.append(first[is_inside])
        h = _mix(np.concatenate(hashes))
        keys = ((h & mask).astype(kind) << kind(1)) | (h >> np.uint32(31))
        keys += np.concatenate(rows)
        keys.sort()
        places = keys >> kind(1)
        is_first = np.ones(len(keys), bool)
        np.not_equal(places[1:], places[:-1], out=is_first[1:])
        start = is_first.nonzero()[0]
        if not len(start):
            return places, start
        down = np.add.reduceat((keys & kind(1)).astype(np.int64), start)
        end = np.append(start[1:], len(keys))
        return places[start], end - start - 2 * down
