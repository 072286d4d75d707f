"""The one error a file can raise.

It names file, row and field, what was wrong, what would be right, and what to pass instead: in
Python's spelling where it is raised, in the shell's where a command prints it.
"""

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from racer_jax.data.remedies import Remedy

# Control characters, invisible format characters, line and paragraph separators, lone surrogates.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""The text with what could steer a terminal or break a line written as an escape.

    Use this when a name from a file is shown to a person: `\x1b[2J` in the name of a model would
    otherwise clear the screen.

    Args:
      text: The text.

    Returns:
      The text with control, format and separator characters and lone surrogates escaped.

    >>> printable("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNPRINTABLE
        else character
        for character in text
    )


# A cell of a table on a terminal has this many characters.
CELL = 60


def short(text: str, most: int = CELL) -> str:
    """A text that a line can hold: names in a damaged file may be as long as the file.

    Use this when a name from a file is shown in a line or a table.

    >>> short("a name that is long", 9)
    'a name...'
    """
    return text if len(text) <= most else f"{text[: most - 3]}..."


class DataError(ValueError):
    """A file that cannot be read as a correct table.

    Use this when you catch what can be wrong with a file.

    Attributes:
      path: The file or folder, or None where the data came from memory.
      row: The record, counted from 1 without the header, or None where the fault is not in one
        record.
      line: The line of the file the record ends on, counted from 1, where the format has lines.
      field: The column, key or array, or None.
      problem: What was wrong and what would be right.
      remedy: What to pass instead, or None where no option helps.
      format: The format the file was taken for where no format was named, else None.
    """

    path: str | Path | None
    row: int | None
    line: int | None
    field: str | None
    problem: str
    remedy: Remedy | None
    format: str | None

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        row: int | None = None,
        line: int | None = None,
        field: str | None = None,
        remedy: Remedy | None = None,
        format: str | None = None,
    ) -> None:
        self.problem, self.path, self.row, self.line, self.field = problem, path, row, line, field
        self.remedy, self.format = remedy, format
        super().__init__(self._text(shell=False))

    def in_shell(self) -> str:
        """The message as a command prints it: its remedy names shell options.

        Use this when you print an error in a command of your own.
        """
        return self._text(shell=True)

    def taken_for(self, format: str) -> "DataError":
        """The same error, which says that its format was guessed.

        Use this when the caller did not name the format of a file.
        """
        return self._with(format=format)

    def at(self, path: str | Path) -> "DataError":
        """The same error of another file: that of which the one named was a copy.

        Use this when an error of an unpacked copy is about the file that the user named.
        """
        return self._with(path=path)

    def advising(self, remedy: Remedy, also: bool = False) -> "DataError":
        """The same error with a remedy where it has none, or with one more (`also`).

        Use this when a reader raises an error and knows which option would help.
        """
        if self.remedy is None:
            return self._with(remedy=remedy)
        return self._with(remedy=self.remedy.then(remedy)) if also else self

    def keeping(self, options: Mapping[str, Any]) -> "DataError":
        """The same error, whose advice holds what was passed already.

        Use this when an option of pairs was passed and the advice is to pass it again.
        """
        return self if self.remedy is None else self._with(remedy=self.remedy.keeping(options))

    def _with(self, **changes: object) -> "DataError":
        fields: dict[str, object] = {
            "path": self.path,
            "row": self.row,
            "line": self.line,
            "field": self.field,
            "remedy": self.remedy,
            "format": self.format,
        }
        return DataError(self.problem, **(fields | changes))  # type: ignore[arg-type]

    def _text(self, shell: bool) -> str:
        place = [] if self.path is None else [str(self.path)]
        if self.row is not None:
            line = "" if self.line is None else f" (line {self.line})"
            place.append(f"row {self.row}{line}")
        elif self.line is not None:
            place.append(f"line {self.line}")
        if self.field is not None:
            place.append(f"field {short(self.field, 200)!r}")
        problem = short(self.problem, 1000)
        text = f"{', '.join(place)}: {problem}" if place else problem
        if self.remedy is not None:
            text += "; " + (self.remedy.in_shell() if shell else self.remedy.in_python())
        if self.format is not None:
            guess = Remedy("pass {} if it is another", format=...)
            text += f" (read as {self.format}, guessed from the content; "
            text += (guess.in_shell() if shell else guess.in_python()) + ")"
        return printable(text)
