r"""Summaries of a stream of trials in bounded memory, kept in a file if asked to.

Moments, extremes and histograms. Counts are summed as integers, so that the summary does not depend
on how the stream is cut into chunks.
"""

import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from racer_jax._files import written_whole

# Totals on either side of the mean that a range has at least: the pilot may have been all alike.
_LEAST_REACH = 128


class Summary(NamedTuple):
    """Moments and histogram of one metric over trials, by alpha.

    Use this when reading what `stream_trials` returns.

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
        """The smallest value that at least this share of the trials does not exceed, `[a]`.

        It is exact up to the width of a bin.

        Use this when you want a quantile or a median of a metric over trials.

        Args:
          level: Between 0 and 1.

        Raises:
          ValueError: If `level` is not between 0 and 1.
        """
        if not 0 <= level <= 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        running = np.cumsum(self.histogram, axis=1)
        index = (running < level * running[:, -1:]).sum(axis=1)
        upper = self.edges[np.arange(len(index)), index + 1]
        return np.asarray(np.clip(upper, self.minimum, self.maximum))


@dataclass
class Accumulator:
    """Running sums of one metric.

    Of totals, whole numbers where it counts; `scale` turns them into means.

    Use this when trials come in parts and only their sums are kept.

    Attributes:
      scale: What one unit of the totals is worth.
      centre: What is taken off each total before it is summed, `[a]`.
      low: Totals up to here are in the first bin, `[a]`.
      width: Width of a bin, `[a]`.
      num: Number of trials so far.
      total: Sum of the centred totals, `[a]`.
      square: Sum of their squares, `[a]`; of whole totals in units of 2**31.
      square_rest: What the squares of whole totals leave over, `[a]`.
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
    square_rest: np.ndarray
    least: np.ndarray
    most: np.ndarray
    histogram: np.ndarray

    @classmethod
    def start(cls, pilot: np.ndarray, scale: float, bins: int) -> "Accumulator":
        """Empty sums, with bins as wide as pilot totals `[a, s]` ask for.

        They cover eight standard deviations on either side.

        Use this when the first trials say how wide the bins must be.
        """
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
            zero,
            pilot.min(axis=1),
            pilot.max(axis=1),
            histogram,
        )

    @property
    def exact(self) -> bool:
        """Whether the totals are whole numbers, and summed as such."""
        return self.centre.dtype.kind == "i"

    def reach(self) -> tuple[np.ndarray, int]:
        """The range of whole totals that the bins cover: its least `[a]`, int32, and its width.

        Use this when totals are counted before they come here.
        """
        half = int((self.width * self.histogram.shape[1] // 2 + self.width).max())
        half = max(half, _LEAST_REACH)
        limits = np.iinfo(np.int32)
        low = np.clip(self.centre - half, limits.min, limits.max - 2 * half)
        return low.astype(np.int32), 2 * half + 1

    def add(self, totals: np.ndarray) -> None:
        """Adds trials `[a, s]`. Use this when more trials are there."""
        least, most = totals.min(axis=1), totals.max(axis=1)
        if not self.exact:
            self._add(totals.shape[1], least, most, totals)
            return
        spread = int((most.astype(np.int64) - least).max()) + 1
        if spread <= totals.shape[1]:
            first = spread * np.arange(len(totals)) - least
            index = (totals + first[:, None]).ravel()
            times = np.bincount(index, minlength=spread * len(totals))
            self.add_counts(totals.shape[1], least, times.reshape(len(totals), spread))
        else:  # hardly any value stands there twice
            row = np.repeat(np.arange(len(totals)), totals.shape[1])
            values = totals.ravel().astype(np.int64)
            self._add_values(totals.shape[1], row, values, np.ones_like(values))

    def add_counts(self, num: int, low: np.ndarray, times: np.ndarray) -> None:
        """Adds `num` trials of whole totals by how often each stands among them.

        Use this when something else has counted them.

        Args:
          num: At least 1.
          low: The total that the first column counts, whole numbers `[a]`.
          times: How often it and the next stand there, whole numbers `[a, w]`.
        """
        # Counts of queries take few values, and what follows works on these, some hundred a row.
        row, column = times.nonzero()
        values = low.astype(np.int64)[row] + column
        self._add_values(num, row, values, times[row, column].astype(np.int64))

    def _add_values(self, num: int, row: np.ndarray, values: np.ndarray, times: np.ndarray) -> None:
        """Adds `num` trials of whole totals `[v]`, in order of their rows, each `times` times."""
        start = np.searchsorted(row, np.arange(len(self.centre)))
        self.num += num
        self.least = np.minimum(self.least, np.minimum.reduceat(values, start))
        self.most = np.maximum(self.most, np.maximum.reduceat(values, start))
        deviations = values - self.centre[row]
        self.total = self.total + np.add.reduceat(deviations * times, start)
        # Each square is below 2**62, but their sum may not fit in 64 bits: its two halves do.
        squares = deviations * deviations
        halves = ((squares >> 31) * times, (squares & (2**31 - 1)) * times)
        self.square = self.square + np.add.reduceat(halves[0], start)
        self.square_rest = self.square_rest + np.add.reduceat(halves[1], start)
        self._fill(row, values - self.low[row], self.width[row], times)

    def _fill(
        self, row: np.ndarray, above: np.ndarray, width: np.ndarray, times: np.ndarray
    ) -> None:
        """Adds `times` to the bins of these rows that lie so far above the lowest edge."""
        bins = self.histogram.shape[1]
        index = np.clip(np.ceil(above / width), 0, bins - 1).astype(np.int64) + row * bins
        times = np.broadcast_to(times, index.shape)
        np.add.at(self.histogram.reshape(-1), index.ravel(), times.ravel())

    def _add(self, num: int, least: np.ndarray, most: np.ndarray, values: np.ndarray) -> None:
        """Adds `num` trials of totals `[a, s]` that are no whole numbers."""
        self.num += num
        self.least = np.minimum(self.least, least)
        self.most = np.maximum(self.most, most)
        wide = (values - self.centre.astype(values.dtype)[:, None]).astype(self.centre.dtype)
        self.total = self.total + wide.sum(axis=1)
        self.square = self.square + np.einsum("as,as->a", wide, wide)
        row, once = np.arange(len(values))[:, None], np.ones(1, np.int64)
        self._fill(row, values - self.low[:, None], self.width[:, None], once)

    def summary(self) -> Summary:
        """What has been added so far.

        Use this when all trials are there, or you want the state so far.
        """
        num = self.num
        # Python's integers: the sums of counts stay exact up to the last division.
        kind = int if self.exact else float
        unit = 2**31 if self.exact else 1
        total = [kind(x) for x in self.total]
        square = [
            kind(x) * unit + kind(rest)
            for x, rest in zip(self.square, self.square_rest, strict=True)
        ]
        mean = [(kind(c) * num + t) / num for c, t in zip(self.centre, total, strict=True)]
        spread = [
            max(num * q - t * t, 0) / (num * max(num - 1, 1))
            for t, q in zip(total, square, strict=True)
        ]
        edges = self.low[:, None] + self.width[:, None] * np.arange(-1, self.histogram.shape[1])
        sums = [
            np.asarray(x, np.float64) * self.scale
            for x in (mean, np.sqrt(spread), self.least, self.most, edges)
        ]
        return Summary(sums[0], sums[1], sums[2], sums[3], sums[4], self.histogram.copy())


def fingerprint(arrays: Iterable[Any]) -> str:
    """A digest of arrays, numbers and strings, which distinguishes one run from another.

    Use this when a checkpoint must belong to this run.
    """
    digest = hashlib.sha256()
    for array in arrays:
        array = np.asarray(array)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@dataclass
class Checkpoint:
    """The file that keeps the state of a stream of trials.

    Use this when a run takes long enough to be interrupted.

    Attributes:
      path: The file.
      every: Seconds between saves.
      run: Fingerprint of the run; the file of another run is refused.
      last_save: When it was saved last, a time of `time.monotonic`.
    """

    path: Path
    every: float
    run: str
    last_save: float = field(default_factory=time.monotonic)

    def save_when_due(self, sums: dict[str, Accumulator]) -> None:
        """Saves the state if the last time is long enough ago.

        Use this when a part of a run is done.
        """
        if time.monotonic() - self.last_save > self.every:
            self.save(sums)

    def save(self, sums: dict[str, Accumulator]) -> None:
        """Writes the state, atomically: a kill leaves the last whole one.

        Use this when the state must be on disk now.
        """
        state: dict[str, Any] = {"run": np.array(self.run), "names": np.array(list(sums))}
        for i, total in enumerate(sums.values()):
            state |= {f"{i}.{name}": np.asarray(value) for name, value in vars(total).items()}
        with written_whole(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, **state)
            file.flush()
            os.fsync(file.fileno())
        self.last_save = time.monotonic()

    def load(self) -> dict[str, Accumulator]:
        """The state saved last; empty where there is no file.

        Use this when a run starts and may be the continuation of another.

        Raises:
          ValueError: If the file is of another run, or not a checkpoint.
        """
        if not self.path.exists():
            return {}
        try:
            with np.load(self.path, allow_pickle=False) as file:
                state = dict(file)
            run, names = str(state["run"]), [str(name) for name in state["names"]]
            fields = list(Accumulator.__dataclass_fields__)
            sums = {
                name: Accumulator(**{key: state[f"{i}.{key}"] for key in fields})
                for i, name in enumerate(names)
            }
        except (OSError, KeyError, ValueError, EOFError) as error:
            raise ValueError(
                f"checkpoint {self.path} is not the state of a stream of trials: {error}"
            ) from None
        if run != self.run:
            raise ValueError(
                f"checkpoint {self.path} is of another run: its key, pool, alphas, split or bins "
                "differ; name another file"
            )
        for total in sums.values():
            total.num, total.scale = int(total.num), float(total.scale)
        return sums
