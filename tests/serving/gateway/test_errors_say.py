"""Whatever endpoint a request comes by: errors promise nothing, and each call is one row."""

import asyncio

import pytest
from aiohttp import web

from tests.serving.gateway.test_security import key_of
from tests.serving.gateway.test_state import settled
from tests.serving.gateway.upstreams import call, completion, events, slow, status, until

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def _ask(made, path, text="large ?", **fields):
    if path == CHAT:
        body = {"model": "racer/my", "messages": [{"role": "user", "content": text}], **fields}
    else:
        body = {"model": "racer/my", "input": text, **fields}
    return made.ask("POST", path, body)


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_an_answer_that_does_not_come_promises_nothing(start, served, upstreams, path):
    made = start(server__deadline_seconds=0.4)
    upstreams.says["large"] = lambda body: slow("late", 60)(body)
    late = _ask(made, path)
    upstreams.says["large"] = status(500)
    lost = _ask(served, path)
    none = _ask(served, path, "abstain ?", racer={"on_abstain": "error"})
    assert [answer.status for answer in (late, lost, none)] == [504, 502, 422]
    for answer, verdict in ((late, "void"), (lost, "void"), (none, "holds")):
        assert answer.headers["x-racer-guarantee"] == verdict
        assert answer.json["racer"]["guarantee"] == verdict
    settled(made)
    stored = made.ask("GET", f"/v1/racer/decisions/{late.headers['x-racer-id']}").json
    assert (stored["status"], stored["guarantee"]) == (504, "void")


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("milliseconds", [10**30, 10**400])
def test_a_deadline_beyond_any_number_is_that_of_the_server(served, path, milliseconds):
    assert _ask(served, path, racer={"deadline_ms": milliseconds}).status == 200


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_a_fault_is_recorded_and_promises_nothing(served, upstreams, path, monkeypatch, caplog):
    finished = []
    monkeypatch.setattr(served.gateway.store, "add", finished.append)

    def broken(self):
        raise KeyError("odd")

    monkeypatch.setattr("racer_jax.serving.gateway._completions.Completion.body", broken)
    answer = _ask(served, path)
    assert (answer.status, answer.headers["x-racer-guarantee"]) == (500, "void")
    assert [row.status for row in finished] == [500]
    assert "a request failed" in caplog.text


def test_a_call_of_a_tool_without_a_name_of_its_own_is_an_answer(served, upstreams):
    calls = [{"type": "function", "function": {"name": "look", "arguments": "{}"}}, {}]
    upstreams.says["large"] = lambda body: web.json_response(completion(None, tool_calls=calls))
    answer = _ask(served, RESPONSES)
    assert answer.status == 200
    first, second = answer.json["output"]
    assert (first["name"], second["name"]) == ("look", "")
    assert first["call_id"].startswith("fc_")


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_a_request_that_is_ended_by_the_server_is_recorded(served, upstreams, path, monkeypatch):
    rows = []
    monkeypatch.setattr(served.gateway.store, "add", rows.append)
    upstreams.says["large"] = lambda body: slow("late", 60)(body)
    body = {"model": "racer/my", "input": "large ?"}
    if path == CHAT:
        body = {"model": "racer/my", "messages": [{"role": "user", "content": "large ?"}]}

    async def ended():
        task = asyncio.ensure_future(call(served.app, "POST", path, body))
        await until(lambda: upstreams.asked)
        task.cancel()
        done = await asyncio.gather(task, return_exceptions=True)
        return done[0]

    assert isinstance(served.run(ended()), asyncio.CancelledError)
    assert [(row.status, row.guarantee) for row in rows] == [(499, "void")]
    assert served.gateway.in_flight == 0


def test_a_stream_that_ends_badly_is_one_call(served, upstreams):
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}\n\n'
    upstreams.says["large"] = [b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n', usage]
    answer = served.chat("large ?", stream=True)
    assert events(answer.content)[-1]["racer"]["guarantee"] == "void"
    settled(served)
    stored = served.ask("GET", f"/v1/racer/decisions/{answer.headers['x-racer-id']}").json
    (one,) = stored["calls"]
    assert (one["outcome"], one["completion_tokens"]) == ("reply", 4)
    assert stored["dollars"] == pytest.approx(49e-6)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "n"])
def test_no_number_of_tokens_is_too_large_to_refuse(start, upstreams, field):
    key, section = key_of(daily_dollars=1.0, overrides=["max_cost", "group"])
    made = start(keys={"alice": section})
    header = {"authorization": f"Bearer {key}"}
    answer = made.chat("large ?", header, **{"max_tokens": 9, field: 10**400})
    assert (answer.status, answer.json["error"]["type"]) == (429, "insufficient_quota")
    answer = made.chat("large ?", header, racer={"max_cost": 1.0}, **{field: 10**400})
    assert answer.status == 429
