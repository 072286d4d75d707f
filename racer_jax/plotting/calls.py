"""The figure that a first look needs: how many models are called at each risk level."""

from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from racer_jax.plotting import layout
from racer_jax.plotting.layout import figure_style, percent
from racer_jax.plotting.styles import DARK, style_of


class CallsLine(NamedTuple):
    """Mean number of models called for a question at each risk level, float `[a]` each.

    Use this when you draw one line of `calls_figure`.

    Attributes:
      alpha: Risk levels; for a choice without a promise the share of misses that was measured.
      calls: Mean number of models called.
    """

    alpha: np.ndarray
    calls: np.ndarray


def calls_figure(
    sets: CallsLine,
    fixed: CallsLine,
    stops: CallsLine,
    num_models: int,
    *,
    width: float | None = None,
    dark: bool = False,
) -> Figure:
    """Calls against alpha: sets chosen at once, and models called one after another.

    Use this when you show what a calibrated choice saves beside a fixed one.

    Args:
      sets: Sets chosen at once, by alpha.
      fixed: The first k models of a fixed order, by the misses that were measured.
      stops: Models called one after another, by alpha.
      num_models: Models of the pool.
      width: Inches of the figure; by default as wide as the panels side by side.
      dark: Whether it stands on a dark page.

    Returns:
      Two panels side by side.
    """
    ours, order = style_of("RACER"), style_of("a fixed order")
    pool = style_of("all models")
    if dark:
        ours, pool = style_of("RACER, dark"), style_of("all models, dark")
    with figure_style(width, **(DARK if dark else {})):
        grid = layout.panels(2, (2.7,), width=width, share_y=True)
        left, right = grid.axes[0]
        left.plot(fixed.alpha, fixed.calls, **order.marked(label="a fixed order", ms=4))
        left.plot(sets.alpha, sets.calls, **ours.line(label="racer_jax", lw=2.2))
        right.plot(stops.alpha, stops.calls, **ours.marked(label="racer_jax", lw=2.2, ms=4))
        grid.label_left(0, "calls for a question")
        grid.title(0, "Models called at once")
        grid.title(1, "One after another")
        missed = "alpha: questions with no able model called"
        lost = "alpha: questions that stopping early makes wrong"
        for axes, below in ((left, missed), (right, lost)):
            axes.set_xlabel(layout.wrapped(below, grid.width - 0.6, mpl.rcParams["font.size"]))
            axes.axhline(num_models, **pool.line(label="all models", lw=1.5))
            axes.set_xlim(left=0)
            axes.set_ylim(0, num_models + 0.5)
            percent(axes, "x", 0)
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        left.set_xlim(0, 1.4 * float(np.max(fixed.alpha)))
        return grid.finish("Fewer calls for each risk that you allow", left)
