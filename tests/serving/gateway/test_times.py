"""Clocks that jump, ids that nobody gave, many names, and files that change while they are read."""

import asyncio
import json
import os
import shutil
import sqlite3
import threading
import time
from contextlib import closing

import msgspec
import pytest

from racer_jax.cli.main import main
from racer_jax.data.errors import DataError
from racer_jax.serving.gateway import _databases, _loaded, _server
from racer_jax.serving.gateway._databases import alone_with_state
from tests.serving.gateway.conftest import plain_settings
from tests.serving.gateway.test_state import FEEDBACK, settled

_YEAR = 365 * 86400.0


@pytest.fixture
def clock(monkeypatch):
    """Moves the clock of the wall; those that only grow go on."""
    real, moved = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + moved[0])
    monkeypatch.setattr(time, "time_ns", lambda: int((real() + moved[0]) * 1e9))
    return moved


@pytest.mark.parametrize("jump", [_YEAR, -_YEAR, 0.0])
def test_nothing_is_deleted_by_a_clock_that_has_jumped(
    start, run, monkeypatch, clock, jump, caplog
):
    gateway, forgotten = start().gateway, []
    monkeypatch.setattr(_server, "_RELOAD_SECONDS", 0.01)
    monkeypatch.setattr(_server, "_RETENTION_SECONDS", 0.0)
    monkeypatch.setattr(gateway.store, "forget", lambda: forgotten.append(True))

    async def kept_up():
        upkeep = asyncio.ensure_future(_server._keep_up(gateway))
        await asyncio.sleep(0)
        clock[0] = jump
        async with asyncio.timeout(30):
            while not forgotten and "the clock has jumped" not in caplog.text:
                await asyncio.sleep(0.01)
        upkeep.cancel()
        await asyncio.gather(upkeep, return_exceptions=True)

    run(kept_up())
    assert bool(forgotten) == (jump == 0.0)


def test_a_budget_outlives_a_clock_that_jumps(served, clock):
    gateway = served.gateway
    gateway.budgets.spend("bob", 3.0)
    for jump in (86400.0, _YEAR, 0.0):
        clock[0] = jump
        gateway.budgets.spend("alice", 1.0)
    assert gateway.budgets.today("bob") == 3.0
    for day in range(2, 40):  # nor are days kept for ever
        clock[0] = day * 86400.0
        gateway.budgets.spend("alice", 1.0)
    assert len({day for _, day in gateway.budgets.spent}) <= 6
    gateway.budgets.spent.clear()


def test_a_clock_that_goes_backwards_loses_no_row(start, clock, tmp_path):
    made = start(audit={"share": 1.0}, state={"path": str(tmp_path / "gateway.db")})
    names = []
    for jump in (0.0, _YEAR, -_YEAR, -10.0, 0.0):
        clock[0] = jump
        answer = made.chat(f"large at {jump}")
        assert answer.headers["x-racer-guarantee"] == "holds"
        names.append(answer.json["id"])
        settled(made)
        label = {"id": names[-1], "correct": {"small": 0, "medium": 0, "large": 1}}
        assert made.ask("POST", FEEDBACK, {**label, "source": "audit"}).json["new"]
    settled(made)
    assert len(set(names)) == 5
    labels = made.admin("GET", "/status").json["routes"]["my"]["monitors"]["labels"]
    assert (labels["audited"], labels["num"]) == (5, 5)


@pytest.mark.parametrize(
    "name",
    ["", " ", "\0", "\n", "a\r\nb: c", "x" * 100_000, "../../etc/passwd", "%00", "é\u2028\U0001f600",
     "' or 1=1 --", "chatcmpl-" + "z" * 32, "chatcmpl-" + "-" + "f" * 31, "chatcmpl-" + "\u0661" * 32],
)  # fmt: skip
def test_ids_that_nobody_gave_are_unknown(served, name):
    refused = served.ask("POST", FEEDBACK, {"id": name, "missed": 0})
    assert refused.status in (404, 410)
    assert len(refused.content) < 1000
    (said,) = served.admin("POST", "/audit", [{"id": name, "missed": 0}]).json["labels"]
    assert said["error"]["code"] in ("unknown_decision", "expired")


def test_many_names_cost_no_memory(served):
    """Groups, sessions and users that clients make up; nothing is kept for each of them."""
    gateway = served.gateway
    for i in range(300):
        if i == 10:
            text = served.admin("GET", "/metrics").content
        racer = {"group": f"made up {i}", "mode": "all"}
        assert served.chat("small ?", racer=racer, user=f"u{i}").json["racer"]["group"]
    settled(served)
    watched = gateway.monitors.of("my", gateway.planners["my"].loaded.checksum)
    assert all("made up" not in group for group in (*watched.live, *watched.top_scores))
    assert b"made up" not in served.admin("GET", "/metrics").content
    assert len(served.admin("GET", "/metrics").content) < len(text) + 2000


def test_an_artefact_is_of_one_version(artefacts, tmp_path, monkeypatch, served):
    route = served.gateway.settings.routes["my"]
    path = tmp_path / "used.racer"
    shutil.copytree(artefacts / "my.racer", path)
    real, swaps = _loaded.Racer.load, ["other", "my", "other", "my"]

    def replaced(*args, **options):
        """Another version comes between the description and the arrays."""
        if swaps:
            shutil.rmtree(path)
            shutil.copytree(artefacts / f"{swaps.pop(0)}.racer", path)
        return real(*args, **options)

    monkeypatch.setattr(_loaded.Racer, "load", replaced)
    changed = msgspec.structs.replace(route, artefact=str(path))
    with pytest.raises(DataError, match="was replaced while it was read"):
        _loaded.load(changed)
    swaps[:] = ["other"]
    loaded = _loaded.load(changed)
    assert loaded.checksum == _loaded.artefact.read(path)[0]["checksum"][:12]
    expected = real(artefacts / "other.racer").calibration.threshold
    assert loaded.racers["0.3"].calibration.threshold.tolist() == expected.tolist()


def test_two_gateways_do_not_share_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(_databases, "_PATIENCE", 0.05)
    path = str(tmp_path / "gateway.db")
    said = []

    def second():
        try:
            with alone_with_state(path):
                said.append("both")
        except DataError as error:
            said.append(str(error))

    with alone_with_state(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "is in use by another gateway" in said[0]
    second()
    assert said[1] == "both"
    with pytest.raises(TimeoutError), alone_with_state(path):
        raise TimeoutError  # of what runs in the block
    with alone_with_state(":memory:"), alone_with_state(":memory:"):
        pass


def test_a_check_writes_nothing(tmp_path, upstreams, artefacts, capsys, monkeypatch):
    state = tmp_path / "gateway.db"
    settings = plain_settings(upstreams, artefacts, state__path=str(state))
    settings["models"] = {
        name: {"base_url": model["base_url"]} for name, model in settings["models"].items()
    }
    config = tmp_path / "gateway.yaml"
    config.write_text(json.dumps(settings))
    command = ["serve", str(config), "--check"]
    assert main(command) == 0
    assert not state.exists()
    with closing(sqlite3.connect(state)) as connection, connection:
        connection.execute("create table meta (name text primary key, value text)")
        connection.execute("insert into meta values ('format', '99')")
    assert main(command) == 1
    assert "update racer_jax" in capsys.readouterr().err
    state.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda place, _: str(place) != str(tmp_path))
        assert main(command) == 1
    assert f"{tmp_path} may not be written" in capsys.readouterr().err
    state.write_text("this is no database, and it is long enough to be read as one")
    assert main(command) == 1
    assert "not the state of a gateway" in capsys.readouterr().err
