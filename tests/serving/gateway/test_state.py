"""What is kept: decisions, feedback and its rules, audits, monitors, recalibration."""

import asyncio
import json
import time

import jax
import numpy as np
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from racer_jax.cli.main import main
from racer_jax.core.aggregation import answer_codes, majority_vote
from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway._identifiers import draw, new_id, seconds_of
from racer_jax.serving.gateway._monitoring import upper_bound
from racer_jax.serving.gateway._votes import Vote
from racer_jax.serving.misses import miss_of
from tests.racer.test_racer import MODELS, table_of

FEEDBACK = "/v1/feedback"


def test_names_carry_their_time():
    name = new_id()
    assert abs(seconds_of(name) - time.time()) < 1
    assert seconds_of("chatcmpl-nonsense") is None
    assert seconds_of("") is None


def test_the_draw_is_uniform_and_needs_the_key():
    numbers = np.array([draw(b"key", f"{i}", "audit") for i in range(4000)])
    others = np.array([draw(b"other", f"{i}", "audit") for i in range(4000)])
    monitors = np.array([draw(b"key", f"{i}", "monitor") for i in range(4000)])
    assert abs(numbers.mean() - 0.5) < 0.03
    assert abs(np.corrcoef([numbers, others, monitors]) - np.eye(3)).max() < 0.06


core_vote = jax.jit(majority_vote)


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(["A", "B", "C", None]), min_size=1, max_size=5),
    st.lists(st.sampled_from([0.25, 0.5, 0.75]), min_size=5, max_size=5),
    st.permutations(range(5)),
)
def test_a_vote_is_that_of_the_core_and_stops_when_it_is_decided(answers, scores, order):
    """Brute force: decided is, whatever those who are awaited answer, the same winner."""
    num = len(answers)
    names = [f"m{i}" for i in range(num)]
    by_name = dict(zip(names, scores, strict=False))
    vote = Vote(by_name)
    awaited = set(range(num))
    for i in [i for i in order if i < num]:
        vote.add(names[i], answers[i])
        awaited.discard(i)
        if awaited and len(awaited) <= 2:
            assert vote.decided() == stays(vote, by_name, names, awaited)
    assert vote.decided()
    codes = answer_codes([[*answers, *[None] * (5 - num)]])[0]
    called = np.arange(6) < num
    expected = int(core_vote(called, codes, np.array(scores, np.float32)))
    winner = None if expected < 0 else answers[codes.tolist().index(expected)]
    assert vote.winner == winner


def stays(vote, scores, names, awaited):
    """Whether every way in which the rest may answer has the same winner."""
    possible = ["A", "B", "C", "", "Z", None]  # "" sorts before all, Z after all
    rest = sorted(awaited)
    winners = set()
    for place in range(len(possible) ** len(rest)):
        again = Vote(scores)
        for model, answer in vote.answers.items():
            again.add(model, answer)
        for i in rest:
            place, digit = divmod(place, len(possible))
            again.add(names[i], possible[digit])
        winners.add(again.winner)
    return len(winners) == 1


@pytest.mark.parametrize("null", ["paper", "free", "never"])
def test_a_miss_is_that_of_the_null_mode(null):
    none_right = {"correct": {"a": 0, "b": 0}}
    assert miss_of(none_right, {"a"}, {"a", "b"}, True, null) == (null == "never")
    assert miss_of(none_right, {"a"}, {"a", "b"}, False, null) == (null != "free")
    assert miss_of({"correct": {"a": 1, "b": 0}}, {"a"}, {"a", "b"}, False, null) is False
    assert miss_of({"correct": {"a": 1}}, {"a"}, {"a", "b"}, False, null) is None
    assert miss_of({"answer_correct": 0}, {"a"}, {"a", "b"}, False, null) is None


def test_the_upper_bound_is_that_of_the_binomial_law():
    from scipy.stats import binom

    for events, num in ((0, 10), (3, 50), (20, 21)):
        bound = upper_bound(events, num)
        assert binom.cdf(events, num, bound) == pytest.approx(0.05, abs=1e-9)


