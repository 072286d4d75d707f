"""Figures of risk and size.

Every function takes numbers, returns a matplotlib `Figure` and computes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from racer_jax.plotting import layout
from racer_jax.plotting.layout import figure_style, percent
from racer_jax.plotting.styles import Style, style_of, styles_of


class RiskLine(NamedTuple):
    """Mean test risk of one router and score on one benchmark, float `[a]` each.

    Use this when you draw one router and score in `risk_law_figure`; `RiskCurve`, for
    `risk_figure`, also has the paper's bounds.

    Attributes:
      mean: Mean over splits.
      error: Its standard error.
      law: Exact expectation.
    """

    mean: np.ndarray
    error: np.ndarray
    law: np.ndarray


class Spread(NamedTuple):
    """One metric over splits, and the probability of the same bins under the exact law.

    Use this when you draw one score in a panel of `spread_figure`.

    Attributes:
      edges: Edges of the bins `[h + 1]`.
      share: Share of the splits in each bin `[h]`.
      law: Probability of each bin `[h]`.
      mean: Mean over splits.
    """

    edges: np.ndarray
    share: np.ndarray
    law: np.ndarray
    mean: float


class SizeLine(NamedTuple):
    """Mean set size and avoidable-miss rate by alpha, float `[a]` each.

    Use this when you draw one router, score or baseline in `sizes_figure`; `SizeCurve`, for
    `size_figure`, has the size alone.

    Attributes:
      size: Mean number of models called.
      avoidable_miss: Share of queries that some model could answer while none that can was called.
    """

    size: np.ndarray
    avoidable_miss: np.ndarray


def split_label(label: str) -> tuple[str, str]:
    """Router and score of a label such as `KNNR + RACER-G`.

    Use this when a figure colours by router and marks by score.
    """
    router, _, score = label.partition(" + ")
    return router, score


def router_styles(labels: Sequence[str]) -> dict[str, Style]:
    """How each label of a router and a score is drawn: the router's colour, the score's line.

    Use this when a figure shows several routers under several scores.

    Args:
      labels: Labels such as `KNNR + RACER-G`.
    """
    pairs = [split_label(label) for label in labels]
    routers, scores = (styles_of(names) for names in zip(*pairs, strict=True))
    return {
        label: scores[score]._replace(color=routers[router].color)
        for label, (router, score) in zip(labels, pairs, strict=True)
    }


def risk_law_figure(
    alpha: np.ndarray,
    panels: Mapping[str, Mapping[str, RiskLine]],
    subtitle: str,
    num_failures: int = 0,
    *,
    width: float | None = None,
) -> Figure:
    """Distance of the mean test risk from its law, in standard errors, for every router and score.

    Use this when you compare many routers and scores with the exact law; `risk_figure` shows a few
    scores inside the paper's bounds.

    Args:
      alpha: Risk levels `[a]`.
      panels: Benchmark -> label -> line.
      subtitle: What was run, in a line.
      num_failures: Means that are off the law; the title reports it.
      width: Inches of the figure; by default as wide as the panels side by side.

    Returns:
      Two rows, one column for each benchmark: the risk, and its distance from the law.
    """
    with figure_style(width):
        grid = layout.panels(len(panels), (2.5, 2.5), width=width)
        for number, (name, lines) in enumerate(panels.items()):
            top, bottom = grid.axes[:, number]
            styles = router_styles(list(lines))
            for i, (label, line) in enumerate(lines.items()):
                points = styles[label].points(ms=4)
                top.plot(alpha, line.mean, **points, mfc="none")
                place = np.arange(len(alpha)) + (i - (len(lines) - 1) / 2) * 0.12
                with np.errstate(divide="ignore", invalid="ignore"):
                    z = np.where(line.mean == line.law, 0.0, (line.mean - line.law) / line.error)
                bottom.plot(place, z, **points, label=label)
            law = next(iter(lines.values())).law
            top.plot(alpha, law, **style_of("exact law").line(lw=0.8, label="exact law"))
            grid.title(number, name)
            percent(top)
            bottom.axhspan(-3, 3, color="0.9", zorder=0, label="within 3 s.e. of it")
            bottom.set_xticks(range(len(alpha)), [f"{100 * a:g}" for a in alpha])
            bottom.set_ylim(*_z_limits(lines))
        grid.label_below(0, "alpha, the risk allowed")
        grid.label_below(1, "alpha, the risk allowed (%)")
        grid.label_left(0, "mean test risk")
        grid.label_left(1, "distance from the law (s.e.)")
        title = "Mean test risk of every router and score lies on the law"
        if num_failures:
            title = f"FAIL: {num_failures} mean test risks are off the law"
        return grid.finish(f"{title}\n{subtitle}", *grid.axes[:, 0], *grid.axes[1])


def _z_limits(lines: Mapping[str, RiskLine]) -> tuple[float, float]:
    """An axis that holds every distance in standard errors, and 4.5 at least."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = [abs(line.mean - line.law) / line.error for line in lines.values()]
    most = max(4.5, 1.05 * float(np.max(np.nan_to_num(z, posinf=0.0))))
    return -most, most


