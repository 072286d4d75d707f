"""The disk under a gateway: full, taken away and given back. What is acknowledged is stored."""

import os
import shutil
import sqlite3
import subprocess
import threading
import time
from contextlib import closing

import pytest

from racer_jax.data.errors import DataError
from racer_jax.serving.gateway import _store
from racer_jax.serving.gateway._arms import compare
from racer_jax.serving.gateway._databases import insert_rows
from racer_jax.serving.gateway._monitoring import Monitors
from racer_jax.serving.gateway._records import AuditRow, CallRow, DecisionRow, Feedback
from racer_jax.serving.gateway.settings import Monitors as Settings
from tests.serving.gateway.test_state import FEEDBACK, settled

_HELLO = [{"role": "user", "content": "large ?"}]
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
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def _is_ready(made):
    ready = made.admin("GET", "/readyz")
    return ready.status == 200 and not ready.json["warnings"]


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
    """Nor does it stop the traffic of a gateway that is the only one."""
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
    assert (ready.status, ready.json["problems"]) == (200, [])
    (warning,) = ready.json["warnings"]
    assert warning.startswith("the state cannot be written: answers go on, ")
    assert made.admin("GET", "/status").json["warnings"] == ready.json["warnings"]
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


def test_where_nothing_may_go_unrecorded_nothing_is_answered(start, tmp_path, upstreams):
    path = tmp_path / "gateway.db"
    made = start(state={"path": str(path), "when_failing": "refuse"})
    assert made.chat("large before").status == 200
    settled(made)
    os.rename(path, tmp_path / "away")
    made.chat("large while nobody knows")  # what was answered is written later
    assert _until(lambda: not _is_ready(made))
    ready = made.admin("GET", "/readyz")
    assert (ready.status, ready.json["problems"]) == (503, ["the state cannot be written"])
    upstreams.reset()
    for method, where, body in (
        ("POST", "/v1/chat/completions", {"model": "racer/my", "messages": _HELLO}),
        ("POST", "/v1/chat/completions", {"model": "racer/my", "messages": _HELLO, "stream": True}),
        ("POST", "/v1/chat/completions", {"model": "large", "messages": _HELLO}),
        ("POST", "/v1/responses", {"model": "racer/my", "input": "large ?"}),
    ):
        refused = made.ask(method, where, body)
        assert (refused.status, refused.json["error"]["code"]) == (503, "state")
        assert refused.headers["retry-after"] == "5"
    assert not upstreams.asked
    assert made.ask("POST", "/v1/racer/route", {"inputs": [{"text": "large ?"}]}).status == 200
    os.rename(tmp_path / "away", path)
    assert _until(lambda: _is_ready(made))
    assert made.chat("large after").status == 200
    settled(made)
    assert len(_stored(path, "select id from decision")) == 3


def test_a_gateway_whose_models_were_down_gets_requests_again(start, upstreams):
    """A balancer that sends it none would leave it without the one that tries a model again."""
    made = start(**{f"models__{name}__breaker_seconds": 0.2 for name in (*_RIGHT, "judge")})
    for upstream in made.gateway.upstreams.values():
        for _ in range(5):
            upstream.breaker.failed()
    down = made.admin("GET", "/readyz")
    assert (down.status, down.json["problems"]) == (503, ["every model is down"])
    assert _until(lambda: _is_ready(made))
    assert made.chat("large ?").status == 200


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


def test_an_artefact_whose_entry_is_undone_takes_no_place_in_the_log(tmp_path, monkeypatch):
    """Else the next one, whose row has the same number, would never be tested."""
    store = _store.Store(str(tmp_path / "state.db"), 1e12)
    monitors = Monitors(Settings(level=0.04), b"key")
    store.on_commit, store.on_rollback = monitors.on_commit, monitors.on_rollback
    write, broken = store._write, [True]
    monkeypatch.setattr(store, "_write", lambda c, items: write(_Failing(c, broken), items))

    def entered(artefact):
        return store.ask(lambda c: monitors.enter(c, "my", artefact, "paper")).result(30)

    with pytest.raises(sqlite3.OperationalError):
        entered("first")
    broken.clear()
    entered("second")
    entered("first")
    levels = [monitors.of("my", artefact).level for artefact in ("second", "first")]
    assert levels == [0.02, 0.01]
    store.close()


