"""Events of a stream: a finished answer as chunks, signs of life, and late errors."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from racer_jax.serving.gateway._errors import GatewayError
from racer_jax.serving.gateway._replies import Reply, Usage, message_of, usage_from

DONE = b"data: [DONE]\n\n"
# The end of a stream that is looked at for its usage.
TAIL_BYTES = 4096
# A piece of text of a chunk: small enough for a client to show, large enough to cost little.
_PIECE = 2000
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
# An error is an event of its own, the first field of one, or the reason why an answer ends.
_ERROR = re.compile(
    rb'[\r\n](?:data:[ \t]*\{\s*"error"\s*:\s*[^\sn]|event: ?error)|"finish_reason"\s*:\s*"error"'
)
_CARRIED = 128  # more than any beginning of these


class _Chunk(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"null")


_chunk = msgspec.json.Decoder(_Chunk)


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

    def chunk(place: int, delta: Any, finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": place, "delta": delta, "finish_reason": finish}
        return event({**head, "choices": [choice], **more})

    for place, choice in enumerate(reply.choices):
        message = message_of(choice.message)
        yield chunk(place, {"role": "assistant"})
        text = message.content or ""
        for start in range(0, len(text), _PIECE):
            yield chunk(place, {"content": text[start : start + _PIECE]})
        if message.refusal is not None:
            yield chunk(place, {"refusal": message.refusal})
        for i, call in enumerate(message.tool_calls or ()):
            yield chunk(place, {"tool_calls": [{**msgspec.json.decode(call), "index": i}]})
        is_last = place + 1 == len(reply.choices)
        more = {"racer": facts} if is_last else {}
        yield chunk(place, {}, choice.finish_reason or "stop", **more)
    if usage is not None:
        yield event({**head, "choices": [], "usage": usage})
    yield DONE


def _data_of(event: bytes) -> bytes:
    """The data of an event: what its lines `data:` hold, with or without a space before it."""
    lines = [line[5:] for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(line.removeprefix(b" ") for line in lines)


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


class Passing:
    """What is known of a stream whose bytes pass: its end, and whether an error was among them."""

    def __init__(self) -> None:
        self._tail, self._is_cut = b"", False
        self._carried = b"\n"  # the first line begins a line too
        self.has_error = False

    def add(self, part: bytes) -> None:
        """Looks at the next bytes; an event may be cut anywhere."""
        seen = self._carried + part
        if b"error" in seen and not self.has_error:
            self.has_error = _ERROR.search(seen) is not None
        self._carried = seen[-_CARRIED:]
        tail = self._tail + part
        if len(tail) > TAIL_BYTES:
            tail, self._is_cut = tail[-TAIL_BYTES:], True
        self._tail = tail

    @property
    def usage(self) -> Usage | None:
        """The usage that the end of the stream holds; None where it holds none."""
        if b'"usage"' not in self._tail:
            return None
        for event in reversed(self._events()):
            data = _data_of(event) if b'"usage"' in event else b""
            if data.startswith(b"{"):
                try:
                    usage = usage_from(_chunk.decode(data).usage)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    return None
                if usage is not None:
                    return usage
        return None

    @property
    def is_whole(self) -> bool:
        """Whether the stream was that of an answer: its last words, and no error."""
        if self.has_error:
            return False
        events = self._events()
        if b"[DONE]" in self._tail:
            uncut = events[1:] if self._is_cut else events
            ends = (event for event in reversed(uncut) if b"[DONE]" in event)
            if any(_data_of(event).strip() == b"[DONE]" for event in ends):
                return True
        return any(_FINISHED.search(event) for event in reversed(events))

    def _events(self) -> list[bytes]:
        """The events of the end of the stream that are whole; the first may lack its beginning."""
        tail = self._tail
        if b"\r" in tail:
            tail = tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *events, last = tail.split(b"\n\n")
        # Some upstreams end with a line and no event, and close: whatever is whole is meant.
        data = _data_of(last)
        if data and (data.strip() == b"[DONE]" or _is_json(data)):
            events.append(last)
        return events
