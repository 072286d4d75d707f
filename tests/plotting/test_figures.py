"""Every figure at the width of a column, of a page, and side by side: nothing collides."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from racer_jax import plotting
from racer_jax.montecarlo.bound_check import RiskHistogram
from racer_jax.plotting.layout import ShortPercent
from racer_jax.plotting.promises import PromiseCosts, promises_figure
from racer_jax.reporting.drawing import WIDTHS
from tests.plotting.collisions import unreadable

ALPHA = np.linspace(0.01, 0.99, 12)
FEW = np.array([0.05, 0.1, 0.15, 0.2, 0.3, 0.4])
BENCHMARKS = ("gsm8k", "mmlu", "cmmlu", "arc_challenge, 11 models")
ROUTERS = ("KNNR", "MLPR", "RouterDC", "Prior")
LABELS = [f"{router} + {score}" for router in ROUTERS for score in ("RACER-G", "RACER-P")]
SUBTITLE = "5 x 10,000 random splits, encoder 'hashed', null mode 'paper'"
VOTES = ("majority", "accuracy", "log-odds", "scores", "sharp scores")


def bars():
    kinds = {
        "single: claude-instant-v1-with-a-long-name": "single",
        "best single model on validation": "single",
        "all models: oracle": "bound",
    }
    for router in ROUTERS:
        kinds |= {
            router: "router",
            f"{router}: top-3, majority": "ensemble",
            f"{router}: all models, pooled vote": "ensemble",
            f"{router} + RACER-G, best on validation, pooled vote": "racer",
            f"{router} + RACER-P": "racer",
        }
    rng = np.random.default_rng(0)
    return {way: plotting.Bar(0.9 - 0.3 * rng.random(), 0.02, kind) for way, kind in kinds.items()}


def trades():
    points = {label: plotting.Trade(0.1 * i, 0.002 * i, 0.004) for i, label in enumerate(LABELS)}
    points |= {f"{router}: top-3, majority": plotting.Trade(0.7, -0.01, 0.01) for router in ROUTERS}
    return points | {"best single model": plotting.Trade(0.9, 0.01, 0.005)}


def law_lines():
    line = plotting.RiskLine(FEW, np.full(6, 0.001), FEW - 0.002)
    return dict.fromkeys(LABELS, line)


def spreads():
    spread = plotting.Spread(np.linspace(0, 1, 6), np.full(5, 0.2), np.full(5, 0.2), 0.5)
    metrics = {name: {"RACER-G": spread, "RACER-P": spread} for name in ("risk", "size")}
    return dict.fromkeys(ROUTERS[:3], metrics)


def by_benchmark(value):
    return dict.fromkeys(BENCHMARKS, value)


def figures(width):
    """Name -> figure of that width, from invented numbers."""
    below = ALPHA - 0.0007  # ticks of -0.05% are the widest
    curve = plotting.RiskCurve(ALPHA, below, 0.0001 + 0 * ALPHA, ALPHA - 0.001, ALPHA, below)
    histogram = RiskHistogram(np.linspace(0.05, 0.15, 6), np.full(5, 0.2), np.full(5, 0.2), 0.1)
    scores = ("RACER-G", "RACER-P", "RACER-J", "static", "an own score")
    size = plotting.SizeLine(7 * (1 - FEW), FEW / 2)
    costs = PromiseCosts(
        {"on average": 2.0, "surely, delta = 0.2": 3.0, "all alphas, delta = 0.1": 6.0},
        {"pooled": 0.13, "by group": 0.1},
        [0.2, 0.1, 0.05, 0.01],
    )
    covered = plotting.CoverageLine(np.arange(1.0, 7.0), np.linspace(0.6, 0.99, 6))
    choices = plotting.Choices(VOTES, np.full((len(FEW), len(VOTES)), 0.03))
    calls = plotting.CallsLine(FEW, 7 * (1 - FEW))
    pairs = {label: (0.9, 0.91) for label in LABELS}
    return {
        "risk": plotting.risk_figure(
            by_benchmark(dict.fromkeys(scores, curve)), SUBTITLE, width=width
        ),
        "failed risk": plotting.risk_figure(
            by_benchmark({"RACER-G": curve}), SUBTITLE, 789, width=width
        ),
        "histogram": plotting.histogram_figure(
            by_benchmark(dict.fromkeys(scores[:2], histogram)), 0.1, SUBTITLE, width=width
        ),
        "size": plotting.size_figure(
            by_benchmark({score: plotting.SizeCurve(ALPHA, 7 * (1 - ALPHA)) for score in scores}),
            7,
            SUBTITLE,
            width=width,
        ),
        "law": plotting.risk_law_figure(FEW, by_benchmark(law_lines()), SUBTITLE, width=width),
        "spread": plotting.spread_figure(0.1, by_benchmark(spreads()), SUBTITLE, width=width),
        "sizes": plotting.sizes_figure(
            FEW,
            by_benchmark(dict.fromkeys(LABELS, size)),
            by_benchmark({"static order": size, "oracle": size}),
            7,
            SUBTITLE,
            width=width,
        ),
        "accuracy": plotting.accuracy_figure(
            dict.fromkeys(BENCHMARKS[2:], bars()), SUBTITLE, width=width
        ),
        "tradeoff": plotting.tradeoff_figure(
            dict.fromkeys(BENCHMARKS[2:], trades()),
            {name: {LABELS[0]: [plotting.Trade(0.1, 0.0, 0.1)] * 3} for name in BENCHMARKS[2:]},
            dict.fromkeys(BENCHMARKS[2:], pairs),
            SUBTITLE,
            width=width,
        ),
        "coverage": plotting.coverage_figure(
            by_benchmark({**dict.fromkeys(LABELS, covered), "static order": covered}),
            dict.fromkeys(BENCHMARKS, 0.7),
            SUBTITLE,
            width=width,
        ),
        "heatmap": plotting.heatmap_figure(
            [f"{alpha:g}" for alpha in FEW],
            dict.fromkeys(BENCHMARKS[2:], dict.fromkeys(LABELS[:4], choices)),
            SUBTITLE,
            width=width,
        ),
        "calls": plotting.calls_figure(calls, calls, calls, 7, width=width),
        "promises": promises_figure(by_benchmark(costs), 0.1, SUBTITLE, width=width),
    }


@pytest.mark.long
@pytest.mark.parametrize("width", [None, *WIDTHS.values(), 5.0])
def test_nothing_collides_or_runs_out_of_the_figure(width):
    drawn = figures(width)
    problems = {name: unreadable(figure) for name, figure in drawn.items()}
    assert {name: found for name, found in problems.items() if found} == {}
    if width is not None:
        assert all(figure.get_figwidth() == width for figure in drawn.values())


@pytest.mark.long
def test_lines_and_bands_that_are_no_data_are_in_the_legend():
    drawn = figures(WIDTHS["page"])
    for name, words in (
        ("law", ("exact law", "within 3 s.e. of the law")),
        ("sizes", ("all models", "oracle")),
        ("size", ("all models", "one model")),
        ("risk", ("paper's bounds", "exact law")),
        ("calls", ("all models",)),
    ):
        legend = {text.get_text() for text in drawn[name].legends[0].get_texts()}
        assert set(words) <= legend, name


def test_the_check_sees_text_over_text_and_text_outside():
    figure = Figure(figsize=(2, 2))
    figure.text(0.5, 0.5, "one text")
    figure.text(0.52, 0.5, "another")
    figure.text(0.9, 0.1, "runs out of it")
    near = figure.text(0.1, 0.8, "left")
    end = near.get_window_extent(FigureCanvasAgg(figure).get_renderer()).x1 / figure.bbox.width
    figure.text(end + 0.01, 0.8, "right")
    figure.suptitle("a title", y=0.9)
    problems = unreadable(figure)
    assert "'one text' over 'another'" in problems
    assert "'runs out of it' runs out of the figure" in problems
    assert "'left' nearly touches 'right'" in problems
    figure.suptitle("a title", y=0.9, va="bottom")
    figure.text(0.5, 0.89, "a panel", ha="center", va="top")
    assert "'a panel' close to the title" in unreadable(figure)


def test_percentages_have_the_decimals_that_their_ticks_need():
    labels = {ticks: ShortPercent().format_ticks(ticks) for ticks in ((0.1, 0.15), (0.1, 0.125))}
    assert labels == {(0.1, 0.15): ["10%", "15%"], (0.1, 0.125): ["10.0%", "12.5%"]}
    assert ShortPercent().format_ticks([-1e-17, 5e-4]) == ["0.00%", "0.05%"]


def test_numbers_in_a_heat_map_are_as_large_as_other_type():
    choices = plotting.Choices(VOTES, np.full((len(FEW), len(VOTES)), 0.03))
    cells = {name: {"KNNR + RACER-G": choices} for name in BENCHMARKS[:2]}
    for width, least in ((WIDTHS["page"], 10), (WIDTHS["column"], 7)):
        figure = plotting.heatmap_figure([f"{a:g}" for a in FEW], cells, "", width=width)
        assert min(text.get_fontsize() for axes in figure.axes[:2] for text in axes.texts) >= least


def test_one_figure_at_the_width_of_a_column():
    curve = plotting.SizeCurve(FEW, 7 * (1 - FEW))
    panels = {name: {"RACER-G": curve, "RACER-P": curve} for name in BENCHMARKS[1:]}
    figure = plotting.size_figure(panels, 7, SUBTITLE, width=WIDTHS["column"])
    assert unreadable(figure) == []
    assert figure.get_figwidth() == 3.3
    lefts = {round(panel.get_position().x0, 2) for panel in figure.axes}
    assert len(lefts) == 1  # one below the other
