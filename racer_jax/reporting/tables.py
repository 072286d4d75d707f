"""Tables as text and as Markdown."""

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Right-aligned columns under a header and a rule.

    >>> print(text_table(["alpha", "risk"], [["0.1", "0.0987"]]))
    alpha    risk
    -----  ------
      0.1  0.0987
    """
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(str(cell).rjust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as a table of Markdown.

    >>> print(markdown_table(["alpha", "risk"], [["0.1", "0.0987"]]))
    | alpha | risk |
    | --- | --- |
    | 0.1 | 0.0987 |
    """
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows]
    )


def left_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """`reporting.text_table` with a first column that begins on the left.

    >>> print(left_table(["way", "calls"], [["one", "1.00"], ["several", "2.50"]]))
    way      calls
    -------  -----
    one       1.00
    several   2.50
    """
    width = max(len(row[0]) for row in [header, *rows])
    lines = [[row[0].ljust(width), *row[1:]] for row in rows]
    return text_table([header[0].ljust(width), *header[1:]], lines)
