"""What is wrong with a command line, said before JAX is imported, which takes a second.

Nothing here imports JAX; what only a table or a router can say is said where it is read.
"""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from racer_jax._distribution import install_command
from racer_jax.data.errors import DataError
from racer_jax.data.formats._source import check_exists

if TYPE_CHECKING:
    import argparse

    from racer_jax.cli.inputs import Purpose

# What an option that is given as `none` turns off.
OFF = "none"


def check_tables(
    arguments: argparse.Namespace,
    purpose: Purpose | None = None,
    paths: Sequence[Path] | None = None,
) -> None:
    """Refuses tables that are not there, and options of reading or of rows that make no sense.

    Use this when a command reads tables.

    Args:
      arguments: The options.
      purpose: What the rows are for, where the command has the options that choose some.
      paths: The tables, where they are not those of `add_reading`.

    Raises:
      ValueError: If there is one; the message names it.
    """
    from racer_jax.cli.inputs import Rows
    from racer_jax.cli.options import Source

    source = Source.of(arguments, paths)
    if purpose is not None:
        Rows.of(arguments, purpose)
    for path in source.paths:
        check_exists(path)
    if source.options:
        from racer_jax.data.loading import check_options  # with NumPy, which the others do without

        rest = dict(source.options)
        rest.pop("pools", None)
        check_options(rest.pop("format", None), rest)


def check_lines(name: str | Path | None) -> None:
    """Refuses a file of lines that is not there, or is a folder; `-` is the standard input.

    Use this when a command reads lines.

    Raises:
      DataError: If it is neither a file nor a pipe.
      ValueError: If its name is empty, as that of a variable that is not set.
    """
    if name is None or str(name) == "-":
        return
    if not str(name):
        raise ValueError("the name of a file must not be empty: give - for the standard input")
    check_exists(Path(name))
    if Path(name).is_dir():
        raise DataError("must be a file, got a folder", path=name)


def check_artefact_read(path: Path, kind: str | None = None) -> dict[str, Any]:
    """What an artefact says of itself, once it is known to be one of a racer or of `kind`.

    Use this when a command reads an artefact.

    Raises:
      ArtefactError: If there is none, or one of another kind.
    """
    from racer_jax.racer.artefact import checked_description

    return checked_description(path, kind)


def check_calibrated(path: Path, kind: str | None = None) -> None:
    """Refuses the artefact of a racer, or of `kind`, that has no threshold.

    Use this when a command cannot do without one.

    Raises:
      DataError: If it has none; it says how to calibrate it.
    """
    if check_artefact_read(path, kind)["calibration"] is None:
        raise not_calibrated(path, kind)


def check_stop_levels(path: Path, alphas: Sequence[str]) -> None:
    """Refuses levels that the calibration of a cascade has too few rows for.

    Use this when a command takes other levels than that of the artefact, which is calibrated.

    Raises:
      ArtefactError: If there is none.
      ValueError: If no threshold keeps one of the levels.
    """
    from racer_jax.racer.artefact import read
    from racer_jax.sequential.stop_levels import check_level

    description, arrays = read(path)
    calibration = description["calibration"]
    try:
        rows = arrays["calibration.value"], arrays["calibration.code"], calibration["groups"]
        delta, loss = calibration["delta"], calibration["loss"]
    except KeyError:  # which the cascade says in its own words when it is loaded
        return
    for alpha in alphas:
        check_level(alpha, delta, loss, *rows)


def not_calibrated(path: Path, kind: str | None = None) -> DataError:
    """The error for an artefact without a threshold. Use this when a command needs one."""
    problem = "this command needs a threshold: calibrate it first, for example: racer-jax "
    command = "calibrate" if kind is None else f"{kind} calibrate"
    problem += f"{command} {shlex.quote(str(path))} TABLE --alpha 0.1 --unseen"
    return DataError(problem, path=path)


def check_levels(
    alpha: str | float | None = None,
    alphas: str | None = None,
    delta: Any = None,
    level: float | None = None,
) -> None:
    """Refuses levels out of range; what is None was not typed, and `none` turns an option off.

    Use this when a command takes levels.

    Raises:
      ValueError: If one is.
    """
    from racer_jax.core.risk_levels import exact_alpha, parse_alphas
    from racer_jax.core.scalar_checks import check_chance

    if alpha is not None:
        exact_alpha(alpha)
    if alphas is not None:
        parse_alphas(alphas)
    if delta is not None and delta != OFF:
        check_chance("delta", delta)
    if level is not None:
        check_chance("level", level)


def check_sizes(
    max_models: Any = None, min_models: int | None = None, num_models: int | None = None
) -> None:
    """Refuses numbers of models that no set can have.

    Use this when a command limits the size of sets.

    Raises:
      ValueError: If one is too small, or they leave no size.
    """
    from racer_jax.core.scalar_checks import check_count, check_min_models

    most = None if max_models in (None, OFF) else check_count("max_models", max_models)
    check_min_models(min_models or 0, most, num_models)


def check_form(form: str | None, view: str | None = None) -> None:
    """Refuses an unknown way to compare answers, or to read a conversation.

    Use this when a command takes `--form` or `--view`.

    Raises:
      ValueError: If one is unknown.
    """
    from racer_jax.sequential.normal_forms import forms_by_group
    from racer_jax.serving.gateway._views import check_view

    if form is not None:
        forms_by_group(form)
    if view is not None:
        check_view(view)


def check_installed(module: str, what: str, extra: str) -> None:
    """Refuses to begin where a package of an extra is missing.

    Use this when a command needs it only at its end, or after long work.

    Args:
      module: The name that is imported.
      what: What needs it.
      extra: The extra that brings it.

    Raises:
      ModuleNotFoundError: If it is.
    """
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(f"{what} needs {module}: {install_command(extra)}")
