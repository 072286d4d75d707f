"""Options of a run: the command line of frozen dataclasses."""

import argparse
import dataclasses
import re
import types
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

C = TypeVar("C")
_UNSET = object()


class ParsedOptions(NamedTuple):
    """A command line that was read into several dataclasses.

    Use this when you call `parse_configs`.

    Attributes:
      configs: An instance of each dataclass, in order.
      named: The fields that the command line names, whatever their value.
    """

    configs: tuple[Any, ...]
    named: frozenset[str]


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Names each default, but for None and the empty text, which are no value of the option."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, "") else super()._get_help_string(action)


def _kind(hint: Any) -> tuple[Any, tuple[str, ...] | None]:
    """What an option is read as, and its choices: `int` of `int | None`, strings of a `Literal`."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    return (str, get_args(hint)) if get_origin(hint) is Literal else (hint, None)


def _add_options(parser: Any, config: type) -> None:
    """An option for each field of a dataclass."""
    hints = get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        kind_of_field, text = get_args(hints[field.name])
        kind, choices = _kind(kind_of_field)
        how: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if kind is not bool:
            how = {
                "type": kind,
                "choices": choices,
                "metavar": None if choices else kind.__name__.upper(),
            }
        parser.add_argument(
            "--" + field.name.replace("_", "-"), default=field.default, help=text, **how
        )


# Names at the beginning of a message, and what may follow them.
_NAMES = re.compile(r"(\w+(?:(?:, | and | \+ )\w+)*)(?= (?:must|is|are|takes?|needs?|cannot|')|:)")


def with_flags(text: str, config: Any) -> str:
    """A message whose first words are fields of a dataclass, with the options that stand for them.

    Use this when an error of a dataclass, or of what it was passed to, is shown in a shell.

    Args:
      text: The message, such as "splits must be at least 2, got 1".
      config: The dataclass of the command, or an instance of it.

    >>> Config = dataclasses.make_dataclass("Config", ["splits", "tie_break"])
    >>> with_flags("splits must be at least 2, got 1", Config)
    '--splits must be at least 2, got 1'
    >>> with_flags("splits and tie_break must be given", Config)
    '--splits and --tie-break must be given'
    """
    fields = {field.name for field in dataclasses.fields(config)}
    flags = {name: f"--{name.replace('_', '-')}" for name in fields}
    # An error of one value of a list, such as "alpha must be in (0, 1)" for `alphas`.
    flags = {name.removesuffix("s"): flag for name, flag in flags.items()} | flags
    names = _NAMES.match(text)
    if names is None or not flags.keys() >= set(re.findall(r"\b(?!and\b)\w+", names[0])):
        return text
    options = re.sub(r"\w+", lambda word: flags.get(word[0], word[0]), names[0])
    return options + text[names.end() :]


def parse_configs(
    configs: Sequence[type], description: str, arguments: Sequence[str] | None = None
) -> ParsedOptions:
    """Builds one command line from the fields of several dataclasses and reads it.

    Use this when a script has options of its own and others that it shares with further scripts;
    for one dataclass use `parse_config`.

    Args:
      configs: Dataclasses as `parse_config` takes them, no field in two of them.
      description: What the command does.
      arguments: The command line; that of the process by default.

    Returns:
      The configurations, and which options were typed.

    Raises:
      SystemExit: If an argument is unknown or invalid, or help is requested.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=_Help)
    for config in configs:
        _add_options(parser, config)
    fields = {config: dataclasses.fields(config) for config in configs}
    defaults = {f.name: f.default for by_config in fields.values() for f in by_config}
    # argparse sets no default where a value stands already, so that what remains was not named.
    values = vars(
        parser.parse_args(arguments, argparse.Namespace(**dict.fromkeys(defaults, _UNSET)))
    )
    named = frozenset(name for name, value in values.items() if value is not _UNSET)
    values = {name: values[name] if name in named else defaults[name] for name in defaults}
    try:
        read = tuple(
            config(**{field.name: values[field.name] for field in fields[config]})
            for config in configs
        )
    except ValueError as error:
        text = str(error)
        for config in configs:
            text = with_flags(text, config)
        parser.error(text)
    return ParsedOptions(read, named)


def parse_config(config: type[C], description: str, arguments: Sequence[str] | None = None) -> C:
    """Builds a command line from the fields of a dataclass and reads it.

    Use this when a script has a frozen dataclass of settings: each field becomes an option, without
    a parser of its own.

    Args:
      config: A dataclass of fields `name: Annotated[type, "help"] = default`; the type may be
        optional or a `Literal`. ValueErrors of its construction become errors of usage.
      description: What the command does.
      arguments: The command line; that of the process by default.

    Returns:
      An instance of `config`.

    Raises:
      SystemExit: If an argument is unknown or invalid, or help is requested.
    """
    instance: C = parse_configs((config,), description, arguments).configs[0]
    return instance
