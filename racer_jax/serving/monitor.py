r"""Monitoring after deployment: is the risk still at most alpha, and are the queries still those of calibration?

Both monitors bet against a hypothesis. Starting with 1, no strategy of bets that are fair (or
worse) under the hypothesis reaches 1 / level with a chance above the level, EVER (Ville's
inequality): the false-alarm rate is bounded over the whole future, however often one looks, and the
wealth at any time is evidence one may read.

- `RiskMonitor`: labelled feedback, a miss or not. Hypothesis: given the past, the chance of a miss
  is at most alpha.
- `ExchangeabilityMonitor`: any unlabelled number, such as the router's highest score. Hypothesis:
  it is exchangeable.

Both are small, frozen, and can be saved and taken up again; an update returns a new monitor.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np

from racer_jax.core.risk_levels import exact_alpha
from racer_jax.data.errors import DataError
from racer_jax.data.files import written_whole

# The bets: against each of these multiples of alpha as the true risk.
RISK_RATIOS = (1.2, 1.5, 2.0, 3.0, 5.0)
# Wealth kept in reserve at the start, for changes that come later.
_RESERVE = 0.5
# Wealth is held below this, far beyond any alarm, so that it stays finite.
_RICHEST = 1e200
_JUMP = 0.01
_FORMAT = 1

M = TypeVar("M", bound="_Saved")


def bets(alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """What each bet pays for a miss and for a hit, `[k]`; fair where the chance of a miss is alpha, else worse.

    A bet on risk p > alpha pays the likelihood ratio: p / alpha for a miss, (1 - p) / (1 - alpha)
    for a hit.
    """
    risks = np.minimum(alpha * np.array(RISK_RATIOS), (1 + 3 * alpha) / 4)
    return risks / alpha, (1 - risks) / (1 - alpha)


def reserve(num: Any) -> Any:
    """Wealth still in reserve after `num` queries: it goes to the bets slowly, and never all of it."""
    return _RESERVE / (1 + np.log2(1 + np.asarray(num, float)))


def wager(wealth: Any, released: Any, factor: Any) -> Any:
    """One query: the released reserve is shared among the bets, then each is paid; wealth and factor `[..., k]`."""
    return (wealth + released / len(RISK_RATIOS)) * factor


def _digest(state: Mapping[str, Any]) -> str:
    """A checksum of what a state file holds: a changed digit is no error of JSON."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Saved:
    """A monitor that can be written to a JSON file and read back."""

    kind: ClassVar[str]

    def save(self, path: str | Path) -> None:
        """Writes the state as JSON, whole or not at all."""
        state = json.loads(json.dumps({"format": _FORMAT, "kind": self.kind, **asdict(self)}))
        with written_whole(path) as temporary:
            text = json.dumps({**state, "checksum": _digest(state)}, indent=1)
            Path(temporary).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls: type[M], path: str | Path) -> M:
        """Reads a saved state; the monitor goes on as if it had never stopped.

        Raises:
          DataError: If the file cannot be read, is not such a state, is of a newer format, or was
            damaged.
        """
        try:
            state = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}", path=path) from None
        except ValueError:
            raise DataError("must be JSON in UTF-8", path=path) from None
        if not isinstance(state, dict) or state.get("kind") != cls.kind:
            raise DataError(f"must be the saved state of a monitor of kind {cls.kind!r}", path=path)
        if state.get("format") != _FORMAT:
            raise DataError(
                f"must be of format {_FORMAT}, written by this version or an older one", path=path
            )
        checksum = state.pop("checksum", None)
        fields = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in state.items()
            if name not in ("kind", "format")
        }
        try:
            monitor = cls(**fields)
        except (TypeError, ValueError) as error:
            raise DataError(str(error), path=path) from None
        if checksum != _digest(state):
            raise DataError(
                "must carry the checksum of its content: it was damaged, or changed by hand",
                path=path,
            )
        return monitor


def _check_level(level: float) -> None:
    if isinstance(level, bool) or not isinstance(level, int | float):
        raise TypeError(
            f"level must be a number in (0, 1), got {level!r} of type {type(level).__name__}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")


def _check_numbers(name: str, values: tuple[float, ...], num: int) -> None:
    if len(values) != num or not all(
        isinstance(v, int | float) and isfinite(v) and v >= 0 for v in values
    ):
        raise ValueError(f"{name} must hold {num} finite numbers, none negative, got {values!r}")


