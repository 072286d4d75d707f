"""Options of a run: the command line of frozen dataclasses."""

import argparse
import dataclasses
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
      The `ParsedOptions`.

    Raises:
      SystemExit: If an argument is unknown or invalid, or help is requested.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
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
        parser.error(str(error))
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
