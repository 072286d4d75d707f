"""What monitors are fed, as lines of JSON, and the monitor that a state file and the options ask for."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import IO, Any

from racer_jax.core.risk_levels import exact_alpha
from racer_jax.data.errors import DataError
from racer_jax.racer.racer import Racer
from racer_jax.serving.monitor import ExchangeabilityMonitor, Monitor, RiskMonitor, load_monitor

RISK, EXCHANGEABILITY = RiskMonitor.kind, ExchangeabilityMonitor.kind
LEVEL = 0.05


@dataclass(frozen=True)
class Asked:
    """What the options ask for; None where they do not say.

    Attributes:
      kind: `risk` or `exchangeability`.
      level: Chance of a false alarm, ever.
      alpha: The risk that was promised.
      artefact: An artefact, whose alpha was promised.
      reference: A file of numbers that the stream will not contain.
      seed: Of the tie-breaking of exchangeability.
    """

    kind: str | None = None
    level: float | None = None
    alpha: str | None = None
    artefact: Path | None = None
    reference: Path | None = None
    seed: int | None = None


def open_monitor(state: Path, asked: Asked) -> Monitor:
    """The monitor of a state file, which must be what the options ask for, or a new one where there is no file.

    Raises:
      DataError: If the file is not a state, or the reference not numbers.
      ValueError: If the options ask for another monitor than that of the file, or do not say what a
        new one needs.
    """
    watch = load_monitor(state) if state.exists() else None
    kind = asked.kind or (RISK if watch is None else watch.kind)
    if watch is not None and watch.kind != kind:
        raise DataError(
            f"is the state of a monitor of kind {watch.kind!r}, not {kind!r}: begin another",
            path=state,
        )
    strangers = ("reference", "seed") if kind == RISK else ("alpha", "artefact")
    for name in strangers:
        if getattr(asked, name) is not None:
            raise ValueError(f"--{name} is not for monitors of kind {kind!r}")
    if asked.alpha is not None and asked.artefact is not None:
        raise ValueError("give --alpha or --artefact, not both")
    wanted: dict[str, Any] = {"level": asked.level}
    if kind == RISK:
        alpha = asked.alpha if asked.artefact is None else _promised(asked.artefact)
        wanted["alpha"] = None if alpha is None else float(exact_alpha(alpha))
    else:
        wanted["seed"] = asked.seed
    if watch is not None:
        for name, value in wanted.items():
            if value is not None and value != (there := getattr(watch, name)):
                raise DataError(
                    f"is the state of a monitor with {name} = {there}, got {value}: begin another",
                    path=state,
                )
        return watch
    level = LEVEL if asked.level is None else asked.level
    if kind == RISK:
        if wanted["alpha"] is None:
            raise ValueError("a new monitor needs --alpha or --artefact, one of the two")
        return RiskMonitor(alpha=wanted["alpha"], level=level)
    if asked.reference is None:
        raise ValueError(
            "a new monitor of exchangeability needs --reference, numbers like those that will come"
        )
    with asked.reference.open("rb") as file:
        reference = list(read_numbers(file, str(asked.reference)))
    try:
        return ExchangeabilityMonitor.over(reference, level=level, seed=asked.seed or 0)
    except ValueError as error:
        raise DataError(str(error), path=asked.reference) from None


def _promised(artefact: Path) -> str:
    calibration = Racer.load(artefact).calibration
    if calibration is None:
        raise DataError(
            "has no calibration, so it promises nothing that could be watched", path=artefact
        )
    return calibration.alpha


def read_for(watch: Monitor, file: IO[bytes], path: str) -> Iterator[Any]:
    """What the monitor eats, line by line."""
    return read_missed(file, path) if watch.kind == RISK else read_numbers(file, path)


def read_missed(file: IO[bytes], path: str) -> Iterator[bool]:
    """Whether each query was missed: lines with 0, 1, or an object with `missed`.

    Raises:
      DataError: If a line is none, or there is no line.
    """
    return _records(file, path, _missed)


def read_numbers(file: IO[bytes], path: str) -> Iterator[float]:
    """A number of each query: lines with a number, an object with `number`, or a decision, whose best score it is.

    Raises:
      DataError: If a line is none, or there is no line.
    """
    return _records(file, path, _number)


def _records(file: IO[bytes], path: str, parse: Callable[[Any], Any]) -> Iterator[Any]:
    none = True
    for line, raw in enumerate(file, start=1):
        if not raw.strip():
            continue
        try:
            record = json.loads(raw)
        except (ValueError, RecursionError):
            raise DataError("must be JSON in UTF-8", path=path, line=line) from None
        try:
            yield parse(record)
        except ValueError as error:
            raise DataError(str(error), path=path, line=line) from None
        none = False
    if none:
        raise DataError("holds nothing: there must be at least one line", path=path)


def _missed(record: Any) -> bool:
    missed = record.get("missed") if isinstance(record, dict) else record
    if missed not in (0, 1):
        raise ValueError(f"'missed' must be 0 or 1, got {missed!r}")
    return bool(missed)


def _number(record: Any) -> float:
    number = record
    if isinstance(record, dict):
        scores = record.get("scores")
        if "number" not in record and isinstance(scores, dict) and scores:
            numbers = list(scores.values())
            if not all(_is_number(score) for score in numbers):
                raise ValueError(f"'scores' must hold finite numbers, got {scores!r}")
            return float(max(numbers))
        number = record.get("number")
    if not _is_number(number):
        raise ValueError(
            f"must be a finite number, or an object with 'number' or 'scores', got {record!r}"
        )
    return float(number)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
