"""What sharper promises cost, in three panels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from racer_jax.plotting import layout
from racer_jax.plotting.layout import figure_style, percent
from racer_jax.plotting.styles import style_of, styles_of


class PromiseCosts(NamedTuple):
    """Numbers of one benchmark under one score, at one alpha.

    Use this when you fill `promises_figure`.

    Attributes:
      sizes: Promise -> mean number of models called.
      risks: `pooled` and `by group` -> mean risk; NaN where it was not measured.
      attainable: Smallest alpha that can be attained under a cap of 1, 2, ... models.
    """

    sizes: Mapping[str, float]
    risks: Mapping[str, float]
    attainable: Sequence[float]


def promises_figure(
    benchmarks: Mapping[str, PromiseCosts],
    alpha: float,
    subtitle: str,
    failed: bool = False,
    *,
    width: float | None = None,
) -> Figure:
    """Size by promise, risk by benchmark, and the smallest attainable alpha by cap.

    Use this when you show what a promise stronger than one on average costs.

    Args:
      benchmarks: Benchmark -> its numbers.
      alpha: The risk level of sizes and risks.
      subtitle: What was run, in a line.
      failed: Whether a promise was not kept; the title says so.
      width: Inches of the figure; by default as wide as the panels side by side.

    Returns:
      Three panels.
    """
    styles = styles_of(benchmarks)
    names = list(benchmarks)
    promises = list(next(iter(benchmarks.values())).sizes)
    with figure_style(width):
        grid = layout.panels(3, (2.7,), width=width, panel_width=3.6, least_panel=2.6)
        by_promise, by_group, by_cap = grid.axes[0]
        size = 0.9 * mpl.rcParams["font.size"]
        for name, costs in benchmarks.items():
            sizes = [costs.sizes[promise] for promise in promises]
            points = styles[name].points(ms=4, label=name)
            by_promise.plot(sizes, -np.arange(len(promises)), **points)
            caps = np.arange(1, len(costs.attainable) + 1)
            by_cap.plot(caps, costs.attainable, **styles[name].marked(ms=4))
        lines = [layout.wrapped(name, 0.36 * grid.width, size) for name in promises]
        by_promise.set_yticks(-np.arange(len(promises)), lines, fontsize=size)
        by_promise.set(xlim=(0, None), ylim=(-len(promises) + 0.5, 0.5))
        place = -np.arange(len(names))
        for shift, kind in ((0.2, "pooled"), (-0.2, "by group")):
            risks = [costs.risks[kind] for costs in benchmarks.values()]
            by_group.barh(place + shift, risks, 0.38, color=style_of(kind).color, label=kind)
        level = style_of("alpha").line(lw=0.9, label=f"alpha = {alpha:g}")
        by_group.axvline(alpha, **level)
        by_group.set_yticks(place, names, fontsize=size)
        by_group.grid(axis="y", visible=False)
        by_cap.set(ylim=(0, None), xticks=caps)
        percent(by_group, "x")
        percent(by_cap, "y")
        for panel, title, below in (
            (0, "models called", "models called per query"),
            (1, "risk by benchmark", "mean test risk"),
            (2, "smallest alpha", "most models called"),
        ):
            grid.title(panel, title)
            grid.axes[0, panel].set_xlabel(below)
        title = f"What sharper promises cost at alpha = {alpha:g}"
        if failed:
            title = f"FAIL: a mean risk is above alpha = {alpha:g}, or above that of another level"
        return grid.finish(f"{title}\n{subtitle}", by_promise, by_group)
