"""Which rows of the tables a command works on, and the lines that it reads."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, get_args

from racer_jax.data.errors import DataError
from racer_jax.data.formats._folders import bare_name
from racer_jax.data.formats._source import open_lines

if TYPE_CHECKING:
    import numpy as np

    from racer_jax.data.formats.score_matrix import ScoredTable
    from racer_jax.data.table import RoutingTable
    from racer_jax.racer.racer import Racer

Purpose = Literal["train", "calibrate", "measure"]
_PURPOSES: tuple[str, ...] = get_args(Purpose)


@dataclass(frozen=True)
class Rows:
    """Which rows of a table the options ask for.

    Use this when a command uses only some rows of its table.

    Attributes:
      groups: Groups to keep; all when None.
      share: Share of the questions to keep, drawn at random; all when None.
      seed: Seed of that draw.
      unseen: Whether questions the racer was trained or calibrated on are left out.
      purpose: What the rows are for. Each has a draw of its own for a seed: what one command left
        over is in the order of its draw, and the same draw of it would not be uniform.
    """

    groups: Sequence[str] | None
    share: float | None
    seed: int
    unseen: bool
    purpose: Purpose

    @classmethod
    def of(cls, arguments: argparse.Namespace, purpose: Purpose) -> Rows:
        """The options of `add_choosing` and, where the command has it, `add_unseen`.

        Use this when the options of a command are parsed.

        Raises:
          ValueError: If the share is out of range.
        """
        if arguments.share is not None and not 0 < arguments.share <= 1:
            raise ValueError(
                "--share must be above 0 and at most 1, such as 0.4 for 40%, got "
                f"{arguments.share:g}"
            )
        unseen = getattr(arguments, "unseen", False)
        return cls(arguments.group, arguments.share, arguments.seed or 0, unseen, purpose)

    def check_groups(self, table: RoutingTable) -> None:
        """Refuses groups that a table does not have.

        Use this when the table is read, before JAX is imported.

        Raises:
          ValueError: If one is named.
        """
        if self.groups:
            table.select([], group=self.groups)

    def select(
        self,
        table: RoutingTable,
        path: str,
        racer: Racer | None = None,
        *,
        recalibrating: bool = False,
    ) -> RoutingTable:
        """These rows of the table.

        Use this when the table is read and its rows are to be chosen.

        Args:
          table: A table.
          path: Its file, for the error.
          racer: Whose questions `unseen` leaves out.
          recalibrating: Whether those it was calibrated on may be used again, since the new
            calibration takes the place of the old one.

        Returns:
          The rows, with a note on how many each option left out.

        Raises:
          DataError: If no row is left.
        """
        import jax

        from racer_jax.data.splits import split

        notes = list(table.notes)

        def kept(part: RoutingTable, option: str) -> RoutingTable:
            if len(part) < len(table):
                left_out = len(table) - len(part)
                notes.append(f"{option} left out {left_out:,} of {len(table):,} questions")
            return part

        if self.groups:
            table = kept(table.select(group=self.groups), "--group")
        if racer is not None and self.unseen:
            fresh = racer.unseen(table, calibrated=not recalibrating)
            notes += racer.unseen_notes(table, recalibrating=recalibrating)
            table = fresh
        if self.share is not None:
            rest = float(1 - Decimal(str(self.share)))
            key = jax.random.key(self.seed)
            if self.purpose != "train":
                key = jax.random.fold_in(key, _PURPOSES.index(self.purpose))
            parts = split(key, table, (self.share, 0.0, rest))
            table = kept(table.select(parts.calibration), f"--share {self.share:g}")
        if not len(table):
            raise DataError(
                "no question is left to work on: see --group, --unseen and --share", path=path
            )
        return dataclasses.replace(table, notes=notes)


def labelled(
    read: RoutingTable | ScoredTable,
    rows: Rows,
    path: str,
    racer: Racer,
    *,
    recalibrating: bool = False,
) -> tuple[RoutingTable, np.ndarray | None]:
    """Table and, for a racer made from scores, the scores of its rows.

    Use this when a command measures or calibrates, whatever the artefact was made from.

    Args:
      read: The tables, read for this racer.
      rows: Which rows of them.
      path: Their files, for an error.
      racer: The racer.
      recalibrating: As of `Rows.select`.

    Raises:
      DataError: If no row is left.
    """
    from racer_jax.data.table import RoutingTable

    if isinstance(read, RoutingTable):
        return rows.select(read, path, racer, recalibrating=recalibrating), None
    table = rows.select(read.table, path, racer, recalibrating=recalibrating)
    place = {name: i for i, name in enumerate(read.table.ids)}
    return table, read.scores[[place[name] for name in table.ids]]


_LINES = "JSON or of plain text"


def refuse_table(name: str, lines: str = _LINES, instead: str = "") -> None:
    """Refuses a table by its name where lines are read.

    Use this when a command reads lines from a file.

    Args:
      name: The file.
      lines: What its lines hold, for the error.
      instead: What to do with a table, for the error.

    Raises:
      DataError: If the file is a table.
    """
    if bare_name(Path(name)).endswith((".csv", ".tsv")):
        raise DataError(f"must be lines of {lines}, got a table{instead}", path=name)


@contextmanager
def open_input(name: str, lines: str = _LINES, instead: str = "") -> Iterator[IO[bytes]]:
    """A file for reading, plain or compressed, or the standard input.

    Use this when a command reads lines from a file or a pipe.

    Args:
      name: The file; `-` for the standard input.
      lines: What its lines hold, for the error.
      instead: What to do with a table, for the error.

    Raises:
      DataError: If the standard input is closed, or the file is a table.
    """
    if name == "-":
        if sys.stdin is None:
            raise DataError("is closed: there is nothing to read from", path="standard input")
        yield sys.stdin.buffer
        return
    refuse_table(name, lines, instead)
    with open_lines(Path(name)) as file:
        yield file
