"""What is counted, in the form that Prometheus reads."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from racer_jax.serving.gateway._tallies import Spread, Tally

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The metrics of one gateway; all but gauges are added to by the event loop's thread alone.

    Args:
      num_models: The largest number of models of a set.
    """

    def __init__(self, num_models: int) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        sizes = tuple(float(size) for size in range(num_models + 1))

        def counter(name: str, help: str, *labels: str) -> Tally:
            tally = Tally(f"racer_{name}", help, labels)
            registry.register(tally)
            return tally

        def gauge(name: str, help: str, *labels: str) -> Gauge:
            return Gauge(f"racer_{name}", help, labels, registry=registry)

        def histogram(name: str, help: str, bounds: Iterable[float], *labels: str) -> Spread:
            spread = Spread(f"racer_{name}", help, bounds, labels)
            registry.register(spread)
            return spread

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
        self.failing = gauge("state_failing", "Whether the state cannot be written")
        self.rows_kept = gauge("state_rows_kept", "Rows that wait until the state can be written")
        self.rows_lost = gauge("state_rows_lost", "Rows that could not be written")
        self.rows_unreadable = gauge(
            "state_rows_unreadable", "Rows that the monitors left out, for they cannot be read"
        )
        self.artefact = gauge(
            "artefact_info", "The artefact in use", "route", "checksum", "alpha", "version"
        )

    def count_request(self, reason: str, mode: str, status: int) -> None:
        """Counts a request that has ended."""
        self.requests.add((reason, mode, str(status)))

    def count_answer(
        self,
        model: str,
        seconds: float | None,
        prompt_tokens: int,
        completion_tokens: int,
        price: float | None,
    ) -> None:
        """Counts an answer of a model, and its time and dollars where they are known."""
        self.calls.add((model, "ok"))
        if seconds is not None:
            self.upstream.observe(seconds, (model,))
        self.tokens.add((model, "input"), prompt_tokens)
        self.tokens.add((model, "output"), completion_tokens)
        if price is not None:
            self.cost.add((model,), price)

    def text(self) -> bytes:
        """All of them as text."""
        return generate_latest(self.registry)
