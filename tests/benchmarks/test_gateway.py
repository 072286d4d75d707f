"""The benchmark of the gateway: what it prints of its figures, and the upstreams it measures with."""

import asyncio
import importlib
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def modules(monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("gateway", "gateway_servers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("gateway"), importlib.import_module("gateway_servers")


def figures(gateway, rate, p50):
    times = {"p50_ms": p50, "p99_ms": 4.0}
    own = {"requests_per_cpu_second": rate, **dict.fromkeys(gateway.ADDED, times)}
    return {"set of 1": own, "set of 3": own, "memory_mb": 300, "ready_seconds": 5.0}


def test_a_table_compares_and_floors_are_said(modules):
    gateway, _ = modules
    results = {"racer-jax serve": figures(gateway, 1500, 2.5), "litellm Router": None}
    assert len(gateway.table(results).splitlines()) == 4
    results["litellm Router"] = figures(gateway, 100, 40.0)
    rows = gateway.table(results).splitlines()
    assert len(rows) == 6
    assert rows[-1].startswith("| litellm Router, set of 3 | 100 | 40.0 / 4.0 |")
    kept = dict(gateway.verdicts(results["racer-jax serve"]))
    assert [value for name, value in kept.items() if "per CPU second" in name] == [False, True]
    assert [value for name, value in kept.items() if "p50" in name] == [False, False]
    assert [value for name, value in kept.items() if "p99" in name] == [True, True]


def test_what_is_not_the_gateway_s_own_stands_beside_it(modules):
    gateway, _ = modules
    own = figures(gateway, 5000, 1.5)["set of 1"]
    direct = {name: {"p50_ms": 0.0, "p99_ms": 3.0} for name in gateway.ADDED}
    results = {
        gateway.DIRECT: {gateway.ONE_CALL: direct},
        gateway.BARE: {gateway.ONE_CALL: own, "memory_mb": 50},
        gateway.OURS: figures(gateway, 2000, 2.5),
    }
    rows = gateway.table(results).splitlines()
    assert rows[2].startswith("| no server between |  | 0.0 / 3.0 |")
    assert rows[3].startswith("| uvicorn and aiohttp alone | 5,000 | 1.5 / 4.0 |")
    assert [row.count("|") for row in rows] == [rows[0].count("|")] * 6
    said = gateway.share_of_others(results)
    assert "add p50 1.5 / p99 4.0 ms at 8 clients" in said
    assert said.endswith("p99 is 3.0 ms above the median")


@pytest.mark.long
def test_the_bare_server_forwards_bodies_and_answers(modules):
    """In a process of its own, as the benchmark starts it."""
    gateway, servers = modules
    pytest.importorskip("uvicorn")
    pytest.importorskip("httptools")
    command = [sys.executable, str(gateway.SERVERS)]
    upstream, line = gateway.started([*command, "echo"])
    base = f"http://127.0.0.1:{int(line)}/v1"
    server, line = gateway.started([*command, "bare", base])
    url = f"http://127.0.0.1:{int(line)}/v1/chat/completions"
    try:
        request = urllib.request.Request(url, b'{"take_ms": 1}')
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.read() == servers._REPLY
    finally:
        for process in (server, upstream):
            gateway.ended(process)
            process.stdout.close()


def test_each_server_has_the_first_core_however_late_it_starts(modules, monkeypatch):
    """A process inherits where its parent may run, which has left the first core by then."""
    gateway, _ = modules
    places = {}
    monkeypatch.setattr(gateway, "CORES", [0, 1, 2])
    monkeypatch.setattr(gateway.os, "listdir", lambda path: [path.split("/")[2]])
    monkeypatch.setattr(gateway.os, "sched_setaffinity", places.__setitem__, raising=False)
    gateway.keep_apart([11], (20,))
    gateway.keep_apart([12], (20,))
    assert places == {11: [0], 12: [0], 20: [1, 2], gateway.os.getpid(): [1, 2]}


def test_the_upstream_takes_the_time_it_is_asked_for_and_that_is_taken_off(modules, run):
    """One server for all calls: what is left of a request is what it cost beside its upstream."""
    gateway, servers = modules

    async def measured():
        server = await asyncio.get_running_loop().create_server(servers.Echo, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        began = time.monotonic()
        times = await gateway.load(url, "echo", 2, 0.2, (50.0, 60.0))
        server.close()
        return times, time.monotonic() - began

    times, seconds = run(measured())
    assert len(times) <= 2 * seconds / 0.05
    assert (times > -0.002).all()  # never sooner than asked for


@pytest.fixture
def run():
    with asyncio.Runner() as runner:
        yield runner.run
