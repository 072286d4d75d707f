"""Figures of the studies: every function takes numbers, returns a matplotlib `Figure` and computes nothing."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from racer_jax.plotting import _COLORS, _STYLE, _grid, _percent

# A router keeps its colour, a score its line: RACER-G solid, RACER-P dashed.
_LINES = {"RACER-G": "-", "RACER-P": "--"}
_MARKS = {"RACER-G": "o", "RACER-P": "s"}
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


class RiskLine(NamedTuple):
    """Mean test risk of one router and score on one benchmark, float `[a]` each.

    Attributes:
      mean: Mean over splits.
      error: Its standard error.
      law: Exact expectation.
    """

    mean: np.ndarray
    error: np.ndarray
    law: np.ndarray


class Spread(NamedTuple):
    """One metric over splits, and what the exact law gives the same bins.

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

    Attributes:
      size: Mean number of models called.
      avoidable_miss: Share of queries that some model could answer while none that can was called.
    """

    size: np.ndarray
    avoidable_miss: np.ndarray


class CoverageLine(NamedTuple):
    """Coverage of sets by their size, float `[a]` each.

    Attributes:
      size: Mean number of models called.
      covered: Share of queries that a called model answers rightly.
    """

    size: np.ndarray
    covered: np.ndarray


class Choices(NamedTuple):
    """What splits chose on validation.

    Attributes:
      weightings: Names of the votes `[w]`.
      share: Share of the splits by alpha and vote `[a, w]`.
    """

    weightings: Sequence[str]
    share: np.ndarray


class Bar(NamedTuple):
    """Accuracy of one way of answering.

    Attributes:
      mean: Mean over splits.
      std: Standard deviation over splits.
      kind: What it is, for its colour: `single`, `router`, `racer`, `ensemble`, `bound`.
    """

    mean: float
    std: float
    kind: str


class Trade(NamedTuple):
    """One way of answering against the full ensemble.

    Attributes:
      saved: Share of model calls saved.
      gain: Accuracy gained over the full ensemble, tuned the same way.
      error: Standard error of the gain over questions.
    """

    saved: float
    gain: float
    error: float


def _legend(figure: Figure, *panels: Axes, columns: int = 8) -> None:
    """One entry for each label of the panels, below them all."""
    entries: dict[str, Artist] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    ncols = min(len(entries), columns)
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=ncols, fontsize=8)


def split_label(label: str) -> tuple[str, str]:
    """Router and score of a label such as `KNNR + RACER-G`."""
    router, _, score = label.partition(" + ")
    return router, score


def _router_colors(labels: Sequence[str]) -> dict[str, str]:
    routers = list(dict.fromkeys(split_label(label)[0] for label in labels))
    return dict(zip(routers, _COLORS, strict=False))


def risk_law_figure(alpha: np.ndarray, panels: Mapping[str, Mapping[str, RiskLine]], subtitle: str) -> Figure:
    """Distance of the mean test risk from its law, in standard errors, for every router and score.

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
            colors = _router_colors(list(lines))
            for i, (label, line) in enumerate(lines.items()):
                router, score = split_label(label)
                top.plot(alpha, line.mean, _MARKS[score], color=colors[router], ms=4, mfc="none")
                place = np.arange(len(alpha)) + (i - (len(lines) - 1) / 2) * 0.12
                with np.errstate(divide="ignore", invalid="ignore"):
                    z = np.where(line.mean == line.law, 0.0, (line.mean - line.law) / line.error)
                bottom.plot(place, z, _MARKS[score], color=colors[router], ms=4, label=label)
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
        _legend(figure, axes[1, 0])
    return figure


