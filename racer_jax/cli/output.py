"""Printing and writing: what every command leaves on the terminal or in a file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from racer_jax.data.errors import DataError
from racer_jax.data.files import written_whole
from racer_jax.reporting.files import as_plain

# Exit statuses: `OK`, `WRONG` (data, options or the machine are not what they should be), 2 (the
# command line itself, from argparse), `FAILED` (a check ran and failed), `INTERRUPTED` (Ctrl-C),
# `CLOSED` (the reader of a pipe went away).
OK, WRONG, FAILED, INTERRUPTED, CLOSED = 0, 1, 3, 130, 141


def print_line(text: str) -> None:
    """A line on the standard output."""
    print(text)  # noqa: T201


def print_json(value: Any) -> None:
    """A line of JSON on the standard output."""
    print_line(json.dumps(as_plain(value), ensure_ascii=False, allow_nan=False))


def check_file(path: Path) -> None:
    """A file is written beside its place and moved there: no device, no folder.

    Raises:
      DataError: If the path cannot be written that way.
    """
    if path.exists() and not path.is_file():
        raise DataError("must be a file to write to", path=path)
    if not path.absolute().parent.is_dir():
        raise DataError("must be in a folder that exists", path=path)


def write_lines(path: Path, lines: Iterator[str]) -> None:
    """A text file, whole or not at all."""
    check_file(path)
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        for line in lines:
            out.write(line + "\n")
