"""Figures of results.

Every function takes numbers, returns a matplotlib `Figure` and computes nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from racer_jax.montecarlo.bound_check import RiskHistogram
from racer_jax.plotting import layout
from racer_jax.plotting.layout import Gaps, figure_style, percent
from racer_jax.plotting.styles import style_of, styles_of


class RiskCurve(NamedTuple):
    """Mean test risk of one score on one pool, its bounds and its exact mean; float `[a]` each.

    Use this when you draw one score in a panel of `risk_figure`; `RiskLine`, for `risk_law_figure`,
    has no bounds.

    Attributes:
      alpha: Risk levels.
      mean: Mean test risk over splits.
      error: Half the width of its error bar.
      lower: The paper's lower bound.
      upper: The paper's upper bound.
      law: The exact expectation.
    """

    alpha: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    law: np.ndarray


class SizeCurve(NamedTuple):
    """Mean number of models called by one score on one pool; float `[a]` each.

    Use this when you draw one score in a panel of `size_figure`; `SizeLine`, for `sizes_figure`,
    also has the avoidable misses.

    Attributes:
      alpha: Risk levels.
      size: Mean set size.
    """

    alpha: np.ndarray
    size: np.ndarray


def risk_figure(
    panels: Mapping[str, Mapping[str, RiskCurve]],
    subtitle: str,
    num_failures: int = 0,
    *,
    width: float | None = None,
) -> Figure:
    """Risk against alpha inside the band of its bounds.

    The upper row shows the risk itself, the lower row its distance from alpha.

    Use this when you check the mean risk of a few scores against the paper's bounds;
    `risk_law_figure` compares many routers and scores with the exact law.

    Args:
      panels: Pool -> score -> curve.
      subtitle: What was run, in a line.
      num_failures: Means outside the paper's bounds or off the exact law; the title reports it.
      width: Inches of the figure; by default as wide as the panels side by side.

    Returns:
      Two rows of panels, one column for each pool.
    """
    names = list(dict.fromkeys(score for curves in panels.values() for score in curves))
    styles = styles_of(names)
    with figure_style(width):
        grid = layout.panels(
            len(panels), (2.5, 2.5), width=width, share_x=True, gaps=Gaps(0.8, 0.15)
        )
        for number, (name, curves) in enumerate(panels.items()):
            top, bottom = grid.axes[:, number]
            band = next(iter(curves.values()))
            top.fill_between(band.alpha, band.lower, band.upper, color="0.82")
            lower, upper = band.lower - band.alpha, band.upper - band.alpha
            bottom.fill_between(band.alpha, lower, upper, color="0.85", label="paper's bounds")
            for score, curve in curves.items():
                color = styles[score].color
                top.plot(curve.alpha, curve.mean, **styles[score].line(lw=1.4))
                difference = curve.mean - curve.alpha
                low, high = difference - curve.error, difference + curve.error
                bottom.vlines(curve.alpha, low, high, color=color, lw=0.8, alpha=0.35)
                label = f"{score} (bars: ± 3 s.e.)"
                points = styles[score].points(ms=2.2)
                bottom.plot(curve.alpha, difference, **points, label=label)
                law = style_of("exact law").line(lw=0.8, label="exact law")
                bottom.plot(curve.alpha, curve.law - curve.alpha, **law)
            grid.title(number, name)
            bottom.axhline(0, color="0.4", lw=0.8)
            percent(top)
            percent(bottom)
        grid.label_left(0, "mean test risk")
        grid.label_left(1, "risk minus alpha")
        grid.label_below(1, "alpha, the risk allowed")
        title = "Mean test risk stays inside the paper's bounds, on the exact law"
        if num_failures:
            title = (
                f"FAIL: {num_failures} mean test risks leave the paper's bounds or the exact law"
            )
        return grid.finish(f"{title}\n{subtitle}", *grid.axes[1])


def histogram_figure(
    panels: Mapping[str, Mapping[str, RiskHistogram]],
    alpha: float,
    subtitle: str,
    failed: int = 0,
    *,
    width: float | None = None,
) -> Figure:
    """Test risk over splits at one alpha, with the exact law drawn over it.

    Use this when you show how much the risk of single splits varies; `risk_figure` shows the means,
    and `spread_figure` also shows set sizes and several routers.

    Args:
      panels: Pool -> score -> histogram.
      alpha: The risk level of all of them.
      subtitle: What was run, in a line.
      failed: Number of means that failed the check; the title says so where there are any.
      width: Inches of the figure; by default as wide as the panels side by side.

    Returns:
      One row of panels for each score, one column for each pool.
    """
    scores = list(dict.fromkeys(score for histograms in panels.values() for score in histograms))
    styles = styles_of(scores)
    with figure_style(width):
        heights = [2.2] * len(scores)
        grid = layout.panels(len(panels), heights, width=width, share_x=True, gaps=Gaps(0.6, 0.15))
        for number, (name, histograms) in enumerate(panels.items()):
            grid.title(number, name)
            for row, score in enumerate(scores):
                panel, histogram = grid.axes[row, number], histograms[score]
                color = styles[score].color
                edges, mean = histogram.edges, f"mean over splits, {score}"
                panel.stairs(
                    histogram.share, edges, fill=True, color=color, alpha=0.55, label="splits"
                )
                panel.stairs(histogram.law, edges, color="k", lw=1.1, label="exact law")
                level = style_of("alpha").line(lw=1.1, label=f"alpha = {alpha:g}")
                panel.axvline(alpha, **level)
                panel.axvline(histogram.mean, color=color, lw=1.1, label=mean)
                percent(panel)
        for row, score in enumerate(scores):
            grid.label_left(row, f"{score}\nshare of splits")
        grid.label_below(len(scores) - 1, "test risk of a split")
        title = (
            f"Test risk of single splits at alpha = {alpha:g}: the mean is bounded, a split varies"
        )
        if failed:
            title = f"FAIL: test risk of single splits at alpha = {alpha:g} beside the exact law"
        return grid.finish(f"{title}\n{subtitle}", *grid.axes[:, 0])


def size_figure(
    panels: Mapping[str, Mapping[str, SizeCurve]],
    num_models: int,
    subtitle: str,
    failed: int = 0,
    *,
    width: float | None = None,
) -> Figure:
    """Mean set size against alpha.

    Use this when you show how many models are called at each alpha; `sizes_figure` adds baselines
    and the avoidable misses.

    Args:
      panels: Pool -> score -> curve.
      num_models: M, drawn as the size of the full ensemble.
      subtitle: What was run, in a line.
      failed: Number of means that failed the check; the title says so where there are any.
      width: Inches of the figure; by default as wide as the panels side by side.

    Returns:
      One panel for each pool.
    """
    styles = styles_of(score for curves in panels.values() for score in curves)
    with figure_style(width):
        gaps = Gaps(0.35, 0.0)
        grid = layout.panels(len(panels), (2.7,), width=width, share_y=True, gaps=gaps)
        for number, (name, curves) in enumerate(panels.items()):
            panel = grid.axes[0, number]
            for score, curve in curves.items():
                panel.plot(curve.alpha, curve.size, **styles[score].line(lw=1.6), label=score)
            panel.axhline(num_models, **style_of("all models").line(lw=1, label="all models"))
            panel.axhline(1, color="0.4", ls="--", lw=0.8, label="one model")
            grid.title(number, name)
            panel.set_ylim(bottom=0)
            percent(panel, "x")
        grid.label_left(0, "models called")
        grid.label_below(0, "alpha, the risk allowed")
        title = "More risk allowed, fewer models called"
        if failed:
            title = "FAIL: models called by sets that do not keep their risk"
        return grid.finish(f"{title}\n{subtitle}", *grid.axes[0])
