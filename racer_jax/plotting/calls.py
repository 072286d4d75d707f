"""The figure that a first look needs: how many models are called at each risk level."""

from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from racer_jax.plotting.risk import _COLORS, _STYLE, _grid, _percent


class CallsLine(NamedTuple):
    """Mean number of models called for a question at each risk level, float `[a]` each.

    Use this when you draw one line of `calls_figure`.

    Attributes:
      alpha: Risk levels; for a choice without a promise the share of misses that was measured.
      calls: Mean number of models called.
    """

    alpha: np.ndarray
    calls: np.ndarray


def calls_figure(sets: CallsLine, fixed: CallsLine, stops: CallsLine, num_models: int) -> Figure:
    """Calls against alpha: sets chosen at once, and models called one after another.

    Use this when you show what a calibrated choice saves beside a fixed one.

    Args:
      sets: Sets chosen at once, by alpha.
      fixed: The first k models of a fixed order, by the misses that were measured.
      stops: Models called one after another, by alpha.
      num_models: Models of the pool.

    Returns:
      Two panels side by side.
    """
    with mpl.rc_context(_STYLE):
        figure, ((left, right),) = _grid(1, 2, 2.9, sharey=True)
        left.plot(fixed.alpha, fixed.calls, "s--", color=_COLORS[4], label="a fixed order", ms=4)
        left.plot(sets.alpha, sets.calls, color=_COLORS[0], label="racer_jax", lw=2)
        left.set(
            title="A set, chosen at once",
            xlabel="no called model is right, though one could be",
            ylabel="models called for a question",
        )
        right.plot(stops.alpha, stops.calls, "o-", color=_COLORS[0], label="racer_jax", lw=2, ms=4)
        right.set(title="One after another", xlabel="right answers of the full vote that are lost")
        for axes in (left, right):
            axes.axhline(num_models, color="0.5", ls=":", label="all models")
            axes.set_xlim(left=0)
            axes.set_ylim(0, num_models + 0.5)
            _percent(axes, "x")
        left.legend(loc="upper right", bbox_to_anchor=(1, 0.93))
    return figure
