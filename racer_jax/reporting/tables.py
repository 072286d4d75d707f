"""Tables as text and as Markdown."""

from collections.abc import Sequence

from racer_jax.data.errors import short


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 0) -> str:
    """Aligned columns under a header and a rule.

    Use this when numbers are printed for a reader at a terminal.

    Args:
      header: Names of the columns.
      rows: Cells as text, as many in each row.
      left: How many of the first columns begin on the left; the others end on the right.

    Returns:
      The table, lines without trailing spaces, names in the first column cut short.

    >>> print(text_table(["alpha", "risk"], [["0.1", "0.0987"]]))
    alpha    risk
    -----  ------
      0.1  0.0987
    """
    rows = [[short(name), *cells] for name, *cells in rows]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for line in [header, ["-" * width for width in widths], *rows]:
        cells = [
            str(cell).ljust(width) if i < left else str(cell).rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as a table of Markdown.

    Use this when a table goes into a document.

    >>> print(markdown_table(["alpha", "risk"], [["0.1", "0.0987"]]))
    | alpha | risk |
    | --- | --- |
    | 0.1 | 0.0987 |
    """
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows]
    )


def left_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """`text_table` with a first column that begins on the left.

    Use this when the rows have names.

    >>> print(left_table(["way", "calls"], [["one", "1.00"], ["several", "2.50"]]))
    way      calls
    -------  -----
    one       1.00
    several   2.50
    """
    return text_table(header, rows, left=1)
