"""Runs the gateway: two ports, one loop, an end that loses no request."""

import asyncio
import gc
import logging
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlsplit

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from racer_jax._memory import use_large_pages
from racer_jax.serving.gateway._databases import alone_with_state
from racer_jax.serving.gateway._errors import GatewayError
from racer_jax.serving.gateway._exchange import CONNECTION, JSON
from racer_jax.serving.gateway._facts import undecided
from racer_jax.serving.gateway._identifiers import new_id
from racer_jax.serving.gateway._secrets import Redaction
from racer_jax.serving.gateway.app import inference_app, management_app
from racer_jax.serving.gateway.core import LOG, Gateway
from racer_jax.serving.gateway.settings import Settings

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_GRACE_SECONDS = 30
_BACKLOG = 2048
_RETENTION_SECONDS = 3600.0
_RELOAD_SECONDS = 2.0
_JUMP_SECONDS = 3600.0
_OBJECTS_BETWEEN_COLLECTIONS = 20_000
_SWITCH_SECONDS = 0.0005


class _Joining:
    """A transport that can hold what is written, to send it as one.

    The head and the body of a response are written one after the other. Sent as two pieces, the
    first wakes the client, who reads it and has to wait for the second.

    Args:
      transport: The transport.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._parts: list[bytes] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends bytes, or holds them."""
        if self._parts is None:
            self._transport.write(data)
        else:
            self._parts.append(data)

    def close(self) -> None:
        """Sends what is held, and closes the connection."""
        self.send()
        self._transport.close()

    def __enter__(self) -> None:
        """Holds what is written within a block, and sends it at its end."""
        self._parts = []

    def __exit__(self, *error: object) -> None:
        self.send()

    def send(self) -> None:
        """Sends what is held; nothing is held any more."""
        parts, self._parts = self._parts, None
        if parts:
            self._transport.write(b"".join(parts))


def _without_upgrade(data: bytes) -> bytes:
    """The beginning of a request that does not ask for another protocol.

    A server may ignore such a header, and this one knows no other protocol. The parser would drop
    the body of the request after it: the client of Java asks for HTTP/2 in each of its requests.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-ignored-upgrade:", head) + end + rest


def _response_of(error: GatewayError) -> bytes:
    """A whole response for a request that no application sees."""
    body = error.to_json()
    sent = [JSON, *undecided(new_id(), error.type, 0.0)]
    sent += [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    head = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n".encode()
    return head + b"".join(name + b": " + value + b"\r\n" for name, value in sent) + b"\r\n" + body


def bounded_protocol(header_seconds: float, max_header_bytes: int) -> type[HttpToolsProtocol]:
    """The protocol of uvicorn, with bounds on the headers of a request in seconds and bytes."""

    class Bounded(HttpToolsProtocol):
        _header_bytes = 0
        _in_headers = _is_new = False
        _is_between = True
        # The connection says itself that the client has gone: see `ClientPresence`.
        is_lost = False
        on_leave: Callable[[], None] | None = None
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(cast(Any, _Joining(transport)))
            self._timer = self.loop.call_later(header_seconds, transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)
            self.is_lost = True
            if self.on_leave is not None:
                self.on_leave()

        def data_received(self, data: bytes) -> None:
            if self._is_between and b"pgrade" in data:
                data = _without_upgrade(data)
            self._is_new = False
            super().data_received(data)
            if not self._in_headers:
                return
            # Most headers come whole in one piece: only others need a timer, and are counted while
            # they come. Of a piece in which they begin, others may be a part.
            self._header_bytes += 0 if self._is_new else len(data)
            self._check_headers()
            if self._timer is None:
                self._timer = self.loop.call_later(header_seconds, self.transport.close)

        def joined(self) -> _Joining:
            """All that is written within its block is sent as one."""
            return cast(_Joining, self.transport)

        def on_message_begin(self) -> None:
            self._header_bytes, self._in_headers, self._is_new = 0, True, True
            self._is_between = False
            super().on_message_begin()
            cast(dict[str, Any], self.scope)[CONNECTION] = self

        def on_headers_complete(self) -> None:
            self._in_headers = False
            self._stop_timer()
            sizes = [len(name) + len(value) for name, value in self.headers]
            self._header_bytes = len(self.url) + sum(sizes)
            self._check_headers()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._is_between = True
            super().on_message_complete()

        def _check_headers(self) -> None:
            if self._header_bytes > max_header_bytes and not self.transport.is_closing():
                words = f"the headers must be at most {max_header_bytes} bytes"
                self._refuse(GatewayError(431, "invalid_request_error", words, code="headers"))

        def send_400_response(self, msg: str) -> None:
            # What uvicorn calls for bytes that are no HTTP; its own answer is a plain text.
            words = "the request is not one of HTTP/1.1"
            self._refuse(GatewayError(400, "invalid_request_error", words, code="http"))

        def _refuse(self, error: GatewayError) -> None:
            """Sends an error, unless that would be within another response; ends the connection."""
            cycle = self.cycle
            if cycle is None or cycle.response_complete or not cycle.response_started:
                self.transport.write(_response_of(error))
            self.transport.close()

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Bounded


class UnsignalledServer(uvicorn.Server):
    """A server that leaves signals to whoever runs it."""

    def install_signal_handlers(self) -> None:
        """Nothing: all servers end together."""

    def capture_signals(self) -> Any:
        """Nothing, likewise."""
        from contextlib import nullcontext

        return nullcontext()


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens, so that the port is known before anything else is done.

    Raises:
      OSError: If the address is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)  # till then a second gateway could bind it too, and not serve
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{error.strerror}: {host}:{port}") from None
    return listener


async def serve(
    settings: Settings,
    sockets: tuple[socket.socket, socket.socket],
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what is under way.

    Use this when `settings` are made by a program; `racer-jax serve` reads them from a file.

    Args:
      settings: The configuration.
      sockets: Listening sockets of the inference and the management port.
      on_ready: Called once every shape is compiled and the ports answer.

    Raises:
      DataError: If an artefact or the state cannot be used, or another gateway uses the state.
    """
    with alone_with_state(settings.state.path):
        await _serve(settings, sockets, on_ready)