def test_no_artefact_comes_into_use_before_its_tests(start, artefacts, tmp_path, monkeypatch):
    """They begin with what is committed, and that may fail where the entry itself did not."""
    shutil.copytree(artefacts / "my.racer", tmp_path / "used.racer")
    made = start(
        routes__my__artefact=str(tmp_path / "used.racer"), state__path=str(tmp_path / "gateway.db")
    )
    first = made.gateway.planners["my"].loaded.checksum
    store = made.gateway.store
    count, full = store.on_commit, [True]

    def on_commit(connection):
        if full:
            raise sqlite3.OperationalError("database or disk is full")
        count(connection)

    monkeypatch.setattr(store, "on_commit", on_commit)
    shutil.rmtree(tmp_path / "used.racer")
    shutil.copytree(artefacts / "other.racer", tmp_path / "used.racer")
    refused = made.admin("POST", "/reload", {})
    assert (refused.status, refused.json["error"]["code"]) == (503, "state")
    assert made.admin("GET", "/status").json["routes"]["my"]["artefact"] == first
    full.clear()
    assert _until(lambda: _is_ready(made))
    second = made.admin("POST", "/reload", {}).json["artefacts"]["my"]
    assert second != first
    assert made.gateway.monitors.of("my", second).level == pytest.approx(0.05 / 4)


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


@pytest.mark.parametrize("num", [0, 1, 2, 35, 36, 37, 200])
def test_rows_are_inserted_as_they_are_however_many(num):
    rows = [(i, i / 3, None if i % 5 else f"é{i}", bytes([i])) for i in range(num)]
    statements = []
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("create table t (a integer, b real, c text, d blob)")
        connection.set_trace_callback(statements.append)
        insert_rows(connection, "t", ("a", "b", "c", "d"), rows)
        connection.set_trace_callback(None)
        assert connection.execute("select * from t order by rowid").fetchall() == rows
    assert len(statements) == num.bit_count()  # 200 rows are 800 values, fewer than 999


def test_more_rows_than_one_statement_takes(tmp_path):
    store = _store.Store(str(tmp_path / "state.db"), 1e6)
    rows = [DecisionRow(f"chatcmpl-{i}", 1.0, "my", calls=[CallRow("m", "ok")]) for i in range(500)]
    for row in rows:
        store.add(row)
    store.close()
    for query in ("select id from decision", "select decision from call"):
        in_order = f"{query} order by rowid"
        assert _stored(store.path, in_order) == [(row.id,) for row in rows]


def test_what_waits_for_a_write_that_does_not_end_is_bounded(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(_store, "_MOST_KEPT", 5)
    store = _store.Store(str(tmp_path / "state.db"), 1e6)
    held, let_go = threading.Event(), threading.Event()

    def hang(connection):
        held.set()
        assert let_go.wait(30)

    asked = store.ask(hang)
    assert held.wait(30)
    for i in range(9):
        store.add(DecisionRow(f"chatcmpl-{i}", 1.0, "my"))
    assert store.dropped == 4
    assert caplog.text.count("the state loses rows: 5 wait") == 1
    let_go.set()
    asked.result(30)
    store.add(DecisionRow("chatcmpl-late", 1.0, "my"))
    store.close()
    stored = [name for (name,) in _stored(store.path, "select id from decision order by seq")]
    assert stored == [f"chatcmpl-{i}" for i in range(5)] + ["chatcmpl-late"]
    assert store.dropped == 4


def _broken(store, monkeypatch, bad="none", small="none"):
    """A list: as long as it holds something, the store can write no decision.

    But for the one of the name `small`, alone. The one of the name `bad` can be written by no try.
    """
    real, broken = store._insert, [True]

    def insert(connection, rows):
        names = [row.id for row in rows]
        if bad in names:
            raise sqlite3.IntegrityError("a row that no try can write")
        if broken and names != [small]:
            raise sqlite3.OperationalError("database or disk is full")
        real(connection, rows)

    monkeypatch.setattr(store, "_insert", insert)
    return broken


def test_rows_that_a_database_does_not_take_are_written_later(tmp_path, monkeypatch):
    store = _store.Store(str(tmp_path / "state.db"), 1e6)
    broken = _broken(store, monkeypatch)
    store.add(DecisionRow(id="chatcmpl-1", at=1e12, route="my"))
    with pytest.raises(sqlite3.OperationalError):
        store.ask(lambda connection: None).result()
    assert isinstance(store.error, sqlite3.OperationalError)
    broken.clear()
    assert store.decision("chatcmpl-1").result()["route"] == "my"
    assert (store.error, store.dropped) == (None, 0)
    store.close()


def test_rows_still_wait_while_they_are_tried_again(tmp_path, monkeypatch):
    store = _store.Store(str(tmp_path / "state.db"), 1e6)
    store.add(DecisionRow("chatcmpl-early", 1.0, "my"))
    store.ask(lambda connection: None).result(30)  # it is written, and waits no more
    broken = _broken(store, monkeypatch)
    refusing, seen = store._insert, []

    def insert(connection, rows):
        seen.append(store.num_kept)
        refusing(connection, rows)

    monkeypatch.setattr(store, "_insert", insert)
    for i in range(3):
        store.add(DecisionRow(f"chatcmpl-{i}", 1.0, "my"))
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError):
            store.ask(lambda connection: None).result(30)
        assert store.num_kept == 3
    store.add(DecisionRow("chatcmpl-3", 1.0, "my"))
    assert store.num_kept == 4  # at once, before the next try
    broken.clear()
    store.ask(lambda connection: None).result(30)
    assert (store.num_kept, store.dropped) == (0, 0)
    store.close()
    assert seen[0] == 0  # nothing had failed yet
    assert set(seen[1:]) <= {3, 4}


