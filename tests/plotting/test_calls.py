import numpy as np
from matplotlib.colors import to_rgb

from racer_jax.plotting import CallsLine, calls_figure


def test_the_lines_are_the_numbers_and_the_pool_is_a_line_of_its_own():
    sets = CallsLine(np.array([0.1, 0.2]), np.array([2.5, 1.0]))
    fixed = CallsLine(np.array([0.3, 0.05]), np.array([1, 4]))
    stops = CallsLine(np.array([0.0, 0.01]), np.array([3.0, 2.0]))
    left, right = calls_figure(sets, fixed, stops, 6).axes
    drawn = {line.get_label(): line.get_xydata() for line in left.lines}
    np.testing.assert_array_equal(drawn["racer_jax"], np.column_stack(sets))
    np.testing.assert_array_equal(drawn["a fixed order"], np.column_stack(fixed))
    np.testing.assert_array_equal(drawn["all models"][:, 1], [6, 6])
    np.testing.assert_array_equal(right.lines[0].get_xydata(), np.column_stack(stops))
    assert left.get_ylim()[1] > 6
    dark = calls_figure(sets, fixed, stops, 6, dark=True)
    assert max(dark.get_facecolor()[:3]) < 0.1
    assert min(to_rgb(dark.axes[0].lines[1].get_color())) > 0.3
