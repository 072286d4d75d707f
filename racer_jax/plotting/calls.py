"""The figure that a first look needs: how many models are called at each risk level."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from racer_jax.plotting import layout
from racer_jax.plotting.layout import figure_style, percent
from racer_jax.plotting.styles import style_of


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
) -> Figure:
    """Calls against alpha: sets chosen at once, and models called one after another.

    Use this when you show what a calibrated choice saves beside a fixed one.

    Args:
      sets: Sets chosen at once, by alpha.
      fixed: The first k models of a fixed order, by the misses that were measured.
      stops: Models called one after another, by alpha.
      num_models: Models of the pool.
      width: Inches of the figure; by default as wide as the panels side by side.

    Returns:
      Two panels side by side.
    """
    ours, order = style_of("RACER"), style_of("a fixed order")
    with figure_style(width):
        grid = layout.panels(2, (2.4,), width=width, share_y=True)
        left, right = grid.axes[0]
        left.plot(fixed.alpha, fixed.calls, **order.marked(label="a fixed order", ms=4))
        left.plot(sets.alpha, sets.calls, **ours.line(label="racer_jax", lw=2))
        right.plot(stops.alpha, stops.calls, **ours.marked(label="racer_jax", lw=2, ms=4))
        grid.label_below(0, "no called model is right, though one could be")
        grid.label_left(0, "models called for a question")
        grid.title(0, "A set chosen at once")
        grid.title(1, "One after another")
        lost = "right answers of the full vote that are lost"
        right.set_xlabel(layout.wrapped(lost, grid.width - 0.7, 9))
        for axes in (left, right):
            axes.axhline(num_models, **style_of("all models").line(label="all models"))
            axes.set_xlim(left=0)
            axes.set_ylim(0, num_models + 0.5)
            percent(axes, "x")
        return grid.finish("How many models are called at each risk", left)