def test_a_decision_can_be_read_and_told_about(served, upstreams):
    name = served.chat("small,large ?").json["id"]
    stored = served.ask("GET", f"/v1/racer/decisions/{name}").json
    assert stored["decided"] == ["large", "small"]
    assert stored["prompt"] is None
    assert {call["model"] for call in stored["calls"]} == {"large", "small"}
    entry = {"id": name, "answer_correct": 1}
    assert served.ask("POST", FEEDBACK, entry).json["new"] is True
    assert served.ask("POST", FEEDBACK, entry).json["new"] is False
    other = served.ask("POST", FEEDBACK, {**entry, "answer_correct": 0})
    assert (other.status, other.json["error"]["code"]) == (409, "contradiction")
    stored = served.ask("GET", f"/v1/racer/decisions/{name}").json
    assert [one["answer_correct"] for one in stored["feedback"]] == [1]


def test_feedback_on_what_is_not_there(served):
    assert served.ask("POST", FEEDBACK, {"id": new_id(), "missed": 1}).status == 404
    old = f"chatcmpl-{'0' * 12}7{'0' * 19}"
    assert served.ask("POST", FEEDBACK, {"id": old, "missed": 1}).status == 410
    assert served.ask("POST", FEEDBACK, {"id": new_id()}).status == 400
    assert served.ask("POST", FEEDBACK, {"id": new_id(), "missed": 2}).status == 400
    assert served.ask("GET", "/v1/racer/decisions/nothing").status == 404


def test_labels_of_models_that_there_are_not_are_refused(served):
    name = served.chat("large ?").json["id"]
    label = {"id": name, "correct": {"lrage": 1, "small": 0}, "source": "audit"}
    refused = served.ask("POST", FEEDBACK, label)
    assert (refused.status, refused.json["error"]["param"]) == (400, "correct")
    assert "small: got lrage" in refused.json["error"]["message"]
    (said,) = served.admin("POST", "/audit", [label]).json["labels"]
    assert said["error"]["param"] == "correct"
    assert served.ask("GET", f"/v1/racer/decisions/{name}").json["feedback"] == []


@pytest.fixture(scope="module")
def audited(start, tmp_path_factory):
    """A gateway that audits everything and keeps its state in a file."""
    path = str(tmp_path_factory.mktemp("state") / "gateway.db")
    return start(
        audit={"share": 1.0}, state={"path": path}, monitors={"share": 1.0, "reference": 4}
    )


def settled(gateway):
    """Waits for what runs in the background, and until what is queued is in the state."""

    async def wait():
        while gateway.gateway.num_background:
            await asyncio.sleep(0.01)

    gateway.run(wait())
    gateway.gateway.store.ask(lambda connection: None).result()


def test_audits_ask_everybody_and_wait_for_a_label(audited, upstreams):
    upstreams.reset()
    name = audited.chat("large audit?").json["id"]
    settled(audited)
    assert sorted(upstreams.models) == ["large", "medium", "small"]
    (entry,) = [a for a in audited.admin("GET", "/audit").json["audits"] if a["id"] == name]
    assert entry["answers"]["small"] == "I am small"
    label = [{"id": name, "correct": {"small": 1, "medium": 0, "large": 0}}]
    got = audited.admin("POST", "/audit", label)
    assert got.json["labels"] == [{"id": name, "new": True}]
    assert all(a["id"] != name for a in audited.admin("GET", "/audit").json["audits"])
    status = audited.admin("GET", "/status").json["routes"]["my"]
    assert status["monitors"]["labels"]["misses"] == 1
    assert status["monitors"]["risk"]["0.3"]["num"] == 1
    assert audited.admin("POST", "/audit", [{"id": new_id(), "missed": 1}]).json["labels"][0][
        "error"
    ]


def test_what_users_say_feeds_no_monitor(audited):
    name = audited.chat("large by users?").json["id"]
    settled(audited)
    before = audited.admin("GET", "/status").json["routes"]["my"]
    audited.ask("POST", FEEDBACK, {"id": name, "missed": 1, "source": "user"})
    after = audited.admin("GET", "/status").json["routes"]["my"]
    assert after["monitors"] == before["monitors"]
    assert after["user_feedback"]["wrong"] == before["user_feedback"]["wrong"] + 1
    settled(audited)


def test_a_question_counts_as_often_as_it_comes_and_a_request_once(audited):
    """Two labels of a request, by different labellers, are one; two requests are two."""

    def num_labels():
        return audited.admin("GET", "/status").json["routes"]["my"]["monitors"]["labels"]["num"]

    label = {"small": 0, "medium": 0, "large": 1}
    before = num_labels()
    for _ in range(2):
        name = audited.chat("large again?").json["id"]
        settled(audited)
        audited.admin("POST", "/audit", [{"id": name, "correct": label, "source": "audit"}])
        audited.admin("POST", "/audit", [{"id": name, "correct": label, "source": "test"}])
    assert num_labels() - before == 2


