"""The state in PostgreSQL: several replicas, one log, monitors that all of them fold alike."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from racer_jax.cli.main import main
from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway import _databases
from racer_jax.serving.gateway._monitoring import Monitors
from racer_jax.serving.gateway._records import DecisionRow
from racer_jax.serving.gateway._store import Store
from racer_jax.serving.gateway.settings import Monitors as MonitorSettings
from tests.racer.test_racer import MODELS, table_of
from tests.serving.gateway.test_state import FEEDBACK, settled

NOBODY = 65534


async def _refreshed(gateway):
    """Takes over what all replicas have written."""
    gateway.refresh_spent()
    await asyncio.wrap_future(gateway.store.ask(lambda connection: None))
    await asyncio.sleep(0.01)


def test_a_password_is_in_no_message(monkeypatch, capsys, tmp_path):
    address = "postgresql://racer:secret@127.0.0.1:1/db"
    assert _databases.shown(address) == "postgresql://127.0.0.1:1/db"
    monkeypatch.setattr(_databases.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[postgres\]'"):
        Store(address, 1.0)
    assert main(["replay", address, "--artefact", str(tmp_path)]) != 0
    assert "secret" not in capsys.readouterr().err


def test_a_machine_that_vanishes_is_noticed_and_an_address_may_say_when(monkeypatch):
    psycopg = pytest.importorskip("psycopg")
    asked = []
    monkeypatch.setattr(psycopg, "connect", lambda address, **_: asked.append(address))
    for more in ("", "?tcp_user_timeout=1&connect_timeout=3"):
        _databases.Postgres(f"postgresql://racer@db.example/state{more}")
    plain, own = map(psycopg.conninfo.conninfo_to_dict, asked)
    assert (plain["host"], plain["dbname"]) == ("db.example", "state")
    assert (plain["connect_timeout"], plain["tcp_user_timeout"]) == ("10", "25000")
    assert {"keepalives_idle", "keepalives_interval", "keepalives_count"} <= own.keys()
    assert (own["connect_timeout"], own["tcp_user_timeout"]) == ("3", "1")


def test_replicas_number_the_artefacts_alike(tmp_path):
    """The level of an artefact is that of its place in the log, whoever entered it."""
    path = str(tmp_path / "state.db")
    replicas = []
    for _ in range(2):
        store, monitors = Store(path, 1e6), Monitors(MonitorSettings(level=0.04), b"k")
        store.on_commit = monitors.on_commit
        replicas.append((store, monitors))
    for number, artefact in ((0, "x"), (1, "y"), (0, "y"), (1, "x")):
        store, monitors = replicas[number]
        store.ask(lambda c, m=monitors, a=artefact: m.enter(c, "my", a, "paper")).result()
    levels = [[m.of("my", a).level for a in ("x", "y")] for _, m in replicas]
    assert levels == [[0.02, 0.01]] * 2
    for store, _ in replicas:
        store.close()


def programs():
    """The folder of PostgreSQL's programs; skips where there is none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    known = [folder for folder in folders if (folder / "initdb").exists()]
    if not known and (found := shutil.which("initdb")):
        known = [Path(found).resolve().parent]
    if not known:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return known[0]


