"""Spans of OpenTelemetry after its conventions for generative AI; none without its packages.

One span for a request and one, `chat MODEL`, for each of its calls. They hold names, tokens and
reasons; prompts and answers never.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

try:
    from opentelemetry import propagate, trace

    _TRACER: Any = trace.get_tracer("racer_jax.serving.gateway")
except ModuleNotFoundError:
    _TRACER = None

# Whether there is anything to trace with.
TRACES = _TRACER is not None
Span = Any


def parent_of(headers: Mapping[str, str]) -> Any:
    """The context that the header `traceparent` of a request names; None without one."""
    if _TRACER is None or "traceparent" not in headers:
        return None
    return propagate.extract(headers)


@contextmanager
def request_span(model: str, parent: Any) -> Iterator[Span]:
    """The span of a request; None where nothing is traced."""
    if _TRACER is None:
        yield None
        return
    kind = trace.SpanKind.SERVER
    with _TRACER.start_as_current_span("chat racer", context=parent, kind=kind) as span:
        if span.is_recording():
            span.set_attribute("gen_ai.operation.name", "chat")
            span.set_attribute("gen_ai.request.model", model)
        yield span


@contextmanager
def call_span(model: str, provider: str) -> Iterator[Span]:
    """The span of one call; None where nothing is traced."""
    if _TRACER is None:
        yield None
        return
    kind = trace.SpanKind.CLIENT
    with _TRACER.start_as_current_span(f"chat {model}", kind=kind) as span:
        if span.is_recording():
            span.set_attribute("gen_ai.operation.name", "chat")
            span.set_attribute("gen_ai.provider.name", provider)
            span.set_attribute("gen_ai.request.model", model)
        yield span


def note(span: Span, attributes: Mapping[str, Any]) -> None:
    """Sets attributes of a span that is recorded; those that are None are left out."""
    if span is not None and span.is_recording():
        for name, value in attributes.items():
            if value is not None:
                span.set_attribute(name, value)


def headers_of_calls() -> dict[str, str]:
    """Headers that carry the current span to an upstream; empty where nothing is traced."""
    carrier: dict[str, str] = {}
    if _TRACER is not None and trace.get_current_span().is_recording():
        propagate.inject(carrier)
    return carrier