@pytest.mark.long
def test_an_alarm_voids_the_promise_and_is_kept(audited, start):
    for i in range(20):
        name = audited.chat(f"large misses {i}").json["id"]
        settled(audited)
        label = {"small": 1, "medium": 0, "large": 0}
        audited.admin("POST", "/audit", [{"id": name, "correct": label}])
    status = audited.admin("GET", "/status").json["routes"]["my"]
    assert status["alarms"][0].startswith("risk above 0.3")
    got = audited.chat("large after?")
    assert got.headers["x-racer-guarantee"] == "void"
    assert (
        'racer_monitor_alarm{route="my"} 1.0' in audited.admin("GET", "/metrics").content.decode()
    )
    gateway = audited.gateway
    settled(audited)
    gateway.store.ask(gateway.monitors.save).result()
    status = audited.admin("GET", "/status").json["routes"]["my"]
    again = start(
        audit={"share": 1.0},
        state={"path": gateway.settings.state.path},
        monitors={"share": 1.0, "reference": 4},
    )
    restarted = again.admin("GET", "/status").json["routes"]["my"]
    assert restarted["alarms"] == status["alarms"]
    assert restarted["monitors"]["risk"] == status["monitors"]["risk"]
    assert again.gateway.hash_key == gateway.hash_key


def test_labels_of_a_judge_and_of_a_hook(start, upstreams):
    judged = start(audit={"share": 1.0, "labeller": "judge", "judge": "judge"})
    upstreams.reset()
    upstreams.says.update(judge=lambda body: "1" if "I am large" in str(body) else "0")
    name = judged.chat("small judged?").json["id"]
    settled(judged)
    stored = judged.ask("GET", f"/v1/racer/decisions/{name}").json
    (label,) = stored["feedback"]
    assert label["source"] == "judge"
    assert label["correct"] == {"small": 0, "medium": 0, "large": 1}


def test_an_audit_that_lost_a_call_is_not_labelled(audited, upstreams):
    from tests.serving.gateway.upstreams import status

    upstreams.reset()
    upstreams.says.update(small=status(500))
    name = audited.chat("large incomplete?").json["id"]
    settled(audited)
    assert all(a["id"] != name for a in audited.admin("GET", "/audit").json["audits"])
    audited.gateway.upstreams["small"].breaker.succeeded()


def test_the_state_of_a_newer_version_is_refused(tmp_path):
    from racer_jax.data.errors import DataError
    from racer_jax.serving.gateway._store import Store
    from racer_jax.serving.gateway._tables import opened

    path = str(tmp_path / "state.db")
    connection = opened(path)
    connection.execute("update meta set value = '99' where name = 'format'")
    connection.close()
    with pytest.raises(DataError, match="update racer_jax"):
        Store(path, 1.0)
    (tmp_path / "no.db").write_text("this is no database, and it is long enough to be read as one")
    with pytest.raises(DataError, match="state of a gateway"):
        Store(str(tmp_path / "no.db"), 1.0)


@pytest.mark.long
def test_recalibration_is_a_calibration_on_the_labelled_audits(
    start, artefacts, tmp_path, capsys, upstreams
):
    """The thresholds are those of a racer that was calibrated on the same table."""
    upstreams.reset()
    path = str(tmp_path / "gateway.db")
    gateway = start(scripted=False, audit={"share": 1.0}, state={"path": path})
    table = table_of(np.random.default_rng(5), 40, start=2000).table
    rows = zip(table.texts, table.group, table.correct, strict=True)
    for text, group, correct in rows:
        name = gateway.chat(text, racer={"group": group}).json["id"]
        settled(gateway)
        label = dict(zip(MODELS, map(int, correct), strict=True))
        gateway.admin("POST", "/audit", [{"id": name, "correct": label}])
    user = gateway.chat("one more", racer={"group": "a"}).json["id"]
    gateway.ask("POST", FEEDBACK, {"id": user, "correct": dict.fromkeys(MODELS, 0)})
    settled(gateway)
    artefact, new = str(artefacts / "my.racer"), tmp_path / "new.racer"
    command = ["recalibrate", path, "--artefact", artefact, "-o", str(new)]
    assert main(command) == 0
    assert "labels of audits: audit" in Racer.load(new).calibration.label_rule
    expected = Racer.load(artefact).calibrate(table, 0.3).calibration
    got = Racer.load(new).calibration
    order = [got.groups.index(name) for name in expected.groups]
    assert got.threshold[order] == pytest.approx(expected.threshold, abs=1e-6)
    assert int(got.num_queries.sum()) == 40
    assert main([*command[:1], str(tmp_path / "no.db"), *command[2:]]) == 1
    assert "file not found" in capsys.readouterr().err


