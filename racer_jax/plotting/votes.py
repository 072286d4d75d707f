"""Figures of votes.

Every function takes numbers, returns a matplotlib `Figure` and computes nothing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from racer_jax.plotting import layout
from racer_jax.plotting.layout import figure_style, percent
from racer_jax.plotting.studies import router_styles, split_label
from racer_jax.plotting.styles import Style, style_of, styles_of

# Marks of the fixed numbers of models.
_FIXED = {"top-2": "<", "top-3": "^", "top-5": ">"}
# Name of each kind of way of answering.
_KINDS = {
    "single": "single model",
    "router": "router alone",
    "racer": "RACER",
    "ensemble": "fixed number of models",
    "bound": "bound: oracle or chance",
}
# Inches of a row in the picture of accuracies: room for the mark of each router.
_ROW = 0.35
# How far that picture reaches below the best single model, and above all ways but bounds.
_REACH, _REACH_ABOVE = 0.08, 0.02


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


def accuracy_figure(
    panels: Mapping[str, Mapping[str, Bar]], subtitle: str, *, width: float | None = None
) -> Figure:
    """Accuracy of every way of answering, with its standard deviation over splits.

    A row for each way, a colour for each router, so that the rows fit a page. A way is named as
    `KNNR` (kind `router`), `KNNR + RACER-G`, `KNNR: top-3, majority` or without a router.

    Use this when you compare ways of answering by accuracy alone; `tradeoff_figure` sets it
    against the calls saved.

    Args:
      panels: Benchmark -> way -> bar.
      subtitle: What was run, in a line.
      width: Inches of the figure; by default as wide as the panels side by side.

    Returns:
      One panel for each benchmark, ways from top to bottom.
    """
    cells = {way: _way_of(way, bars) for bars in panels.values() for way in bars}
    rows = list(dict.fromkeys(row for row, _ in cells.values()))
    routers = list(dict.fromkeys(router for _, router in cells.values() if router))
    with figure_style(width):
        grid = layout.panels(
            len(panels),
            (_ROW * len(rows),),
            width=width,
            panel_width=2.6,
            least_panel=2.6,
            least_row=math.inf,
            share_y=True,
        )
        size = 0.95 * mpl.rcParams["font.size"]
        for number, (name, bars) in enumerate(panels.items()):
            panel = grid.axes[0, number]
            _draw_bars(panel, bars, cells, rows, routers)
            grid.title(number, name)
            panel.tick_params(axis="y", labelsize=size)
        names = [layout.wrapped(row, 0.6 * grid.width, size) for row in rows]
        for number in grid.left:
            axis = grid.axes[0, number]
            axis.set_yticks(-np.arange(len(rows)), names, linespacing=1.0)
        grid.label_below(0, "test accuracy")
        title = "Accuracy of every way of answering"
        return grid.finish(f"{title}\n{subtitle}", legend=_accuracy_legend(panels, routers))


def _accuracy_legend(
    panels: Mapping[str, Mapping[str, Bar]], routers: Sequence[str]
) -> dict[str, Artist]:
    """A mark for each router and kind, and what lines and arrows mean."""
    places = [(bar, *_shown(bars)) for bars in panels.values() for bar in bars.values()]
    kinds = dict.fromkeys(bar.kind for bar, low, high in places if low <= bar.mean <= high)
    entries = {router: style.points(ms=6) for router, style in styles_of(routers).items()}
    for kind in kinds:
        if kind not in ("router", "racer"):
            entries[_KINDS[kind]] = style_of(kind).points(ms=6)
    gray = {"color": "0.4", "marker": ""}
    entries["standard deviation over splits"] = {**gray, "lw": 1.4}
    entries["best single model"] = {**gray, "ls": ":", "lw": 1.2}
    if any(bar.mean < lowest for bar, lowest, _ in places):
        entries["further left"] = {**gray, "marker": "<", "ls": "", "ms": 6}
    if any(bar.mean > highest for bar, _, highest in places):
        entries["further right"] = {**gray, "marker": ">", "ls": "", "ms": 6}
    return {label: Line2D([], [], **look) for label, look in entries.items()}


def _shown(bars: Mapping[str, Bar]) -> tuple[float, float]:
    """The accuracies beyond which a panel shows an arrow only, so that the ways are seen apart."""
    best = max(bar.mean for bar in bars.values() if bar.kind == "single")
    ways = [bar.mean + bar.std for bar in bars.values() if bar.kind != "bound"]
    return best - _REACH, max(ways) + _REACH_ABOVE


def _way_of(way: str, bars: Mapping[str, Bar]) -> tuple[str, str]:
    """The row of a way, and its router; an empty router where it has none."""
    if bars[way].kind == "router":
        return _KINDS["router"], way
    if way.startswith("single: "):
        return "each single model", ""
    for sign in (" + ", ": "):
        router, separator, rest = way.partition(sign)
        if separator and router in bars and bars[router].kind == "router":
            return rest, router
    return way, ""


def _draw_bars(
    panel: Axes,
    bars: Mapping[str, Bar],
    cells: Mapping[str, tuple[str, str]],
    rows: Sequence[str],
    routers: Sequence[str],
) -> None:
    """A point and its spread for each way, routers of a row below each other."""
    lowest, highest = _shown(bars)
    styles = styles_of(routers)
    shifts = dict(zip(routers, np.linspace(0.31, -0.31, len(routers)), strict=True))
    if len(routers) < 2:
        shifts = dict.fromkeys(routers, 0.0)
    for way, bar in sorted(bars.items(), key=lambda item: item[1].mean < lowest):
        row, router = cells[way]
        style = styles[router] if router else style_of(bar.kind)
        y = -rows.index(row) + shifts.get(router, 0.0)
        if not lowest <= bar.mean <= highest:
            # Where a panel ends, an arrow says that the point lies further left or right.
            mark, edge = ("<", lowest) if bar.mean < lowest else (">", highest)
            panel.plot(edge, y, marker=mark, ms=4.5, color=style.color, ls="")
            if mark == ">":
                box = {"fc": ("0.95", "w")[rows.index(row) % 2], "ec": "none", "pad": 1}
                inside = {"ha": "right", "va": "center", "fontsize": "small", "bbox": box}
                panel.text(highest - 0.005, y, f"{bar.mean:.1%}", None, **inside)
            continue
        spread = [bar.mean - bar.std, bar.mean + bar.std]
        panel.plot(spread, [y, y], color=style.color, lw=1, alpha=0.45, zorder=2)
        panel.plot(bar.mean, y, **style.points(ms=4.2, zorder=3))
    for band in range(0, len(rows), 2):  # along which the eye stays in its row
        panel.axhspan(-band - 0.5, -band + 0.5, color="0.95", lw=0, zorder=0)
    panel.grid(visible=False, axis="y")
    panel.axvline(lowest + _REACH, color="0.4", ls=":", lw=1.2)
    panel.set_xlim(left=lowest - 0.01)
    if any(bar.mean > highest for bar in bars.values()):
        panel.set_xlim(right=highest + 0.01)
    panel.set_ylim(-len(rows) + 0.4, 0.6)
    panel.xaxis.set_major_locator(MaxNLocator(3, integer=False))
    percent(panel, "x", 0)


def tradeoff_figure(
    trades: Mapping[str, Mapping[str, Trade]],
    curves: Mapping[str, Mapping[str, Sequence[Trade]]],
    accuracies: Mapping[str, Mapping[str, tuple[float, float]]],
    subtitle: str,
    *,
    width: float | None = None,
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
      width: Inches of the figure; by default as wide as the panels side by side.

    Returns:
      Two rows, a column for each benchmark.
    """
    with figure_style(width):
        grid = layout.panels(len(trades), (3.2, 2.6), width=width, least_row=1.7)
        for number, name in enumerate(trades):
            top, bottom = grid.axes[:, number]
            styles = _trade_styles(trades[name])
            for label, points in curves[name].items():
                savings, gain = [p.saving for p in points], [p.gain for p in points]
                top.plot(savings, gain, **styles[label].line(lw=0.9, alpha=0.6))
            for label, trade in trades[name].items():
                style, size = styles[label], 6 if split_label(label)[1] else 5
                hollow = {"mfc": "none"} if ": " in label else {}
                top.errorbar(
                    trade.saving, trade.gain, yerr=trade.error, lw=0.8, label=label, ms=size,
                    fmt=style.mark, color=style.color, **hollow,
                )  # fmt: skip
            top.axhline(0, color="0.4", lw=0.8)
            grid.title(number, name)
            gains = [p.gain for p in trades[name].values()]
            top.set_ylim(min(gains) - 0.02, max(gains) + 0.02)
            percent(top, "x")
            _draw_pairs(bottom, accuracies[name])
            for panel in (top, bottom):
                panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
                percent(panel, "y", 0)
        grid.label_below(0, "model calls saved")
        grid.label_left(0, "gain over all models")
        grid.label_left(1, "test accuracy")
        note = (
            "lines: fixed alphas; filled marks: chosen on validation; bars: standard error over "
            "questions"
        )
        title = f"What fewer calls cost or bring ({note})"
        return grid.finish(f"{title}\n{subtitle}", legend=_trade_legend(trades, grid.axes[1, 0]))


