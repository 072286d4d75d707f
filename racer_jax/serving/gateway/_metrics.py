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
        self.feedback = counter("feedback", "Feedback", "source", "missed")
        self.audits = counter("audits", "Audited requests", "outcome")
        self.alarm = gauge("monitor_alarm", "Whether a monitor has raised an alarm", "route")
        self.evidence = gauge(
            "monitor_evidence", "Evidence of a monitor", "monitor", "route", "group"
        )
        self.breaker = gauge("breaker_open", "Whether a model counts as down", "model")
        self.in_flight = gauge("inflight", "Requests under way")
        self.depth = gauge("queue_depth", "Requests that wait for a decision")
        self.artefact = gauge(
            "artefact_info", "The artefact in use", "route", "checksum", "alpha", "version"
        )

        self._of_models: dict[str, ModelMetrics] = {}
        self._of_requests: dict[tuple[str, str, int], Counter] = {}

    def of_model(self, model: str) -> "ModelMetrics":
        """What is counted of the answers of a model."""
        known = self._of_models.get(model)
        if known is None:
            known = self._of_models[model] = ModelMetrics(self, model)
        return known

    def count_request(self, reason: str, mode: str, status: int) -> None:
        """Counts a request that has ended."""
        key = (reason, mode, status)
        known = self._of_requests.get(key)
        if known is None:
            known = self._of_requests[key] = self.requests.labels(reason, mode, str(status))
        known.inc()

    def text(self) -> bytes:
        """All of them as text."""
        return generate_latest(self.registry)


class ModelMetrics:
    """What is counted of the answers of one model, its labels looked up once.

    Args:
      metrics: The metrics of the gateway.
      model: Name of the model.
    """

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._calls = metrics.calls.labels(model, "ok")
        self._seconds = metrics.upstream.labels(model)
        self._input = metrics.tokens.labels(model, "input")
        self._output = metrics.tokens.labels(model, "output")
        self._cost = metrics.cost.labels(model)

    def answered(
        self, seconds: float | None, prompt_tokens: int, completion_tokens: int, price: float | None
    ) -> None:
        """Counts an answer, its tokens, and its time and dollars where they are known."""
        self._calls.inc()
        if seconds is not None:
            self._seconds.observe(seconds)
        self._input.inc(prompt_tokens)
        self._output.inc(completion_tokens)
        if price is not None:
            self._cost.inc(price)