def _check_whole(name: str, value: Any, least: int = 0) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _check_alarm(alarm: Any, num: int) -> None:
    if alarm is not None:
        _check_whole("alarm", alarm, 1)
        if alarm > num:
            raise ValueError(f"alarm must be None or at most num = {num}, got {alarm}")


@dataclass(frozen=True)
class RiskMonitor(_Saved):
    """Tests for ever whether the risk is at most alpha, from labelled feedback.

    Attributes:
      alpha: The risk that was promised, in (0, 1).
      level: Chance of a false alarm, ever, in (0, 1).
      num: Queries seen.
      misses: Misses among them.
      wealth: What each bet holds, `[k]`.
      alarm: Number of the query at which the wealth first reached 1 / level; None so far.

    Raises:
      TypeError: If alpha or level is not a number, or a count not an integer.
      ValueError: If alpha or level is outside (0, 1), or the state does not fit.

    >>> monitor = RiskMonitor(alpha=0.1).update(([False] * 9 + [True]) * 10)
    >>> monitor.alarm is None, monitor.misses, RiskMonitor(alpha=0.1).update([True] * 10).alarm
    (True, 10, 4)
    """

    kind: ClassVar[str] = "risk"

    alpha: float
    level: float = 0.05
    num: int = 0
    misses: int = 0
    wealth: tuple[float, ...] = ((1 - _RESERVE) / len(RISK_RATIOS),) * len(RISK_RATIOS)
    alarm: int | None = None

    def __post_init__(self) -> None:
        exact_alpha(self.alpha)
        _check_level(self.level)
        _check_numbers("wealth", self.wealth, len(RISK_RATIOS))
        _check_whole("num", self.num)
        _check_whole("misses", self.misses)
        _check_alarm(self.alarm, self.num)
        if self.misses > self.num:
            raise ValueError(f"misses must be between 0 and num = {self.num}, got {self.misses}")

    @property
    def evidence(self) -> float:
        """The wealth: 1 at the start, and at most 1 in expectation while the risk is at most alpha."""
        return float(sum(self.wealth) + reserve(self.num))

    def update(self, missed: Iterable[bool]) -> "RiskMonitor":
        """The monitor after more feedback, in the order it came.

        Args:
          missed: Whether each query was misrouted, bool or 0/1.

        Returns:
          A new monitor.

        Raises:
          ValueError: If an entry is neither 0 nor 1.
        """
        paid_miss, paid_hit = bets(float(self.alpha))
        wealth, num, misses, alarm = np.array(self.wealth), self.num, self.misses, self.alarm
        for i, miss in enumerate(missed):
            if miss not in (0, 1):
                raise ValueError(f"missed must be 0 or 1, got {miss!r} at [{i}]")
            wealth = wager(wealth, reserve(num) - reserve(num + 1), paid_miss if miss else paid_hit)
            wealth = np.minimum(wealth, _RICHEST)
            num, misses = num + 1, misses + bool(miss)
            if alarm is None and wealth.sum() + reserve(num) >= 1 / self.level:
                alarm = num
        return replace(self, num=num, misses=misses, wealth=tuple(wealth.tolist()), alarm=alarm)


