"""The counters of the event loop against those of `prometheus_client`."""

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from racer_jax.serving.gateway._metrics import Metrics
from racer_jax.serving.gateway._tallies import Spread, Tally

# What `GATEWAY` clients ask for, and its kind.
NAMES = {
    "requests_total": "counter", "set_size": "histogram", "upstream_calls_total": "counter",
    "overhead_seconds": "histogram", "route_seconds": "histogram",
    "route_batch_size": "histogram", "request_seconds": "histogram",
    "upstream_seconds": "histogram", "tokens_total": "counter", "cost_usd_total": "counter",
    "feedback_total": "counter", "audits_total": "counter", "monitor_evidence": "gauge",
    "monitor_alarm": "gauge", "breaker_open": "gauge", "inflight": "gauge",
    "queue_depth": "gauge", "artefact_info": "gauge",
}  # fmt: skip


def lines(registry):
    """What Prometheus reads, without the times at which counters were made."""
    text = generate_latest(registry).decode().splitlines()
    return sorted(line for line in text if "_created" not in line)


def test_they_read_as_those_of_the_library():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    bounds, labels = (0.5, 1.0, 2.0), ("model", "outcome")
    tally, counter = Tally("x", "words", labels), Counter("x", "words", labels, registry=theirs)
    spread = Spread("y", "more words", bounds, ("model",))
    histogram = Histogram("y", "more words", ("model",), registry=theirs, buckets=bounds)
    bare = Spread("z", "no label", bounds)
    Histogram("z", "no label", registry=theirs, buckets=bounds)
    for collector in (tally, spread, bare):
        ours.register(collector)
    rng = np.random.default_rng(0)
    for model in ("a", 'b "quoted"'):
        for value in (*bounds, 7.0, *rng.uniform(0, 3, 20).tolist()):  # ends are of their bucket
            tally.add((model, "ok"), value)
            counter.labels(model, "ok").inc(value)
            spread.observe(value, (model,))
            histogram.labels(model).observe(value)
    assert lines(ours) == lines(theirs)


def test_every_metric_is_there_from_the_start():
    text = Metrics(3).text().decode()
    for name, kind in NAMES.items():
        assert f"# TYPE racer_{name} {kind}\n" in text
