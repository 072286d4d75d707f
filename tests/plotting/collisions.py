"""What a reader of a figure could not read: text outside the figure, over or too near other text."""

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

# Inches between texts of one line that are read apart, and between title and what is below.
_APART, _BELOW_TITLE = 0.05, 0.08


def unreadable(figure: Figure) -> list[str]:
    """Each text that runs out of the figure, and each pair of texts that are not apart."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    edge = figure.bbox
    boxes, hidden = [], hidden_labels(figure)
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in hidden:
            boxes.append((text, text.get_window_extent(renderer)))
    problems = [
        f"{text.get_text()!r} runs out of the figure"
        for text, box in boxes
        if box.x0 < edge.x0 - 1
        or box.x1 > edge.x1 + 1
        or box.y0 < edge.y0 - 1
        or box.y1 > edge.y1 + 1
    ]
    for (one, box), (other, second) in combinations(boxes, 2):
        # Boxes of rotated text are larger than the text.
        slanted = {one.get_rotation() % 90, other.get_rotation() % 90} != {0.0}
        across = min(box.x1, second.x1) - max(box.x0, second.x0)
        down = min(box.y1, second.y1) - max(box.y0, second.y0)
        if slanted:
            continue
        if across > 1 and down > 1.5:
            problems.append(f"{one.get_text()!r} over {other.get_text()!r}")
        elif down > 1.5 and -across < _APART * figure.dpi:
            problems.append(f"{one.get_text()!r} nearly touches {other.get_text()!r}")
        elif figure._suptitle in (one, other) and -down < _BELOW_TITLE * figure.dpi:
            below = one if other is figure._suptitle else other
            problems.append(f"{below.get_text()!r} close to the title")
    return problems


def hidden_labels(figure: Figure) -> set[Text]:
    """Labels of ticks that are not drawn, since they stand outside the view."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            drawn = axis._update_ticks()  # what Matplotlib draws
            for tick in (*axis.majorTicks, *axis.minorTicks):
                if tick not in drawn:
                    hidden |= {tick.label1, tick.label2}
    return hidden
