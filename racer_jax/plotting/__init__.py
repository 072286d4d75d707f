"""Figures of results: numbers in, a Matplotlib `Figure` out, nothing computed.

May use: the results of `montecarlo`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.plotting.calls import CallsLine, calls_figure
    from racer_jax.plotting.risk import (
        RiskCurve,
        SizeCurve,
        histogram_figure,
        risk_figure,
        size_figure,
    )
    from racer_jax.plotting.studies import (
        RiskLine,
        SizeLine,
        Spread,
        risk_law_figure,
        sizes_figure,
        spread_figure,
    )
    from racer_jax.plotting.votes import (
        Bar,
        Choices,
        CoverageLine,
        Trade,
        accuracy_figure,
        coverage_figure,
        heatmap_figure,
        tradeoff_figure,
    )

_HOMES = {
    "calls": ("CallsLine", "calls_figure"),
    "risk": ("RiskCurve", "SizeCurve", "histogram_figure", "risk_figure", "size_figure"),
    "studies": (
        "RiskLine",
        "SizeLine",
        "Spread",
        "risk_law_figure",
        "sizes_figure",
        "spread_figure",
    ),
    "votes": (
        "Bar",
        "Choices",
        "CoverageLine",
        "Trade",
        "accuracy_figure",
        "coverage_figure",
        "heatmap_figure",
        "tradeoff_figure",
    ),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "Bar",
    "CallsLine",
    "Choices",
    "CoverageLine",
    "RiskCurve",
    "RiskLine",
    "SizeCurve",
    "SizeLine",
    "Spread",
    "Trade",
    "accuracy_figure",
    "calls_figure",
    "coverage_figure",
    "heatmap_figure",
    "histogram_figure",
    "risk_figure",
    "risk_law_figure",
    "size_figure",
    "sizes_figure",
    "spread_figure",
    "tradeoff_figure",
]
