"""Rows that no gateway wrote: named once, left out, counted, and never in favour of the promise."""

import asyncio
import contextlib
import sqlite3
from concurrent.futures import Future

import pytest

from racer_jax.cli.main import main
from racer_jax.data.errors import DataError
from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway._arms import _Counts, compare, evidence, interval, least_evidence
from racer_jax.serving.gateway._monitoring import upper_bound
from racer_jax.serving.gateway._records import DecisionRow, Feedback
from racer_jax.serving.gateway._replay import replay
from racer_jax.serving.gateway._store import Store
from tests.parameters import few_by_default
from tests.serving.gateway.test_state import settled

_RIGHT = {"small": 0, "medium": 0, "large": 1}
_WRONG = {"small": 1, "medium": 0, "large": 0}


def _label(made, name, correct, source="audit"):
    body = {"id": name, "correct": correct, "source": source}
    return made.ask("POST", "/v1/feedback", body)


def _route(made):
    return made.admin("GET", "/status").json["routes"]["my"]


def _metric(made, name):
    lines = made.admin("GET", "/metrics").content.decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"racer_{name} ")).split()[1])


def _changed(path, change):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.commit()


@pytest.fixture
def made(start, tmp_path):
    return start(
        audit={"share": 1.0},
        state={"path": str(tmp_path / "gateway.db")},
        monitors={"share": 1.0, "reference": 4},
    )


@contextlib.contextmanager
def _not_counted(made):
    """Within the block nothing is folded; after it, the monitors meet all that was written."""
    store = made.gateway.store
    store.on_commit = None
    yield
    store.on_commit = made.gateway.monitors.on_commit
    settled(made)


_OF_A_LABEL = [
    "feedback set content = '{\"cor'",
    "feedback set content = '[1]'",
    "feedback set content = '{}'",
    'feedback set content = \'{"correct": {"large": 7}}\'',
    "feedback set content = cast(x'ff7b7d' as text)",
    "feedback set source = 'nobody'",
    "feedback set content = x'00ff'",
    "feedback set decision = 'chatcmpl-nothing'",
    "decision set pool = '['",
    "decision set decided = '{}'",
    "decision set alpha = 'half'",
    "decision set null_in_set = 'x'",
]
_OF_A_DECISION = [
    "decision set top_score = 'high'",
    "decision set top_score = 9e999",
    "decision set at = 'noon'",
    "decision set audited = 'x'",
    "decision set grp = cast(x'ff' as text)",
]


@pytest.mark.parametrize("change", [*few_by_default(_OF_A_LABEL), *few_by_default(_OF_A_DECISION)])
def test_a_row_that_cannot_be_read_stops_nothing(made, change, caplog):
    path = made.gateway.settings.state.path
    first = made.chat("large 1").json["id"]
    settled(made)
    with _not_counted(made):
        assert _label(made, first, _RIGHT).json["new"]
        second = made.chat("large 2").json["id"]
        settled(made)
        assert _label(made, second, _RIGHT).json["new"]
        settled(made)
        table = change.split()[0]
        name = "id" if table == "decision" else "decision"
        _changed(path, f"update {change} where {name} = '{second}'")
    third = made.chat("large 3").json["id"]
    settled(made)
    assert _label(made, third, _WRONG).json["new"]
    settled(made)
    assert made.admin("GET", "/readyz").status == 200
    assert made.admin("GET", "/status").json["rows_unreadable"] >= 1
    assert _metric(made, "state_rows_unreadable") >= 1
    labels = _route(made)["monitors"]["labels"]
    # Of three audited requests one was a miss; the damaged one counts as another, or is whole.
    counted = 2 if change in _OF_A_LABEL or "audited" in change else 3
    assert (labels["audited"], labels["num"], labels["misses"]) == (3, counted, 1)
    assert labels["missed_at_most"] == (1 + 3 - counted) / 3
    if change in _OF_A_LABEL:  # one that names no decision is of no route
        assert labels["unreadable"] == int("nothing" not in change)
    assert caplog.text.count("cannot be read") == made.gateway.monitors.unreadable


def test_what_does_not_say_its_route_counts_as_missed_on_every_route(made):
    path = made.gateway.settings.state.path
    with _not_counted(made):
        first = made.chat("large 1").json["id"]
        settled(made)
        _changed(path, f"update decision set route = x'ff' where id = '{first}'")
    labels = _route(made)["monitors"]["labels"]
    assert (labels["audited"], labels["without_label"], labels["missed_at_most"]) == (0, 1, 1.0)


