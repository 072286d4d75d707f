"""Options that several commands share, and what they stand for: the table, its rows, the input."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Protocol

import jax
import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats.score_matrix import read_score_matrix
from racer_jax.data.load import READERS, load
from racer_jax.data.splits import split
from racer_jax.data.table import RoutingTable
from racer_jax.racer.racer import Racer


class Subparsers(Protocol):
    """What commands are added to."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """A new command."""


def add_command(
    subparsers: Subparsers, name: str, text: str, examples: str
) -> argparse.ArgumentParser:
    """A command whose help ends with examples."""
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    return subparsers.add_parser(
        name,
        help=text[0].lower() + text[1:].split(". ")[0].removesuffix("."),
        description=text,
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_reading(parser: argparse.ArgumentParser, *names: str, **positional: Any) -> None:
    """The table and how it is read; `names` and `positional` change the argument itself."""
    positional.setdefault("help", "file or folder of labelled queries to read")
    parser.add_argument(*(names or ("path",)), type=Path, metavar="TABLE", **positional)
    reading = parser.add_argument_group("reading")
    reading.add_argument("--format", choices=READERS, help="its format (default: guessed)")
    reading.add_argument(
        "--label-rule", help="when an answer is right, such as 'score > 0.5' or 'one attempt'"
    )
    reading.add_argument(
        "--missing", choices=("error", "drop", "keep"), help="what to do with pairs not evaluated"
    )
    reading.add_argument(
        "--part", choices=("train", "val", "test"), help="part to read of formats that have parts"
    )
    reading.add_argument("--metric", help="metric of lm_eval logs, such as acc_norm")
    reading.add_argument("--filter", help="filter of lm_eval logs, such as strict-match")
    reading.add_argument("--tasks", nargs="+", help="patterns of the lm_eval tasks to read")
    reading.add_argument("--delimiter", help="what separates the fields of a CSV of your own")
    reading.add_argument(
        "--seed", type=int, help="key of the label rule 'one attempt', of --share and of training"
    )


def add_choosing(parser: argparse.ArgumentParser) -> None:
    """Which rows of the table are used."""
    choosing = parser.add_argument_group("which rows")
    choosing.add_argument(
        "--group", action="append", help="only this group (may be given several times)"
    )
    choosing.add_argument(
        "--share", type=float, help="only this share of the questions, chosen at random by --seed"
    )


def add_unseen(parser: argparse.ArgumentParser) -> None:
    """The option `--unseen`."""
    parser.add_argument(
        "--unseen",
        action="store_true",
        help="leave out questions the artefact was trained or calibrated on",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


@dataclass(frozen=True)
class Source:
    """The table that the options name, and how it is read.

    Attributes:
      path: File or folder.
      format: Format of the file; guessed when None.
      options: Options of the reader that were typed.
    """

    path: Path
    format: str | None
    options: Mapping[str, Any]

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> "Source":
        """The options of `add_reading`."""
        names = ("label_rule", "missing", "part", "metric", "filter", "tasks", "delimiter")
        options = {name: value for name in names if (value := getattr(parsed, name)) is not None}
        if parsed.seed is not None and parsed.label_rule is not None:
            options["key"] = jax.random.key(parsed.seed)
        return cls(parsed.path, parsed.format, options)

    def table(self) -> RoutingTable:
        """Every row of the table."""
        return load(self.path, self.format, **self.options)


@dataclass(frozen=True)
class Rows:
    """Which rows of a table the options ask for.

    Attributes:
      groups: Groups to keep; all when None.
      share: Share of the questions to keep, drawn at random; all when None.
      seed: Seed of that draw.
      unseen: Whether questions the racer was trained or calibrated on are left out.
    """

    groups: Sequence[str] | None
    share: float | None
    seed: int
    unseen: bool

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> "Rows":
        """The options of `add_choosing` and, where the command has it, `add_unseen`.

        Raises:
          ValueError: If the share is out of range.
        """
        if parsed.share is not None and not 0 < parsed.share <= 1:
            raise ValueError(f"--share must be in (0, 1], got {parsed.share}")
        unseen = getattr(parsed, "unseen", False)
        return cls(parsed.group, parsed.share, parsed.seed or 0, unseen)

    def select(self, table: RoutingTable, path: Path, racer: Racer | None = None) -> RoutingTable:
        """These rows of the table.

        Args:
          table: A table.
          path: Its file, for the error.
          racer: Whose questions `unseen` leaves out.

        Raises:
          DataError: If no row is left.
        """
        if self.groups:
            table = table.select(group=self.groups)
        if racer is not None and self.unseen:
            table = racer.unseen(table)
        if self.share is not None:
            rest = float(1 - Decimal(str(self.share)))
            parts = split(jax.random.key(self.seed), table, (self.share, 0.0, rest))
            table = table.select(parts.calibration)
        if not len(table):
            raise DataError(
                "no question is left to work on: see --group, --unseen and --share", path=path
            )
        return table


def labelled(source: Source, rows: Rows, racer: Racer) -> tuple[RoutingTable, np.ndarray | None]:
    """Table and, for a racer made from scores, the scores of its rows."""
    if racer.scorer is not None:
        return rows.select(source.table().complete(), source.path, racer), None
    scored = read_score_matrix(source.path)
    table = rows.select(scored.table, source.path, racer)
    place = {name: i for i, name in enumerate(scored.table.ids)}
    return table, scored.scores[[place[name] for name in table.ids]]


@contextmanager
def open_input(name: str) -> Iterator[IO[bytes]]:
    """A file for reading, or the standard input."""
    if name == "-":
        if sys.stdin is None:
            raise DataError("is closed: there is nothing to read from", path="standard input")
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file
