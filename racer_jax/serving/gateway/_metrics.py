"""What is counted, in the form that Prometheus reads."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The metrics of one gateway.

    Args:
      num_models: The largest number of models of a set.
    """

    def __init__(self, num_models: int) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        sizes = tuple(float(size) for size in range(num_models + 1))

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"racer_{name}", help, labels, registry=registry)

        def gauge(name: str, help: str, *labels: str) -> Gauge:
            return Gauge(f"racer_{name}", help, labels, registry=registry)

        def histogram(name: str, help: str, buckets: Iterable[float], *labels: str) -> Histogram:
            return Histogram(
                f"racer_{name}", help, labels, registry=registry, buckets=tuple(buckets)
            )

        self.requests = counter("requests", "Requests", "reason", "mode", "code")
        self.set_size = histogram("set_size", "Models of the set", sizes)
        self.calls = counter("upstream_calls", "Calls of models", "model", "outcome")
        self.overhead = histogram("overhead_seconds", "Time beside the upstreams", _FAST)
        self.route = histogram("route_seconds", "Time of a decision, waiting included", _FAST)
        self.batch = histogram("route_batch_size", "Decisions of a batch", (1, 2, 4, 8, 16, 32, 64))
        self.request = histogram("request_seconds", "Time of a request", _SLOW)
        self.upstream = histogram("upstream_seconds", "Time of a call", _SLOW, "model")
        self.tokens = counter("tokens", "Tokens", "model", "type")
        self.cost = counter("cost_usd", "Dollars", "model")
        self.feedback = counter("feedback", "Feedback", "source")
        self.audits = counter("audits", "Audited requests", "outcome")
        self.alarm = gauge("monitor_alarm", "Whether a monitor has raised an alarm", "route")
        self.evidence = gauge("monitor_evidence", "Evidence of a monitor", "monitor", "route")
        self.breaker = gauge("breaker_open", "Whether a model counts as down", "model")
        self.in_flight = gauge("inflight", "Requests under way")
        self.depth = gauge("queue_depth", "Requests that wait for a decision")
        self.artefact = gauge(
            "artefact_info", "The artefact in use", "route", "checksum", "alpha", "version"
        )

    def text(self) -> bytes:
        """All of them as text."""
        return generate_latest(self.registry)
