"""Options that several commands share, and what they stand for: the table, its rows, the input."""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from racer_jax.cli import names
from racer_jax.cli.help_pages import HelpPage
from racer_jax.data.errors import DataError
from racer_jax.data.remedies import OPTIONS, Remedy, option_value

if TYPE_CHECKING:
    import numpy as np

    from racer_jax.data.formats.score_matrix import ScoredTable
    from racer_jax.data.table import RoutingTable
    from racer_jax.racer.racer import Racer

_TABLES = "files or folders of labelled queries to read; several are joined"
_CHOICES: Mapping[str, Sequence[str]] = {
    "format": names.FORMATS,
    "missing": ("error", "drop", "keep"),
    "part": ("train", "val", "test"),
    "pools": ("match", "intersect", "unite"),
}
_METAVARS = {
    "text": "TEXT",
    "number": "N",
    "names": "NAME,...",
    "pairs": "NAME=NAME,...",
    "text or pairs": "TEXT",
}


class Subparsers(Protocol):
    """What commands are added to.

    Use this when a function adds commands and you name the type of its argument.
    """

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """A new command. Use this when a command is added to what `argparse` gave."""


def add_command(
    subparsers: Subparsers,
    name: str,
    text: str,
    examples: str,
    needs: Sequence[str] = ("racer_jax.data.loading", "racer_jax.racer.racer"),
) -> argparse.ArgumentParser:
    """A command whose help ends with examples, and the modules that it cannot do without.

    They are imported once its options have been read, before it runs: what only shows a help or
    finds a wrong option waits for no module.

    Use this when a command is new: its help then looks like that of the others.
    """
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    parser = subparsers.add_parser(
        name,
        help=text[0].lower() + text[1:].split(". ")[0].removesuffix("."),
        description=text,
        epilog=f"examples:\n{lines}",
        formatter_class=HelpPage,
    )
    parser.set_defaults(needs=tuple(needs))
    return parser


def add_reading(parser: argparse.ArgumentParser, *names: str, **positional: Any) -> None:
    """The tables; `names` and `positional` change the argument itself.

    Use this when a command reads tables; `add_reading_options` adds how, after its own options.
    """
    positional = {"nargs": "+", "help": _TABLES} | positional
    parser.add_argument(*(names or ("path",)), type=Path, metavar="TABLE", **positional)


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """How the tables are read.

    Use this when a command reads tables and has all its own options.
    """
    reading = parser.add_argument_group("how tables are read")
    for keyword, option in OPTIONS.items():
        if keyword == "key":
            continue
        destination = _destination(keyword)
        if option.kind == "switch":
            switch = argparse.BooleanOptionalAction
            reading.add_argument(option.flag, action=switch, dest=destination, help=option.help)
            continue
        reading.add_argument(
            option.flag,
            dest=destination,
            choices=_CHOICES.get(keyword),
            metavar=_metavar(keyword, option.kind),
            help=option.help,
        )
    reading.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="seed of --share, of training and of the label rule 'one attempt' (default: 0)",
    )


def _metavar(keyword: str, kind: str) -> str | None:
    """What stands for the value in the help: nothing where argparse lists a few choices."""
    if keyword == "format":
        return "FORMAT"
    return None if keyword in _CHOICES else _METAVARS[kind]


def _destination(keyword: str) -> str:
    """Where an option of the readers is kept: not where other options of a command are."""
    return f"reading_{keyword}"


def add_choosing(parser: argparse.ArgumentParser) -> None:
    """Which rows of the table are used.

    Use this when a command uses rows of a table by group, share or number.
    """
    choosing = parser.add_argument_group("which rows")
    choosing.add_argument(
        "--group",
        action="append",
        help="only this group; may be typed several times (default: all)",
    )
    choosing.add_argument(
        "--share",
        type=float,
        metavar="SHARE",
        help="only this share of the questions, such as 0.4, drawn at random by --seed (default: "
        "all)",
    )


def add_unseen(parser: argparse.ArgumentParser, *, recalibrates: bool = False) -> None:
    """The option `--unseen`.

    Use this when a command may leave out questions that were trained on.

    Args:
      parser: The parser of the command.
      recalibrates: Whether it takes questions of the last calibration all the same.
    """
    text = "leave out questions the artefact was trained or calibrated on"
    if recalibrates:
        text = "leave out questions that were trained on; those of the last calibration are used"
    parser.add_argument(
        "--unseen",
        action="store_true",
        help=text,
    )