def test_a_damaged_row_is_named_where_it_is_asked_for(made):
    path = made.gateway.settings.state.path
    name = made.chat("large 1").json["id"]
    settled(made)
    _changed(path, "update audit set messages = x'ff', answers = '{'")
    (waits,) = made.admin("GET", "/audit").json["audits"]
    assert waits["id"] == name
    assert waits["unreadable"]
    assert _label(made, name, _RIGHT).json["new"]
    _changed(path, "update feedback set content = '{'")
    again = _label(made, name, _RIGHT)
    assert (again.status, again.json["error"]["code"]) == (410, "unreadable")
    # Another's label would count the request a second time: the first was counted when it came.
    assert _label(made, name, _WRONG, source="test").json["new"]
    settled(made)
    labels = _route(made)["monitors"]["labels"]
    assert (labels["num"], labels["misses"]) == (1, 0)
    shown = made.ask("GET", f"/v1/racer/decisions/{name}")
    assert (shown.status, shown.json["error"]["code"]) == (410, "unreadable")
    _changed(path, "update decision set pool = x'ff'")
    assert _label(made, name, _RIGHT, source="judge").status == 410
    assert made.ask("GET", f"/v1/racer/decisions/{name}").status == 410


_OF_A_REPLAY = [
    "decision set prompt = cast(x'ff' as text)",
    "decision set grp = x'00'",
    "decision set route = x'ff'",
    "decision set audited = 'x'",
]


@pytest.mark.parametrize("change", [*few_by_default(_OF_A_LABEL, 1), *few_by_default(_OF_A_REPLAY)])
def test_a_replay_goes_on_without_a_row_that_cannot_be_read(artefacts, tmp_path, change, capsys):
    if "alpha" in change:  # which is not decided on again
        return
    path = str(tmp_path / "gateway.db")
    store = Store(path, 1e12)
    for i in range(1, 4):
        facts = {"pool": tuple(_RIGHT), "decided": ("large",), "group": "a", "audited": True}
        store.add(DecisionRow(f"d{i}", 1.0, "my", "0" * 12, prompt=f"question {i}", **facts))
        store.feedback(Feedback(id=f"d{i}", correct=_RIGHT, source="audit"))
    store.close()
    racer = Racer.load(artefacts / "my.racer")
    whole = replay(path, racer)
    assert (whole.num, whole.labelled, whole.unreadable) == (3, 3, ())
    assert whole.miss_rate_upper_bound == upper_bound(whole.misses_after, 3)
    name = "id" if change.startswith("decision") else "decision"
    _changed(path, f"update {change} where {name} = 'd2'")
    for route in (None, "my"):
        done = replay(path, racer, route)
        assert (done.num, done.labelled) == (3 if name == "decision" else 2, 2)
        assert len(done.unreadable) == 1
        # Its label may have said that it was missed.
        assert done.miss_rate_upper_bound == upper_bound(done.misses_after + 1, 3)
    assert main(["replay", path, "--artefact", str(artefacts / "my.racer")]) == 0
    assert f"cannot be read in the state: 1 (first: {done.unreadable[0]}" in capsys.readouterr().out


_OF_A_COMPARISON = [
    "feedback set content = '{\"cor'",
    "feedback set content = x'00ff'",
    "feedback set source = 7",
    "feedback set decision = 'chatcmpl-nothing'",
    "decision set answered = x'ff'",
    "decision set audited = 'x'",
    "decision set unit = 'x'",
    "decision set unit = null",
    "decision set route = x'ff'",
    "decision set experiment = x'ff'",
]


