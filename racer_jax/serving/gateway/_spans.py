"""Spans and metrics of OpenTelemetry after its conventions for generative AI.

One span for a request and one, `chat MODEL`, for each of its calls. They hold names, tokens and
reasons; prompts and answers only where the variable of the conventions asks for them,
`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true`. Without its packages there are none.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

try:
    from opentelemetry import metrics, propagate, trace

    _TRACER: Any = trace.get_tracer("racer_jax.serving.gateway")
    _METER: Any = metrics.get_meter("racer_jax.serving.gateway")
    _REQUESTS = _METER.create_histogram("gen_ai.workflow.duration", "s", "Time of a request")
    _CALLS = _METER.create_histogram("gen_ai.client.operation.duration", "s", "Time of a call")
    _TOKENS = _METER.create_histogram("gen_ai.client.token.usage", "{token}", "Tokens of a call")
except ModuleNotFoundError:
    _TRACER = None

_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_IN_SPANS = frozenset({"true", "1", "span_only", "span_and_event"})
Span = Any


def is_traced(parent: Any = None) -> bool:
    """Whether anybody would see the spans: a tenth of a request's time goes into making them.

    OpenTelemetry's interfaces come with many packages; where nothing was set up to take spans or
    metrics, they lead nowhere. A client's `traceparent` goes on to the models nevertheless.

    Args:
      parent: The context that the client named; None without one.
    """
    if _TRACER is None:
        return False
    if parent is not None or trace.get_current_span() is not trace.INVALID_SPAN:
        return True
    if not isinstance(_TRACER, trace.ProxyTracer):
        return True
    is_unset = isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    # The class of meters that lead nowhere yet has no public name.
    return not is_unset or type(metrics.get_meter_provider()).__name__ != "_ProxyMeterProvider"


def parent_of(headers: Mapping[str, str]) -> Any:
    """The context that the header `traceparent` of a request names; None without one."""
    if _TRACER is None or "traceparent" not in headers:
        return None
    return propagate.extract(headers)


@contextmanager
def request_span(model: str, parent: Any, stream: bool = False) -> Iterator[Span]:
    """The span of a request; None where nothing is traced."""
    if _TRACER is None:
        yield None
        return
    kind, began = trace.SpanKind.SERVER, time.monotonic()
    about = {"gen_ai.operation.name": "chat", "gen_ai.request.model": model}
    with _TRACER.start_as_current_span("chat racer", context=parent, kind=kind) as span:
        note(span, {**about, "gen_ai.request.stream": stream})
        try:
            yield span
        finally:
            _REQUESTS.record(time.monotonic() - began, about)


@contextmanager
def call_span(model: str, provider: str, stream: bool = False) -> Iterator[Span]:
    """The span of one call; None where nothing is traced."""
    if _TRACER is None:
        yield None
        return
    kind, began = trace.SpanKind.CLIENT, time.monotonic()
    about = _about(model, provider)
    with _TRACER.start_as_current_span(f"chat {model}", kind=kind) as span:
        note(span, {**about, "gen_ai.request.stream": stream})
        try:
            yield span
        finally:
            _CALLS.record(time.monotonic() - began, about)


def count_tokens(model: str, provider: str, prompt: int, completion: int) -> None:
    """Counts the tokens of a call in the metrics of OpenTelemetry."""
    if _TRACER is not None:
        for kind, num in (("input", prompt), ("output", completion)):
            _TOKENS.record(num, {**_about(model, provider), "gen_ai.token.type": kind})


def _about(model: str, provider: str) -> dict[str, str]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
    }


def note(span: Span, attributes: Mapping[str, Any]) -> None:
    """Sets attributes of a span that is recorded; those that are None are left out."""
    if span is not None and span.is_recording():
        for name, value in attributes.items():
            if value is not None:
                span.set_attribute(name, value)


def note_messages(
    span: Span, fields: Mapping[str, msgspec.Raw], answers: Sequence[msgspec.Raw]
) -> None:
    """Keeps the conversation of a call in its span, where the environment asks for it."""
    if span is None or os.environ.get(_CONTENT, "").lower() not in _IN_SPANS:
        return
    conversation = msgspec.json.decode(fields.get("messages", b"[]"))
    answered = [msgspec.json.decode(answer) for answer in answers]
    note(span, {"gen_ai.input.messages": _messages(conversation)})
    if answered:
        note(span, {"gen_ai.output.messages": _messages(answered)})


def _messages(messages: Sequence[Any]) -> str:
    """Messages as the conventions write them: a role, and parts."""
    plain = []
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        if isinstance(content, str):
            parts = [{"type": "text", "content": content}]
        parts = [*parts, *({"type": "tool_call", **c} for c in message.get("tool_calls") or ())]
        plain.append({"role": message.get("role", "assistant"), "parts": parts})
    return msgspec.json.encode(plain).decode()


def headers_of_calls() -> dict[str, str]:
    """Headers that carry the current span to an upstream; empty where nothing is traced.

    A span that is not recorded is carried too: who comes after it leaves it out likewise.
    """
    carrier: dict[str, str] = {}
    if _TRACER is not None and trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier)
    return carrier