def test_a_disk_that_fills_while_rows_are_tried_alone_loses_only_the_row_at_fault(
    tmp_path, monkeypatch
):
    store = _store.Store(str(tmp_path / "state.db"), 1e6)
    full = _broken(store, monkeypatch, bad="chatcmpl-bad", small="chatcmpl-3")
    for name in ("bad", "1", "2", "3"):
        store.add(DecisionRow(f"chatcmpl-{name}", 1.0, "my"))
    assert _until(lambda: store.dropped == 1 and store.num_kept == 3)
    # Nothing is written past a row that waits: the state fails as long as there is one.
    assert isinstance(store.error, sqlite3.OperationalError)
    full.clear()
    assert _until(lambda: len(_stored(store.path, "select id from decision")) == 3)
    store.close()
    assert store.dropped == 1


def test_a_label_of_a_decision_that_waits_is_not_told_that_there_is_none(tmp_path, monkeypatch):
    """Rows are tried alone for the sake of one at fault, and meanwhile the disk fills."""
    store = _store.Store(str(tmp_path / "state.db"), 1e12)
    full = _broken(store, monkeypatch, bad="chatcmpl-bad")
    for name in ("bad", "1"):
        store.add(DecisionRow(f"chatcmpl-{name}", time.time(), "my"))
    label = Feedback(id="chatcmpl-1", answer_correct=1)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.feedback(label).result(30)
    full.clear()
    assert store.feedback(label).result(30)
    store.close()
    assert store.dropped == 1


def test_a_commit_whose_answer_is_lost_is_not_written_twice_nor_counted_as_lost(
    tmp_path, monkeypatch
):
    """PostgreSQL may commit as its connection breaks: the rows are there at the next try."""
    store = _store.Store(str(tmp_path / "state.db"), 1e12)
    write, broken = store._write, [True]

    class Breaking(_Failing):
        def execute(self, sql, *parameters):
            done = self._connection.execute(sql, *parameters)
            if sql == "commit" and self._broken:
                self._broken.clear()
                raise sqlite3.OperationalError("the connection was closed unexpectedly")
            return done

    monkeypatch.setattr(store, "_write", lambda c, items: write(Breaking(c, broken), items))
    rows = [DecisionRow(f"chatcmpl-{i}", 1.0, "my", calls=[CallRow("m", "ok")]) for i in range(3)]
    for row in rows:
        store.add(row)
    assert _until(lambda: not broken)
    store.add(DecisionRow("chatcmpl-new", 1.0, "my", calls=[CallRow("m", "ok")]))
    store.close()
    names = [(f"chatcmpl-{i}",) for i in (0, 1, 2, "new")]
    for query in ("select id from decision", "select decision from call"):
        assert _stored(store.path, f"{query} order by rowid") == names
    assert (store.dropped, store.num_kept) == (0, 0)


