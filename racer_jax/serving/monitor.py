r"""Monitoring after deployment: the risk, and whether the queries are still those of calibration.

Both monitors bet against a hypothesis. Starting with 1, no strategy of bets that are fair (or
worse) under the hypothesis reaches 1 / level with a chance above the level, EVER (Ville's
inequality): the false-alarm rate is bounded over the whole future, however often one looks, and the
wealth at any time is evidence one may read.

- `RiskMonitor`: labelled feedback, a miss or not. Hypothesis: given the past, the chance of a miss
  is at most alpha. A calibration promises that on average over calibration sets; one set may give
  a threshold with a risk above alpha, and then an alarm is right although the promise was kept.
- `ExchangeabilityMonitor`: any unlabelled number, such as the router's highest score. Hypothesis:
  it is exchangeable.

Bets lose while the hypothesis holds. So half of the wealth is a reserve that goes to the bets
slowly, for ever and never all of it: a mixture over the times at which a change may begin. A change
after n queries needs some 2 log log n more evidence than one at the start, whatever was lost
before. Wealth is kept as logarithms, which neither vanish nor overflow.

Both are small, frozen, and can be saved and taken up again; an update returns a new monitor.
"""

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from math import exp, inf, isfinite, log
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np

from racer_jax._arrays import given
from racer_jax._files import written_whole
from racer_jax.core.risk_levels import exact_alpha
from racer_jax.data.errors import DataError
from racer_jax.serving.betting import (
    DRIFTS,
    RESERVE,
    RISK_RATIOS,
    log_bets,
    log_capital_after,
    log_released,
    log_sum,
    log_total,
    reserve,
    tie_break,
)

# The largest logarithm whose exponential is still printed as a number.
_LARGEST_LOG = 690.0
_FORMAT = 2

M = TypeVar("M", bound="_Saved")


