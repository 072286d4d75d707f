"""The key of all draws: the same for ever, or the change is named and breaks no comparison."""

import asyncio
import contextlib
import json
import sqlite3

import pytest

from racer_jax.cli.main import main
from racer_jax.serving.gateway._arms import compare
from racer_jax.serving.gateway._hash_keys import taken_up
from racer_jax.serving.gateway._store import Store
from racer_jax.serving.gateway._tables import opened
from tests.serving.gateway.test_arms import answered
from tests.serving.gateway.test_state import settled


@pytest.fixture
def begin(start, artefacts, tmp_path, monkeypatch):
    """Starts a gateway with an experiment on one state; `key` is that of the configuration."""

    def begin(key):
        audit = {"share": 1.0}
        if key is not None:
            monkeypatch.setenv("THE_HASH_KEY", key)
            audit["hash_key"] = "${THE_HASH_KEY}"
        route = {"artefact": str(artefacts / "my.racer"), "form": "letter", "judge": "judge"}
        return start(
            routes__new={**route, "group": "a"},
            experiments={"trial": {"arms": {"my": 1.0, "new": 1.0}}},
            state={"path": str(tmp_path / "gateway.db")},
            audit=audit,
        )

    return begin


def _asked(made, num):
    """Requests of so many users, each labelled; the routes that they got."""
    arms = {}
    for i in range(num):
        got = made.chat(f"large question {i}", model="racer/trial", user=f"user {i}")
        arms[i] = got.json["racer"]["arm"]
        settled(made)
        label = {"small": 0, "medium": 0, "large": int(arms[i] == "new")}
        entry = {"id": got.json["id"], "correct": label, "source": "audit"}
        assert made.ask("POST", "/v1/feedback", entry).json["new"]
    return arms


@pytest.mark.long
def test_a_key_that_is_changed_is_named_and_nobody_counts_twice(begin, capsys, caplog):
    first = begin("the first key of all draws")
    path = first.gateway.settings.state.path
    before = _asked(first, 12)
    assert first.admin("GET", "/status").json["warnings"] == []
    assert "key of the draws" not in caplog.text
    assert sum(arm.num for arm in compare(path, "my", "new").arms) == 12
    first.run(first.gateway.stop())
    same = begin("the first key of all draws")
    assert same.admin("GET", "/readyz").json["warnings"] == []
    assert _asked(same, 12) == before
    assert sum(arm.num for arm in compare(path, "my", "new").arms) == 12
    same.run(same.gateway.stop())

    other = begin("another key of all draws")
    assert "the key of the draws (audit.hash_key) was another before" in caplog.text
    for place in ("/status", "/readyz"):
        (warning,) = other.admin("GET", place).json["warnings"]
        assert "compare" in warning
    assert other.admin("GET", "/readyz").status == 200
    got = compare(path, "my", "new")
    assert [arm.num for arm in got.arms] == [0, 0]
    assert got.better is None
    after = _asked(other, 12)
    assert after != before
    got = compare(path, "my", "new")
    assert sum(arm.num for arm in got.arms) == 12
    assert [arm.num for arm in got.arms] == [list(after.values()).count(a) for a in ("my", "new")]
    assert main(["compare", path, "my", "new"]) == 0
    assert "the key of the draw was another before" in capsys.readouterr().out
    assert main(["compare", path, "my", "new", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["since"] == got.since
    # What audits say of the promise goes on: they are a random sample by either key.
    labels = other.admin("GET", "/status").json["routes"]
    assert sum(labels[name]["monitors"]["labels"]["num"] for name in ("my", "new")) == 36


@pytest.mark.parametrize("value", ["'short'", "x'ff'", "'" + "x" * 64 + "'"])
def test_a_key_that_cannot_be_read_is_made_anew_and_named(begin, value, caplog):
    first = begin(None)
    key, path = first.gateway.hash_key, first.gateway.settings.state.path
    first.run(first.gateway.stop())
    again = begin(None)
    assert again.gateway.hash_key == key
    again.run(again.gateway.stop())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"update meta set value = {value} where name = 'hash_key'")
        connection.commit()
    other = begin(None)
    assert len(other.gateway.hash_key) == 32
    assert other.gateway.hash_key != key
    assert "cannot be read in the state: a new one takes its place" in caplog.text
    assert other.admin("GET", "/status").json["warnings"]


def test_a_replica_with_another_key_is_named(begin, caplog):
    made = begin("the first key of all draws")
    made.gateway.store.ask(lambda connection: taken_up(connection, "that of another one")).result()

    async def refreshed():
        made.gateway.refresh_spent()
        made.gateway.store.ask(lambda connection: None).result()
        await asyncio.sleep(0.01)

    made.run(refreshed())
    (warning,) = made.admin("GET", "/status").json["warnings"]
    assert warning.startswith("another gateway uses this state with another audit.hash_key")
    assert warning in caplog.text


def test_a_change_that_cannot_be_read_is_no_reason_to_count_all(begin, capsys):
    made = begin("the first key of all draws")
    path = made.gateway.settings.state.path
    for i in range(4):
        made.chat(f"large question {i}", model="racer/trial", user=f"user {i}")
    settled(made)
    made.gateway.store.ask(lambda connection: taken_up(connection, "another key")).result()
    made.run(made.gateway.stop())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("update meta set value = '[9' where name = 'change of hash_key'")
        connection.commit()
    again = begin("another key")
    (warning,) = again.admin("GET", "/status").json["warnings"]
    assert "'change of hash_key'" in warning
    assert main(["compare", path, "my", "new"]) == 1
    assert "does not say which decisions one key drew" in capsys.readouterr().err


def test_the_mark_of_a_key_does_not_show_it(tmp_path):
    path = str(tmp_path / "gateway.db")
    with contextlib.closing(opened(path)) as connection:
        key = taken_up(connection, "a secret that nobody may read")
        kept = str(connection.execute("select * from meta").fetchall())
    assert key.decode() not in kept


def test_a_state_of_before_has_no_change(tmp_path):
    path = str(tmp_path / "gateway.db")
    store = Store(path, 1e12)
    answered(store, "d1", "old", 1, True)
    answered(store, "d2", "new", 2, False).result()
    store.ask(lambda connection: taken_up(connection, None)).result()
    got = compare(path, "old", "new")
    assert ([arm.num for arm in got.arms], got.since) == ([1, 1], None)
    store.close()