def spread_figure(
    alpha: float, panels: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Spread]]]], subtitle: str
) -> Figure:
    """Test risk and set size over splits at one alpha, with the exact law drawn over them.

    Args:
      alpha: The risk level.
      panels: Benchmark -> router -> metric (`risk`, `size`) -> score -> spread.
      subtitle: What was run, in a line.

    Returns:
      A row for each router and metric, a column for each benchmark.
    """
    routers = list(next(iter(panels.values())))
    scores = list(next(iter(next(iter(panels.values())).values()))["risk"])
    colors = dict(zip(scores, ("#009E73", "#E69F00"), strict=False))  # the paper's: G green, P orange
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(2 * len(routers), len(panels), 3.4 * len(routers) + 1.2)
        for column, (name, by_router) in enumerate(panels.items()):
            axes[0, column].set_title(name)
            for row, router in enumerate(routers):
                for offset, metric in enumerate(("risk", "size")):
                    panel = axes[2 * row + offset, column]
                    for score, spread in by_router[router][metric].items():
                        width = np.diff(spread.edges)  # densities: the bins of two scores differ in width
                        style = {"color": colors[score], "alpha": 0.5}
                        panel.stairs(spread.share / width, spread.edges, fill=True, label=score, **style)
                        panel.stairs(spread.law / width, spread.edges, color="k", lw=0.9, label="exact law")
                    panel.set_xlabel("test risk of a split" if metric == "risk" else "models called per query")
                    panel.set_yticks([])
                    if metric == "risk":
                        panel.axvline(alpha, color="#B00020", ls="--", lw=1, label=f"alpha = {alpha:g}")
                        _percent(panel, "x")
                    if column == 0:
                        panel.set_ylabel(f"{router}\n{metric}")
        figure.suptitle(f"Single splits at alpha = {alpha:g}: risk is the same law for all, size is not\n{subtitle}")
        _legend(figure, axes[0, 0])
    return figure


def sizes_figure(
    alpha: np.ndarray,
    panels: Mapping[str, Mapping[str, SizeLine]],
    baselines: Mapping[str, Mapping[str, SizeLine]],
    num_models: int,
    subtitle: str,
) -> Figure:
    """Set size, and avoidable-miss rate, against alpha.

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
            colors = _router_colors(list(lines))
            for row, field in enumerate(SizeLine._fields):
                panel = axes[row, column]
                for label, line in lines.items():
                    router, score = split_label(label)
                    panel.plot(alpha, getattr(line, field), _LINES[score], color=colors[router], lw=1.4, label=label)
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
        _legend(figure, axes[0, 0])
    return figure


def accuracy_figure(panels: Mapping[str, Mapping[str, Bar]], subtitle: str) -> Figure:
    """Accuracy of every way of answering, with its standard deviation over splits.

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
            for kind, (color, label) in _KINDS.items():
                rows = [(y, bar) for y, bar in zip(place, bars.values(), strict=True) if bar.kind == kind]
                if rows:
                    mean, std = [bar.mean for _, bar in rows], [bar.std for _, bar in rows]
                    panel.errorbar(mean, [y for y, _ in rows], xerr=std, fmt="o", ms=4, color=color, lw=1, label=label)
            panel.axvline(max(bar.mean for bar in bars.values() if bar.kind == "single"), color="0.6", ls=":", lw=1)
            panel.set_yticks(place, list(bars), fontsize=7)
            panel.set_ylim(-len(bars) + 0.4, 0.6)
            panel.set_title(name.replace(", ", "\n"))
            panel.set_xlabel("test accuracy ± sd over splits")
            _percent(panel, "x")
        figure.suptitle(f"Accuracy of every way of answering (dotted: the best single model)\n{subtitle}")
        _legend(figure, axes[0, 0])
    return figure


