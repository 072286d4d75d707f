"""One table: which colour, mark and line each thing has, the same in every figure."""

from collections.abc import Iterable
from typing import Any, NamedTuple


class Style(NamedTuple):
    """How a thing is drawn wherever it appears.

    Use this when a figure of yours shows what other figures show too.

    Attributes:
      color: Its colour.
      mark: Matplotlib's marker of its points.
      dash: Matplotlib's style of its lines.
    """

    color: str
    mark: str
    dash: Any

    def line(self, **options: Any) -> dict[str, Any]:
        """Keywords of `Axes.plot` for a line without marks. Use this when you draw a curve."""
        return {"color": self.color, "ls": self.dash, **options}

    def marked(self, **options: Any) -> dict[str, Any]:
        """Keywords of `Axes.plot` for a line with marks. Use this when a line has few points."""
        return self.line(marker=self.mark, **options)

    def points(self, **options: Any) -> dict[str, Any]:
        """Keywords of `Axes.plot` for marks alone. Use this when points are not joined."""
        return {"color": self.color, "marker": self.mark, "ls": "", **options}


# Colours after Okabe and Ito, and Tol, which most colour-blind readers tell apart.
_TABLE: dict[str, Style] = {
    # Nonconformity scores and orders.
    "RACER-G": Style("#0072B2", "o", "-"),
    "RACER-P": Style("#D55E00", "s", "--"),
    "RACER-J": Style("#009E73", "D", "-."),
    "J learned": Style("#56B4E9", "v", (0, (4, 1, 1, 1, 1, 1))),
    "J tilt": Style("#E69F00", "^", (0, (5, 2))),
    "J factor": Style("#8C6D31", "<", (0, (3, 1, 1, 1))),
    "static": Style("#CC79A7", "P", (0, (2, 1))),
    "P, KNN": Style("#D55E00", "x", (0, (1, 1))),
    # Routers.
    "KNNR": Style("#44AA99", "o", "-"),
    "MLPR": Style("#882255", "s", "--"),
    "RouterDC": Style("#999933", "D", "-."),
    "Prior": Style("#661100", "v", ":"),
    # Ways of answering.
    "RACER": Style("#332288", "o", "-"),
    "RACER, dollars": Style("#332288", "d", "--"),
    "RACER, label-free": Style("#6699CC", "s", (0, (4, 1))),
    "agreement": Style("#AA4499", "^", (0, (5, 1))),
    "unanimity of 3": Style("#DDAA33", ">", ""),
    "majority decided": Style("#117733", "h", ""),
    "router": Style("#DDAA33", "s", ""),
    "fixed number": Style("#BB5566", "^", ""),
    "top k": Style("0.6", ".", ":"),
    "single": Style("0.6", "o", ""),
    "best single": Style("k", "*", ""),
    "all models": Style("0.5", "X", ":"),
    "oracle": Style("k", "_", ":"),
    # What a calibration or a test is compared with.
    "by group": Style("#332288", "o", "-"),
    "pooled": Style("#DDAA33", "s", "--"),
    "betting monitor": Style("#332288", "o", "-"),
    "fixed window": Style("#DDAA33", "s", "-."),
    # The same on a dark page.
    "RACER, dark": Style("#79C0FF", "o", "-"),
    "all models, dark": Style("0.75", "X", ":"),
    # Laws and levels.
    "exact law": Style("k", "", "-"),
    "alpha": Style("#B00020", "", "--"),
}
_OTHER_NAMES = {
    "gap": "RACER-G",
    "inverse_probability": "RACER-P",
    "P, MLP": "RACER-P",
    "G, KNN": "RACER-G",
    "G, MLP": "RACER-G",
    "J": "RACER-J",
    "J blend": "RACER-J",
    "J_learned": "J learned",
    "J tilt, KNN": "J tilt",
    "J tilt, MLP": "J tilt",
    "J factor, KNN": "J factor",
    "static order": "static",
    "a fixed order": "static",
    "racer_jax": "RACER",
    "sequential": "RACER",
    "sequential, dollars": "RACER, dollars",
    "sequential, label-free": "RACER, label-free",
    "full vote": "all models",
    "best single model": "best single",
    "bound": "oracle",
    "racer": "RACER",
    "ensemble": "fixed number",
}
# Settings of Matplotlib for a figure on a dark page.
DARK: dict[str, Any] = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "#0D1117"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), "#E6EDF3"),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), "#9198A1"),
}
# What the table does not name takes these in order: benchmarks, scores of your own.
_SPARE = (
    Style("#004488", "o", "-"),
    Style("#997700", "s", "--"),
    Style("#994455", "D", "-."),
    Style("#228833", "^", ":"),
    Style("#66CCEE", "v", (0, (4, 1, 1, 1))),
    Style("#AA3377", "P", (0, (2, 1))),
    Style("#BBBBBB", "X", (0, (5, 2))),
)


def style_of(name: str) -> Style:
    """How a thing of the table is drawn.

    Use this when a figure draws one thing that the table names.

    Args:
      name: A score, a router or a way of answering, as tables and figures call it.

    Raises:
      KeyError: If the table does not name it; `styles_of` takes any name.

    >>> style_of("RACER-G").color == style_of("gap").color
    True
    """
    return _TABLE[_OTHER_NAMES.get(name, name)]


def styles_of(names: Iterable[str]) -> dict[str, Style]:
    """A style for each name: that of the table, and of spare ones in order where it has none.

    Use this when a figure draws what may be new to the table, such as benchmarks or own scores.

    >>> [style.color for style in styles_of(["mine", "static"]).values()]
    ['#004488', '#CC79A7']
    """
    styles: dict[str, Style] = {}
    num_new = 0
    for name in dict.fromkeys(names):
        if (known := _OTHER_NAMES.get(name, name)) in _TABLE:
            styles[name] = _TABLE[known]
        else:
            styles[name] = _SPARE[num_new % len(_SPARE)]
            num_new += 1
    return styles