def _trade_styles(trades: Mapping[str, Trade]) -> dict[str, Style]:
    """How each way of a panel is drawn.

    A router keeps its colour; a fixed number of models, its mark.
    """
    styles = router_styles([label for label in trades if " + " in label])
    colors = {split_label(label)[0]: style.color for label, style in styles.items()}
    for label in trades:
        router, _, rest = label.partition(": ")
        if label not in styles:
            styles[label] = style_of("best single" if "single" in label else "static")
        if rest and router in colors:
            mark = _FIXED.get(rest.partition(",")[0], "x")
            styles[label] = Style(colors[router], mark, "")
    return styles


def _trade_legend(trades: Mapping[str, Mapping[str, Trade]], bars: Axes) -> dict[str, Artist]:
    """A colour for each router, a mark for each way: an entry for every pair would fill a page."""
    entries: dict[str, Artist] = {}
    ways: dict[str, Artist] = {}
    for label, style in (item for by in trades.values() for item in _trade_styles(by).items()):
        router, score = split_label(label)
        prefix, _, rest = label.partition(": ")
        points = style.points(ms=5)
        if score or rest:
            entries[router if score else prefix] = Patch(color=style.color)
            shape = {**points, "color": "0.2"} | ({} if score else {"mfc": "none"})
            ways[score or rest] = Line2D([], [], **shape)
        else:
            ways[label] = Line2D([], [], **points)
    return entries | ways | layout.entries_of([bars])


