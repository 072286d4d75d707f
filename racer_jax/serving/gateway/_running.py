"""Runs the gateway from the command line: a configuration, or the demo."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from racer_jax.serving.gateway import _demo
from racer_jax.serving.gateway._databases import check_writable, is_shared, reading
from racer_jax.serving.gateway._server import listening, serve
from racer_jax.serving.gateway._tables import check_format
from racer_jax.serving.gateway.configuration import load_settings
from racer_jax.serving.gateway.core import Gateway
from racer_jax.serving.gateway.settings import Server, Settings

Say = Callable[[str], None]


def run(path: Path, port: int | None, admin_port: int | None, only_check: bool, say: Say) -> None:
    """Serves what a configuration describes.

    Args:
      path: The configuration.
      port: Another inference port.
      admin_port: Another management port.
      only_check: Whether to end once everything was loaded.
      say: Prints a line.

    Raises:
      DataError: If the configuration, an artefact or the state cannot be used.
      OSError: If a port is taken.
    """
    _decide_in_one_thread()
    settings = _with_ports(load_settings(path), port, admin_port)
    if only_check:
        _run(_check(settings))
        say(f"{path}: routes: {len(settings.routes)}, models: {len(settings.models)}; all is well")
        return
    with _listening(settings.server) as sockets:
        ports = (sockets[0].getsockname()[1], sockets[1].getsockname()[1])

        def ready() -> None:
            for line in ready_lines(settings, ports):
                say(line)

        _run(serve(settings, sockets, ready))


@contextmanager
def _listening(server: Server) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The sockets of inference and management; none is left open, whatever happens."""
    with (
        listening(server.host, server.port) as inference,
        listening(server.admin_host, server.admin_port) as management,
    ):
        yield inference, management


def ready_lines(settings: Settings, ports: tuple[int, int]) -> tuple[str, str]:
    """Where the gateway listens, and every name that clients may ask for.

    Use this when a gateway is ready, to say so.

    Args:
      settings: The configuration.
      ports: The ports of inference and management that were opened.
    """
    server = settings.server
    names = ", ".join(f"racer/{name}" for name in (*settings.routes, *settings.experiments))
    return (
        f"ready: http://{server.host}:{ports[0]}/v1, models {names}",
        f"management: http://{server.admin_host}:{ports[1]}/status",
    )


def run_demo(folder: Path, port: int | None, admin_port: int | None, say: Say) -> None:
    """Serves simulated models on this machine, without a key and without a network.

    Args:
      folder: Where the artefact and the state are kept.
      port: The inference port; 8080 where None.
      admin_port: The management port; 8081 where None.
      say: Prints a line.

    Raises:
      OSError: If a port is taken.
    """
    _decide_in_one_thread()
    server = _ports(Server(), port, admin_port)
    with _listening(server) as sockets, listening("127.0.0.1", 0) as upstream:
        ports = (sockets[0].getsockname()[1], sockets[1].getsockname()[1])
        folder.mkdir(parents=True, exist_ok=True)
        say("training a router on invented questions, and calibrating it")
        artefact, table = _demo.demo_artefact(folder)
        url = f"http://127.0.0.1:{upstream.getsockname()[1]}/v1"
        state = str((folder / "gateway.db").absolute())
        settings = _demo.demo_settings(artefact, table, url, ports, state)

        def ready() -> None:
            say(f"ready: http://127.0.0.1:{ports[0]}/v1, simulated models; Ctrl-C stops it")
            say("ask it something, in another terminal:")
            say(_demo.curl_line(ports[0], table))
            say(f"its state: curl -s http://127.0.0.1:{ports[1]}/status")

        async def both() -> None:
            models = asyncio.ensure_future(_demo.serve_upstreams(table, upstream))
            try:
                await serve(settings, sockets, ready)
            finally:
                models.cancel()
                await asyncio.gather(models, return_exceptions=True)

        _run(both())


async def _check(settings: Settings) -> None:
    """Loads what a configuration names, and writes nothing: a gateway may be using the state."""
    path = settings.state.path
    if is_shared(path):
        with reading(path):  # it may have no tables yet
            pass
    else:
        check_writable(path)
        if Path(path).is_file() and Path(path).stat().st_size:
            with reading(path) as connection:
                check_format(connection, path)
    nothing = msgspec.structs.replace(settings.state, path=":memory:")
    gateway = Gateway(msgspec.structs.replace(settings, state=nothing), warm_sizes=(1,))
    await gateway.start()
    await gateway.stop()


def _decide_in_one_thread() -> None:
    """XLA takes decisions in the thread that asks, and splits none over several threads.

    For matrices this small, handing the work to another thread and waiting for it costs more than
    it saves. XLA reads both settings when it computes for the first time.
    """
    import jax

    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def _with_ports(settings: Settings, port: int | None, admin_port: int | None) -> Settings:
    server = _ports(settings.server, port, admin_port)
    return msgspec.structs.replace(settings, server=server)


def _ports(server: Server, port: int | None, admin_port: int | None) -> Server:
    changes: dict[str, int] = {}
    if port is not None:
        changes["port"] = port
    if admin_port is not None:
        changes["admin_port"] = admin_port
    return msgspec.structs.replace(server, **changes)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Runs the loop, a fast one where there is one."""
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(work)
        return
    uvloop.run(work)
