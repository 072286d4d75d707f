import numpy as np
from matplotlib.figure import Figure

from racer_jax.plotting import risk as plotting

ALPHA = np.array([0.1, 0.2, 0.3])


def test_risk_figure_draws_the_band_the_points_and_the_law():
    curve = plotting.RiskCurve(
        ALPHA, ALPHA - 0.01, ALPHA * 0 + 0.001, ALPHA - 0.02, ALPHA, ALPHA - 0.009
    )
    figure = plotting.risk_figure(
        {"one": {"RACER-G": curve}, "two": {"RACER-G": curve, "RACER-P": curve}}, "a line"
    )
    assert isinstance(figure, Figure)
    top, bottom = figure.axes[0], figure.axes[2]
    np.testing.assert_array_equal(top.lines[0].get_ydata(), curve.mean)
    np.testing.assert_allclose(bottom.lines[0].get_ydata(), curve.mean - ALPHA)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["one", "two"]
    assert "stays inside" in figure.get_suptitle()
    failing = plotting.risk_figure({"one": {"RACER-G": curve}}, "a line", num_failures=3)
    assert failing.get_suptitle().startswith("FAIL: 3 mean test risks leave")


def test_histogram_figure_draws_the_splits_and_the_law():
    histogram = plotting.RiskHistogram(
        np.arange(4.0), np.array([0.2, 0.5, 0.3]), np.array([0.25, 0.5, 0.25]), 1.4
    )
    figure = plotting.histogram_figure({"one": {"RACER-G": histogram}}, 0.1, "a line")
    splits, law = figure.axes[0].patches[:2]
    np.testing.assert_array_equal(splits.get_data().values, histogram.share)
    np.testing.assert_array_equal(law.get_data().values, histogram.law)


def test_size_figure_draws_each_score_and_the_full_ensemble():
    curve = plotting.SizeCurve(ALPHA, np.array([3.0, 2.0, 1.0]))
    figure = plotting.size_figure({"one": {"RACER-G": curve}}, 7, "a line")
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), curve.size)
    assert figure.axes[0].lines[1].get_ydata()[0] == 7
