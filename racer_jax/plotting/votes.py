"""Figures of votes.

Every function takes numbers, returns a matplotlib `Figure` and computes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator, PercentFormatter

from racer_jax.plotting.risk import _COLORS, _STYLE, _grid, _percent
from racer_jax.plotting.studies import LINES, MARKS, legend_below, router_colors, split_label

_GREY = "0.35"
# Marks of the fixed numbers of models.
_FIXED = {"top-2": "<", "top-3": "^", "top-5": ">"}
# Colour and name of each kind of way of answering.
_KINDS = {
    "single": ("0.6", "single model"),
    "router": (_COLORS[0], "router alone"),
    "racer": (_COLORS[1], "RACER"),
    "ensemble": (_COLORS[2], "fixed number of models"),
    "bound": (_COLORS[3], "bound: oracle or chance"),
}
# How far below the best single model the picture of accuracies reaches; what lies lower stands at
# its edge.
_REACH = 0.15


class CoverageLine(NamedTuple):
    """Coverage of sets by their size, float `[a]` each.

    Use this when you draw one line of `coverage_figure`.

    Attributes:
      size: Mean number of models called.
      covered: Share of queries for which a called model is right.
    """

    size: np.ndarray
    covered: np.ndarray


class Choices(NamedTuple):
    """Share of the splits that chose each alpha and vote on their validation part.

    Use this when you fill one panel of `heatmap_figure`.

    Attributes:
      weightings: Names of the votes `[w]`.
      share: Share of the splits by alpha and vote `[a, w]`.
    """

    weightings: Sequence[str]
    share: np.ndarray


class Bar(NamedTuple):
    """Accuracy of one way of answering.

    Use this when you draw one row of `accuracy_figure`.

    Attributes:
      mean: Mean over splits.
      std: Standard deviation over splits.
      kind: Kind of the way of answering, which sets the colour: `single`, `router`, `racer`,
        `ensemble`, `bound`.
    """

    mean: float
    std: float
    kind: str


class Trade(NamedTuple):
    """One way of answering against the full ensemble.

    Use this when you draw one point of `tradeoff_figure`.

    Attributes:
      saving: Share of model calls saved.
      gain: Accuracy gained over the full ensemble, tuned the same way.
      error: Standard error of the gain over questions.
    """

    saving: float
    gain: float
    error: float


def accuracy_figure(panels: Mapping[str, Mapping[str, Bar]], subtitle: str) -> Figure:
    """Accuracy of every way of answering, with its standard deviation over splits.

    Use this when you compare ways of answering by accuracy alone; `tradeoff_figure` sets it
    against the calls saved.

    Args:
      panels: Benchmark -> way -> bar.
      subtitle: What was run, in a line.

    Returns:
      One panel for each benchmark, ways from top to bottom.
    """
    longest = max(len(bars) for bars in panels.values())
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(1, len(panels), 0.19 * longest + 1.8)
        figure.set_size_inches(5.8 * len(panels) + 0.4, 0.19 * longest + 1.8)
        for panel, (name, bars) in zip(axes[0], panels.items(), strict=True):
            place = -np.arange(len(bars))
            best = max(bar.mean for bar in bars.values() if bar.kind == "single")
            lowest = best - _REACH
            for kind, (color, label) in _KINDS.items():
                rows = [
                    (y, bar)
                    for y, bar in zip(place, bars.values(), strict=True)
                    if bar.kind == kind
                ]
                if rows:
                    mean, std = (
                        [max(bar.mean, lowest) for _, bar in rows],
                        [bar.std for _, bar in rows],
                    )
                    panel.errorbar(
                        mean,
                        [y for y, _ in rows],
                        xerr=std,
                        fmt="o",
                        ms=4,
                        color=color,
                        lw=1,
                        label=label,
                    )
            for y, bar in zip(place, bars.values(), strict=True):
                if bar.mean < lowest:
                    panel.annotate(
                        f"{100 * bar.mean:.0f}%",
                        (lowest, y),
                        (4, 2),
                        textcoords="offset points",
                        fontsize=6,
                    )
            panel.axvline(best, color="0.6", ls=":", lw=1)
            panel.set_xlim(left=lowest - 0.005)
            panel.set_yticks(place, list(bars), fontsize=7)
            panel.set_ylim(-len(bars) + 0.4, 0.6)
            panel.set_title(name.replace(", ", "\n"))
            panel.set_xlabel("test accuracy ± sd over splits")
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=False))
            panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        figure.suptitle(
            f"Accuracy of every way of answering (dotted: the best single model; far lower: at "
            f"the edge)\n{subtitle}"
        )
        legend_below(figure, axes[0, 0])
    return figure


def tradeoff_figure(
    trades: Mapping[str, Mapping[str, Trade]],
    curves: Mapping[str, Mapping[str, Sequence[Trade]]],
    accuracies: Mapping[str, Mapping[str, tuple[float, float]]],
    subtitle: str,
) -> Figure:
    """Accuracy gained over the full ensemble against calls saved.

    The lower row shows the two accuracies side by side.

    Use this when you ask how much accuracy fewer calls cost or bring; `accuracy_figure` leaves out
    the calls.

    Args:
      trades: Benchmark -> way -> its point in the upper row.
      curves: Benchmark -> label -> the same score at each fixed alpha.
      accuracies: Benchmark -> label -> accuracy of RACER and of the full ensemble, tuned the same
        way.
      subtitle: What was run, in a line.

    Returns:
      Two rows, a column for each benchmark.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(2, len(trades), 7.4)
        for column, name in enumerate(trades):
            top, bottom = axes[:, column]
            colors = router_colors([label for label in trades[name] if " + " in label])
            for label, points in curves[name].items():
                router, score = split_label(label)
                savings, gain = [p.saving for p in points], [p.gain for p in points]
                top.plot(savings, gain, LINES[score], color=colors[router], lw=0.9, alpha=0.6)
            for label, trade in trades[name].items():
                router, score = split_label(label)
                prefix, _, rest = label.partition(": ")
                if score:
                    style = {"fmt": MARKS[score], "color": colors[router], "ms": 7}
                elif rest:
                    style = {
                        "fmt": _FIXED.get(rest.partition(",")[0], "x"),
                        "color": colors[prefix],
                        "ms": 5,
                        "mfc": "none",
                    }
                else:
                    style = {"fmt": "*" if "single" in label else "D", "color": "k", "ms": 7}
                top.errorbar(
                    trade.saving, trade.gain, yerr=trade.error, lw=0.8, label=label, **style
                )
            top.axhline(0, color="0.4", lw=0.8)
            top.set_title(name.replace(", ", "\n"))
            top.set_xlabel("model calls saved")
            gains = [p.gain for p in trades[name].values()]
            top.set_ylim(min(gains) - 0.02, max(gains) + 0.02)
            _percent(top, "x")
            place = np.arange(len(accuracies[name]))
            pairs = np.array(list(accuracies[name].values()))
            bottom.bar(place - 0.2, pairs[:, 0], 0.4, color=_COLORS[0], label="RACER")
            bottom.bar(place + 0.2, pairs[:, 1], 0.4, color="0.7", label="all models, tuned vote")
            bottom.set_xticks(place, list(accuracies[name]), rotation=30, ha="right", fontsize=7)
            low, high = pairs.min(), pairs.max()
            bottom.set_ylim(low - 0.02, high + 0.01)
            for axis in (top.yaxis, bottom.yaxis):
                axis.set_major_locator(MultipleLocator(0.01))
                axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes[0, 0].set_ylabel("accuracy over all models, tuned")
        axes[1, 0].set_ylabel("test accuracy")
        legend_below(figure, axes[0, 0], axes[1, 0], columns=4)
        note = (
            "lines: fixed alphas; filled marks: chosen on validation; bars: standard error over "
            "questions"
        )
        figure.suptitle(f"What fewer calls cost or bring ({note})\n{subtitle}")
    return figure


