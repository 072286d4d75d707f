"""Printing and writing: what every command leaves on the terminal or in a file."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from racer_jax._files import written_whole
from racer_jax.data.errors import printable

# Exit statuses: `OK`, `WRONG` (data, options or the machine are not what they should be), 2 (the
# command line itself, from argparse), `FAILED` (a check ran and failed), `INTERRUPTED` (Ctrl-C),
# `CLOSED` (the reader of a pipe went away), `TERMINATED` (SIGTERM).
OK, WRONG, FAILED, INTERRUPTED, CLOSED, TERMINATED = 0, 1, 3, 130, 141, 143


def print_line(text: str) -> None:
    """A line, or several, on the standard output.

    Use this when a command prints a result for people.

    Raises:
      OSError: If it is closed.
    """
    write("\n".join(printable(line) for line in text.split("\n")) + "\n")


def print_notes(notes: Iterable[str]) -> None:
    """What was left out or read loosely, a line each, on the standard error.

    Use this when a command has read a table.
    """
    with _beside_bars():
        for note in notes:
            with suppress(OSError, AttributeError):  # no process reads it, or the stream is closed
                sys.stderr.write(f"note: {printable(note)}\n")


def _beside_bars() -> AbstractContextManager[object]:
    """Takes a bar off the terminal while lines are written, if one was drawn."""
    if "tqdm" not in sys.modules:
        return nullcontext()
    from tqdm import tqdm

    beside: AbstractContextManager[object] = tqdm.external_write_mode(sys.stderr)
    return beside


def print_json(value: Any) -> None:
    """A line of JSON on the standard output.

    Use this when a command prints a result for programs.
    """
    from racer_jax.reporting.files import as_plain

    print_json_text(json.dumps(as_plain(value), ensure_ascii=False, allow_nan=False))


def print_json_text(text: str) -> None:
    """A line that is JSON already; what a terminal must not get, or cannot show, is escaped.

    Use this when the text is JSON already, such as a decision.
    """
    if not text.isprintable() or not _shows(text):
        text = "".join(c if c.isprintable() and _shows(c) else json.dumps(c)[1:-1] for c in text)
    write(text + "\n")


def _shows(text: str) -> bool:
    """Whether the standard output can write the text as it is."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def write(text: str) -> None:
    """Writes to the standard output.

    Use this when `print_line` and `print_json` are not what is printed.

    Raises:
      OSError: If it is closed.
    """
    if sys.stdout is None:
        raise OSError("the standard output is closed: there is nowhere to print to")
    sys.stdout.write(text)


def flush() -> None:
    """Nothing printed waits any longer.

    Use this when a reader at the other end of a pipe waits for a line.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def write_lines(path: Path, lines: Iterator[str]) -> None:
    """A text file, whole or not at all.

    Use this when a command writes lines to a file that `--output` names.
    """
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        for line in lines:
            out.write(line + "\n")
