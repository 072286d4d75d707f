"""A key's dollars of a day: kept for what is under way, and given back however that ends."""

import asyncio
import contextlib
import json
import sqlite3

import pytest
from aiohttp import web
from msgspec import structs

from racer_jax.serving.gateway._budgets import Budgets
from racer_jax.serving.gateway._costs import most_of_calls
from racer_jax.serving.gateway._errors import GatewayError
from racer_jax.serving.gateway._keys import LOCAL, Client
from racer_jax.serving.gateway._queries import query_of
from racer_jax.serving.gateway.settings import Model
from tests.parameters import few_by_default
from tests.serving.gateway.test_security import key_of
from tests.serving.gateway.upstreams import call, completion, slow, status, until

CHAT = "/v1/chat/completions"
_NO_USAGE = {**completion("a few words of an answer"), "usage": None}


@pytest.fixture
def paid(start, tmp_path):
    """A gateway for one key; `limit` is its dollars of a day."""

    def make(limit, **changes):
        key, section = key_of(daily_dollars=limit, overrides=["max_models", "mode", "on_abstain"])
        state = {"path": str(tmp_path / "gateway.db")}
        gateway = start(keys={"alice": section}, state=state, **changes)
        gateway.key = {"authorization": f"Bearer {key}"}
        return gateway

    return make


def _body(text="large ?", **fields):
    return {"model": "racer/my", "messages": [{"role": "user", "content": text}], **fields}


def _at_once(paid, num, **fields):
    """Requests that are all under way at the same time."""

    async def ask():
        body = _body(**fields)
        return await asyncio.gather(
            *(call(paid.app, "POST", CHAT, body, paid.key) for _ in range(num))
        )

    return paid.run(ask())


def _all_decided(paid, upstreams):
    """Whether all under way have been asked of an upstream: those that are refused have ended."""
    return lambda: paid.gateway.in_flight <= len(upstreams.asked)


def _costly(tokens, ready):
    """An upstream that answers once it may, and says that it wrote this many tokens."""

    async def answer(body):
        await until(ready)
        usage = {"prompt_tokens": 20, "completion_tokens": tokens, "total_tokens": 20 + tokens}
        return {**completion("words"), "usage": usage}

    return answer


def _spent(paid):
    return paid.gateway.budgets.today("alice")


def _kept(paid):
    return paid.gateway.budgets.reserved("alice")


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_what_is_under_way_at_once_exceeds_no_budget(paid, upstreams, path):
    made = paid(0.01)
    upstreams.says["large"] = lambda body: _costly(200, _all_decided(made, upstreams))(body)
    body = _body(max_tokens=200)
    if path != CHAT:
        body = {"model": "racer/my", "input": "large ?", "max_output_tokens": 200}

    async def ask():
        return await asyncio.gather(
            *(call(made.app, "POST", path, body, made.key) for _ in range(40))
        )

    answers = made.run(ask())
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 429}
    # Each of 200 tokens costs 0.00202 dollars, and may cost a little more by its bytes.
    assert statuses.count(200) == 4
    assert 0 < _spent(made) <= 0.01
    waits = [answer for answer in answers if answer.status == 429]
    assert {answer.json["error"]["code"] for answer in waits} == {"racer_budget"}
    assert {answer.headers.get("retry-after") for answer in waits} == {"1"}
    assert _kept(made) == 0
    upstreams.reset()
    later = made.ask("POST", path, body, made.key)  # little is left, and it may cost more
    assert (later.status, later.json["error"]["type"]) == (429, "insufficient_quota")
    assert "may cost" in later.json["error"]["message"]
    assert not upstreams.asked
    assert made.chat("large ?", made.key, max_tokens=20).status == 200


def test_what_nobody_can_know_is_bounded_by_what_requests_cost_before(paid, upstreams):
    made = paid(0.01)
    upstreams.says["large"] = lambda body: _costly(200, _all_decided(made, upstreams))(body)
    assert [answer.status for answer in _at_once(made, 1)] == [200]
    statuses = [answer.status for answer in _at_once(made, 40)]
    assert 1 <= statuses.count(200) <= 4
    assert _spent(made) <= 0.01 + 0.0021
    assert _kept(made) == 0


def test_the_longest_answer_of_a_model_may_be_configured(paid, upstreams):
    model = {"base_url": upstreams.url, "dollars_in": 1.0, "dollars_out": 10.0}
    made = paid(0.01, models__large={**model, "longest_answer": 400})
    upstreams.says["large"] = lambda body: _costly(400, _all_decided(made, upstreams))(body)
    statuses = [answer.status for answer in _at_once(made, 10)]
    assert statuses.count(200) == 2
    assert _spent(made) <= 0.01