async def _serve(
    settings: Settings,
    sockets: tuple[socket.socket, socket.socket],
    on_ready: Callable[[], None] | None,
) -> None:
    gateway = Gateway(settings)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    hangup = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    _redact(settings)
    seen = gateway.artefact_files()  # one that is replaced after it was loaded is another
    await gateway.start()
    _collect_rarely()
    # The loop must not wait the usual 5 ms for Python while the thread of the state computes.
    sys.setswitchinterval(_SWITCH_SECONDS)
    protocol = bounded_protocol(settings.server.header_seconds, settings.server.max_header_bytes)
    servers = [
        _server(inference_app(gateway), protocol),
        _server(management_app(gateway), protocol),
    ]
    running = [
        asyncio.ensure_future(server.serve(sockets=[listener]))
        for server, listener in zip(servers, sockets, strict=True)
    ]
    upkeep = asyncio.gather(_keep_up(gateway, seen), _reload_when_asked(gateway, hangup))
    try:
        while not all(server.started for server in servers):
            await asyncio.sleep(0.01)
            for task in running:
                if task.done():  # it cannot listen: whoever waits for it waits for ever
                    task.result()
        if on_ready is not None:
            on_ready()
        await ended.wait()
    finally:
        gateway.draining = True
        upkeep.cancel()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*running, upkeep, return_exceptions=True)
        await gateway.stop()


def _collect_rarely() -> None:
    """Leaves what is loaded by now out of every garbage collection, and runs fewer of them.

    JAX and the artefacts are some million objects that live as long as the process. Looking through
    them again and again took a fifth of the time of a request. Requests hardly leave cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 20)
    use_large_pages()


def _server(app: Any, protocol: type[HttpToolsProtocol]) -> UnsignalledServer:
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level=logging.WARNING,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return UnsignalledServer(config)


def _redact(settings: Settings) -> None:
    """Takes secrets out of every log of the process: those of uvicorn, asyncio and aiohttp too.

    What reaches the root, or has no handler at all, passes one of these; a filter of a logger sees
    what was logged with it alone.
    """
    redaction = Redaction(_secrets(settings))
    LOG.addFilter(redaction)
    for handler in (*logging.getLogger().handlers, logging.lastResort):
        if handler is not None:
            handler.addFilter(redaction)


def _secrets(settings: Settings) -> list[str]:
    """Keys of upstreams, the password of the state, and addresses that may hold a token."""
    password = urlsplit(settings.state.path).password or ""
    places = [p for model in settings.models.values() for p in (model, *model.also)]
    keys = [place.api_key.reveal() for place in places if place.api_key is not None]
    if settings.audit.hash_key is not None:
        keys.append(settings.audit.hash_key.reveal())
    tests = [r.verifier.url for r in settings.routes.values() if r.verifier is not None]
    addresses = (settings.audit.hook, settings.monitors.webhook, *tests)
    called = [url for url in addresses if url is not None]
    return [*keys, password, *called, *(urlsplit(url).path for url in called)]


async def _reloaded(gateway: Gateway) -> bool:
    """Reads the artefacts again; one that cannot be used is logged, and the one before stays.

    Returns:
      Whether it need not be tried again: nothing but the state was at fault if it must.
    """
    if not gateway.ready:
        return True  # it is about to end
    try:
        await gateway.reload()
    except GatewayError as error:  # the state takes nothing now
        LOG.error("the artefact in use stays for now: %s", error)
        return False
    except ValueError as error:
        LOG.error("the artefact in use stays: %s", error)
    except Exception:  # of this program: what looks after the gateway must go on
        LOG.exception("the artefact in use stays")
    return True


async def _reload_when_asked(gateway: Gateway, hangup: asyncio.Event) -> None:
    """Reads the artefacts again after each SIGHUP, also one that came while they were read."""
    while True:
        await hangup.wait()
        hangup.clear()
        await _reloaded(gateway)


async def _keep_up(gateway: Gateway, seen: Mapping[str, tuple[int, int]] | None = None) -> None:
    """Reloads an artefact that was replaced, tries models that are down, forgets what is old.

    Args:
      gateway: The gateway.
      seen: The files of the artefacts before they were loaded; those of now where None.
    """
    seen = gateway.artefact_files() if seen is None else seen
    forgotten = time.monotonic()
    offset = time.time() - _steady()
    while True:
        await asyncio.sleep(_RELOAD_SECONDS)
        now = gateway.artefact_files()
        if now != seen and await _reloaded(gateway):
            seen = now
        if gateway.store.shared:
            gateway.refresh_spent()
        if time.monotonic() - forgotten > _RETENTION_SECONDS:
            forgotten = time.monotonic()
            jump = time.time() - _steady() - offset
            if abs(jump) < _JUMP_SECONDS:
                gateway.store.forget()
            else:  # by a clock that is a year ahead, all would be past its retention
                LOG.error("the clock has jumped by %.0f s: till a restart nothing is deleted", jump)


def _steady() -> float:
    """Seconds that only grow, and go on while the machine sleeps, where the system counts them."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