@pytest.mark.long
def test_decisions_are_replayed_under_another_artefact(
    start, artefacts, tmp_path, capsys, upstreams
):
    upstreams.reset()
    path = str(tmp_path / "gateway.db")
    state = {"path": path, "store_prompts": True}
    gateway = start(scripted=False, audit={"share": 1.0}, state=state)
    texts = [f"sum prime river {i}" for i in range(6)]
    names = [gateway.chat(text).json["id"] for text in texts]
    settled(gateway)
    label = {"small": 0, "medium": 0, "large": 1}
    gateway.admin("POST", "/audit", [{"id": names[0], "correct": label}])
    command = ["replay", path, "--artefact", str(artefacts / "other.racer"), "--json"]
    assert main(command) == 0
    got = json.loads(capsys.readouterr().out)
    old, new = (Racer.load(artefacts / f"{n}.racer").route(texts, "a") for n in ("my", "other"))
    pairs = list(zip(old, new, strict=True))
    assert got["num"] == 6
    assert got["same"] == sum(set(a.models) == set(b.models) for a, b in pairs)
    assert got["size_after"] == pytest.approx(np.mean([len(b.models) for _, b in pairs]))
    assert (got["labelled"], got["misses_after"]) == (1, "large" not in new[0].models)
    assert main(command[:-1]) == 0
    said = capsys.readouterr()
    assert "6 decisions again" in said.out
    assert got["unknown_group"] == 0
    assert "threshold for" not in said.out + said.err
    gateway.chat("sum prime river 9", racer={"group": "unheard"})
    settled(gateway)
    assert main(command[:-1]) == 0
    said = capsys.readouterr()
    assert "1 of these decisions name no group" in said.out
    assert "--group" not in said.out + said.err  # `replay` has no such option


def test_an_alarm_is_sent_once_and_changes_what_is_called(start, run, upstreams):
    posted = []

    async def hook(request):
        posted.append(await request.json())
        return web.Response()

    async def listening():
        app = web.Application()
        app.router.add_post("/hook", hook)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, site._server.sockets[0].getsockname()[1]

    upstreams.reset()
    runner, port = run(listening())
    gateway = start(
        audit={"share": 1.0},
        monitors={"level": 0.5, "webhook": f"http://127.0.0.1:{port}/hook"},
        routes__my__on_alarm="call_all",
    )
    for i in range(9):
        name = gateway.chat(f"small miss {i}").json["id"]
        settled(gateway)
        label = [{"id": name, "correct": {"small": 0, "medium": 0, "large": 1}}]
        gateway.admin("POST", "/audit", label)
    gateway.run(asyncio.sleep(0.2))
    settled(gateway)
    (message,) = posted
    assert message["route"] == "my"
    assert "risk above 0.3" in message["alarm"]
    got = gateway.chat("small then?")
    assert sorted(got.json["racer"]["called"]) == ["large", "medium", "small"]
    assert got.headers["x-racer-guarantee"] == "void"
    gateway.run(runner.cleanup())


@pytest.mark.parametrize("path", ["/status", "/metrics"])
def test_a_test_that_is_added_while_they_are_read_breaks_no_page(start, path):
    """The thread that writes the state adds one with the first label at another alpha."""
    made = start()

    class Growing:
        level = num = misses = 0

        def __init__(self, tests):
            self._tests = tests

        @property
        def evidence(self):
            self._tests[f"0.{len(self._tests)}1"] = self
            return 1.0

        @property
        def alarm(self):
            return None if self.evidence else 0

    watched = made.gateway.monitors.of("my", made.gateway.planners["my"].loaded.checksum)
    for tests in (watched.risk, watched.top_scores):
        tests["0.01"] = Growing(tests)
    status = made.admin("GET", path).status
    for tests in (watched.risk, watched.top_scores):
        tests.clear()  # they cannot be saved
    assert status == 200
