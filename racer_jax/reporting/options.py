"""Options of a run: the command line of a frozen dataclass."""

import argparse
import dataclasses
import types
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

C = TypeVar("C")


def _kind(hint: Any) -> tuple[Any, tuple[str, ...] | None]:
    """What an option is read as, and its choices: `int` of `int | None`, strings of a `Literal`."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    return (str, get_args(hint)) if get_origin(hint) is Literal else (hint, None)


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
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    hints = get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
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
    try:
        return config(**vars(parser.parse_args(arguments)))
    except ValueError as error:
        parser.error(str(error))
