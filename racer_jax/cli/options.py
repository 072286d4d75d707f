"""Options that several commands share, and the tables that they name."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from racer_jax.cli import names
from racer_jax.cli.help_pages import HelpPage
from racer_jax.data.errors import DataError
from racer_jax.data.remedies import OPTIONS, Remedy, option_value, shell_text

if TYPE_CHECKING:
    from racer_jax.data.formats.score_matrix import ScoredTable
    from racer_jax.data.table import RoutingTable

_TABLES = (
    "files or folders of labelled queries to read, - for the standard input; several are joined"
)
_STDIN = Path("/dev/stdin")
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
    check: Callable[[argparse.Namespace], object],
    needs: Sequence[str] = ("racer_jax.data.loading", "racer_jax.racer.racer"),
    reads: Callable[[argparse.Namespace], object] = lambda _: None,
) -> argparse.ArgumentParser:
    """A command whose help ends with examples, and the modules that it cannot do without.

    They are imported once its options have been checked and its tables read, before it runs: what
    only shows a help or finds something wrong waits for no module.

    Use this when a command is new: its help then looks like that of the others.

    Args:
      subparsers: What the command is added to.
      name: Its name.
      text: What it does.
      examples: Command lines, one in a line.
      check: Refuses options that make no sense; it imports nothing that is slow to import.
      needs: The modules.
      reads: Reads its tables, without JAX where it can. What it gives is `read` of the options.
    """
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    parser = subparsers.add_parser(
        name,
        help=text[0].lower() + text[1:].split(". ")[0].removesuffix("."),
        description=text,
        epilog=f"examples:\n{lines}",
        formatter_class=HelpPage,
    )
    parser.register("type", Path, _path)
    # No name that an option of a command may have.
    parser.set_defaults(needs=tuple(needs), check_options=check, read_tables=reads)
    return parser


def _path(text: str) -> Path:
    """A path as it was typed; an empty one, as of a variable that is not set, names no file.

    `Path` would take it for the folder in which the command runs.
    """
    if not text:
        raise argparse.ArgumentTypeError("must be the name of a file or folder, got an empty one")
    return Path(text)


def as_seed(text: str) -> int:
    """A seed as JAX takes it.

    Use this when an option is a seed.

    Raises:
      ArgumentTypeError: If it is no whole number of 32 bits.
    """
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or not -(1 << 31) <= number < 1 << 32:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from {-(1 << 31)} to {(1 << 32) - 1}, got {text!r}"
        )
    return number


def add_reading(parser: argparse.ArgumentParser, *names: str, **positional: Any) -> None:
    """The tables; `names` and `positional` change the argument itself.

    Use this when a command reads tables; `add_reading_options` adds how, after its own options.
    """
    positional = {"nargs": "+", "help": _TABLES} | positional
    parser.add_argument(*(names or ("path",)), type=Path, metavar="TABLE", **positional)


def add_reading_options(
    parser: argparse.ArgumentParser, title: str = "how tables are read", *, seed: bool = True
) -> None:
    """How the tables are read.

    Use this when a command reads tables and has all its own options.

    Args:
      parser: The parser of the command.
      title: What stands above the options in the help.
      seed: Whether `--seed` is among them; else the command has an option of that name.
    """
    reading = parser.add_argument_group(title)
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
            help=_with_names(keyword, option.help),
        )
    if not seed:
        return
    reading.add_argument(
        "--seed",
        type=as_seed,
        metavar="N",
        help="seed of --share, of training and of the label rule 'one attempt' (default: 0)",
    )


def _with_names(keyword: str, text: str) -> str:
    """The help of an option, with all formats where it takes one."""
    return f"{text}: {', '.join(names.FORMATS)}" if keyword == "format" else text


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
        text = (
            "leave out questions that were trained on; questions of an earlier calibration may be "
            "used again"
        )
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
      of_racer: Whether models can be taken out of the artefact that reads them.
      seed: Seed of the label rule, where one was typed for it.
    """

    paths: tuple[Path, ...]
    options: Mapping[str, Any]
    of_racer: bool = True
    seed: int | None = None

    @classmethod
    def of(cls, arguments: argparse.Namespace, paths: Sequence[Path] | None = None) -> Source:
        """The options of `add_reading`.

        Use this when the options of a command are parsed.

        Args:
          arguments: The options.
          paths: The tables, where they are not those of `add_reading`.

        Raises:
          ValueError: If one cannot be read; the message names it.
        """
        values = {name: getattr(arguments, _destination(name)) for name in OPTIONS if name != "key"}
        options = {
            name: option_value(name, value) if isinstance(value, str) else value
            for name, value in values.items()
            if value is not None
        }
        seed = arguments.seed if "label_rule" in options else None
        named = arguments.path if paths is None else paths
        # As other commands have it; a file of this name has its folder before it.
        places = tuple(_STDIN if path == Path("-") else path for path in named)
        return cls(places, options, seed=seed)

    def only_with(self, needed: str) -> None:
        """Refuses options of reading where no table is read.

        Use this when a command reads a table only if an option names one.

        Raises:
          ValueError: If one was typed.
        """
        if self.options:
            first = shell_text(next(iter(self.options)), ...)
            raise ValueError(f"{first} says how {needed} is read: give {needed}")

    @property
    def name(self) -> str:
        """The files, for an error."""
        return ", ".join(str(path) for path in self.paths)

    def _loaded(self, **options: Any) -> RoutingTable:
        """Every row of the tables, read with these options too."""
        from racer_jax.data.loading import load

        if self.seed is not None:
            import jax

            options["key"] = jax.random.key(self.seed)
        return load(self.paths, **{**self.options, **options})

    def table(self) -> RoutingTable:
        """Every row of the tables.

        Use this when a command uses all rows; `Rows.select` gives some of them.
        """
        return self._loaded()

    def table_of(self, models: Sequence[str]) -> RoutingTable:
        """Every row of the tables, of these models alone: results that others lack do not count.

        Use this when an artefact says which models the tables must hold.

        Raises:
          DataError: If the tables lack one of them; it says how to do without.
        """
        try:
            table = self._loaded(models=list(models))
        except DataError as error:
            try:
                lenient = {} if "missing" not in self.options else {"missing": "keep"}
                table = self._loaded(**lenient)
            except DataError as whole:
                # Where the files hold other models, how to join them comes first.
                of_pools = whole.remedy is not None and "pools" in dict(whole.remedy.options)
                raise (whole if of_pools else error) from None
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
                problem += f"; {self._way_without([n for n in models if n in absent], models)}"
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
                f"{', '.join(names)}: {self._way_without([], models)}"
            )

    def _way_without(self, absent: Sequence[str], models: Sequence[str]) -> str:
        """How to do without some models of an artefact."""
        if not self.of_racer:
            rest = shell_text("models", [name for name in models if name not in absent])
            return f"to do without, train a cascade of the others: cascade train {rest}"
        if absent:
            return f"to take it out of the artefact, calibrate it with {_without(absent)}"
        return "to take models out of it, calibrate it with --without"

    def scored(self) -> ScoredTable:
        """The one score matrix that is named.

        Use this when a command takes scores that another program made.

        Raises:
          DataError: If there are several, the file is none, or an option does not apply to it.
        """
        from racer_jax.data.formats.score_matrix import read_score_matrix

        self.check_scored()
        return read_score_matrix(self.paths[0])

    def scored_of(self, models: Sequence[str]) -> ScoredTable:
        """The one score matrix that is named, of these models alone and in their order.

        Use this when an artefact that was made from scores says which models it must hold.

        Raises:
          DataError: As of `scored`, or if it lacks one of the models.
        """
        read = self.scored()
        table = self.checked_pool(read.table, models)
        columns = [read.table.models.index(name) for name in models]
        return read._replace(table=table, scores=read.scores[:, columns])

    def check_scored(self) -> None:
        """Refuses what is not one score matrix, by its name and the options.

        Use this when a command takes scores that another program made.

        Raises:
          DataError: If there are several, the file is none, or an option does not apply to it.
        """
        from racer_jax.data.formats._source import opened

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
        if self.paths[0].suffix not in (".npz", ""):
            with opened(self.paths[0]):  # says first that a file is missing or cannot be read
                pass
            raise DataError(
                "must be a score matrix (.npz), for an artefact made from scores, got another file",
                path=self.name,
            )
        if self.paths[0].is_file():
            from racer_jax.data.formats._npz import open_npz

            with open_npz(self.paths[0]) as archive:
                for field in ("correct", "scores"):
                    archive.require(field)


def _without(models: Sequence[str]) -> str:
    """The options that take models out of an artefact."""
    return " ".join(f"--without {shlex.quote(name)}" for name in models)
