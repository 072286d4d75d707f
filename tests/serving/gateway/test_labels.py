"""Labels of audits that say less or more: what they say counts once, and none takes another's place."""

import sqlite3
from contextlib import closing, nullcontext

import pytest

from racer_jax.data.errors import DataError
from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway._errors import GatewayError
from racer_jax.serving.gateway._monitoring import upper_bound
from racer_jax.serving.gateway._recalibration import audited as labelled_audits
from racer_jax.serving.gateway._records import DecisionRow, Feedback
from racer_jax.serving.gateway._replay import replay
from racer_jax.serving.gateway._store import Store
from tests.serving.gateway.test_state import FEEDBACK, settled

_RIGHT, _WRONG = {"small": 0, "medium": 0, "large": 1}, {"small": 1, "medium": 0, "large": 0}


@pytest.fixture
def audited(start, upstreams, tmp_path):
    upstreams.reset()
    state = {"path": str(tmp_path / "gateway.db"), "store_prompts": True}
    return start(audit={"share": 1.0}, state=state)


def _asked(gateway):
    name = gateway.chat("large audit?").json["id"]
    settled(gateway)
    return name


def _labelled(gateway, name, source="audit", **label):
    return gateway.ask("POST", FEEDBACK, {"id": name, "source": source, **label})


def _counts(gateway):
    settled(gateway)
    route = gateway.admin("GET", "/status").json["routes"]["my"]
    return route["monitors"]["labels"], route["user_feedback"]


def _waiting(gateway):
    return [one["id"] for one in gateway.admin("GET", "/audit").json["audits"]]


def _path(gateway):
    return gateway.gateway.settings.state.path


def _audits(gateway, artefacts):
    checksum = gateway.gateway.planners["my"].loaded.checksum
    return labelled_audits(_path(gateway), checksum, Racer.load(artefacts / "my.racer"))


def test_a_label_of_one_answer_is_none_of_the_set(audited, artefacts):
    name, other = _asked(audited), _asked(audited)
    assert _labelled(audited, name, answer_correct=0).json["new"]
    labels, users = _counts(audited)
    assert (labels["num"], labels["without_label"], users["num"]) == (0, 2, 0)
    assert _waiting(audited) == [name, other]  # with its texts, which its label needs
    assert _labelled(audited, name, correct=_WRONG).json["new"]
    labels, _ = _counts(audited)
    assert (labels["num"], labels["misses"], labels["judged"]) == (1, 1, 1)
    assert _waiting(audited) == [other]
    assert len(_audits(audited, artefacts)) == 1
    (stored,) = audited.ask("GET", f"/v1/racer/decisions/{name}").json["feedback"]
    assert (stored["answer_correct"], stored["correct"]) == (0, _WRONG)


@pytest.mark.long
def test_answers_are_wrong_too_where_no_model_can_answer(audited):
    """Such a question may be no miss, so alpha does not bound how often a wrong answer is shown."""
    checksum = audited.gateway.planners["my"].loaded.checksum
    audited.gateway.monitors.of("my", checksum).null = "free"
    for _ in range(10):
        assert _labelled(audited, _asked(audited), correct=dict.fromkeys(_RIGHT, 0)).json["new"]
    labels, _ = _counts(audited)
    assert (labels["num"], labels["misses"], labels["judge_errors"]) == (10, 0, 0)
    assert (labels["answers"], labels["wrong_answers"]) == (10, 10)
    status = lambda: audited.admin("GET", "/status").json["routes"]["my"]  # noqa: E731
    assert status()["delivered_wrong_at_most"] == 1.0
    for _ in range(10):
        assert _labelled(audited, _asked(audited), correct=_RIGHT).json["new"]
    _counts(audited)
    assert status()["delivered_wrong_at_most"] == pytest.approx(upper_bound(10, 20))


def test_a_label_that_says_less_changes_nothing(audited, artefacts):
    name = _asked(audited)
    assert _labelled(audited, name, correct=_RIGHT).json["new"]
    before = _counts(audited)
    assert _labelled(audited, name, correct=_RIGHT).json["new"] is False
    assert _labelled(audited, name, missed=1).json["error"]["code"] == "contradiction"
    assert _labelled(audited, name, answer_correct=0).json["error"]["code"] == "contradiction"
    assert _labelled(audited, name, correct=_WRONG).json["error"]["code"] == "contradiction"
    assert _labelled(audited, name, answer_correct=1).json["new"]
    assert _labelled(audited, name, missed=0).json["new"]
    assert _labelled(audited, name, missed=0).json["new"] is False
    assert _counts(audited) == before
    audits = _audits(audited, artefacts)
    assert audits.record.correct.tolist() == [[False, False, True]]


