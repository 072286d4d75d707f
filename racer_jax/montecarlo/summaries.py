r"""Summaries of a stream of trials in bounded memory: moments, extremes and histograms, kept in a file if asked to.

Counts are summed as integers, so that the summary does not depend on how the stream is cut into
chunks.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Summary(NamedTuple):
    """Moments and histogram of one metric over trials, by alpha.

    Attributes:
      mean: float64 `[a]`.
      std: Standard deviation over trials (not that of the mean), float64 `[a]`.
      minimum: float64 `[a]`.
      maximum: float64 `[a]`.
      edges: Edges of the histogram's bins, float64 `[a, h + 1]`; an edge belongs to the bin below
        it.
      histogram: Number of trials in each bin, int64 `[a, h]`; the first and last bin hold what is
        beyond them.
    """

    mean: np.ndarray
    std: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    edges: np.ndarray
    histogram: np.ndarray

    def quantile(self, level: float) -> np.ndarray:
        """The smallest value that at least this share of the trials does not exceed, `[a]`, to the width of a bin.

        Args:
          level: Between 0 and 1.

        Raises:
          ValueError: If `level` is not between 0 and 1.
        """
        if not 0 <= level <= 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        reached = np.cumsum(self.histogram, axis=1)
        index = (reached < level * reached[:, -1:]).sum(axis=1)
        upper = self.edges[np.arange(len(index)), index + 1]
        return np.asarray(np.clip(upper, self.minimum, self.maximum))


@dataclass
class Accumulator:
    """Running sums of one metric: of totals, integers where it counts, that `scale` turns into means.

    Attributes:
      scale: What one unit of the totals is worth.
      centre: What is taken off each total before it is summed, `[a]`.
      low: Totals up to here are in the first bin, `[a]`.
      width: Width of a bin, `[a]`.
      num: Number of trials so far.
      total: Sum of the centred totals, `[a]`.
      square: Sum of their squares, `[a]`.
      least: Smallest total, `[a]`.
      most: Largest total, `[a]`.
      histogram: int64 `[a, h]`.
    """

    scale: float
    centre: np.ndarray
    low: np.ndarray
    width: np.ndarray
    num: int
    total: np.ndarray
    square: np.ndarray
    least: np.ndarray
    most: np.ndarray
    histogram: np.ndarray

    @classmethod
    def start(cls, pilot: np.ndarray, scale: float, bins: int) -> "Accumulator":
        """Empty sums, with bins over eight standard deviations of the pilot totals `[a, s]` on either side."""
        mean, spread = pilot.mean(axis=1, dtype=np.float64), pilot.std(axis=1, dtype=np.float64)
        centre: np.ndarray
        width: np.ndarray
        zero: np.ndarray
        half = 8 * np.maximum(spread, np.abs(mean) * 1e-3)
        if pilot.dtype.kind == "i":
            # Whole counts to a bin; low is the last count of the first bin.
            width = np.maximum(np.ceil(2 * half / bins), 1).astype(np.int64)
            centre = np.rint(mean).astype(np.int64)
            zero = np.zeros(len(mean), np.int64)
        else:
            width = np.maximum(2 * half / bins, np.finfo(np.float64).tiny)
            centre, zero = mean, np.zeros(len(mean))
        low = centre - width * (bins // 2)
        histogram = np.zeros((len(mean), bins), np.int64)
        return cls(
            scale,
            centre,
            low,
            width,
            0,
            zero,
            zero,
            pilot.min(axis=1),
            pilot.max(axis=1),
            histogram,
        )

    def add(self, totals: np.ndarray) -> None:
        """Adds trials `[a, s]`."""
        self.num += totals.shape[1]
        self.least = np.minimum(self.least, totals.min(axis=1))
        self.most = np.maximum(self.most, totals.max(axis=1))
        centred = totals - self.centre.astype(totals.dtype)[:, None]
        self.total = self.total + centred.sum(axis=1, dtype=self.centre.dtype)
        # Squares of counts are exact in float64, and so is their sum over a chunk.
        wide = centred.astype(np.float64)
        self.square = self.square + np.einsum("as,as->a", wide, wide).astype(self.centre.dtype)
        bins = self.histogram.shape[1]
        index = np.ceil((totals - self.low[:, None]) / self.width[:, None])
        index = (
            np.clip(index, 0, bins - 1).astype(np.int64) + np.arange(len(totals))[:, None] * bins
        )
        self.histogram += np.bincount(index.ravel(), minlength=self.histogram.size).reshape(
            self.histogram.shape
        )

    def summary(self) -> Summary:
        """What has been added so far."""
        num = self.num
        # Python's integers: the sums of counts stay exact up to the last division.
        exact = self.centre.dtype.kind == "i"
        kind = int if exact else float
        total, square = [kind(x) for x in self.total], [kind(x) for x in self.square]
        mean = [(kind(c) * num + t) / num for c, t in zip(self.centre, total, strict=True)]
        spread = [
            max(num * q - t * t, 0) / (num * max(num - 1, 1))
            for t, q in zip(total, square, strict=True)
        ]
        edges = self.low[:, None] + self.width[:, None] * np.arange(-1, self.histogram.shape[1])
        scaled = [
            np.asarray(x, np.float64) * self.scale
            for x in (mean, np.sqrt(spread), self.least, self.most, edges)
        ]
        return Summary(scaled[0], scaled[1], scaled[2], scaled[3], scaled[4], self.histogram.copy())


def fingerprint(arrays: Iterable[Any]) -> str:
    """A digest of arrays, numbers and strings, to tell one run from another."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.asarray(array)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save(path: Path, run: str, accumulators: dict[str, Accumulator]) -> None:
    """Writes the state of a stream, atomically: a kill leaves the last whole one."""
    state: dict[str, Any] = {"run": np.array(run), "names": np.array(list(accumulators))}
    for i, accumulator in enumerate(accumulators.values()):
        state |= {f"{i}.{name}": np.asarray(value) for name, value in vars(accumulator).items()}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **state)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, run: str) -> dict[str, Accumulator]:
    """The state that `save` wrote for the same run.

    Raises:
      ValueError: If the file is of another run, or not a checkpoint.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            state = dict(file)
        names = [str(name) for name in state["names"]]
        written = str(state["run"])
        fields = list(Accumulator.__dataclass_fields__)
        accumulators = {
            name: Accumulator(**{field: state[f"{i}.{field}"] for field in fields})
            for i, name in enumerate(names)
        }
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise ValueError(
            f"checkpoint {path} is not the state of a stream of trials: {error}"
        ) from None
    if written != run:
        raise ValueError(
            f"checkpoint {path} is of another run: its key, pool, alphas, split or bins differ; "
            "name another file"
        )
    for accumulator in accumulators.values():
        accumulator.num, accumulator.scale = int(accumulator.num), float(accumulator.scale)
    return accumulators
