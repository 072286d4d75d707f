"""The disk under a gateway: full, taken away and given back. What is acknowledged is stored."""

import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing

import pytest

from racer_jax.serving.gateway import _store
from tests.serving.gateway.test_state import FEEDBACK, settled

_RIGHT, _WRONG = {"small": 0, "medium": 0, "large": 1}, {"small": 1, "medium": 0, "large": 0}


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(_store, "_AGAIN_SECONDS", 0.05)


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MB, for whoever may have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(folder):
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


def _until(condition):
    for _ in range(200):
        if condition():
            return True
        time.sleep(0.05)
    return False


def _is_ready(made):
    return made.admin("GET", "/readyz").status == 200


def _stored(path, query):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def _metric(made, name):
    lines = made.admin("GET", "/metrics").content.decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"racer_{name} ")).split()[1])


def _label(made, name, correct):
    body = {"id": name, "correct": correct, "source": "audit"}
    return made.ask("POST", FEEDBACK, body)


def test_a_full_disk_loses_nothing_that_was_acknowledged(start, disk, caplog):
    path = disk / "gateway.db"
    made = start(audit={"share": 1.0}, state={"path": str(path)})
    before = made.chat("large before").json["id"]
    assert _label(made, before, _RIGHT).status == 200
    settled(made)
    _fill(disk)
    names, refused, acknowledged = [], [], {before}
    for i in range(40):
        answer = made.chat(f"large full {i}")
        assert (answer.status, answer.headers["x-racer-guarantee"]) == (200, "holds")
        names.append(answer.json["id"])
        said = _label(made, names[-1], _WRONG)
        if said.status == 200:
            acknowledged.add(names[-1])
        else:
            refused.append(names[-1])
            assert (said.status, said.json["error"]["code"]) == (503, "state")
            assert said.headers["retry-after"] == "5"
    assert refused
    assert made.ask("GET", f"/v1/racer/decisions/{names[-1]}").status == 503
    assert made.admin("GET", "/audit").status == 503
    ready = made.admin("GET", "/readyz")
    assert (ready.status, ready.json["problems"]) == (503, ["the state cannot be written"])
    assert made.admin("GET", "/healthz").status == 200
    assert made.admin("GET", "/status").json["rows_kept"] > 0
    assert (_metric(made, "state_failing"), _metric(made, "state_rows_lost")) == (1, 0)
    assert caplog.text.count("the state cannot be written: database or disk is full") == 1

    (disk / "filler").unlink()
    assert _until(lambda: _is_ready(made))  # though nobody asks anything
    assert "the state is written again" in caplog.text
    assert _metric(made, "state_failing") == _metric(made, "state_rows_kept") == 0
    assert {name for (name,) in _stored(path, "select id from decision")} == {before, *names}
    assert {name for (name,) in _stored(path, "select decision from feedback")} == acknowledged
    route = made.admin("GET", "/status").json["routes"]["my"]
    # A label that was refused counts nowhere, and one that is sent again counts once.
    assert route["monitors"]["labels"]["num"] == len(acknowledged)
    for name in refused:
        assert _label(made, name, _RIGHT).json["new"]
    settled(made)
    labels = made.admin("GET", "/status").json["routes"]["my"]["monitors"]["labels"]
    assert labels["num"] == len(names) + 1
    assert labels["misses"] == len(acknowledged) - 1
    assert labels["audited"] == len(names) + 1


class _Failing:
    """A connection whose commits fail as long as it is broken."""

    def __init__(self, connection, broken):
        self._connection, self._broken = connection, broken

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, sql, *parameters):
        if sql == "commit" and self._broken:
            raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(sql, *parameters)


def test_what_is_undone_counts_nowhere(start, tmp_path, monkeypatch):
    """A commit may fail after all: the monitors counted what it would have held."""
    made = start(audit={"share": 1.0}, state={"path": str(tmp_path / "gateway.db")})
    first, second = (made.chat(f"large {i}").json["id"] for i in range(2))
    settled(made)
    store, broken = made.gateway.store, [True]
    write = store._write
    monkeypatch.setattr(store, "_write", lambda c, items: write(_Failing(c, broken), items))
    assert _label(made, first, _WRONG).status == 503
    broken.clear()
    assert _until(lambda: _is_ready(made))
    assert _label(made, second, _RIGHT).json["new"]
    settled(made)
    labels = made.admin("GET", "/status").json["routes"]["my"]["monitors"]["labels"]
    assert (labels["num"], labels["misses"]) == (1, 0)


@pytest.mark.parametrize("file", ["gateway.db", "gateway.db-wal"])
def test_a_state_that_is_taken_away_acknowledges_nothing(start, tmp_path, file, caplog):
    path = tmp_path / "gateway.db"
    made = start(state={"path": str(path)})
    name = made.chat("large before").json["id"]
    assert made.ask("POST", FEEDBACK, {"id": name, "missed": 0}).status == 200
    for replaced in (False, True):
        os.rename(tmp_path / file, tmp_path / "away")
        if replaced:
            shutil.copy(tmp_path / "away", tmp_path / file)
        later = made.chat(f"large later {replaced}")
        assert later.status == 200
        refused = made.ask("POST", FEEDBACK, {"id": later.json["id"], "missed": 0})
        assert (refused.status, refused.json["error"]["code"]) == (503, "state")
        assert not _is_ready(made)
        assert "its file was deleted or replaced: put it back, or restart" in caplog.text
        os.rename(tmp_path / "away", tmp_path / file)
        assert _until(lambda: _is_ready(made))
        answer = made.ask("POST", FEEDBACK, {"id": later.json["id"], "missed": 0})
        assert answer.json["new"]
    assert len(_stored(path, "select id from decision")) == 3


def test_a_log_that_a_reader_made_long_is_cut(tmp_path):
    store = _store.Store(str(tmp_path / "gateway.db"), 1e6)
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from meta").fetchone()
        big = "x" * (1 << 20)
        for i in range(80):
            store.ask(
                lambda c, i=i: c.execute("insert into meta values (?, ?)", [f"big {i}", big])
            ).result(10)
        assert (tmp_path / "gateway.db-wal").stat().st_size > 80 << 20
    for i in range(3):
        store.ask(lambda c, i=i: c.execute("insert into meta values (?, '')", [f"{i}"])).result(10)
    assert (tmp_path / "gateway.db-wal").stat().st_size <= 64 << 20
    store.close()