def test_a_miss_counts_once_and_its_label_may_say_more(audited, artefacts):
    name = _asked(audited)
    assert _labelled(audited, name, missed=1).json["new"]
    assert _counts(audited)[0]["misses"] == 1
    assert _labelled(audited, name, correct=_RIGHT).json["error"]["code"] == "contradiction"
    assert _labelled(audited, name, correct=_WRONG).json["new"]
    labels, _ = _counts(audited)
    assert (labels["num"], labels["misses"]) == (1, 1)
    assert len(_audits(audited, artefacts)) == 1


def test_a_replay_finds_the_label_of_every_model(audited, artefacts):
    name = _asked(audited)
    assert _labelled(audited, name, answer_correct=1).json["new"]
    assert _labelled(audited, name, "test", correct=_RIGHT).json["new"]
    again = replay(_path(audited), Racer.load(artefacts / "my.racer"))
    assert (again.num, again.labelled, again.misses_before) == (1, 1, 0)


def test_users_rate_once(audited):
    name = _asked(audited)
    assert _labelled(audited, name, "user", answer_correct=1).json["new"]
    more = _labelled(audited, name, "user", correct={"large": 1})
    assert (more.status, more.json["error"]["code"]) == (409, "contradiction")
    assert _counts(audited)[1] == {"num": 1, "wrong": 0, "note": _counts(audited)[1]["note"]}


def test_a_state_of_before_takes_labels_that_say_more(tmp_path):
    path = tmp_path / "old.db"
    store = Store(str(path), 1e12)
    store.add(DecisionRow("chatcmpl-1", 1.0, "my", pool=("a", "b"), decided=("a",), audited=True))
    store.feedback(Feedback(id="chatcmpl-1", answer_correct=0, source="audit")).result(10)
    store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("alter table feedback drop column completes")
    store = Store(str(path), 1e12)
    whole = Feedback(id="chatcmpl-1", correct={"a": 0, "b": 1}, source="audit")
    assert store.feedback(whole).result(10)
    rows = store.ask(lambda c: c.execute("select seq, completes from feedback").fetchall())
    assert rows.result(10) == [(2, 1)]
    less = Feedback(id="chatcmpl-1", answer_correct=1, source="audit")
    with pytest.raises(GatewayError, match="the first counts"):
        store.feedback(less).result(10)
    store.close()


@pytest.mark.parametrize(
    "change",
    [
        "feedback set content = '{\"cor'",
        "feedback set content = '[1]'",
        "decision set pool = '['",
        "decision set pool = '7'",
    ],
)
def test_a_row_that_was_changed_is_named(audited, artefacts, change):
    name = _asked(audited)
    assert _labelled(audited, name, correct=_RIGHT).json["new"]
    settled(audited)
    with closing(sqlite3.connect(_path(audited))) as connection, connection:
        connection.execute(f"update {change}")
    refused = pytest.raises(DataError, match=r"gateway.db: holds a row that no gateway wrote")
    with refused:
        _audits(audited, artefacts)
    # A label that cannot be read is no label; of decisions there is then none left.
    again = nullcontext() if change.startswith("feedback") else refused
    with again:
        done = replay(_path(audited), Racer.load(artefacts / "my.racer"))
        assert (done.num, done.labelled, len(done.unreadable)) == (1, 0, 1)


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("feedback", "content = '{\"cor'"),
        ("feedback", "content = cast(x'ff' as text)"),
        ("decision", "pool = '['"),
        ("decision", "scores = '[1]'"),
        ("decision", "fingerprint = 'x'"),
        ("audit", "nonconformity = x'00'"),
    ],
)
def test_one_row_that_was_changed_keeps_no_others_out(audited, artefacts, table, change):
    names = [_asked(audited) for _ in range(3)]
    for name in names:
        assert _labelled(audited, name, correct=_RIGHT).json["new"]
    settled(audited)
    column = "id" if table == "decision" else "decision"
    with sqlite3.connect(_path(audited)) as connection:
        connection.execute(f"update {table} set {change} where {column} = '{names[1]}'")
    read = _audits(audited, artefacts)
    assert (len(read), read.num_audited) == (2, 3)
    (left_out,) = [note for note in read.notes() if "cannot be read" in note]
    assert f": 1 (first: {names[1]}: " in left_out
    (lacking,) = [note for note in read.notes() if "have no label" in note]
    assert lacking.startswith("1 of 3 audited requests (33.3%)")