def _draw_pairs(panel: Axes, accuracies: Mapping[str, tuple[float, float]]) -> None:
    """Bars of RACER and of the full ensemble, side by side."""
    place, pairs = np.arange(len(accuracies)), np.array(list(accuracies.values()))
    bars = (("RACER", "RACER"), ("all models", "all models, tuned vote"))
    for shift, column, (name, label) in zip((-0.2, 0.2), pairs.T, bars, strict=True):
        panel.bar(place + shift, column, 0.4, color=style_of(name).color, label=label)
    panel.set_xticks(place, list(accuracies), rotation=40, ha="right", rotation_mode="anchor")
    panel.set_ylim(pairs.min() - 0.02, pairs.max() + 0.01)
    panel.grid(axis="x", visible=False)


def coverage_figure(
    panels: Mapping[str, Mapping[str, CoverageLine]],
    singles: Mapping[str, float],
    subtitle: str,
    *,
    width: float | None = None,
) -> Figure:
    """Coverage against calls where answers are not known.

    Coverage is the accuracy of a perfect judge of the answers of the called models.

    Use this when a benchmark has no answers to vote on; with answers `accuracy_figure` and
    `tradeoff_figure` show what the votes reach.

    Args:
      panels: Benchmark -> label -> line.
      singles: Benchmark -> accuracy of the best single model.
      subtitle: What was run, in a line.
      width: Inches of the figure; by default as wide as the panels side by side.

    Returns:
      A panel for each benchmark.
    """
    with figure_style(width):
        grid = layout.panels(len(panels), (3.0,), width=width)
        for panel, (name, lines) in zip(grid.axes[0], panels.items(), strict=True):
            styles = router_styles([label for label in lines if " + " in label])
            for label, line in lines.items():
                style = styles.get(label, style_of("static"))
                panel.plot(line.size, line.covered, **style.line(lw=1.3, label=label))
            best = style_of("best single").points(ms=9, label="best single model")
            panel.plot(1, singles[name], **best)
            panel.set_xlim(left=0)
            percent(panel, "y")
        for number, name in enumerate(panels):
            grid.title(number, name)
        grid.label_below(0, "models called per query")
        grid.label_left(0, "a called model is right")
        title = "Coverage of sets: what a perfect judge of the answers would reach"
        return grid.finish(f"{title}\n{subtitle}", *grid.axes[0])


