"""One request over ASGI: its body read within bounds, its response sent, its client noticed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec

from racer_jax.serving.gateway._addresses import is_loopback
from racer_jax.serving.gateway._errors import GatewayError
from racer_jax.serving.gateway.settings import Server

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]
JSON = (b"content-type", b"application/json")
# Where a request keeps the connection it came by, if that says when the client goes away.
CONNECTION = "racer.connection"
_FIRST = "racer.headers"
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")


class ClientGoneError(Exception):
    """The client closed the connection."""


def header_of(scope: Scope, name: bytes) -> str:
    """The first header of a name; empty where there is none."""
    first: dict[bytes, bytes] | None = scope.get(_FIRST)
    if first is None:  # looked through once for a request
        first = scope[_FIRST] = dict(reversed(scope["headers"]))
    value = first.get(name)
    return "" if value is None else value.decode("latin-1")


def check_origin(scope: Scope, server: Server) -> None:
    """Refuses requests that a page in a browser may have sent unasked.

    Raises:
      GatewayError: If the header `host` names another server (421), which a page can bring about by
        its own name server, or the content is not JSON (415), which a page can send unasked.
    """
    host = header_of(scope, b"host")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]").lower()
    known = is_loopback(name) or name in server.allowed_hosts or name == server.host
    if host and is_loopback(server.host) and not known:
        raise GatewayError(
            421, "invalid_request_error", "the header host names another server", code="host"
        )
    if scope["method"] == "POST":
        kind = header_of(scope, b"content-type").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise GatewayError(
                415,
                "invalid_request_error",
                "the header content-type must be application/json",
                code="content_type",
            )


async def body_of(scope: Scope, receive: Receive, server: Server) -> bytes:
    """The body of a request.

    Raises:
      GatewayError: If it is too long (413), too slow (408) or compressed (415).
      ClientGoneError: If the client went away before its end.
    """
    most = server.max_body_bytes
    length = header_of(scope, b"content-length")
    if length.isdigit() and int(length) > most:
        raise _too_long(most)
    if header_of(scope, b"content-encoding") not in ("", "identity"):
        raise GatewayError(415, "invalid_request_error", "the body must not be compressed")
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > most:
            raise _too_long(most)
        return body
    try:
        async with asyncio.timeout(server.body_seconds):
            return await _long_body(message, receive, most)
    except TimeoutError:
        raise GatewayError(
            408, "invalid_request_error", "the body did not come in time", code="slow_body"
        ) from None


async def _long_body(message: Message, receive: Receive, most: int) -> bytes:
    parts, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise _too_long(most)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


def _too_long(most: int) -> GatewayError:
    return GatewayError(
        413, "invalid_request_error", f"the body must be at most {most} bytes", code="too_long"
    )


async def respond(
    send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> None:
    """Sends a whole response."""
    sent = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


async def respond_error(
    send: Send, error: GatewayError, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Sends an error of the OpenAI protocol."""
    more = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await respond(send, error.status, [JSON, *headers, *more], error.to_json())


async def respond_json(send: Send, value: Any, status: int = 200) -> None:
    """Sends a value as JSON."""
    await respond(send, status, [JSON], msgspec.json.encode(value))


def internal_error() -> GatewayError:
    """What a client learns of a fault of this program: nothing but that there was one."""
    return GatewayError(500, "server_error", "the gateway failed; its log says where")
