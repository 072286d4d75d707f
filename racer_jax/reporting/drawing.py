"""How figures are written: their formats, their width, and whether they are drawn again."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

FORMATS = ("png", "pdf", "svg")
# Inches: a column of a page in two columns, and the whole page.
WIDTHS = {"column": 3.3, "page": 6.9}
_NARROWEST, _WIDEST = 2.0, 60.0


@dataclass(frozen=True)
class DrawingOptions:
    """Options of every command that draws figures.

    Use this when a command of yours draws figures as the experiments do.

    >>> DrawingOptions(figures="pdf,svg", width="column").inches
    3.3
    """

    figures: Annotated[str, "formats of the figures, listed: png, pdf, svg"] = "png"
    width: Annotated[
        str,
        "width of the figures in inches, or column (3.3), page (6.9) or panels (as wide as all "
        "panels side by side)",
    ] = "page"
    redraw: Annotated[
        Path | None,
        "folder of an earlier run: its figures are drawn again from results.json, nothing is "
        "computed",
    ] = None

    @cached_property
    def formats(self) -> tuple[str, ...]:
        """The formats, each once. Use this when figures are written."""
        names = tuple(name.strip().lower() for name in self.figures.split(","))
        for name in names:
            if name not in FORMATS:
                raise ValueError(f"figures must be among {', '.join(FORMATS)}, got {name!r}")
        return tuple(dict.fromkeys(names))

    @cached_property
    def inches(self) -> float | None:
        """The width in inches; None for panels side by side. Use this when figures are drawn."""
        if self.width == "panels":
            return None
        try:
            inches = WIDTHS.get(self.width) or float(self.width)
        except ValueError:
            inches = math.nan
        if not _NARROWEST <= inches <= _WIDEST:
            raise ValueError(
                f"width must be column, page, panels, or {_NARROWEST:g} to {_WIDEST:g} inches, got "
                f"{self.width!r}"
            )
        return inches

    def __post_init__(self) -> None:
        _ = self.formats, self.inches  # read here, so that a wrong one is an error of usage
