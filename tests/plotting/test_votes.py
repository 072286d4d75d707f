"""Figures of votes: routers share the rows of their ways, and what nobody chose is left out."""

import numpy as np

from racer_jax import plotting
from racer_jax.plotting.styles import style_of


def test_routers_share_the_row_of_a_way():
    bars = {
        "single: small": plotting.Bar(0.5, 0.0, "single"),
        "single: large": plotting.Bar(0.7, 0.0, "single"),
        "KNNR": plotting.Bar(0.71, 0.0, "router"),
        "KNNR + RACER-G": plotting.Bar(0.73, 0.0, "racer"),
        "MLPR": plotting.Bar(0.72, 0.0, "router"),
        "MLPR + RACER-G": plotting.Bar(0.74, 0.0, "racer"),
    }
    (axes,) = plotting.accuracy_figure({"arc": bars}, "").axes
    names = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    assert names == ["each single model", "router alone", "RACER-G"]
    drawn = {
        (round(float(x), 2), round(-float(y))): (line.get_color(), line.get_marker())
        for line in axes.lines
        if line.get_marker() not in ("None", "|")
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }
    knn, mlp = style_of("KNNR").color, style_of("MLPR").color
    assert drawn[0.71, 1][0] == drawn[0.73, 2][0] == knn
    assert drawn[0.72, 1][0] == drawn[0.74, 2][0] == mlp
    # A model far below the best one is an arrow at the edge, not a point.
    assert (0.5, 0) not in drawn
    assert drawn[0.62, 0][1] == "<"


def test_a_bound_far_above_all_ways_leaves_them_their_room():
    bars = {
        "single: large": plotting.Bar(0.7, 0.01, "single"),
        "KNNR": plotting.Bar(0.71, 0.01, "router"),
        "oracle: any model right": plotting.Bar(0.95, 0.01, "bound"),
    }
    figure = plotting.accuracy_figure({"arc": bars}, "")
    (axes,) = figure.axes
    assert axes.get_xlim()[1] < 0.8
    assert [text.get_text() for text in axes.texts] == ["95.0%"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "further right" in legend
    assert "further left" not in legend
    assert "bound: oracle or chance" not in legend
    bound = plotting.Bar(0.73, 0.0, "bound")
    near = plotting.accuracy_figure({"arc": {**bars, "oracle: any model right": bound}}, "")
    assert near.axes[0].texts[:] == []
    assert "bound: oracle or chance" in [text.get_text() for text in near.legends[0].get_texts()]


def test_a_heat_map_ends_with_the_last_alpha_that_was_chosen():
    share = np.zeros((4, 2))
    share[1] = 0.5
    share[3] = 0.004
    choices = plotting.Choices(["majority", "score"], share)
    figure = plotting.heatmap_figure(["0.1", "0.2", "0.3", "0.4"], {"arc": {"a": choices}}, "")
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["0.1", "0.2"]
    assert figure.axes[0].images[0].get_array().shape == (2, 2)
