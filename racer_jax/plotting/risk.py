"""Figures of results.

Every function takes numbers, returns a matplotlib `Figure` and computes nothing.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from racer_jax.montecarlo.bound_check import RiskHistogram

# Colour-blind safe (Okabe and Ito); each score keeps its colour in every figure.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "font.size": 9,
}


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


def _grid(
    num_rows: int, num_columns: int, height: float, **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    """An empty figure of panels.

    Made without pyplot, so that nothing depends on a display or stays open.
    """
    figure = Figure(figsize=(3.3 * num_columns + 0.4, height))
    return figure, figure.subplots(num_rows, num_columns, squeeze=False, **kwargs)


# Inches around panels that stand at fixed places, and between them.
_LEFT, _RIGHT, _ABOVE, _BELOW = 0.98, 0.25, 0.78, 0.72


def _fixed_grid(
    num_rows: int, num_columns: int, height: float, gap: tuple[float, float], **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    """`_grid` with panels at fixed places, `gap` inches apart across and down.

    To find the places by itself, Matplotlib draws every label four times: half of the time that a
    figure takes. Where all figures of a kind have the same labels, their places are known.
    """
    width = 3.3 * num_columns + 0.4
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("none")
    across = (width - _LEFT - _RIGHT - (num_columns - 1) * gap[0]) / num_columns
    down = (height - _ABOVE - _BELOW - (num_rows - 1) * gap[1]) / num_rows
    places = {
        "left": _LEFT / width,
        "right": 1 - _RIGHT / width,
        "top": 1 - _ABOVE / height,
        "bottom": _BELOW / height,
        "wspace": gap[0] / across,
        "hspace": gap[1] / down,
    }
    axes = figure.subplots(num_rows, num_columns, squeeze=False, gridspec_kw=places, **kwargs)
    return figure, axes


def _percent(axes: Axes, which: str = "both") -> None:
    for axis in (axes.xaxis, axes.yaxis) if which == "both" else (getattr(axes, f"{which}axis"),):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=None))


def _legend(figure: Figure, axes: Axes) -> None:
    """One entry for each label, under the panels."""
    handles, labels = axes.get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))
    figure.legend(entries.values(), entries.keys(), loc="lower center", ncols=min(len(entries), 5))


def risk_figure(
    panels: Mapping[str, Mapping[str, RiskCurve]], subtitle: str, num_failures: int = 0
) -> Figure:
    """Risk against alpha inside the band of its bounds.

    The upper row shows the risk itself, the lower row its distance from alpha.

    Use this when you check the mean risk of a few scores against the paper's bounds;
    `risk_law_figure` compares many routers and scores with the exact law.

    Args:
      panels: Pool -> score -> curve.
      subtitle: What was run, in a line.
      num_failures: Means outside the paper's bounds or off the exact law; the title reports it.

    Returns:
      Two rows of panels, one column for each pool.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _fixed_grid(2, len(panels), 6.2, (0.8, 0.15), sharex=True)
        for column, (name, curves) in enumerate(panels.items()):
            top, bottom = axes[:, column]
            band = next(iter(curves.values()))
            top.fill_between(band.alpha, band.lower, band.upper, color="0.82")
            bottom.fill_between(
                band.alpha,
                band.lower - band.alpha,
                band.upper - band.alpha,
                color="0.85",
                label="paper's bounds",
            )
            for color, (score, curve) in zip(_COLORS, curves.items(), strict=False):
                top.plot(
                    curve.alpha,
                    curve.mean,
                    color=color,
                    lw=1.4,
                    ls="-" if color == _COLORS[0] else "--",
                )
                difference = curve.mean - curve.alpha
                low, high = difference - curve.error, difference + curve.error
                bottom.vlines(curve.alpha, low, high, color=color, lw=0.8, alpha=0.35)
                bottom.plot(
                    curve.alpha,
                    difference,
                    "o",
                    color=color,
                    ms=2.2,
                    label=f"{score} (bars: ± 3 s.e.)",
                )
                bottom.plot(
                    curve.alpha, curve.law - curve.alpha, color="k", lw=0.8, label="exact law"
                )
            top.set_title(name)
            bottom.set_xlabel("alpha, the risk allowed")
            bottom.axhline(0, color="0.4", lw=0.8)
            _percent(top)
            _percent(bottom)
        axes[0, 0].set_ylabel("mean test risk")
        axes[1, 0].set_ylabel("mean test risk minus alpha")
        title = "Mean test risk stays inside the paper's bounds, on the exact law"
        if num_failures:
            title = (
                f"FAIL: {num_failures} mean test risks leave the paper's bounds or the exact law"
            )
        figure.suptitle(f"{title}\n{subtitle}")
        _legend(figure, axes[1, 0])
    return figure


