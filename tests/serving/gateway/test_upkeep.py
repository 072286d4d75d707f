"""What the gateway does by itself, now and then: new artefacts, and an end of what is old."""

import asyncio
import shutil
import subprocess
import sys
import time

import pytest

from racer_jax.serving.gateway import _server
from racer_jax.serving.gateway._cache import Cache
from racer_jax.serving.gateway._identifiers import new_id
from racer_jax.serving.gateway._records import AuditRow, CallRow, DecisionRow, Feedback
from racer_jax.serving.gateway._store import Store

TABLES = {"decision": "id", "call": "decision", "audit": "decision", "feedback": "decision"}


def test_what_is_past_its_retention_is_forgotten():
    store = Store(":memory:", retention=60)
    names = [new_id(), new_id()]
    for name, age in zip(names, (3600, 0), strict=True):
        at = time.time() - age
        store.add(DecisionRow(name, at, "my", prompt="a text", calls=[CallRow("large", "ok")]))
        store.add(AuditRow(name, at, b"[]", {}, b"", "0", "paper"))
        assert store.feedback(Feedback(id=name, missed=1, comment="a text")).result()
    assert store.forget().result() == 1

    def left(connection):
        return {
            table: [row[0] for row in connection.execute(f"select {column} from {table}")]
            for table, column in TABLES.items()
        }

    assert store.ask(left).result() == {table: [names[1]] for table in TABLES}
    store.close()


def test_an_artefact_that_is_replaced_is_loaded_and_the_old_forgotten(
    start, artefacts, tmp_path, monkeypatch
):
    path = tmp_path / "used.racer"
    shutil.copytree(artefacts / "my.racer", path)
    served = start(routes__my__artefact=str(path))
    gateway = served.gateway
    before, forgotten = gateway.planners["my"].loaded.checksum, []
    monkeypatch.setattr(_server, "_RELOAD_SECONDS", 0.01)
    monkeypatch.setattr(_server, "_RETENTION_SECONDS", 0.0)
    monkeypatch.setattr(gateway.store, "forget", lambda: forgotten.append(True))

    async def replaced():
        upkeep = asyncio.ensure_future(_server._keep_up(gateway))
        await asyncio.sleep(0)  # it has seen the artefact of now
        shutil.rmtree(path)
        shutil.copytree(artefacts / "other.racer", path)
        async with asyncio.timeout(30):
            while gateway.planners["my"].loaded.checksum == before:
                await asyncio.sleep(0.01)
        upkeep.cancel()
        await asyncio.gather(upkeep, return_exceptions=True)

    served.run(replaced())
    assert forgotten


def test_an_artefact_that_is_replaced_while_it_is_loaded_is_noticed(
    start, artefacts, tmp_path, monkeypatch
):
    """What was seen before the load is another file than that of now."""
    path = tmp_path / "used.racer"
    shutil.copytree(artefacts / "my.racer", path)
    served = start(routes__my__artefact=str(path))
    gateway = served.gateway
    before, seen = gateway.planners["my"].loaded.checksum, gateway.artefact_files()
    shutil.rmtree(path)
    shutil.copytree(artefacts / "other.racer", path)
    monkeypatch.setattr(_server, "_RELOAD_SECONDS", 0.01)

    async def replaced():
        upkeep = asyncio.ensure_future(_server._keep_up(gateway, seen))
        async with asyncio.timeout(30):
            while gateway.planners["my"].loaded.checksum == before:
                await asyncio.sleep(0.01)
        upkeep.cancel()
        await asyncio.gather(upkeep, return_exceptions=True)

    served.run(replaced())
    assert gateway.planners["my"].loaded.checksum != before


def test_what_is_asked_for_while_artefacts_are_read_is_done_afterwards(plain_gateway, monkeypatch):
    """Requests to reload that come at once are one; each that comes later is another."""
    reloads = []

    async def reloaded(gateway):
        reloads.append(gateway)
        await asyncio.sleep(0.01)

    monkeypatch.setattr(_server, "_reloaded", reloaded)

    async def asked():
        event = asyncio.Event()
        event.set()  # SIGHUP came before the gateway was ready
        task = asyncio.ensure_future(_server._reload_when_asked(plain_gateway.gateway, event))
        await asyncio.sleep(0.005)
        event.set()
        event.set()
        async with asyncio.timeout(30):
            while len(reloads) < 2:
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    plain_gateway.run(asked())
    assert len(reloads) == 2


def test_kept_answers_are_bounded_by_their_bytes_too():
    cache = Cache(most=3, clock=lambda: 0.0, most_bytes=100)
    for i in range(5):
        cache.put(i, 10.0, f"value {i}", 40)
    assert [cache.get(i) for i in range(5)] == [None, None, None, "value 3", "value 4"]
    cache.put(4, 10.0, "again", 60)  # in the place of another
    assert (cache.get(3), cache.get(4)) == ("value 3", "again")
    cache.put(5, 10.0, "too long", 101)
    assert cache.get(5) is None
    cache.put(6, 10.0, "fits", 100)
    assert cache.get(6) == "fits"
    cache.clear()
    for i in range(9):
        cache.put(i, 10.0, "small")
    assert sum(cache.get(i) is not None for i in range(9)) == 3


@pytest.mark.long
def test_a_server_may_open_as_many_files_as_the_system_lets_it():
    code = """
import resource
from racer_jax.serving.gateway._server import _open_many_files
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
_open_many_files()
soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
print(soft == (min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