@pytest.fixture(scope="module")
def server():
    """A server of its own, on a socket in a folder of the test: its address, and its restart."""
    pytest.importorskip("psycopg")
    # Not in pytest's own folder, which nobody but its owner may enter, however deep a worker's is.
    bin_folder, folder = programs(), Path(tempfile.mkdtemp(prefix="racer_jax_postgres_"))
    who = {}
    if os.getuid() == 0:  # it refuses to run as root
        who = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        os.chown(folder, NOBODY, NOBODY)

    def command(name, *arguments):
        subprocess.run(
            [bin_folder / name, *arguments], check=True, capture_output=True, cwd="/", **who
        )

    data = folder / "data"
    command("initdb", "-D", data, "-A", "trust", "-U", "racer", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"

    def start():
        log = folder / "log"
        command("pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")

    def stop():
        command("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")

    start()
    address = f"postgresql://racer@/postgres?host={folder}"
    yield address, stop, start
    stop()
    shutil.rmtree(folder)


@pytest.mark.slow
def test_tables_of_an_older_version_get_their_new_columns(server):
    address, _, _ = server
    Store(address, 1e12).close()
    drop = "alter table decision drop column promised, drop column experiment, drop column unit"
    connection = _databases.Postgres(address)
    connection.execute(drop)
    first, second = Store(address, 1e12), Store(address, 1e12)
    first.add(DecisionRow("chatcmpl-old", 1.0, "other", promised=False, unit=-(2**63)))
    assert first.decision("chatcmpl-old").result()["promised"] is False
    assert second.decision("chatcmpl-old").result()["unit"] == -(2**63)
    connection.execute("drop table decision")
    connection.close()
    first.close()
    second.close()


@pytest.mark.slow
def test_two_replicas_share_one_log(server, start, upstreams, artefacts, tmp_path, capsys):
    address, stop, begin = server
    upstreams.reset()
    changes = {
        "audit": {"share": 1.0},
        "state": {"path": address, "store_prompts": True},
        "monitors": {"level": 0.5, "share": 1.0, "reference": 4},
        "scripted": False,
    }
    first, second = start(**changes), start(**changes)
    assert first.gateway.hash_key == second.gateway.hash_key
    table = table_of(np.random.default_rng(5), 24, start=2000).table
    expected = 0
    for i, (text, group, correct) in enumerate(
        zip(table.texts, table.group, table.correct, strict=True)
    ):
        asked, labelling = (first, second) if i % 2 else (second, first)
        name = asked.chat(text, racer={"group": group}).json["id"]
        settled(asked)
        assert asked.gateway.store.error is None
        label = dict(zip(MODELS, map(int, correct), strict=True))
        said = labelling.admin("POST", "/audit", [{"id": name, "correct": label}]).json
        assert said["labels"] == [{"id": name, "new": True}]
        again = asked.admin("POST", "/audit", [{"id": name, "correct": label}]).json
        assert again["labels"] == [{"id": name, "new": False}]
        expected += 1
    statuses = []
    for replica in (first, second):
        replica.run(_refreshed(replica.gateway))
        settled(replica)
        statuses.append(replica.admin("GET", "/status").json["routes"]["my"]["monitors"])
    assert statuses[0] == statuses[1]
    assert statuses[0]["labels"]["num"] == expected
    assert first.gateway.budgets.spent == pytest.approx(second.gateway.budgets.spent)

    # A third replica takes up what one of them saved, and folds the rest of the log.
    second.gateway.store.ask(second.gateway.monitors.save).result()
    name = first.chat("sum prime and one more", racer={"group": "a"}).json["id"]
    settled(first)
    first.admin("POST", "/audit", [{"id": name, "correct": dict.fromkeys(MODELS, 0)}])
    third = start(**changes)
    settled(third)
    settled(first)
    monitors = [r.admin("GET", "/status").json["routes"]["my"]["monitors"] for r in (first, third)]
    assert monitors[0] == monitors[1]

    # The server dies; what is decided meanwhile is written once it is back.
    stop()
    name = first.chat("sum prime while it is away", racer={"group": "a"}).json["id"]
    refused = first.ask("POST", FEEDBACK, {"id": name, "missed": 0})
    assert (refused.status, refused.json["error"]["code"]) == (503, "state")
    ready = first.admin("GET", "/readyz")
    assert (ready.status, ready.json["problems"]) == (200, [])
    assert ready.json["warnings"][0].startswith("the state cannot be written")
    begin()
    assert first.ask("POST", FEEDBACK, {"id": name, "missed": 0}).status == 200
    assert first.admin("GET", "/readyz").status == 200
    text = "a text with\0 in it"
    name = first.chat(text, racer={"group": "a"}).json["id"]
    stored = first.ask("GET", f"/v1/racer/decisions/{name}").json
    assert stored["prompt"] == text.replace("\0", "\ufffd")

    artefact, new = str(artefacts / "my.racer"), tmp_path / "new.racer"
    assert main(["recalibrate", address, "--artefact", artefact, "-o", str(new)]) == 0
    assert int(Racer.load(new).calibration.num_queries.sum()) == expected + 1
    assert main(["replay", address, "--artefact", artefact]) == 0
    assert "with the same models" in capsys.readouterr().out