def tradeoff_figure(
    trades: Mapping[str, Mapping[str, Trade]],
    curves: Mapping[str, Mapping[str, Sequence[Trade]]],
    accuracies: Mapping[str, Mapping[str, tuple[float, float]]],
    subtitle: str,
) -> Figure:
    """Accuracy gained over the full ensemble against calls saved, and the accuracies beside each other.

    Args:
      trades: Benchmark -> way -> where it lies.
      curves: Benchmark -> label -> the same score at each fixed alpha.
      accuracies: Benchmark -> label -> accuracy of RACER and of the full ensemble, tuned the same way.
      subtitle: What was run, in a line.

    Returns:
      Two rows, a column for each benchmark.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(2, len(trades), 7.4)
        for column, name in enumerate(trades):
            top, bottom = axes[:, column]
            colors = _router_colors([label for label in trades[name] if " + " in label])
            for label, points in curves[name].items():
                router, score = split_label(label)
                saved, gain = [p.saved for p in points], [p.gain for p in points]
                top.plot(saved, gain, _LINES[score], color=colors[router], lw=0.9, alpha=0.6)
            for label, trade in trades[name].items():
                router, score = split_label(label)
                own, _, rest = label.partition(": ")
                if score:
                    style = {"fmt": _MARKS[score], "color": colors[router], "ms": 7}
                elif rest:
                    style = {
                        "fmt": _FIXED.get(rest.partition(",")[0], "x"),
                        "color": colors[own],
                        "ms": 5,
                        "mfc": "none",
                    }
                else:
                    style = {"fmt": "*" if "single" in label else "D", "color": "k", "ms": 7}
                top.errorbar(trade.saved, trade.gain, yerr=trade.error, lw=0.8, label=label, **style)
            top.axhline(0, color="0.4", lw=0.8)
            top.set_title(name.replace(", ", "\n"))
            top.set_xlabel("model calls saved")
            shown = [p.gain for p in trades[name].values()]
            top.set_ylim(min(shown) - 0.02, max(shown) + 0.02)
            _percent(top)
            place = np.arange(len(accuracies[name]))
            pairs = np.array(list(accuracies[name].values()))
            bottom.bar(place - 0.2, pairs[:, 0], 0.4, color=_COLORS[0], label="RACER")
            bottom.bar(place + 0.2, pairs[:, 1], 0.4, color="0.7", label="all models, tuned vote")
            bottom.set_xticks(place, list(accuracies[name]), rotation=30, ha="right", fontsize=7)
            low, high = pairs.min(), pairs.max()
            bottom.set_ylim(low - 0.02, high + 0.01)
            _percent(bottom, "y")
        axes[0, 0].set_ylabel("accuracy over all models, tuned")
        axes[1, 0].set_ylabel("test accuracy")
        _legend(figure, axes[0, 0], axes[1, 0], columns=4)
        note = "lines: fixed alphas; filled marks: chosen on validation; bars: standard error over questions"
        figure.suptitle(f"What fewer calls cost or bring ({note})\n{subtitle}")
    return figure


def coverage_figure(
    panels: Mapping[str, Mapping[str, CoverageLine]], singles: Mapping[str, float], subtitle: str
) -> Figure:
    """Coverage against calls where answers are not known: what a perfect judge of the called models would reach.

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
            colors = _router_colors([label for label in lines if " + " in label])
            for label, line in lines.items():
                router, score = split_label(label)
                style = {"color": colors[router], "ls": _LINES[score]} if score else {"color": "k", "ls": "-."}
                panel.plot(line.size, line.covered, lw=1.3, label=label, **style)
            panel.plot(1, singles[name], "*", color=_GREY, ms=9, label="best single model")
            panel.set_title(name)
            panel.set_xlabel("models called per query")
            panel.set_xlim(left=0)
            _percent(panel, "y")
        axes[0, 0].set_ylabel("a called model is right")
        figure.suptitle(f"Coverage of sets: what a perfect judge of the answers would reach\n{subtitle}")
        _legend(figure, axes[0, 0])
    return figure


def heatmap_figure(alphas: Sequence[str], panels: Mapping[str, Mapping[str, Choices]], subtitle: str) -> Figure:
    """How often each alpha and vote was chosen on validation.

    Args:
      alphas: Risk levels `[a]`.
      panels: Benchmark -> label -> choices.
      subtitle: What was run, in a line.

    Returns:
      A row for each router and score, a column for each benchmark.
    """
    labels = list(next(iter(panels.values())))
    num_votes = max(len(choices.weightings) for by_label in panels.values() for choices in by_label.values())
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        figure, axes = _grid(len(labels), len(panels), (0.26 * num_votes + 0.4) * len(labels) + 1.6)
        image = None
        for column, (name, by_label) in enumerate(panels.items()):
            axes[0, column].set_title(name.replace(", ", "\n"))
            for row, label in enumerate(labels):
                panel, (weightings, share) = axes[row, column], by_label[label]
                image = panel.imshow(share.T, aspect="auto", cmap="viridis", vmin=0, vmax=1)
                panel.set_xticks(range(len(alphas)), alphas if row == len(labels) - 1 else [""] * len(alphas))
                panel.set_yticks(range(len(weightings)), weightings if column == 0 else [""] * len(weightings))
                panel.tick_params(labelsize=7)
                for i, j in np.argwhere(share >= 0.01):
                    color = "w" if share[i, j] < 0.6 else "k"
                    panel.text(i, j, f"{100 * share[i, j]:.0f}", ha="center", va="center", fontsize=6, color=color)
                if column == 0:
                    panel.set_ylabel(label.replace(" + ", "\n"))
            axes[-1, column].set_xlabel("alpha chosen")
        if image is not None:
            figure.colorbar(image, ax=axes, shrink=0.4, format=PercentFormatter(1.0), label="share of splits")
        figure.suptitle(f"What splits choose on their validation part (numbers: % of splits)\n{subtitle}")
    return figure