def spread_figure(
    alpha: float,
    panels: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Spread]]]],
    subtitle: str,
    *,
    width: float | None = None,
) -> Figure:
    """Test risk and set size over splits at one alpha, with the exact law drawn over them.

    Use this when you show how much risk and size of single splits vary at one alpha;
    `histogram_figure` shows the risk of one router alone.

    Args:
      alpha: The risk level.
      panels: Benchmark -> router -> metric (`risk`, `size`) -> score -> spread.
      subtitle: What was run, in a line.
      width: Inches of the figure; by default as wide as the panels side by side.

    Returns:
      A row for each router and metric, a column for each benchmark.
    """
    routers = list(next(iter(panels.values())))
    scores = list(next(iter(next(iter(panels.values())).values()))["risk"])
    styles = styles_of(scores)
    cells = [(router, metric) for router in routers for metric in ("risk", "size")]
    with figure_style(width):
        grid = layout.panels(len(panels), [1.6] * len(cells), width=width, least_panel=1.6)
        for number, (name, by_router) in enumerate(panels.items()):
            grid.title(number, name)
            for row, (router, metric) in enumerate(cells):
                panel = grid.axes[row, number]
                for score, spread in by_router[router][metric].items():
                    # Densities: the bins of two scores differ in width.
                    bins, color = np.diff(spread.edges), styles[score].color
                    panel.stairs(
                        spread.share / bins,
                        spread.edges,
                        fill=True,
                        label=score,
                        color=color,
                        alpha=0.5,
                    )
                    panel.stairs(
                        spread.law / bins, spread.edges, color="k", lw=0.9, label="exact law"
                    )
                panel.set_yticks([])
                panel.xaxis.set_major_locator(MaxNLocator(3))
                if metric == "risk":
                    level = style_of("alpha").line(lw=1, label=f"alpha = {alpha:g}")
                    panel.axvline(alpha, **level)
                    percent(panel, "x")
        for row, (router, metric) in enumerate(cells):
            what = "test risk of a split" if metric == "risk" else "models called per query"
            grid.label_below(row, what)
            grid.label_left(row, f"{router}\n{metric}")
        title = f"Single splits at alpha = {alpha:g}: risk is the same law for all, size is not"
        return grid.finish(f"{title}\n{subtitle}", *grid.axes[0])


def sizes_figure(
    alpha: np.ndarray,
    panels: Mapping[str, Mapping[str, SizeLine]],
    baselines: Mapping[str, Mapping[str, SizeLine]],
    num_models: int,
    subtitle: str,
    *,
    width: float | None = None,
) -> Figure:
    """Set size, and avoidable-miss rate, against alpha.

    Use this when you compare routers and scores with baselines by size and avoidable misses;
    `size_figure` shows the size of a few scores alone.

    Args:
      alpha: Risk levels `[a]`.
      panels: Benchmark -> label -> line.
      baselines: Benchmark -> name (`static order`, `oracle`) -> line.
      num_models: M, drawn as a line.
      subtitle: What was run, in a line.
      width: Inches of the figure; by default as wide as the panels side by side.

    Returns:
      Two rows, one column for each benchmark.
    """
    with figure_style(width):
        grid = layout.panels(
            len(panels),
            (2.6, 2.6),
            width=width,
            share_x=True,
            share_y=width is None,
        )
        for number, (name, lines) in enumerate(panels.items()):
            styles = router_styles(list(lines)) | styles_of(baselines[name])
            for row, field in enumerate(SizeLine._fields):
                panel = grid.axes[row, number]
                for label, line in (*lines.items(), *baselines[name].items()):
                    panel.plot(
                        alpha, getattr(line, field), **styles[label].line(lw=1.4, label=label)
                    )
            size, misses = grid.axes[:, number]
            size.axhline(num_models, **style_of("all models").line(lw=1, label="all models"))
            size.set_ylim(0, num_models * 1.03)
            grid.title(number, name)
            percent(misses)
            percent(size, "x")
        grid.label_below(1, "alpha, the risk allowed")
        grid.label_left(0, "models called")
        grid.label_left(1, "avoidable misses")
        title = "Models called at equal risk, and the answers missed for it"
        return grid.finish(f"{title}\n{subtitle}", *grid.axes[0])