@dataclass(frozen=True)
class ExchangeabilityMonitor(_Saved):
    """Tests for ever whether a stream of unlabelled numbers is exchangeable: a conformal martingale.

    Each number is ranked among those before it, ties broken at random; ranks of exchangeable
    numbers are uniform and independent. The bets (the simple jumper) say that they drift to one
    side, and change their mind now and then. Numbers are kept as counts in bins, so the state stays
    small; a fixed binning keeps exchangeability.

    Attributes:
      edges: Inner edges of the bins, increasing, `[b]`; chosen without the stream
        (`ExchangeabilityMonitor.over`).
      level: Chance of a false alarm, ever, in (0, 1).
      seed: Of the tie-breaking; query i uses (seed, i) alone.
      num: Numbers seen.
      counts: Numbers in each bin, `[b + 1]`; empty at the start.
      capital: What the bets on low, no and high drift hold.
      alarm: Number of the query at which the capital first reached 1 / level; None so far.

    Raises:
      TypeError: If the level is not a number, or a count not an integer.
      ValueError: If the edges do not increase, the level is outside (0, 1), or the state does not
        fit.
    """

    kind: ClassVar[str] = "exchangeability"

    edges: tuple[float, ...]
    level: float = 0.05
    seed: int = 0
    num: int = 0
    counts: tuple[int, ...] = ()
    capital: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)
    alarm: int | None = None

    def __post_init__(self) -> None:
        _check_level(self.level)
        if (
            not self.edges
            or not all(isfinite(e) for e in self.edges)
            or (np.diff(self.edges) <= 0).any()
        ):
            raise ValueError(f"edges must be finite and increase, got {self.edges!r}")
        _check_numbers("capital", self.capital, 3)
        _check_whole("seed", self.seed)
        _check_whole("num", self.num)
        _check_alarm(self.alarm, self.num)
        counts = self.counts or (0,) * (len(self.edges) + 1)
        for count in counts:
            _check_whole("counts", count)
        if len(counts) != len(self.edges) + 1 or sum(counts) != self.num:
            raise ValueError(
                f"counts must hold {len(self.edges) + 1} numbers with sum {self.num}, got "
                f"{counts!r}"
            )
        object.__setattr__(self, "counts", tuple(counts))

    @classmethod
    def over(
        cls, reference: Iterable[float], num_bins: int = 64, level: float = 0.05, seed: int = 0
    ) -> "ExchangeabilityMonitor":
        """A monitor whose bins hold about equally many of the reference numbers.

        Args:
          reference: Numbers the stream will not contain, such as those of training queries.
          num_bins: Number of bins at most, at least 2.
          level: Chance of a false alarm, ever.
          seed: Of the tie-breaking.

        Raises:
          ValueError: If there are fewer than two different numbers, one is not finite, or
            `num_bins` is below 2.
        """
        values = np.asarray(list(reference), np.float64)
        if num_bins < 2:
            raise ValueError(f"num_bins must be at least 2, got {num_bins}")
        if values.ndim != 1 or not np.isfinite(values).all() or len(np.unique(values)) < 2:
            raise ValueError("reference must hold at least two different finite numbers")
        edges = np.unique(np.quantile(values, np.arange(1, num_bins) / num_bins))
        return cls(tuple(edges.tolist()), level, seed)

    @property
    def evidence(self) -> float:
        """The capital: 1 at the start, and 1 in expectation while the stream is exchangeable."""
        return float(sum(self.capital))

    def update(self, numbers: Iterable[float]) -> "ExchangeabilityMonitor":
        """The monitor after more numbers, in the order they came.

        Args:
          numbers: One for each query, finite.

        Returns:
          A new monitor.

        Raises:
          ValueError: If a number is not finite.
        """
        counts, capital, num, alarm = (
            np.array(self.counts),
            np.array(self.capital),
            self.num,
            self.alarm,
        )
        drift = np.array([-1.0, 0.0, 1.0])
        for i, number in enumerate(numbers):
            if not isfinite(number):
                raise ValueError(f"numbers must be finite, got {number} at [{i}]")
            at = int(np.searchsorted(self.edges, number, side="right"))
            counts[at] += 1
            num += 1
            chance = np.random.default_rng((self.seed, num)).random()
            rank = (counts[at + 1 :].sum() + chance * counts[at]) / num
            capital = (1 - _JUMP) * capital + _JUMP / 3 * capital.sum()
            capital = np.minimum(capital * (1 + drift * (rank - 0.5)), _RICHEST)
            if alarm is None and capital.sum() >= 1 / self.level:
                alarm = num
        return replace(
            self,
            num=num,
            counts=tuple(counts.tolist()),
            capital=tuple(capital.tolist()),
            alarm=alarm,
        )


Monitor: TypeAlias = RiskMonitor | ExchangeabilityMonitor


def load_monitor(path: str | Path) -> Monitor:
    """Reads a saved monitor of either kind.

    Raises:
      DataError: If the file cannot be read, is not such a state, is of a newer format, or was
        damaged.
    """
    try:
        kind = json.loads(Path(path).read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        kind = None  # what is wrong is said below
    return (ExchangeabilityMonitor if kind == ExchangeabilityMonitor.kind else RiskMonitor).load(
        path
    )
