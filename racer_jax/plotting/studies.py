"""Figures of risk and size.

Every function takes numbers, returns a matplotlib `Figure` and computes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from racer_jax.plotting.risk import _COLORS, _STYLE, _grid, _percent

# A router keeps its colour, a score its line: RACER-G solid, RACER-P dashed.
LINES = {"RACER-G": "-", "RACER-P": "--"}
MARKS = {"RACER-G": "o", "RACER-P": "s"}


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


def legend_below(figure: Figure, *panels: Axes, columns: int = 8) -> None:
    """One entry for each label of the panels, below them all.

    Use this when panels share their labels.
    """
    entries: dict[str, Artist] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    ncols = min(len(entries), columns)
    figure.legend(
        list(entries.values()), list(entries), loc="outside lower center", ncols=ncols, fontsize=8
    )


def split_label(label: str) -> tuple[str, str]:
    """Router and score of a label such as `KNNR + RACER-G`.

    Use this when a figure colours by router and marks by score.
    """
    router, _, score = label.partition(" + ")
    return router, score


def router_colors(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each router of the labels, in their order.

    Use this when several figures show the same routers.
    """
    routers = list(dict.fromkeys(split_label(label)[0] for label in labels))
    return dict(zip(routers, _COLORS, strict=False))


def risk_law_figure(
    alpha: np.ndarray, panels: Mapping[str, Mapping[str, RiskLine]], subtitle: str
) -> Figure:
    """Distance of the mean test risk from its law, in standard errors, for every router and score.

    Use this when you compare many routers and scores with the exact law; `risk_figure` shows a few
    scores inside the paper's bounds.

    Args:
      alpha: Risk levels `[a]`.
      panels: Benchmark -> label -> line.
      subtitle: What was run, in a line.

    Returns:
      Two rows, one column for each benchmark: the risk, and its distance from the law.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(2, len(panels), 5.8)
        for column, (name, lines) in enumerate(panels.items()):
            top, bottom = axes[:, column]
            colors = router_colors(list(lines))
            for i, (label, line) in enumerate(lines.items()):
                router, score = split_label(label)
                top.plot(alpha, line.mean, MARKS[score], color=colors[router], ms=4, mfc="none")
                place = np.arange(len(alpha)) + (i - (len(lines) - 1) / 2) * 0.12
                with np.errstate(divide="ignore", invalid="ignore"):
                    z = np.where(line.mean == line.law, 0.0, (line.mean - line.law) / line.error)
                bottom.plot(place, z, MARKS[score], color=colors[router], ms=4, label=label)
            top.plot(alpha, next(iter(lines.values())).law, color="k", lw=0.8, label="law")
            top.set_title(name)
            top.set_xlabel("alpha, the risk allowed")
            _percent(top)
            bottom.axhspan(-3, 3, color="0.9", zorder=0)
            bottom.set_xticks(range(len(alpha)), [f"{a:g}" for a in alpha])
            bottom.set_xlabel("alpha")
            bottom.set_ylim(-4.5, 4.5)
        axes[0, 0].set_ylabel("mean test risk")
        axes[1, 0].set_ylabel("distance from the law (s.e.)")
        figure.suptitle(f"Mean test risk of every router and score lies on the law\n{subtitle}")
        legend_below(figure, axes[1, 0])
    return figure


def spread_figure(
    alpha: float,
    panels: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Spread]]]],
    subtitle: str,
) -> Figure:
    """Test risk and set size over splits at one alpha, with the exact law drawn over them.

    Use this when you show how much risk and size of single splits vary at one alpha;
    `histogram_figure` shows the risk of one router alone.

    Args:
      alpha: The risk level.
      panels: Benchmark -> router -> metric (`risk`, `size`) -> score -> spread.
      subtitle: What was run, in a line.

    Returns:
      A row for each router and metric, a column for each benchmark.
    """
    routers = list(next(iter(panels.values())))
    scores = list(next(iter(next(iter(panels.values())).values()))["risk"])
    # the paper's: G green, P orange
    colors = dict(zip(scores, ("#009E73", "#E69F00"), strict=False))
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(2 * len(routers), len(panels), 3.4 * len(routers) + 1.2)
        for column, (name, by_router) in enumerate(panels.items()):
            axes[0, column].set_title(name)
            for row, router in enumerate(routers):
                for offset, metric in enumerate(("risk", "size")):
                    panel = axes[2 * row + offset, column]
                    for score, spread in by_router[router][metric].items():
                        # densities: the bins of two scores differ in width
                        width = np.diff(spread.edges)
                        style = {"color": colors[score], "alpha": 0.5}
                        panel.stairs(
                            spread.share / width, spread.edges, fill=True, label=score, **style
                        )
                        panel.stairs(
                            spread.law / width, spread.edges, color="k", lw=0.9, label="exact law"
                        )
                    panel.set_xlabel(
                        "test risk of a split" if metric == "risk" else "models called per query"
                    )
                    panel.set_yticks([])
                    if metric == "risk":
                        panel.axvline(
                            alpha, color="#B00020", ls="--", lw=1, label=f"alpha = {alpha:g}"
                        )
                        _percent(panel, "x")
                    if column == 0:
                        panel.set_ylabel(f"{router}\n{metric}")
        figure.suptitle(
            f"Single splits at alpha = {alpha:g}: risk is the same law for all, size is "
            f"not\n{subtitle}"
        )
        legend_below(figure, axes[0, 0])
    return figure


def sizes_figure(
    alpha: np.ndarray,
    panels: Mapping[str, Mapping[str, SizeLine]],
    baselines: Mapping[str, Mapping[str, SizeLine]],
    num_models: int,
    subtitle: str,
) -> Figure:
    """Set size, and avoidable-miss rate, against alpha.

    Use this when you compare routers and scores with baselines by size and avoidable misses;
    `size_figure` shows the size of a few scores alone.

    Args:
      alpha: Risk levels `[a]`.
      panels: Benchmark -> label -> line.
      baselines: Benchmark -> name (`static order`, `oracle`) -> line.
      num_models: M.
      subtitle: What was run, in a line.

    Returns:
      Two rows, one column for each benchmark.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(2, len(panels), 6.0, sharex=True, sharey="row")
        for column, (name, lines) in enumerate(panels.items()):
            colors = router_colors(list(lines))
            for row, field in enumerate(SizeLine._fields):
                panel = axes[row, column]
                for label, line in lines.items():
                    router, score = split_label(label)
                    panel.plot(
                        alpha,
                        getattr(line, field),
                        LINES[score],
                        color=colors[router],
                        lw=1.4,
                        label=label,
                    )
                for (label, line), style in zip(baselines[name].items(), ("-.", ":"), strict=False):
                    panel.plot(alpha, getattr(line, field), style, color="k", lw=1.3, label=label)
            axes[0, column].axhline(num_models, color="0.6", lw=0.8)
            axes[0, column].set_ylim(0, num_models * 1.03)
            axes[0, column].set_title(name)
            axes[1, column].set_xlabel("alpha, the risk allowed")
            _percent(axes[1, column])
            _percent(axes[0, column], "x")
        axes[0, 0].set_ylabel("models called per query")
        axes[1, 0].set_ylabel("avoidable-miss rate")
        figure.suptitle(f"Models called at equal risk, and the answers missed for it\n{subtitle}")
        legend_below(figure, axes[0, 0])
    return figure
