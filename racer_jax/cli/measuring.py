"""The options of `evaluate` and `report`, and what is refused: for sets and for cascades alike."""

from __future__ import annotations

import argparse
from pathlib import Path

from racer_jax.cli.before import (
    check_artefact_read,
    check_calibrated,
    check_installed,
    check_levels,
    check_stop_levels,
    check_tables,
)
from racer_jax.cli.options import (
    add_choosing,
    add_json,
    add_reading,
    add_reading_options,
    add_unseen,
)
from racer_jax.cli.places import PAGES, check_file
from racer_jax.core.risk_levels import parse_alphas


def add_evaluating(parser: argparse.ArgumentParser, levels: str) -> None:
    """The options of a command that measures.

    Use this when a command measures an artefact.

    Args:
      parser: The parser of the command.
      levels: What the help says of `--alphas`.
    """
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    add_reading(parser)
    parser.add_argument("--alphas", help=levels)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="also write everything as JSON (default: no file)",
    )
    _add_rows(parser)


def add_reporting(parser: argparse.ArgumentParser, levels: str, title: str) -> None:
    """The options of a command that writes a page of what it measures.

    Use this when a command writes a page of an artefact.

    Args:
      parser: The parser of the command.
      levels: What the help says of `--alphas`.
      title: The heading where none is typed, for the help.
    """
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    add_reading(parser, "--data", dest="path", required=True, nargs="+")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("report.html"),
        help="file to write (default: %(default)s)",
    )
    parser.add_argument("--alphas", help=levels)
    parser.add_argument("--title", help=f"heading of the page (default: {title})")
    _add_rows(parser)


def _add_rows(parser: argparse.ArgumentParser) -> None:
    """Which rows are measured, and how they are read and printed."""
    add_unseen(parser)
    add_choosing(parser)
    add_json(parser)
    add_reading_options(parser)


def check_evaluating(arguments: argparse.Namespace, kind: str | None = None) -> None:
    """Refuses what the options of `add_evaluating` cannot be.

    Use this when such a command begins.

    Args:
      arguments: The options.
      kind: `cascade` where the artefact is to be one, which may do without a threshold.

    Raises:
      ValueError: If one makes no sense, or the artefact is another or lacks what they need.
    """
    check_levels(alphas=arguments.alphas)
    if arguments.output is not None:
        check_file(arguments.output, ".json", inputs=arguments.path)
    check_tables(arguments, "measure")
    check_measured(arguments, kind)


def check_reporting(arguments: argparse.Namespace) -> None:
    """Refuses what the options of `add_reporting` cannot be; `check_measured` has the artefact.

    Use this when such a command begins.

    Raises:
      ModuleNotFoundError: If a page cannot be made here.
      ValueError: If one makes no sense.
    """
    if arguments.title is not None and not arguments.title.strip():
        raise ValueError("--title must not be empty")
    check_levels(alphas=arguments.alphas)
    check_installed("plotly", "a report", "report")
    check_file(arguments.output, *PAGES, inputs=arguments.path)
    check_tables(arguments, "measure")


def check_measured(arguments: argparse.Namespace, kind: str | None = None) -> None:
    """Refuses an artefact that cannot be measured, since it lacks a threshold.

    Use this when the tables are checked that it is measured on.

    Args:
      arguments: The options.
      kind: As of `check_evaluating`.

    Raises:
      ValueError: If it is one.
    """
    # A cascade without a threshold stops where the vote is decided, which is no level.
    if kind is None or arguments.alphas is not None:
        check_calibrated(arguments.artefact, kind)
        if kind is not None:
            check_stop_levels(arguments.artefact, parse_alphas(arguments.alphas))
    else:
        check_artefact_read(arguments.artefact, kind)
