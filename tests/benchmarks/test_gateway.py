"""The benchmark of the gateway: what it prints of its figures, and the upstreams it measures with."""

import asyncio
import importlib
import sys
import time
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
    columns = [*(f"added at {n} clients" for n in gateway.CLIENTS), "added at 8 clients in step"]
    own = {"requests_per_cpu_second": rate, **dict.fromkeys(columns, times)}
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
