"""Panels, titles and legends that fit the width of a figure, whatever it is."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import PercentFormatter

_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "font.size": 10,
}
# Type of a narrow figure, and how much smaller than other type that of a legend is.
_NARROW_SIZE, _LEGEND = 7, 0.95
# Below this width a page has the small type of a journal's column.
_NARROW = 4.5
# A panel is at least so wide where a width was asked for.
_LEAST_PANEL = 2.2
# Panels of a figure for a page are together no higher than this, where their rows allow it.
_HIGHEST, _LEAST_ROW = 7.8, 1.05
# Inches around panels that stand at fixed places.
_LEFT, _RIGHT = 0.98, 0.25
# Inches from the panels of one band to those of the next: labels, and a title.
_BETWEEN_BANDS = 0.9
# Below this width labels are broken in lines that cannot be foreseen.
_LEAST_PLACED = 6.0


class Gaps(NamedTuple):
    """Inches between panels that stand at fixed places.

    To find the places by itself, Matplotlib draws every label four times: half of the time that a
    figure takes. Where all figures of a kind have the same labels, their places are known.

    Use this when a figure must be drawn fast.

    Attributes:
      across: From panel to panel.
      down: From row to row of one benchmark.
    """

    across: float
    down: float


class Panels(NamedTuple):
    """The panels of a figure: one or several rows for each benchmark, as many abreast as fit.

    Use this when you draw into what `panels` made.

    Attributes:
      figure: The figure.
      axes: Panels by row and benchmark `[r, b]`.
      left: Benchmarks at the left edge, which alone have labels on the y axis.
      width: Inches of a panel with its labels.
      heights: Inches of each row.
      gaps: Between panels at fixed places; None where Matplotlib finds the places.
    """

    figure: Figure
    axes: np.ndarray
    left: tuple[int, ...]
    width: float
    heights: tuple[float, ...]
    gaps: Gaps | None

    def title(self, benchmark: int, text: str) -> None:
        """Writes the title of a benchmark, in lines that fit. Use this when a panel has a name."""
        size = mpl.rcParams["font.size"] * 1.1
        lines = wrapped(text.replace(", ", "\n"), self.width - 0.7, size)
        place = None if self.gaps is None else 1.0
        self.axes[0, benchmark].set_title(lines, fontsize=size, y=place)

    def label_left(self, row: int, text: str) -> None:
        """Labels the y axes at the left edge. Use this when panels of a row share their label."""
        # Panels at fixed places give some of their height to the labels below them.
        share = 0.9 if self.gaps is None else 0.65
        lines = wrapped(text, share * self.heights[row], mpl.rcParams["font.size"])
        for benchmark in self.left:
            self.axes[row, benchmark].set_ylabel(lines)

    def label_below(self, row: int, text: str) -> None:
        """Labels the x axes of a row. Use this when panels of a row share their label."""
        lines = wrapped(text, self.width - 0.7, mpl.rcParams["font.size"])
        for axes in self.axes[row]:
            axes.set_xlabel(lines)

    def finish(
        self, title: str, *legend_of: Axes, legend: Mapping[str, Artist] | None = None
    ) -> Figure:
        """Writes the title above and the legend below, and makes room for them.

        Use this when all panels are drawn.

        Args:
          title: The title; it is broken into lines that fit.
          legend_of: Panels whose labels make the legend.
          legend: Label -> what stands before it, instead of the labels of panels.
        """
        figure, size = self.figure, mpl.rcParams["font.size"]
        width = figure.get_figwidth()
        lines = wrapped(title, width - 0.2, 1.1 * size)
        above = (lines.count("\n") + 1) * 1.1 * size * 1.25 / 72 + 0.12
        entries = entries_of(legend_of) if legend is None else legend
        columns = legend_columns(list(entries), width, _LEGEND * size)
        below = 0.08 + math.ceil(len(entries) / columns) * _LEGEND * size * 1.5 / 72
        if entries:
            figure.legend(
                list(entries.values()),
                list(entries),
                loc="lower center" if self.gaps else "outside lower center",
                ncols=columns,
                fontsize=_LEGEND * size,
                **_SPACING,
            )
        height = figure.get_figheight() + above + below
        figure.set_figheight(height)
        figure.suptitle(lines, fontsize=1.1 * size)
        if self.gaps is not None:
            # As far from the edge in a high figure as in a low one: else the title comes down to
            # the names of the panels.
            figure.suptitle(lines, fontsize=1.1 * size, y=1 - 0.1 / height)
            names = max(panel.get_title().count("\n") for panel in self.axes[0])
            self._place(above + 0.3 + names * 1.1 * size * 1.2 / 72, below + 0.5)
        return figure

    def _place(self, above: float, below: float) -> None:
        """Puts the panels at their places: inches from the edges and from each other."""
        assert self.gaps is not None
        num_rows, num_panels = self.axes.shape
        bands = len(self.left)
        columns = self.left[1] if bands > 1 else num_panels
        width, height = self.figure.get_size_inches()
        between = (columns - 1) * self.gaps.across
        across = (width - _LEFT - _RIGHT - between) / columns
        rows = height - above - below - (bands - 1) * _BETWEEN_BANDS
        rows -= bands * (num_rows - 1) * self.gaps.down
        down = rows / (bands * num_rows)
        for (row, number), panel in np.ndenumerate(self.axes):
            band, column = divmod(number, columns)
            x = _LEFT + column * (across + self.gaps.across)
            y = height - above - down - row * (down + self.gaps.down)
            y -= band * (num_rows * (down + self.gaps.down) - self.gaps.down + _BETWEEN_BANDS)
            panel.set_position((x / width, y / height, across / width, down / height))


_SPACING: Any = {"handlelength": 2.2, "handletextpad": 0.6, "columnspacing": 1.4}


@contextmanager
def figure_style(width: float | None, **more: Any) -> Iterator[None]:
    """The type and the lines of every figure; a narrow one has smaller type.

    Use this when you draw a figure beside those of this package.

    Args:
      width: Inches asked for, or None.
      more: Further settings of Matplotlib.
    """
    size = _STYLE["font.size"]
    if width is not None and width < _NARROW:
        size = _NARROW_SIZE
    settings: Any = {**_STYLE, "font.size": size, **more}
    with mpl.rc_context(settings):
        yield


def panels(
    num_benchmarks: int,
    heights: Sequence[float],
    *,
    width: float | None = None,
    panel_width: float = 3.3,
    least_panel: float = _LEAST_PANEL,
    least_row: float = _LEAST_ROW,
    share_x: bool = False,
    share_y: bool = False,
    gaps: Gaps | None = None,
) -> Panels:
    """An empty figure of panels, made without pyplot: it needs no display and does not stay open.

    Use this when a figure has one panel, or one column of panels, for each benchmark.

    Args:
      num_benchmarks: Number of benchmarks.
      heights: Inches of each row of a benchmark.
      width: Inches of the figure: benchmarks that do not fit beside each other go below. None puts
        all side by side.
      panel_width: Inches of a panel where no width is asked for.
      least_panel: Inches that a panel needs.
      least_row: Inches that a row needs at least where a width is asked for and the panels stand
        below each other; infinite for rows that hold lines of text.
      share_x: Whether the rows of one benchmark share their x axis.
      share_y: Whether the panels of one row share their y axis.
      gaps: Between panels at fixed places, for speed; heeded where the figure is as wide as a page.

    Returns:
      The `Panels`.
    """
    columns = num_benchmarks
    if width is not None:
        columns = min(num_benchmarks, max(1, int(width / least_panel + 1e-9)))
        columns = math.ceil(num_benchmarks / math.ceil(num_benchmarks / columns))
        gaps = gaps if width >= _LEAST_PLACED else None
    bands = math.ceil(num_benchmarks / columns)
    if width is not None:
        shrink = min(0.9, _HIGHEST / (sum(heights) * bands))
        heights = [max(height * shrink, min(height, least_row)) for height in heights]
    num_rows = len(heights)
    inches = panel_width * columns + 0.4 if width is None else width
    engine: Any = "constrained" if gaps is None else "none"
    figure = Figure(figsize=(inches, sum(heights) * bands), layout=engine)
    grid = figure.subplots(
        num_rows * bands, columns, squeeze=False, height_ratios=[*heights] * bands
    )
    axes = np.empty((num_rows, num_benchmarks), object)
    for number in range(bands * columns):
        band, column = divmod(number, columns)
        for row in range(num_rows):
            panel = grid[band * num_rows + row, column]
            if number < num_benchmarks:
                axes[row, number] = panel
            else:
                panel.remove()
    if gaps is None and share_y and columns > 1:
        # The last label of an axis and the first of the next one stand apart.
        figure.set_layout_engine("constrained", w_pad=0.12)
    left = tuple(range(0, num_benchmarks, columns))
    for (row, number), panel in np.ndenumerate(axes):
        if gaps is not None:  # else Matplotlib lays out every label to look for room for the title
            panel.set_title("", y=1.0)
        if share_x and row:
            panel.sharex(axes[0, number])
        if share_x and row < num_rows - 1:
            panel.tick_params(labelbottom=False)
        if share_y and number:
            panel.sharey(axes[row, 0])
        if share_y and number not in left:
            panel.tick_params(labelleft=False)
    return Panels(figure, axes, left, inches / columns, tuple(heights), gaps)


@lru_cache(maxsize=4096)
def _inches(text: str, size: float) -> float:
    """Width of a text in inches."""
    points = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)[0]
    return float(points) / 72


def wrapped(text: str, inches: float, size: float) -> str:
    r"""The text in lines that fit a width, broken between words.

    Use this when a title or label must not run out of its figure.

    Args:
      text: The text; its own line breaks stay.
      inches: The width of a line.
      size: Size of the type in points.

    >>> wrapped("one two three", 0.5, 9).count("\n")
    2
    """
    lines = []
    for paragraph in text.replace(" = ", "\u00a0=\u00a0").split("\n"):  # an equation stays whole
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and _inches(longer, size) > inches:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return "\n".join(lines).replace("\u00a0", " ")


def entries_of(axes: Sequence[Axes]) -> dict[str, Artist]:
    """Label -> what is drawn under it, each label once.

    Use this when several panels share a legend.
    """
    entries: dict[str, Artist] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return entries


def legend_columns(labels: Sequence[str], inches: float, size: float) -> int:
    """How many entries of a legend fit beside each other, at most eight.

    Use this when a legend stands below all panels.
    """
    if not labels:
        return 1
    around = sum(_SPACING.values()) * size / 72
    widest = max(_inches(label, size) for label in labels) + around
    return min(len(labels), 8, max(1, int((inches - 0.1) / widest)))


def percent(axes: Axes, which: str = "both", decimals: int | None = None) -> None:
    """Writes shares as percentages on the axes. Use this when a panel shows risks or accuracies."""
    for name in ("x", "y") if which == "both" else (which,):
        axis = axes.xaxis if name == "x" else axes.yaxis
        fixed = PercentFormatter(1.0, decimals=decimals)
        axis.set_major_formatter(ShortPercent() if decimals is None else fixed)


class ShortPercent(PercentFormatter):
    """Percentages with as many decimals as the ticks of their axis need: 10%, and not 10.0%.

    Use this when ticks of a share stand close together.

    >>> ShortPercent().format_ticks([0.1, 0.15])
    ['10%', '15%']
    """

    def __init__(self) -> None:
        super().__init__(1.0, decimals=0)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Labels of all ticks. Use this when Matplotlib does: it calls this."""
        shares = 100 * np.asarray(values)
        needed = (number for number in range(6) if np.allclose(shares, shares.round(number)))
        self.decimals = next(needed, 6)
        # Rounded, so that no tick is -0%.
        return [self.format_pct(value, 100) for value in shares.round(6) / 100 + 0.0]