def coverage_figure(
    panels: Mapping[str, Mapping[str, CoverageLine]], singles: Mapping[str, float], subtitle: str
) -> Figure:
    """Coverage against calls where answers are not known.

    Coverage is the accuracy of a perfect judge of the answers of the called models.

    Use this when a benchmark has no answers to vote on; with answers `accuracy_figure` and
    `tradeoff_figure` show what the votes reach.

    Args:
      panels: Benchmark -> label -> line.
      singles: Benchmark -> accuracy of the best single model.
      subtitle: What was run, in a line.

    Returns:
      A panel for each benchmark.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(1, len(panels), 3.8)
        for panel, (name, lines) in zip(axes[0], panels.items(), strict=True):
            colors = router_colors([label for label in lines if " + " in label])
            for label, line in lines.items():
                router, score = split_label(label)
                style = (
                    {"color": colors[router], "ls": LINES[score]}
                    if score
                    else {"color": "k", "ls": "-."}
                )
                panel.plot(line.size, line.covered, lw=1.3, label=label, **style)
            panel.plot(1, singles[name], "*", color=_GREY, ms=9, label="best single model")
            panel.set_title(name)
            panel.set_xlabel("models called per query")
            panel.set_xlim(left=0)
            _percent(panel, "y")
        axes[0, 0].set_ylabel("a called model is right")
        figure.suptitle(
            f"Coverage of sets: what a perfect judge of the answers would reach\n{subtitle}"
        )
        legend_below(figure, axes[0, 0])
    return figure


def heatmap_figure(
    alphas: Sequence[str], panels: Mapping[str, Mapping[str, Choices]], subtitle: str
) -> Figure:
    """How often each alpha and vote was chosen on validation.

    Use this when alpha and vote are chosen on validation and you want to see how much the choice
    varies between splits.

    Args:
      alphas: Risk levels `[a]`.
      panels: Benchmark -> label -> choices.
      subtitle: What was run, in a line.

    Returns:
      A row for each router and score, a column for each benchmark.
    """
    labels = list(next(iter(panels.values())))
    most = max(
        float(choices.share.max()) for by_label in panels.values() for choices in by_label.values()
    )
    num_votes = max(
        len(choices.weightings) for by_label in panels.values() for choices in by_label.values()
    )
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        figure, axes = _grid(len(labels), len(panels), (0.26 * num_votes + 0.4) * len(labels) + 1.6)
        image = None
        for column, (name, by_label) in enumerate(panels.items()):
            axes[0, column].set_title(name.replace(", ", "\n"))
            for row, label in enumerate(labels):
                panel, (weightings, share) = axes[row, column], by_label[label]
                image = panel.imshow(share.T, aspect="auto", cmap="viridis", vmin=0, vmax=most)
                labels_of_axis = alphas if row == len(labels) - 1 else [""] * len(alphas)
                panel.set_xticks(range(len(alphas)), labels_of_axis, rotation=90)
                panel.set_yticks(
                    range(len(weightings)), weightings if column == 0 else [""] * len(weightings)
                )
                panel.tick_params(labelsize=7)
                for i, j in np.argwhere(share >= 0.01):
                    color = "w" if share[i, j] < 0.6 * most else "k"
                    panel.text(
                        i,
                        j,
                        f"{100 * share[i, j]:.0f}",
                        ha="center",
                        va="center",
                        fontsize=6,
                        color=color,
                    )
                if column == 0:
                    panel.set_ylabel(label.replace(" + ", "\n"))
            axes[-1, column].set_xlabel("alpha chosen")
        if image is not None:
            figure.colorbar(
                image, ax=axes, shrink=0.4, format=PercentFormatter(1.0), label="share of splits"
            )
        figure.suptitle(
            f"What splits choose on their validation part (numbers: % of splits)\n{subtitle}"
        )
    return figure