def add_sequential(parser: argparse.ArgumentParser, name: str) -> None:
    """The option `--sequential`, which `cli.main` reads before the others.

    Use this when a command also takes an artefact of a cascade.
    """
    parser.add_argument(
        "--sequential",
        action="store_true",
        help="call one model after another instead of a set at once: the same as 'racer-jax "
        f"cascade {name}', whose --help has the options",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option `--json`. Use this when a command can print JSON for another program."""
    parser.add_argument("--json", action="store_true", help="print JSON")


@dataclass(frozen=True)
class Source:
    """The tables that the options name, and how they are read.

    Use this when a command reads tables that `add_reading` named.

    Attributes:
      paths: Files or folders.
      options: Options of `load` that were typed.
    """

    paths: tuple[Path, ...]
    options: Mapping[str, Any]

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Source:
        """The options of `add_reading`.

        Use this when the options of a command are parsed.

        Raises:
          ValueError: If one cannot be read; the message names it.
        """
        import jax

        values = {name: getattr(arguments, _destination(name)) for name in OPTIONS if name != "key"}
        options = {
            name: option_value(name, value) if isinstance(value, str) else value
            for name, value in values.items()
            if value is not None
        }
        if arguments.seed is not None and "label_rule" in options:
            options["key"] = jax.random.key(arguments.seed)
        return cls(tuple(arguments.path), options)

    @property
    def name(self) -> str:
        """The files, for an error."""
        return ", ".join(str(path) for path in self.paths)

    def table(self) -> RoutingTable:
        """Every row of the tables.

        Use this when a command uses all rows; `Rows.select` gives some of them.
        """
        from racer_jax.data.loading import load

        return load(self.paths, **self.options)

    def table_of(self, models: Sequence[str]) -> RoutingTable:
        """Every row of the tables, of these models alone: results that others lack do not count.

        Use this when an artefact says which models the tables must hold.

        Raises:
          DataError: If the tables lack one of them; it says how to do without.
        """
        from racer_jax.data.loading import load

        try:
            table = load(self.paths, **{**self.options, "models": list(models)})
        except DataError as error:
            try:
                lenient = {} if "missing" not in self.options else {"missing": "keep"}
                table = load(self.paths, **{**self.options, **lenient})
            except DataError:
                raise error from None
            self.checked_pool(table, models)
            raise
        return self.checked_pool(table, models)

    def checked_pool(self, table: RoutingTable, models: Sequence[str]) -> RoutingTable:
        """The table of these models, in their order.

        Use this when a table is there and an artefact says which models it must hold.

        Raises:
          DataError: If it lacks one; it says how to take that one out of an artefact.
        """
        try:
            return table.aligned(models)
        except DataError as error:
            absent = [name for name in models if name not in table.models]
            problem = error.problem
            if len(absent) < len(models):
                problem += f"; to take it out of the artefact, calibrate it with {_without(absent)}"
            raise DataError(problem, path=self.name) from None

    def check_models(self, models: Sequence[str]) -> None:
        """Refuses `--models` that are not those of an artefact.

        Use this when a command reads an artefact beside its tables.

        Raises:
          ValueError: If they differ.
        """
        names = self.options.get("models", models)
        if set(names) != set(models):
            raise ValueError(
                f"--models must name all models of the artefact, {', '.join(models)}, got "
                f"{', '.join(names)}: to take models out of it, calibrate it with --without"
            )

    def scored(self) -> ScoredTable:
        """The one score matrix that is named.

        Use this when a command takes scores that another program made.

        Raises:
          DataError: If there are several, the file is none, or an option does not apply to it.
        """
        from racer_jax.data.formats.score_matrix import read_score_matrix

        refused = [name for name in self.options if name not in ("format", "models")]
        if refused:
            places = " and ".join("{}" for _ in refused)
            raise DataError(
                "a score matrix is read without options",
                path=self.name,
                remedy=Remedy(f"leave out {places}", *((name, ...) for name in refused)),
            )
        if len(self.paths) > 1:
            raise DataError("must be one score matrix (.npz), got several files", path=self.name)
        return read_score_matrix(self.paths[0])


@dataclass(frozen=True)
class Rows:
    """Which rows of a table the options ask for.

    Use this when a command uses only some rows of its table.

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
    def of(cls, arguments: argparse.Namespace) -> Rows:
        """The options of `add_choosing` and, where the command has it, `add_unseen`.

        Use this when the options of a command are parsed.

        Raises:
          ValueError: If the share is out of range.
        """
        if arguments.share is not None and not 0 < arguments.share <= 1:
            raise ValueError(f"--share must be in (0, 1], got {arguments.share}")
        unseen = getattr(arguments, "unseen", False)
        return cls(arguments.group, arguments.share, arguments.seed or 0, unseen)

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
            parts = split(jax.random.key(self.seed), table, (self.share, 0.0, rest))
            table = kept(table.select(parts.calibration), f"--share {self.share:g}")
        if not len(table):
            raise DataError(
                "no question is left to work on: see --group, --unseen and --share", path=path
            )
        return dataclasses.replace(table, notes=notes)


def labelled(
    source: Source, rows: Rows, racer: Racer, *, recalibrating: bool = False
) -> tuple[RoutingTable, np.ndarray | None]:
    """Table and, for a racer made from scores, the scores of its rows.

    Use this when a command measures or calibrates, whatever the artefact was made from.

    Args:
      source: The tables.
      rows: Which rows of them.
      racer: The racer.
      recalibrating: As of `Rows.select`.

    Raises:
      DataError: If the tables lack one of its models, or no row is left.
      ValueError: If `--models` names others than those of the racer.
    """
    source.check_models(racer.models)
    if racer.scorer is not None:
        table = source.table_of(racer.models).complete()
        return rows.select(table, source.name, racer, recalibrating=recalibrating), None
    scored_table = source.scored()
    whole = source.checked_pool(scored_table.table, racer.models)
    table = rows.select(whole, source.name, racer, recalibrating=recalibrating)
    place = {name: i for i, name in enumerate(whole.ids)}
    columns = [scored_table.table.models.index(name) for name in racer.models]
    return table, scored_table.scores[[place[name] for name in table.ids]][:, columns]


def _without(models: Sequence[str]) -> str:
    """The options that take models out of an artefact."""
    return " ".join(f"--without {shlex.quote(name)}" for name in models)


@contextmanager
def open_input(name: str) -> Iterator[IO[bytes]]:
    """A file for reading, or the standard input.

    Use this when a command reads lines from a file or a pipe.
    """
    if name == "-":
        if sys.stdin is None:
            raise DataError("is closed: there is nothing to read from", path="standard input")
        yield sys.stdin.buffer
        return
    opener = gzip.open if name.endswith(".gz") else open
    with opener(name, "rb") as file:
        yield file  # type: ignore[misc]
