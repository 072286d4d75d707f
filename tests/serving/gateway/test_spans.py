"""Spans: one for a request, one for each call, no text in any; none without the packages."""

import json

import pytest

from racer_jax.serving.gateway import _panel, _spans
from tests.serving.gateway.upstreams import status

NUM_TOKENS = (("input", 10), ("output", 2))


def test_nothing_is_traced_without_the_packages(monkeypatch):
    monkeypatch.setattr(_spans, "_TRACER", None)
    with _spans.request_span("racer/my", None) as span, _spans.call_span("a", "openai") as call:
        _spans.note(span, {"x": 1})
    assert (span, call) == (None, None)
    assert _spans.headers_of_calls() == {}
    assert _spans.parent_of({"traceparent": "x"}) is None


@pytest.mark.extra
def test_a_request_and_its_calls_are_spans(served, upstreams, monkeypatch):
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(_spans, "_TRACER", provider.get_tracer("test"))
    upstreams.says.update(small=status(500), medium="B", large="A")
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    got = served.chat("small,medium,large secret ?", headers=parent)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    request = spans["chat racer"]
    assert f"{request.context.trace_id:032x}" == trace
    assert request.attributes["racer.id"] == got.json["id"]
    assert request.attributes["racer.guarantee"] == "void"
    assert request.attributes["gen_ai.request.stream"] is False
    assert spans["chat large"].attributes["gen_ai.response.id"] == "chatcmpl-upstream"
    assert spans["chat large"].attributes["gen_ai.response.model"] == "large"
    assert spans["chat large"].attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert spans["chat small"].attributes["error.type"] == "status_500"
    large = spans["chat large"]
    assert large.parent.span_id == request.context.span_id
    assert large.attributes["gen_ai.usage.input_tokens"] == 10
    assert all(trace in sent["traceparent"] for sent in upstreams.headers)
    assert "secret" not in json.dumps([span.to_json() for span in spans.values()])


@pytest.mark.extra
def test_times_and_tokens_are_metrics(served, upstreams, monkeypatch):
    sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    reader = InMemoryMetricReader()
    meter = sdk.MeterProvider([reader]).get_meter("test")
    monkeypatch.setattr(_spans, "_TRACER", TracerProvider().get_tracer("test"))
    for name, metric in (
        ("_REQUESTS", "gen_ai.workflow.duration"),
        ("_CALLS", "gen_ai.client.operation.duration"),
        ("_TOKENS", "gen_ai.client.token.usage"),
    ):
        monkeypatch.setattr(_spans, name, meter.create_histogram(metric))
    served.chat("small,large ?")
    (resource,) = reader.get_metrics_data().resource_metrics
    points = {m.name: m.data.data_points for m in resource.scope_metrics[0].metrics}
    assert sum(point.count for point in points["gen_ai.workflow.duration"]) == 1
    assert sum(point.count for point in points["gen_ai.client.operation.duration"]) == 2
    tokens = {
        (point.attributes["gen_ai.request.model"], point.attributes["gen_ai.token.type"]): point.sum
        for point in points["gen_ai.client.token.usage"]
    }
    assert tokens == {(m, kind): n for m in ("small", "large") for kind, n in NUM_TOKENS}


@pytest.mark.extra
def test_a_stream_is_a_call_like_any_other(served, upstreams, monkeypatch):
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(_spans, "_TRACER", provider.get_tracer("test"))
    served.chat("large secret ?", stream=True)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    call, request = spans["chat large"], spans["chat racer"]
    assert call.parent.span_id == request.context.span_id
    assert call.attributes["gen_ai.request.stream"] is True
    assert call.attributes["gen_ai.usage.input_tokens"] == 10
    (sent,) = upstreams.headers
    assert f"{call.context.span_id:016x}" in sent["traceparent"]
    assert "secret" not in call.to_json()
    exporter.clear()
    upstreams.says.update(large=status(500))
    served.chat("large ?", stream=True)
    failed = {span.name: span for span in exporter.get_finished_spans()}["chat large"]
    assert failed.attributes["error.type"] == "status_500"
    # What people wrote is in spans where the variable of the conventions asks for it.
    upstreams.says.clear()
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    exporter.clear()
    served.chat("large secret ?")
    shown = {span.name: span for span in exporter.get_finished_spans()}["chat large"].attributes
    assert json.loads(shown["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "large secret ?"}]}
    ]
    assert "I am large" in shown["gen_ai.output.messages"]


@pytest.mark.extra
def test_where_nothing_takes_spans_none_is_made(served, upstreams, monkeypatch):
    pytest.importorskip("opentelemetry.trace")
    made = []
    monkeypatch.setattr(_spans, "note", lambda span, about: made.append(about))
    real = _spans.call_span
    monkeypatch.setattr(_panel, "call_span", lambda *a, **k: made.append(a) or real(*a, **k))
    assert not _spans.is_traced()
    assert served.chat("small,large ?").status == 200
    assert served.chat("small ?", stream=True).status == 200
    assert made == []
    # The client's context goes on to the models all the same.
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    upstreams.headers.clear()
    assert served.chat("small,large ?", headers=parent).status == 200
    assert len(upstreams.headers) == 2
    assert all(trace in sent["traceparent"] for sent in upstreams.headers)


@pytest.mark.extra
@pytest.mark.parametrize("kind", ["trace", "metrics"])
def test_what_takes_spans_or_metrics_is_seen_whenever_it_is_set(kind, monkeypatch):
    interface = pytest.importorskip(f"opentelemetry.{kind}")
    sdk = pytest.importorskip(f"opentelemetry.sdk.{kind}")
    name, make = {
        "trace": ("get_tracer_provider", "TracerProvider"),
        "metrics": ("get_meter_provider", "MeterProvider"),
    }[kind]
    assert not _spans.is_traced()
    provider = getattr(sdk, make)()
    monkeypatch.setattr(interface, name, lambda: provider)
    assert _spans.is_traced()


@pytest.mark.extra
def test_an_unset_meter_is_known_by_its_class():
    metrics = pytest.importorskip("opentelemetry.metrics")
    assert type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider"
