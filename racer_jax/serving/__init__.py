"""In use: streams of queries, an endpoint's confidence, monitors of the promise.

Models called one after another (`Cascade`). May use: `core`, `risk_control`, `data`, `racer`,
`reporting`, `sequential`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.serving.cascade import Cascade
    from racer_jax.serving.cascade_lines import answer_lines
    from racer_jax.serving.cascade_report import cascade_report_data, write_cascade_report
    from racer_jax.serving.confidence import Judgement, elicit
    from racer_jax.serving.endpoint import Endpoint, EndpointError
    from racer_jax.serving.feedback import Entries, MonitorOptions, open_monitor
    from racer_jax.serving.json_lines import read_queries, route_lines
    from racer_jax.serving.monitor import ExchangeabilityMonitor, RiskMonitor, load_monitor

_HOMES = {
    "cascade": ("Cascade",),
    "cascade_lines": ("answer_lines",),
    "cascade_report": ("cascade_report_data", "write_cascade_report"),
    "confidence": ("Judgement", "elicit"),
    "endpoint": ("Endpoint", "EndpointError"),
    "feedback": ("Entries", "MonitorOptions", "open_monitor"),
    "json_lines": ("read_queries", "route_lines"),
    "monitor": ("ExchangeabilityMonitor", "RiskMonitor", "load_monitor"),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "Cascade",
    "Endpoint",
    "EndpointError",
    "Entries",
    "ExchangeabilityMonitor",
    "Judgement",
    "MonitorOptions",
    "RiskMonitor",
    "answer_lines",
    "cascade_report_data",
    "elicit",
    "load_monitor",
    "open_monitor",
    "read_queries",
    "route_lines",
    "write_cascade_report",
]
