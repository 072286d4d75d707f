"""The one error a file can raise: it names file, row and field, what was wrong and what would be right."""

from pathlib import Path


class DataError(ValueError):
    """A file that cannot be read as a correct table.

    Attributes:
      path: The file or folder, or None where the data came from memory.
      row: The record, counted from 1 without the header, or None where the fault is not in one
        record.
      line: The line of the file the record ends on, counted from 1, where the format has lines.
      field: The column, key or array, or None.
      problem: What was wrong and what would be right.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        row: int | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.problem, self.path, self.row, self.line, self.field = problem, path, row, line, field
        place = [] if path is None else [str(path)]
        if row is not None:
            place.append(f"row {row}" + ("" if line is None else f" (line {line})"))
        elif line is not None:
            place.append(f"line {line}")
        if field is not None:
            place.append(f"field {field!r}")
        super().__init__(f"{', '.join(place)}: {problem}" if place else problem)