@pytest.mark.parametrize("stream", [False, True])
def test_the_second_of_hedged_calls_is_kept_and_counted(paid, upstreams, stream):
    model = {"base_url": upstreams.url, "dollars_in": 1.0, "dollars_out": 10.0}
    model |= {"also": [{"base_url": upstreams.url}], "hedge": True}
    made = paid(1.0, models__large=model)
    hedge = made.gateway.upstreams["large"]._hedge
    hedge.num, hedge._quantile = 1000, 0.02
    kept = []

    def says(body):
        kept.append(_kept(made))
        return slow("a few words", 0.3 if len(kept) == 1 else 0.0)(body)

    upstreams.says["large"] = says
    body = _body(max_tokens=50, stream=stream)
    assert made.ask("POST", CHAT, body, made.key).status == 200
    query = query_of(json.dumps(body).encode(), (), Client("", LOCAL), 10)
    models = made.gateway.settings.models
    once, _ = most_of_calls(query, models, ["large"], None, picks=True, streams=True)
    # The bytes of one stream are passed on: there is no second call of it.
    assert kept == [once] if stream else kept == [2 * once, 2 * once]
    usage = 10e-6 + 2 * 10e-6
    prompt = len(json.dumps(body["messages"])) / 4e6
    second = prompt + len("a few words") / 4 * 10e-6
    assert _spent(made) == pytest.approx(usage + (0 if stream else second), rel=0.3)
    assert _spent(made) <= kept[0]
    assert _kept(made) == 0


def test_hedged_calls_that_bring_no_answer_do_not_count(paid, upstreams):
    model = {"base_url": upstreams.url, "dollars_in": 1.0, "dollars_out": 10.0, "tries": 1}
    model |= {"also": [{"base_url": upstreams.url}], "hedge": True}
    made = paid(1.0, models__large=model)
    hedge = made.gateway.upstreams["large"]._hedge
    hedge.num, hedge._quantile = 1000, 0.01

    async def late(body):
        await asyncio.sleep(0.05)
        return web.Response(status=500)

    upstreams.says["large"] = lambda body: late(body)
    assert made.chat("large ?", made.key, max_tokens=50).status == 502
    assert len(upstreams.asked) == 2
    assert _spent(made) == 0


def _gone(made, upstreams):
    upstreams.says["large"] = lambda body: slow("late", 5)(body)
    assert made.chat("large ?", made.key, gone_after=0.05, max_tokens=50).status is None


def _gone_from_a_stream(made, upstreams):
    upstreams.says["large"] = lambda body: slow("late", 5)(body)
    made.chat("large ?", made.key, gone_after=0.05, max_tokens=50, stream=True)


def _failed(made, upstreams):
    upstreams.says["large"] = status(500)
    assert made.chat("large ?", made.key, max_tokens=50).status == 502


def _broken_stream(made, upstreams):
    upstreams.says["large"] = [b'data: {"choices": []}\n\n', None]
    assert made.chat("large ?", made.key, max_tokens=50, stream=True).status == 200


def _late(made, upstreams):
    """The deadline is that of this request alone: no other may meet it on a busy machine."""
    upstreams.says["large"] = lambda body: slow("late", 60)(body)
    settings = made.gateway.settings
    short = structs.replace(settings.server, deadline_seconds=0.3)
    made.gateway.settings = structs.replace(settings, server=short)
    assert made.chat("large ?", made.key, max_tokens=50).status == 504
    made.gateway.settings = settings


def _fault(made, upstreams):
    def broken():
        raise RuntimeError("a fault of the gateway")

    made.gateway.store.add, add = lambda row: broken(), made.gateway.store.add
    with contextlib.suppress(RuntimeError):
        made.chat("large ?", made.key, max_tokens=50)
    made.gateway.store.add = add