def _digest(state: Mapping[str, Any]) -> str:
    """A checksum of what a state file holds: a changed digit is no error of JSON."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Saved:
    """A monitor that can be written to a JSON file and read back."""

    kind: ClassVar[str]

    def save(self, path: str | Path) -> None:
        """Writes the state as JSON, whole or not at all, and waits until the disk has it."""
        state = json.loads(json.dumps({"format": _FORMAT, "kind": self.kind, **asdict(self)}))
        text = json.dumps({**state, "checksum": _digest(state)}, indent=1)
        with written_whole(path) as temporary, Path(temporary).open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def load(cls: type[M], path: str | Path) -> M:
        """Reads a saved state; the monitor goes on as if it had never stopped.

        Raises:
          DataError: If the file cannot be read, is not such a state, is of a newer format, or was
            damaged.
        """
        state = _state_of(path)
        if state.get("kind") != cls.kind:
            raise DataError(f"must be the saved state of a monitor of kind {cls.kind!r}", path=path)
        if state.get("format") not in range(1, _FORMAT + 1):
            raise DataError(
                f"must be of format {_FORMAT}, written by this version or an older one", path=path
            )
        checksum = state.pop("checksum", None)
        intact = checksum == _digest(state)
        try:
            if state["format"] == 1:
                state = cls._from_format_1(state)
            fields = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in state.items()
                if name not in ("kind", "format")
            }
            monitor = cls(**fields)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(str(error), path=path) from None
        if not intact:
            raise DataError(
                "must carry the checksum of its content: it was damaged, or changed by hand",
                path=path,
            )
        return monitor

    @classmethod
    def _from_format_1(cls, state: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


def _state_of(path: str | Path) -> dict[str, Any]:
    """The JSON object of a file."""
    try:
        state = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from None
    except (ValueError, RecursionError):
        raise DataError("must be the saved state of a monitor: JSON in UTF-8", path=path) from None
    if not isinstance(state, dict):
        raise DataError("must be the saved state of a monitor, a JSON object", path=path)
    return state


def _check_level(level: float) -> None:
    if isinstance(level, bool) or not isinstance(level, int | float):
        raise TypeError(
            f"level must be a number in (0, 1), got {level!r} of type {type(level).__name__}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")


def _check_logs(name: str, values: tuple[float, ...], num: int) -> None:
    if len(values) != num or not all(isinstance(v, int | float) and isfinite(v) for v in values):
        raise ValueError(f"{name} must hold {num} finite numbers, got {values!r}")


def _old_logs(name: str, state: dict[str, Any], num: int) -> tuple[float, ...]:
    """Wealth as format 1 kept it, as logarithms."""
    values = state.pop(name, ())
    if len(values) != num or not all(isinstance(v, int | float) and 0 < v < inf for v in values):
        raise ValueError(f"{name} must hold {num} finite numbers above 0, got {values!r}")
    return tuple(log(value) for value in values)


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

    It tests the risk of this threshold, which may be above alpha although the promise, an average
    over calibration sets, was kept. For alarms of a change alone give alpha as a quantile of
    `risk_law(alpha, n)`, or calibrate with `delta`.

    Use this when some of the deployed decisions get a label later, however few.

    Attributes:
      alpha: The risk that was promised, in (0, 1).
      level: Chance of a false alarm, ever, in (0, 1).
      num: Queries counted.
      misses: Misses among them.
      log_wealth: Logarithm of what each bet holds, `[k]`.
      alarm: Number of the query at which the wealth first reached 1 / level; None so far.
      position: Position in the feedback of the last query counted; 0 where it carries none.

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
    log_wealth: tuple[float, ...] = (log((1 - RESERVE) / len(RISK_RATIOS)),) * len(RISK_RATIOS)
    alarm: int | None = None
    position: int = 0

    def __post_init__(self) -> None:
        exact_alpha(self.alpha)
        _check_level(self.level)
        _check_logs("log_wealth", self.log_wealth, len(RISK_RATIOS))
        _check_whole("num", self.num)
        _check_whole("misses", self.misses)
        _check_whole("position", self.position)
        _check_alarm(self.alarm, self.num)
        if self.misses > self.num:
            raise ValueError(f"misses must be between 0 and num = {self.num}, got {self.misses}")

    @classmethod
    def _from_format_1(cls, state: dict[str, Any]) -> dict[str, Any]:
        logs = _old_logs("wealth", state, len(RISK_RATIOS))
        return {**state, "log_wealth": logs}

    @property
    def log_evidence(self) -> float:
        """Logarithm of the wealth."""
        return log_total(self.log_wealth, self.num)

    @property
    def evidence(self) -> float:
        """The wealth, 1 at the start; its mean is at most 1 while the risk is at most alpha."""
        return exp(min(self.log_evidence, _LARGEST_LOG))

    # Wealth is kept as logarithms: after a million queries it is far outside of float64, and the
    # monitor must neither overflow when the risk is high nor lose its power when it was low for
    # long.
    def update(self, missed: Iterable[bool], position: int | None = None) -> "RiskMonitor":
        """The monitor after more feedback, in the order it came.

        Use this when it is known which decisions missed.

        Args:
          missed: Whether each query was misrouted, bool or 0/1.
          position: Position in the feedback of the last of them, to be kept in the state.

        Returns:
          A new monitor.

        Raises:
          ValueError: If an entry is neither 0 nor 1.
        """
        log_miss, log_hit = log_bets(float(self.alpha))
        wealth, num, misses, alarm = self.log_wealth, self.num, self.misses, self.alarm
        for i, miss in enumerate(missed):
            if miss not in (0, 1):
                raise ValueError(f"missed must be 0 or 1, got {miss!r} at [{i}]")
            reserve_share = log_released(num) - log(len(wealth))
            factors = log_miss if miss else log_hit
            wealth = tuple(
                log_sum((value, reserve_share)) + factor
                for value, factor in zip(wealth, factors, strict=True)
            )
            num, misses = num + 1, misses + bool(miss)
            if alarm is None and log_total(wealth, num) >= -log(self.level):
                alarm = num
        position = self.position if position is None else position
        return replace(
            self, num=num, misses=misses, log_wealth=wealth, alarm=alarm, position=position
        )


@dataclass(frozen=True)
class ExchangeabilityMonitor(_Saved):
    """Tests for ever whether a stream of unlabelled numbers is exchangeable.

    A conformal martingale: each number is ranked among those before it, ties broken at random;
    ranks of exchangeable numbers are uniform and independent. The bets say that they drift to one
    side, by much or by little, and change their mind now and then. Numbers are kept as counts in
    bins, so the state stays small; a fixed binning keeps exchangeability.

    Use this when there are no labels: it says that the queries changed, not that the risk did.

    Attributes:
      edges: Inner edges of the bins, increasing, `[b]`; chosen without the stream
        (`ExchangeabilityMonitor.over`).
      level: Chance of a false alarm, ever, in (0, 1).
      seed: Seed of the tie-breaking; query i uses (seed, i) alone.
      num: Numbers counted.
      counts: Numbers in each bin, `[b + 1]`; empty at the start.
      log_capital: Logarithm of what the bet on each drift holds: -1, -1/3, 0, 1/3, 1.
      alarm: Number of the query at which the wealth first reached 1 / level; None so far.
      position: Position in the stream of the last number counted; 0 where it carries none.

    Raises:
      TypeError: If the level is not a number, or a count not an integer.
      ValueError: If the edges do not increase, the level is outside (0, 1), or the state does not
        fit.

    >>> monitor = ExchangeabilityMonitor((0.5,)).update([0.1, 0.9] * 50)
    >>> monitor.alarm is None, monitor.update([0.9] * 200).alarm is None
    (True, False)
    """

    kind: ClassVar[str] = "exchangeability"

    edges: tuple[float, ...]
    level: float = 0.05
    seed: int = 0
    num: int = 0
    counts: tuple[int, ...] = ()
    log_capital: tuple[float, ...] = (log((1 - RESERVE) / len(DRIFTS)),) * len(DRIFTS)
    alarm: int | None = None
    position: int = 0

    def __post_init__(self) -> None:
        _check_level(self.level)
        if (
            not self.edges
            or not all(isfinite(e) for e in self.edges)
            or (np.diff(self.edges) <= 0).any()
        ):
            raise ValueError(f"edges must be finite and increase, got {self.edges!r}")
        _check_logs("log_capital", self.log_capital, len(DRIFTS))
        _check_whole("seed", self.seed)
        _check_whole("num", self.num)
        _check_whole("position", self.position)
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
    def _from_format_1(cls, state: dict[str, Any]) -> dict[str, Any]:
        """The old wealth, divided anew: a part becomes the reserve that format 1 did not have."""
        wealth = exp(log_sum(_old_logs("capital", state, 3)))
        _check_whole("num", state.get("num", 0))
        reserve_left = wealth - float(reserve(state.get("num", 0)))
        if reserve_left <= 0:
            raise ValueError(
                "must be a state whose bets still hold something: an older version kept no "
                "reserve, "
                "and this monitor has lost its wealth; begin another"
            )
        return {**state, "log_capital": (log(reserve_left / len(DRIFTS)),) * len(DRIFTS)}

    @classmethod
    def over(
        cls, reference: Iterable[float], num_bins: int = 64, level: float = 0.05, seed: int = 0
    ) -> "ExchangeabilityMonitor":
        """A monitor whose bins hold about equally many of the reference numbers.

        Use this when numbers of the calibration time are at hand, as the reference.

        Args:
          reference: Numbers the stream will not contain, such as those of training queries.
          num_bins: Number of bins at most, at least 2.
          level: Chance of a false alarm, ever.
          seed: Seed of the tie-breaking.

        Raises:
          ValueError: If there are fewer than two different numbers, one is not finite, or
            `num_bins` is below 2.
        """
        values = np.asarray(list(given("reference", reference)), np.float64)
        if num_bins < 2:
            raise ValueError(f"num_bins must be at least 2, got {num_bins}")
        if values.ndim != 1 or not np.isfinite(values).all() or len(np.unique(values)) < 2:
            raise ValueError("reference must hold at least two different finite numbers")
        edges = np.unique(np.quantile(values, np.arange(1, num_bins) / num_bins))
        return cls(tuple(edges.tolist()), level, seed)

    @property
    def log_evidence(self) -> float:
        """Logarithm of the wealth."""
        return log_total(self.log_capital, self.num)

    @property
    def evidence(self) -> float:
        """The wealth, 1 at the start; its mean is 1 while the stream is exchangeable."""
        return exp(min(self.log_evidence, _LARGEST_LOG))

    def update(
        self, numbers: Iterable[float], position: int | None = None
    ) -> "ExchangeabilityMonitor":
        """The monitor after more numbers, in the order they came.

        Use this when new queries have their numbers.

        Args:
          numbers: One for each query, finite.
          position: Position in the stream of the last of them, to be kept in the state.

        Returns:
          A new monitor.

        Raises:
          ValueError: If a number is not finite.
        """
        counts, capital, num, alarm = list(self.counts), self.log_capital, self.num, self.alarm
        for i, number in enumerate(numbers):
            if not isfinite(number):
                raise ValueError(f"numbers must be finite, got {number} at [{i}]")
            at = bisect_right(self.edges, number)
            counts[at] += 1
            chance = tie_break(self.seed, num + 1)
            rank = (sum(counts[at + 1 :]) + chance * counts[at]) / (num + 1)
            capital = log_capital_after(capital, num, rank)
            num += 1
            if alarm is None and log_total(capital, num) >= -log(self.level):
                alarm = num
        return replace(
            self,
            num=num,
            counts=tuple(counts),
            log_capital=capital,
            alarm=alarm,
            position=self.position if position is None else position,
        )


Monitor: TypeAlias = RiskMonitor | ExchangeabilityMonitor


def load_monitor(path: str | Path) -> Monitor:
    """Reads a saved monitor of either kind.

    Use this when you do not know which kind of monitor a file holds; `open_monitor` also makes a
    new one.

    Raises:
      DataError: If the file cannot be read, is not such a state, is of a newer format, or was
        damaged.
    """
    if _state_of(path).get("kind") == ExchangeabilityMonitor.kind:
        return ExchangeabilityMonitor.load(path)
    return RiskMonitor.load(path)
