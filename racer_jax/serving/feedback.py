"""Feedback as lines of JSON, and the monitor that a state file and the options ask for."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from racer_jax.core.risk_levels import exact_alpha
from racer_jax.data.errors import DataError
from racer_jax.data.formats._json import Repeated, parse, shown
from racer_jax.data.formats._source import open_lines
from racer_jax.racer.artefact import checked_description
from racer_jax.serving.line_input import is_error
from racer_jax.serving.monitor import ExchangeabilityMonitor, Monitor, RiskMonitor, load_monitor

RISK = RiskMonitor.kind
LEVEL = 0.05


@dataclass(frozen=True)
class MonitorOptions:
    """The options of a monitor; None for each option that was not given.

    Use this when you call `open_monitor`; in a Python program of your own, make a `RiskMonitor` or
    `ExchangeabilityMonitor` directly.

    Attributes:
      kind: `risk` or `exchangeability`.
      level: Chance that a false alarm ever happens.
      alpha: The risk that was promised.
      artefact: An artefact whose alpha is the promised risk.
      reference: A file of numbers that the stream will not contain.
      seed: Seed of the tie-breaking of exchangeability.
    """

    kind: str | None = None
    level: float | None = None
    alpha: str | None = None
    artefact: Path | None = None
    reference: Path | None = None
    seed: int | None = None


def open_monitor(state: Path | None, options: MonitorOptions) -> Monitor:
    """The monitor of a state file, or a new one where there is no file.

    Where there is a file, its monitor must be the one that the options ask for.

    Use this when a program runs several times and its monitor shall go on from a file;
    `load_monitor` only reads a file that exists.

    Raises:
      DataError: If the file is not a state, or the reference not numbers.
      ValueError: If the options ask for another monitor than that of the file, or do not say what a
        new one needs.
    """
    monitor = None
    if state is not None and state.exists():
        monitor = load_monitor(state)
    kind = options.kind or (RISK if monitor is None else monitor.kind)
    if monitor is not None and monitor.kind != kind:
        raise DataError(
            f"holds a monitor of kind {monitor.kind!r}, not {kind!r}: name another state file",
            path=state,
        )
    unfit = ("reference", "seed") if kind == RISK else ("alpha", "artefact")
    for name in unfit:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} is not for monitors of kind {kind!r}")
    if options.alpha is not None and options.artefact is not None:
        raise ValueError("give --alpha or --artefact, not both")
    settings: dict[str, Any] = {"level": options.level}
    if kind == RISK:
        alpha = options.alpha if options.artefact is None else _promised(options.artefact)
        settings["alpha"] = None if alpha is None else float(exact_alpha(alpha))
    else:
        settings["seed"] = options.seed
    if monitor is not None:
        for name, value in settings.items():
            if value is not None and value != (there := getattr(monitor, name)):
                raise DataError(
                    f"holds a monitor with {name} = {there}, got {value}: name another state file",
                    path=state,
                )
        return monitor
    level = LEVEL if options.level is None else options.level
    if kind == RISK:
        if settings["alpha"] is None:
            raise ValueError("a new monitor needs --alpha or --artefact")
        return RiskMonitor(alpha=settings["alpha"], level=level)
    if options.reference is None:
        raise ValueError(
            "a new monitor of kind 'exchangeability' needs --reference FILE: lines like those that "
            "will come, for example decisions that 'racer-jax route' wrote on training questions"
        )
    with open_lines(options.reference) as file:
        numbers = ExchangeabilityMonitor((0.0,))
        name = str(options.reference)
        reference = [entry.value for entry in Entries(numbers, file, name)]
    try:
        return ExchangeabilityMonitor.over(reference, level=level, seed=options.seed or 0)
    except ValueError as error:
        raise DataError(str(error), path=options.reference) from None


def _promised(artefact: Path) -> str:
    calibration = checked_description(artefact, None)["calibration"]
    if calibration is None:
        raise DataError("not calibrated, so there is no promise to test", path=artefact)
    return str(calibration["alpha"])


class Entry(NamedTuple):
    """One line of feedback.

    Use this when you read what feedback lines hold.

    Attributes:
      value: Whether the query was missed, or its number.
      position: Its position in the feedback; None where it carries none.
    """

    value: Any
    position: int | None


class Entries:
    """What a monitor counts, line by line, as the lines come.

    Feedback is lines with 0, 1, or an object with `missed`. Numbers are lines with a number, an
    object with `number`, or a decision, whose best score it is. An object may carry `position`, a
    whole number that grows: what the state has counted up to its own position is left out, so that
    feedback that is sent twice is counted once.

    Use this when feedback comes as lines of a file or pipe; in a Python program, pass numbers to
    the monitor directly. Nothing is read before the first entry is asked for.

    Args:
      monitor: Whose kind says what the lines hold, and whose position what was counted.
      file: A file that is opened for bytes, or lines.
      path: Its name, for errors.
      resume: Take the number of the line as the position: the file only grows.

    Attributes:
      position: Position of the last entry; that of the monitor at the start.
      skipped: Number of entries left out, for they were counted before.
      num_errors: Number of lines left out, for they hold the error of a query and no decision.
    """

    position: int
    skipped: int
    num_errors: int

    def __init__(
        self, monitor: Monitor, file: Iterable[bytes], path: str, *, resume: bool = False
    ) -> None:
        self.position, self.skipped, self.num_errors = monitor.position, 0, 0
        self._file, self._path, self._resume = file, path, resume
        self._parse = _missed if monitor.kind == RISK else _number

    def __iter__(self) -> Iterator[Entry]:
        """Reads the file.

        Raises:
          DataError: If a line is none, or there is no line.
        """
        empty = True
        for line, raw in enumerate(self._file, start=1):
            if not raw.strip():
                continue
            empty = False
            try:
                entry = self._entry(raw, line)
            except DataError:
                raise
            except ValueError as error:
                raise DataError(str(error), path=self._path, line=line) from None
            if entry is None:
                self.num_errors += 1
                continue
            if entry.position is not None:
                if entry.position <= self.position:
                    self.skipped += 1
                    continue
                self.position = entry.position
            yield entry
        if empty:
            raise DataError("is empty: it must hold at least one line", path=self._path)

    def _entry(self, raw: bytes, line: int) -> Entry | None:
        """The entry of a line; None where it holds the error of a query that was not routed."""
        record = self._record(raw, line)
        if self._parse is _number and is_error(record) and "number" not in record:
            return None
        position = _position(record)
        if self._resume:
            if position is not None:
                raise ValueError("carries a position of its own: leave --resume out")
            position = line
        return Entry(self._parse(record), position)

    def _record(self, raw: bytes, line: int) -> Any:
        """The JSON of a line, which names no field twice."""
        try:
            record = parse(raw.decode("utf-8-sig"), Path(self._path), line=line)
        except UnicodeDecodeError:
            raise ValueError("must be JSON in UTF-8") from None
        if isinstance(record, Repeated):
            raise ValueError(f"must name {record.key!r} once, got it twice")
        return record


def count(monitor: Monitor, entry: Entry) -> Monitor:
    """The monitor after one more line. Use this when you have one line; `follow` reads a file."""
    return monitor.update([entry.value], position=entry.position)


def _position(record: Any) -> int | None:
    position = record.get("position") if isinstance(record, dict) else None
    if position is None:
        return None
    whole = isinstance(position, int) and not isinstance(position, bool)
    if not whole or not 1 <= position < 2**63:
        raise ValueError(f"'position' must be a whole number of at least 1, got {shown(position)}")
    return int(position)


def _missed(record: Any) -> bool:
    value = record.get("missed") if isinstance(record, dict) else record
    if value not in (0, 1):
        got = "" if isinstance(record, dict) and "missed" not in record else shown(value)
        raise ValueError(f"'missed' must be 0 or 1, got {got or 'none in ' + shown(record)}")
    return bool(value)


def _number(record: Any) -> float:
    number = record
    if isinstance(record, dict):
        scores = record.get("scores")
        if "number" not in record and isinstance(scores, dict) and scores:
            numbers = list(scores.values())
            if not all(_is_number(score) for score in numbers):
                raise ValueError(f"'scores' must hold finite numbers, got {shown(scores)}")
            return float(max(numbers))
        number = record.get("number")
    if not _is_number(number):
        raise ValueError(
            f"must be a finite number, or an object with 'number' or 'scores', got {shown(record)}"
        )
    return float(number)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False