def _cancelled(made, upstreams):
    upstreams.says["large"] = lambda body: slow("late", 5)(body)

    async def cancelled():
        body = _body(max_tokens=50)
        task = asyncio.ensure_future(call(made.app, "POST", CHAT, body, made.key))
        await until(lambda: _kept(made) > 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    made.run(cancelled())


def _voted(made, upstreams):
    upstreams.says |= {"small": "A", "medium": "A", "large": lambda body: slow("B", 5)(body)}
    assert made.chat("small,medium,large ?", made.key, max_tokens=50).status == 200


def _picked(made, upstreams):
    upstreams.says["judge"] = "1"
    answer = made.chat("small,large ?", made.key, max_tokens=50, racer={"mode": "select"})
    assert answer.json["racer"]["judge"] == "picked"


def _abstained(made, upstreams):
    assert made.chat("abstain ?", made.key, max_tokens=50).status == 200


def _refused(made, upstreams):
    racer = {"on_abstain": "error"}
    assert made.chat("abstain ?", made.key, max_tokens=50, racer=racer).status == 422


def _bypassed(made, upstreams):
    assert made.chat("?", made.key, max_tokens=50, model="large").status == 200


@pytest.mark.parametrize(
    "end",
    few_by_default(
        [_gone, _failed, _broken_stream, _refused, _gone_from_a_stream, _late, _fault, _cancelled,
         _voted, _picked, _abstained, _bypassed], 4
    ),
)  # fmt: skip
def test_what_is_kept_is_given_back_however_a_request_ends(paid, upstreams, end):
    made = paid(1.0, server={"heartbeat_seconds": 0.05})
    end(made, upstreams)
    assert _kept(made) == 0
    upstreams.reset()
    made.gateway.upstreams["large"].breaker.succeeded()
    assert made.chat("large ?", made.key, max_tokens=50).status == 200


@pytest.mark.parametrize("ask_for_usage", [False, True])
def test_a_stream_costs_though_nobody_asks_what(paid, upstreams, ask_for_usage):
    """A client that does not ask for the usage of its streams would otherwise have them free."""
    made = paid(1.0)
    upstreams.says["large"] = [
        *(b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n',) * 40,
        b"data: [DONE]\n\n",
    ]
    options = {"stream_options": {"include_usage": True}} if ask_for_usage else {}
    answer = made.chat("large ?", made.key, stream=True, **options)
    assert answer.content.endswith(b"[DONE]\n\n")
    assert 40 * 10e-6 <= _spent(made) <= 60 * 10e-6
    stored = made.ask("GET", f"/v1/racer/decisions/{answer.headers['x-racer-id']}", None, made.key)
    assert [one["model"] for one in stored.json["calls"]] == ["large"]
    assert (stored.json["dollars"], stored.json["charged"]) == (None, pytest.approx(_spent(made)))


def test_an_answer_without_usage_costs_too(paid, upstreams):
    made = paid(1.0)
    upstreams.says["large"] = lambda body: web.json_response(_NO_USAGE)
    assert made.chat("large ?", made.key).status == 200
    assert _spent(made) > 5e-5


def test_a_day_goes_on_after_a_restart_and_nothing_is_kept(paid, upstreams, start):
    made = paid(1.0)
    upstreams.says["large"] = [
        b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n' * 40,
        b"data: [DONE]\n\n",
    ]
    made.chat("large ?", made.key, stream=True)
    spent = _spent(made)
    made.gateway.store.ask(lambda connection: None).result()
    path = made.gateway.settings.state.path
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("update decision set dollars = null")
        connection.commit()
    again = start(keys={"alice": key_of(daily_dollars=1.0)[1]}, state={"path": path})
    assert (_spent(again), _kept(again)) == (pytest.approx(spent), 0)


def test_what_other_replicas_wrote_is_added_and_nothing_lost():
    budgets = Budgets()
    budgets.spend("alice", 3.0)
    (key,) = budgets.spent
    budgets.take({key: 2.0})  # read before the last row was written
    assert budgets.today("alice") == 3.0
    budgets.take({key: 5.0, ("bob", key[1]): 1.0})
    assert (budgets.today("alice"), budgets.today("bob")) == (5.0, 1.0)


def test_giving_back_twice_is_once():
    budgets = Budgets()
    first = budgets.reserve("alice", 1.0, 0.5, is_most=True)
    second = budgets.reserve("alice", 1.0, 0.5, is_most=True)
    with pytest.raises(GatewayError, match="under way"):
        budgets.reserve("alice", 1.0, 0.1, is_most=True)
    first.give_back()
    first.give_back()
    assert budgets.reserved("alice") == 0.5
    second.give_back()
    assert budgets.reserved("alice") == 0.0


@pytest.mark.parametrize(
    ("fields", "calls", "judge", "is_most"),
    [
        ({"max_tokens": 100}, ["a", "b"], None, True),
        ({"max_tokens": 100, "n": 3}, ["a"], None, True),
        ({"max_tokens": 10, "max_completion_tokens": 100}, ["a"], None, True),
        ({}, ["a"], None, False),
        ({"max_tokens": 100}, ["free"], None, False),
        ({"max_tokens": 100}, ["a", "b"], "a", True),
    ],
)
def test_what_a_request_may_cost_at_most(fields, calls, judge, is_most):
    models = {
        "a": Model(base_url="http://127.0.0.1", dollars_in=1.0, dollars_out=10.0),
        "b": Model(base_url="http://127.0.0.1", dollars_in=2.0, dollars_out=20.0),
        "free": Model(base_url="http://127.0.0.1"),
    }
    raw = json.dumps(_body("é" * 50, **fields), ensure_ascii=False).encode()
    query = query_of(raw, (), Client("", LOCAL), 10)
    dollars, known = most_of_calls(query, models, calls, judge, picks=True)
    assert known == is_most
    # The tokens of a prompt are at most its bytes, and at least half of those of the text.
    answers = fields.get("n", 1) * 100 if is_most else 0
    for name in calls:
        model = models[name]
        dollars -= (50 * (model.dollars_in or 0) + answers * (model.dollars_out or 0)) / 1e6
    assert 0 <= dollars <= (0.03 if judge else 0.001)


def test_models_whose_calls_cost_nobody_knows_what_are_named(start, upstreams, caplog):
    model = {"base_url": upstreams.url}
    start(keys={"alice": key_of(daily_dollars=1.0)[1]}, models__large=model)
    assert "daily_dollars of the key 'alice': calls of large count only as far as" in caplog.text
    caplog.clear()
    start(keys={"alice": key_of()[1]}, models__large=model)
    assert "daily_dollars" not in caplog.text