def _num_chosen(panels: Mapping[str, Mapping[str, Choices]]) -> int:
    """How many alphas a heat map needs: up to the last that a cell chose in 1% of the splits."""
    shares = [choices.share for by_label in panels.values() for choices in by_label.values()]
    chosen = np.flatnonzero(np.max([share.max(axis=1) for share in shares], axis=0) >= 0.005)
    return int(chosen[-1]) + 1 if chosen.size else len(shares[0])


def heatmap_figure(
    alphas: Sequence[str],
    panels: Mapping[str, Mapping[str, Choices]],
    subtitle: str,
    *,
    width: float | None = None,
) -> Figure:
    """How often each alpha and vote was chosen on validation.

    Alphas at the end of the list that no cell chose in 1% of the splits are left out.

    Use this when alpha and vote are chosen on validation and you want to see how much the choice
    varies between splits.

    Args:
      alphas: Risk levels `[a]`.
      panels: Benchmark -> label -> choices.
      subtitle: What was run, in a line.
      width: Inches of the figure; by default as wide as the panels side by side.

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
    alphas = alphas[: _num_chosen(panels)]
    with figure_style(width, **{"axes.grid": False}):
        size = mpl.rcParams["font.size"]
        heights = [0.27 * num_votes + 0.4] * len(labels)
        grid = layout.panels(len(panels), heights, width=width, share_x=True, least_row=math.inf)
        image = None
        for number, (name, by_label) in enumerate(panels.items()):
            grid.title(number, name)
            for row, label in enumerate(labels):
                panel, (weightings, share) = grid.axes[row, number], by_label[label]
                share = share[: len(alphas)]
                image = panel.imshow(share.T, aspect="auto", cmap="Blues", vmin=0, vmax=most)
                panel.set_xticks(range(len(alphas)), alphas, rotation=90)
                panel.set_yticks(range(len(weightings)), weightings)
                panel.tick_params(labelsize=0.95 * size, labelleft=number in grid.left)
                for i, j in np.argwhere(share >= 0.01):
                    color = "k" if share[i, j] < 0.65 * most else "w"
                    text = f"{100 * share[i, j]:.0f}"
                    panel.text(i, j, text, ha="center", va="center", fontsize=size, color=color)
        for row, label in enumerate(labels):
            grid.label_left(row, label.replace(" + ", "\n"))
        grid.label_below(len(labels) - 1, "alpha chosen")
        if image is not None:
            height = grid.figure.get_figheight()
            grid.figure.colorbar(
                image,
                ax=grid.axes.ravel().tolist(),
                shrink=0.5,
                fraction=0.12 / height,
                pad=0.1 / height,
                aspect=30,
                location="bottom",
                format=layout.ShortPercent(),
                label="share of splits",
            )
        title = "What splits choose on their validation part (numbers: % of splits)"
        return grid.finish(f"{title}\n{subtitle}")
