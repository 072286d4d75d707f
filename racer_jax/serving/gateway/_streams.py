"""Events of a stream: a finished answer as chunks, signs of life, and late errors."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from racer_jax.serving.gateway._errors import GatewayError
from racer_jax.serving.gateway._replies import Reply, Usage

DONE = b"data: [DONE]\n\n"
# The end of a stream that is looked at for its usage.
TAIL_BYTES = 4096
# A piece of text of a chunk: small enough for a client to show, large enough to cost little.
_PIECE = 2000


def waiting(done: int, total: int) -> bytes:
    """A comment that keeps a connection alive."""
    return f": racer waiting for {max(total - done, 0)} of {total}\n\n".encode()


def event(value: Any) -> bytes:
    """A value as an event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def error_event(error: GatewayError) -> bytes:
    """An error that comes after the status was sent; no `[DONE]` follows it."""
    return event(error.to_dict())


def chunks(
    reply: Reply, base: Mapping[str, Any], facts: Mapping[str, Any], usage: Any | None
) -> Iterator[bytes]:
    """The chunks of a finished answer.

    Args:
      reply: The answer.
      base: Fields of every chunk: id, created, model.
      facts: The `racer` object, which goes with the last chunk.
      usage: The usage where the client asked for it.
    """
    head = {**base, "object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return event({**head, "choices": [choice], **more})

    yield chunk({"role": "assistant"})
    text = reply.content or ""
    for start in range(0, len(text), _PIECE):
        yield chunk({"content": text[start : start + _PIECE]})
    if reply.refusal is not None:
        yield chunk({"refusal": reply.refusal})
    for i, call in enumerate(reply.tool_calls):
        yield chunk({"tool_calls": [{**msgspec.json.decode(call), "index": i}]})
    yield chunk({}, reply.finish_reason or "stop", racer=facts)
    if usage is not None:
        yield event({**head, "choices": [], "usage": usage})
    yield DONE


def usage_in(tail: bytes) -> Usage | None:
    """The usage that the end of a stream holds; None where it holds none."""
    for line in reversed(tail.splitlines()):
        if line.startswith(b"data: {") and b'"usage"' in line:
            try:
                usage = msgspec.json.decode(line[6:])["usage"]
                return msgspec.convert(usage, Usage | None)
            except (msgspec.MsgspecError, LookupError, TypeError):
                return None
    return None