@pytest.mark.parametrize("change", _OF_A_COMPARISON)
def test_a_comparison_allows_for_whatever_a_damaged_label_said(tmp_path, change, capsys):
    path = str(tmp_path / "gateway.db")
    store = Store(path, 1e12)
    for i in range(24):
        route = ("old", "new")[i % 2]
        row = {"answered": "m", "audited": True, "experiment": "trial", "unit": i}
        store.add(DecisionRow(f"d{i}", 1.0, route, **row))
        said = Feedback(id=f"d{i}", answer_correct=int(route == "new"), source="audit")
        store.feedback(said)
    # A label that comes later must not take the place of the one that was the first.
    store.add(DecisionRow("again", 1.0, "new", answered="m", audited=True, experiment="trial",
                          unit=11))  # fmt: skip
    store.feedback(Feedback(id="again", answer_correct=1, source="audit"))
    store.close()
    whole = compare(path, "old", "new")
    assert (whole.better, whole.unreadable) == ("new", ())
    name = "id" if change.startswith("decision") else "decision"
    _changed(path, f"update {change} where {name} = 'd11'")
    done = compare(path, "old", "new")
    assert len(done.unreadable) == 1
    old, new = done.arms
    knows_unit = "unit" not in change and "nothing" not in change
    assert (new.num, new.right, new.unreadable) == ((11, 11, 1) if knows_unit else (12, 12, 1))
    # Of which route it was is not known either, where the row does not say it.
    assert old.unreadable == ("nothing" in change or "route" in change)
    unread = old.unreadable
    cases = [
        evidence((a, old.num + unread), (new.right + b, new.num + 1))
        for a in range(unread + 1)
        for b in (0, 1)
    ]
    assert done.evidence == pytest.approx(min(cases))
    assert done.evidence < whole.evidence
    assert new.lower == interval(new.right, new.num + 1, 0.05)[0]
    assert new.upper == interval(new.right + 1, new.num + 1, 0.05)[1] == 1.0
    assert main(["compare", path, "old", "new"]) == 0
    assert "allow for whatever they may have said" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "second"), [((3, 9, 4), (8, 11, 2)), ((0, 4, 3), (6, 6, 5)), ((1, 1, 0), (0, 30, 9))]
)
def test_the_least_evidence_is_that_of_the_least_of_all_that_labels_may_have_said(first, second):
    every = [
        evidence((first[0] + a, first[1] + i), (second[0] + b, second[1] + j))
        for i in range(first[2] + 1)
        for a in range(i + 1)
        for j in range(second[2] + 1)
        for b in range(j + 1)
    ]
    assert least_evidence(_Counts(*first), _Counts(*second)) == pytest.approx(min(every))


@pytest.mark.long
@pytest.mark.parametrize("state", ["{", "[]", '{"format": 3}', '{"format": 3, "watched": 7}'])
def test_alarms_outlive_what_the_monitors_had_saved(made, start, state, caplog):
    for i in range(20):
        name = made.chat(f"large misses {i}").json["id"]
        settled(made)
        _label(made, name, _WRONG)
    settled(made)
    assert _route(made)["alarms"]
    made.gateway.store.ask(made.gateway.monitors.save).result()
    settings = made.gateway.settings
    made.run(made.gateway.stop())
    # What would raise it again is past its retention.
    _changed(settings.state.path, "delete from feedback where seq > 3")
    _changed(settings.state.path, f"update monitor set state = '{state}'")
    again = start(
        audit={"share": 1.0},
        state={"path": settings.state.path},
        monitors={"share": 1.0, "reference": 4},
    )
    assert "cannot read what they had saved" in caplog.text
    # That the queries have changed may be said beside it: it depends on the artefact's date.
    assert any(alarm.startswith("risk above 0.3") for alarm in _route(again)["alarms"])
    assert _route(again)["monitors"]["labels"]["num"] == 3
    assert again.chat("large after?").headers["x-racer-guarantee"] == "void"


@pytest.mark.parametrize(
    "change",
    [
        "meta set value = '{' where name like 'reference%'",
        "activation set null_mode = 'no'",
        "activation set route = x'ff'",
    ],
)
def test_what_comes_with_the_artefact_is_written_again(made, start, change):
    settings = made.gateway.settings
    made.chat("large 1")
    settled(made)
    made.run(made.gateway.stop())
    _changed(settings.state.path, f"update {change}")
    _changed(settings.state.path, "delete from monitor")
    again = start(
        audit={"share": 1.0},
        state={"path": settings.state.path},
        monitors={"share": 1.0, "reference": 4},
    )
    settled(again)
    watched = _route(again)["monitors"]
    assert watched["labels"]["audited"] == 1
    # The artefact that was lost may have had a share of the level.
    assert watched["level"] == 0.05 / (4 if "route" in change else 2)
    assert again.gateway.monitors.unreadable == ("route" in change)
    assert watched["exchangeability"]


def test_a_damaged_format_is_an_error_and_no_wait(tmp_path):
    path = str(tmp_path / "gateway.db")
    Store(path, 1e6).close()
    _changed(path, "update meta set value = 'x' where name = 'format'")
    with pytest.raises(DataError, match="must have a format that is a whole number, got 'x'"):
        Store(path, 1e6)


def test_who_no_longer_waits_stops_no_writing(tmp_path, run):
    store = Store(str(tmp_path / "gateway.db"), 1e6)

    async def gone() -> Future:
        started, release = Future(), Future()
        first = store.ask(lambda connection: (started.set_result(None), release.result()))
        await asyncio.wrap_future(started)
        waiting = asyncio.ensure_future(asyncio.wrap_future(first))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        release.set_result(None)
        return first

    assert run(gone()).cancelled()
    assert store.ask(lambda connection: 7).result(timeout=60) == 7
    store.close()