def histogram_figure(
    panels: Mapping[str, Mapping[str, RiskHistogram]],
    alpha: float,
    subtitle: str,
    failed: int = 0,
) -> Figure:
    """Test risk over splits at one alpha, with the exact law drawn over it.

    Use this when you show how much the risk of single splits varies; `risk_figure` shows the means,
    and `spread_figure` also shows set sizes and several routers.

    Args:
      panels: Pool -> score -> histogram.
      alpha: The risk level of all of them.
      subtitle: What was run, in a line.
      failed: Number of means that failed the check; the title says so where there are any.

    Returns:
      One row of panels for each score, one column for each pool.
    """
    scores = list(next(iter(panels.values())))
    with mpl.rc_context(_STYLE):
        height = 2.4 * len(scores) + 1.3
        figure, axes = _fixed_grid(len(scores), len(panels), height, (0.6, 0.15), sharex="col")
        for column, (name, histograms) in enumerate(panels.items()):
            axes[0, column].set_title(name)
            axes[-1, column].set_xlabel("test risk of a split")
            for row, (color, (score, histogram)) in enumerate(
                zip(_COLORS, histograms.items(), strict=False)
            ):
                panel = axes[row, column]
                panel.stairs(
                    histogram.share,
                    histogram.edges,
                    fill=True,
                    color=color,
                    alpha=0.55,
                    label="splits",
                )
                panel.stairs(histogram.law, histogram.edges, color="k", lw=1.1, label="exact law")
                panel.axvline(alpha, color="#B00020", ls="--", lw=1.1, label=f"alpha = {alpha:g}")
                panel.axvline(histogram.mean, color=color, lw=1.1, label="mean over splits")
                _percent(panel)
                if column == 0:
                    panel.set_ylabel(f"{score}\nshare of splits")
        title = (
            f"Test risk of single splits at alpha = {alpha:g}: the mean is bounded, a split varies"
        )
        if failed:
            title = f"FAIL: test risk of single splits at alpha = {alpha:g} beside the exact law"
        figure.suptitle(f"{title}\n{subtitle}")
        _legend(figure, axes[0, 0])
    return figure


def size_figure(
    panels: Mapping[str, Mapping[str, SizeCurve]],
    num_models: int,
    subtitle: str,
    failed: int = 0,
) -> Figure:
    """Mean set size against alpha.

    Use this when you show how many models are called at each alpha; `sizes_figure` adds baselines
    and the avoidable misses.

    Args:
      panels: Pool -> score -> curve.
      num_models: M, drawn as the size of the full ensemble.
      subtitle: What was run, in a line.
      failed: Number of means that failed the check; the title says so where there are any.

    Returns:
      One panel for each pool.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _fixed_grid(1, len(panels), 3.6, (0.15, 0.0), sharey=True)
        for panel, (name, curves) in zip(axes[0], panels.items(), strict=True):
            for color, (score, curve) in zip(_COLORS, curves.items(), strict=False):
                panel.plot(curve.alpha, curve.size, color=color, lw=1.6, label=score)
            panel.axhline(num_models, color="0.4", ls=":", lw=1, label="all models")
            panel.axhline(1, color="0.4", ls="--", lw=0.8, label="one model")
            panel.set_title(name)
            panel.set_xlabel("alpha, the risk allowed")
            panel.set_ylim(bottom=0)
            _percent(panel, "x")
        axes[0, 0].set_ylabel("models called per query")
        title = "More risk allowed, fewer models called"
        if failed:
            title = "FAIL: models called by sets that do not keep their risk"
        figure.suptitle(f"{title}\n{subtitle}")
        _legend(figure, axes[0, 0])
    return figure