def test_what_the_database_undid_by_itself_is_named_for_what_it_was(tmp_path):
    """SQLite ends the transaction where a disk is full in its midst: there is nothing to undo."""
    store = _store.Store(str(tmp_path / "state.db"), 1e12)

    def fill(connection):
        connection.execute("rollback")
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(sqlite3.OperationalError, match="disk is full"):
        store.ask(fill).result(30)
    assert "disk is full" in str(store.error)
    store.close()


def test_what_is_kept_is_bounded_by_its_characters_too(tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "_MOST_CHARACTERS", 100)
    store = _store.Store(str(tmp_path / "state.db"), 1e6)
    broken = _broken(store, monkeypatch)
    for i in range(4):
        store.add(DecisionRow(f"chatcmpl-{i}", 1.0, "my", prompt="x" * 10))
        answers = {"small": "y" * 15, "large": None}
        store.add(AuditRow(f"chatcmpl-{i}", 1.0, b"z" * 15, answers, b"", "c", "paper"))
    with pytest.raises(sqlite3.OperationalError):
        store.ask(lambda connection: None).result(30)
    # From the last: 30 + 10, twice, are 80; one audit more would be 110.
    assert (store.num_kept, store.dropped) == (4, 4)
    broken.clear()
    store.close()
    names = [(f"chatcmpl-{i}",) for i in (2, 3)]
    assert _stored(store.path, "select id from decision") == names
    assert _stored(store.path, "select decision from audit") == names


def _damage(path, table):
    """Overwrites every page of a table of a closed state, and those of its indices."""
    with closing(sqlite3.connect(path)) as connection:
        roots = "select rootpage from sqlite_master where tbl_name = ? and rootpage > 0"
        pages = [page for (page,) in connection.execute(roots, [table])]
        (size,) = connection.execute("pragma page_size").fetchone()
        connection.execute("pragma wal_checkpoint(truncate)")
    with open(path, "r+b") as file:
        for page in pages:
            file.seek((page - 1) * size)
            file.write(b"\xff" * size)


@pytest.mark.parametrize("refuses", [False, True])
def test_a_damaged_page_is_named_with_what_to_do(start, upstreams, tmp_path, refuses, caplog):
    path = str(tmp_path / "gateway.db")
    store = _store.Store(path, 1e12)
    store.add(DecisionRow("chatcmpl-1", time.time(), "my", calls=[CallRow("small", "ok")]))
    store.close()
    _damage(path, "call")
    made = start(state={"path": path, "when_failing": "refuse" if refuses else "answer"})
    assert made.chat("large ?").status == 200
    settled_in_vain = made.ask("POST", "/v1/feedback", {"id": "chatcmpl-1", "answer_correct": 1})
    assert settled_in_vain.status == 503
    for _ in range(3):  # a try that writes something else does not end it
        assert made.chat("large ?").status == (503 if refuses else 200)
        time.sleep(0.1)
    ready = made.admin("GET", "/readyz")
    assert ready.status == (503 if refuses else 200)
    (words,) = [w for w in ready.json["warnings"] if "malformed" in w]
    for part in (path, "is damaged", "Lost are the rows", ".recover", "away"):
        assert part in words
    assert words in caplog.text
    assert caplog.text.count(".recover") == 1
    # None is given up for lost as long as they wait.
    assert (made.gateway.store.dropped, made.gateway.store.num_kept) == (0, 1 if refuses else 4)


def test_a_damaged_page_that_is_only_read_is_named_too(start, upstreams, tmp_path, capsys):
    path = str(tmp_path / "gateway.db")
    _store.Store(path, 1e12).close()
    _damage(path, "audit")
    made = start(state={"path": path})
    assert made.chat("large ?").status == 200
    assert made.admin("GET", "/audit").status == 503
    assert made.chat("large ?").status == 200
    settled(made)
    assert any(".recover" in words for words in made.admin("GET", "/readyz").json["warnings"])
    assert made.gateway.store.error is None  # what comes is written


def test_a_state_that_cannot_be_opened_for_damage_says_what_to_do(tmp_path):
    path = str(tmp_path / "gateway.db")
    _store.Store(path, 1e12).close()
    _damage(path, "decision")
    with pytest.raises(DataError, match=r"gateway\.db is damaged.*\.recover") as raised:
        compare(path, "old", "new")
    assert raised.value.path == path
    with open(path, "r+b") as file:
        file.write(b"\xff" * 100)
    with pytest.raises(DataError, match=r"file is not a database: .* is damaged, if it is"):
        _store.Store(path, 1e12)
