"""Ways of answering: one model, a vote, a judge's choice, a judge's words, all answers."""

import asyncio
import json
import math
import sys

import pytest
from aiohttp import web

from racer_jax.serving.gateway._errors import CallFailedError
from racer_jax.serving.gateway._tasks import started
from tests.racer.test_racer import MODELS
from tests.serving.gateway.test_security import key_of
from tests.serving.gateway.test_state import settled
from tests.serving.gateway.upstreams import call, completion, events, slow, status


def test_a_set_of_one_is_passed_through(served, upstreams):
    got = served.chat("large hello", temperature=0.5, anything={"of": ["mine"]})
    assert got.status == 200
    assert got.json["choices"][0]["message"]["content"] == "I am large"
    assert got.json["model"] == "large"
    assert got.json["id"].startswith("chatcmpl-")
    assert got.json["id"] == got.headers["x-racer-id"]
    assert got.json["created"] == 17
    (asked,) = upstreams.asked
    assert asked["anything"] == {"of": ["mine"]}
    assert asked["temperature"] == 0.5
    assert "racer" not in asked
    assert asked["model"] == "large"
    racer = got.json["racer"]
    assert racer["set"] == ["large"]
    assert racer["answered"] == ["large"]
    assert (racer["reason"], racer["guarantee"], racer["alpha"]) == ("ok", "holds", "0.3")
    assert got.headers["x-racer-guarantee"] == "holds"
    assert got.headers["x-racer-set"] == "large"
    assert got.headers["x-racer-artefact"] == racer["artefact"]
    assert len(racer["artefact"]) == 12
    assert got.json["usage"]["prompt_tokens"] == 10
    assert got.json["usage"]["cost"] == pytest.approx(30e-6)
    assert float(got.headers["x-racer-cost"]) == pytest.approx(30e-6)


def test_bytes_of_a_set_of_one_stream_through(served, upstreams):
    got = served.chat("large hello", stream=True)
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.headers["x-racer-guarantee"] == "holds"
    assert got.headers["x-racer-answered"] == "large"
    assert b'"id": "chatcmpl-upstream"' in got.content
    assert got.content.endswith(b"data: [DONE]\n\n")
    text = [e["choices"][0]["delta"]["content"] for e in events(got.content)[:-2]]
    assert text == ["I", "am", "large"]


def test_calls_of_streams_and_judges_are_counted(served, upstreams):
    def counted(name):
        lines = served.admin("GET", "/metrics").content.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    names = {
        'racer_tokens_total{model="large",type="input"}': 20,
        'racer_upstream_seconds_count{model="large"}': 2,
        'racer_upstream_calls_total{model="large",outcome="ok"}': 2,
        'racer_cost_usd_total{model="large"}': 60e-6,
        'racer_tokens_total{model="judge",type="input"}': 10,
        'racer_cost_usd_total{model="judge"}': 30e-6,
    }
    before = {name: counted(name) for name in names}
    served.chat("large hello", stream=True)
    upstreams.says.update(judge="1")
    served.chat("small,large ?", racer={"mode": "select"})
    assert {name: counted(name) - before[name] for name in names} == pytest.approx(names)


def test_a_vote_shows_the_most_plausible_voter(served, upstreams):
    upstreams.says.update(small="B", medium="(A)", large="A.")
    got = served.chat("small,medium,large ?")
    assert got.json["choices"][0]["message"]["content"] == "A."
    assert got.json["model"] == "large"
    assert got.json["racer"]["votes"]["A"] == 2
    assert got.json["racer"]["guarantee"] == "holds"


def test_calls_that_cannot_change_the_winner_are_cancelled(served, upstreams):
    upstreams.says.update(small=slow("A", 5), medium="B", large="B")
    got = served.chat("small,medium,large ?")
    assert got.json["choices"][0]["message"]["content"] == "B"
    assert got.json["racer"]["cancelled"] == ["small"]
    assert got.json["racer"]["guarantee"] == "holds"


def test_the_judge_picks_one_candidate_verbatim(served, upstreams):
    def pick(body):
        text = body["messages"][1]["content"]
        place = next(i for i in (1, 2, 3) if f"candidate {i}]\nfrom medium" in text)
        assert json.dumps(body).find("racer") == -1
        return str(place)

    upstreams.says.update(small="from small", medium="from medium", large="from large", judge=pick)
    got = served.chat("small,medium,large ?", racer={"mode": "select"})
    assert got.json["choices"][0]["message"]["content"] == "from medium"
    racer = got.json["racer"]
    assert (racer["judge"], racer["answered"], racer["mode"]) == ("picked", ["medium"], "select")
    assert got.json["usage"]["prompt_tokens"] == 40


def test_a_judge_sees_the_candidates_in_an_order_that_nobody_can_foresee(served, upstreams):
    orders = set()

    def pick(body):
        text = body["messages"][1]["content"]
        orders.add(tuple(sorted(MODELS, key=lambda name: text.index(f"from {name}"))))
        return "1"

    upstreams.says.update({name: f"from {name}" for name in MODELS}, judge=pick)
    for _ in range(12):
        served.chat("small,medium,large ?", racer={"mode": "select"})
    assert len(orders) > 1  # but for a chance of 6^-11


@pytest.mark.parametrize("verdict", ["none of them", "4", "0", "1 or 2", ""])
def test_a_judge_that_names_nobody_leaves_the_most_plausible(served, upstreams, verdict):
    upstreams.says.update(judge=verdict)
    got = served.chat("small,large ?", racer={"mode": "select"})
    assert got.json["choices"][0]["message"]["content"] == "I am large"
    assert got.json["racer"]["judge"] == "failed"
    assert got.json["racer"]["judge_error"] == "names no candidate"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["select", "synthesize"])
def test_a_judge_that_gives_no_answer_says_why(served, upstreams, mode, stream):
    def counted():
        name = 'racer_upstream_calls_total{model="judge",outcome='
        lines = served.admin("GET", "/metrics").content.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    before = counted()
    upstreams.says.update(judge=status(500))
    got = served.chat("small,large ?", racer={"mode": mode}, stream=stream)
    racer = events(got.content)[-2]["racer"] if stream else got.json["racer"]
    assert (racer["judge"], racer["judge_error"]) == ("failed", "status_500")
    assert (racer["answered"], racer["failed"]) == (["large"], {})  # no model of the set failed
    stored = served.ask("GET", f"/v1/racer/decisions/{racer['id']}").json["calls"]
    assert sorted((call["model"], call["outcome"]) for call in stored) == [
        ("judge", "status_500"),
        ("large", "ok"),
        ("small", "ok"),
    ]
    assert counted() == before + 1


def _is_judged(body):
    return body["messages"][0]["role"] == "system"


def _stored_calls(made, name, key=None):
    stored = made.ask("GET", f"/v1/racer/decisions/{name}", None, key).json
    return sorted((call["model"], call["outcome"]) for call in stored["calls"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["select", "synthesize"])
def test_a_judge_that_is_not_waited_for_is_stored_and_counted(served, upstreams, mode, stream):
    name = 'racer_upstream_calls_total{model="judge",outcome="cancelled"}'

    def counted():
        lines = served.admin("GET", "/metrics").content.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    async def ended_while_the_judge_thinks():
        asked = asyncio.Event()

        async def judge(body):
            asked.set()
            await asyncio.sleep(30)

        upstreams.says["judge"] = judge
        body = {
            "model": "racer/my",
            "messages": [{"role": "user", "content": "small,large ?"}],
            "racer": {"mode": mode},
            "stream": stream,
        }
        task = asyncio.ensure_future(call(served.app, "POST", "/v1/chat/completions", body))
        await asyncio.wait_for(asked.wait(), 30)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    before = counted()
    assert served.run(ended_while_the_judge_thinks())
    latest = "select id from decision order by seq desc limit 1"
    (decision,) = served.gateway.store.ask(lambda c: c.execute(latest).fetchone()).result(30)
    calls = _stored_calls(served, decision)
    assert calls == [("judge", "cancelled"), ("large", "ok"), ("small", "ok")]
    assert counted() == before + 1


@pytest.mark.parametrize("mode", ["select", "synthesize"])
def test_a_judge_that_fails_may_be_one_of_the_set(start, upstreams, mode):
    """Its call as a judge is none of the set, and costs nothing."""
    key, section = key_of(daily_dollars=1.0, overrides=["mode"])
    made = start(routes__my__judge="large", keys={"alice": section})
    made.key = {"authorization": f"Bearer {key}"}
    upstreams.says["large"] = lambda body: status(500)(body) if _is_judged(body) else "I am large"
    got = made.chat("small,large ?", made.key, racer={"mode": mode})
    racer = got.json["racer"]
    assert (racer["judge"], racer["judge_error"]) == ("failed", "status_500")
    assert (racer["failed"], racer["reason"], racer["guarantee"]) == ({}, "ok", "holds")
    calls = _stored_calls(made, racer["id"], made.key)
    assert calls == [("large", "ok"), ("large", "status_500"), ("small", "ok")]
    assert made.gateway.budgets.today("alice") == pytest.approx(got.json["usage"]["cost"])


def test_a_judge_that_breaks_off_in_its_text_is_none_of_the_set(start, upstreams):
    made = start(routes__my__judge="large")
    broken = [b'data: {"choices": [{"delta": {"content": "the"}}]}\n\n', None]
    upstreams.says["large"] = lambda body: broken if _is_judged(body) else "I am large"
    got = made.chat("small,large ?", stream=True, racer={"mode": "synthesize"})
    racer = events(got.content)[-1]["racer"]
    assert (racer["failed"], racer["reason"], racer["guarantee"]) == ({}, "ok", "void")
    (error,) = {outcome for _, outcome in _stored_calls(made, racer["id"])} - {"ok"}
    assert racer["judge_error"] == error
    assert _stored_calls(made, racer["id"]) == sorted(
        [("large", error), ("large", "ok"), ("small", "ok")]
    )


def test_a_model_that_failed_and_then_judges_has_both_calls_stored(start, upstreams):
    made = start(routes__my__judge="large")
    upstreams.says["large"] = lambda body: "of two" if _is_judged(body) else status(500)(body)
    got = made.chat("small,medium,large ?", stream=True, racer={"mode": "synthesize"})
    assert got.content.endswith(b"[DONE]\n\n")
    stored = made.ask("GET", f"/v1/racer/decisions/{got.headers['x-racer-id']}").json["calls"]
    calls = sorted((call["model"], call["outcome"], call["prompt_tokens"]) for call in stored)
    assert calls == [
        ("large", "ok", 10),
        ("large", "status_500", 0),
        ("medium", "ok", 10),
        ("small", "ok", 10),
    ]


def test_what_is_shown_for_a_judge_that_failed_is_not_kept(start, upstreams):
    made = start(routes__my__cache_seconds=60.0)
    upstreams.says["judge"] = status(500)
    first = made.chat("small,large ?", temperature=0, racer={"mode": "select"})
    assert first.json["racer"]["judge"] == "failed"
    upstreams.says["judge"] = "1"
    second = made.chat("small,large ?", temperature=0, racer={"mode": "select"})
    assert second.headers["x-racer-cache"] == "miss"
    assert second.json["racer"]["judge"] == "picked"


def test_a_judge_may_say_how_probable_its_choice_is(start, served, upstreams):
    asked = start(routes__my__judge_logprobs=True)
    upstreams.reset()
    answer = completion("2", "judge")
    tokens = [{"token": " ", "logprob": -0.1}, {"token": "2", "logprob": -0.5}]
    answer["choices"][0]["logprobs"] = {"content": tokens}
    upstreams.says.update(judge=lambda body: answer)
    got = asked.chat("small,large ?", racer={"mode": "select"})
    assert got.json["racer"]["judge_probability"] == pytest.approx(math.exp(-0.5), abs=1e-6)
    assert upstreams.asked[-1]["logprobs"] is True
    for content in (None, [], [{"token": "1", "logprob": -0.5}], [{"token": 2}], "nonsense"):
        answer["choices"][0]["logprobs"] = {"content": content}
        got = asked.chat("small,large ?", racer={"mode": "select"})
        assert got.json["racer"]["judge"] == "picked"
        assert "judge_probability" not in got.json["racer"]
    upstreams.asked.clear()
    served.chat("small,large ?", racer={"mode": "select"})
    assert "logprobs" not in upstreams.asked[-1]


def test_equal_candidates_need_no_judge(served, upstreams):
    upstreams.says.update(small="same", large="same")
    got = served.chat("small,large ?", racer={"mode": "select"})
    assert got.json["racer"]["judge"] == "one candidate"
    assert sorted(upstreams.models) == ["large", "small"]


def test_what_a_judge_writes_is_without_a_promise(served, upstreams):
    upstreams.says.update(judge="the best of both")
    got = served.chat("small,large ?", racer={"mode": "synthesize"})
    assert got.json["choices"][0]["message"]["content"] == "the best of both"
    assert got.json["model"] == "racer/my"
    assert got.json["racer"]["guarantee"] == got.headers["x-racer-guarantee"] == "void"


def test_a_judge_writes_a_stream_of_its_own(served, upstreams):
    upstreams.says.update(judge="the best of both")
    got = served.chat("small,large ?", stream=True, racer={"mode": "synthesize"})
    texts = [e["choices"][0]["delta"]["content"] for e in events(got.content)[:-2]]
    assert texts == ["the", "best", "of", "both"]
    assert got.headers["x-racer-guarantee"] == "void"


_FAILING = {
    "refuses": status(503),
    "sends a page": lambda body: web.Response(text="<html>", content_type="text/html"),
    "begins with an error": [b'data: {"error": {"message": "overloaded"}}\n\n'],
    "sends nothing": [],
    "breaks off at once": [None],
}


@pytest.mark.parametrize("how", _FAILING)
@pytest.mark.parametrize("stream", [False, True])
def test_where_a_judge_writes_nothing_the_most_plausible_candidate_is_shown(
    served, upstreams, how, stream
):
    upstreams.says["judge"] = _FAILING[how]
    got = served.chat("small,large ?", stream=stream, racer={"mode": "synthesize"})
    served.gateway.upstreams["judge"].breaker.succeeded()
    assert got.status == 200
    if stream:
        *chunks, last, done = events(got.content)
        assert done == "[DONE]"
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert got.headers["x-racer-guarantee"] == "void"  # said before it was known
    else:
        last, text = got.json, got.json["choices"][0]["message"]["content"]
        assert got.headers["x-racer-guarantee"] == "holds"
    assert (text, last["model"]) == ("I am large", "large")
    facts = last["racer"]
    assert (facts["judge"], facts["answered"], facts["guarantee"]) == ("failed", ["large"], "holds")
    stored = served.ask("GET", f"/v1/racer/decisions/{facts['id']}").json
    assert (stored["answered"], stored["guarantee"], stored["status"]) == ("large", "holds", 200)


def test_a_judge_that_breaks_off_in_its_text_leaves_an_error(served, upstreams):
    upstreams.says["judge"] = [b'data: {"choices": [{"delta": {"content": "the"}}]}\n\n', None]
    got = served.chat("small,large ?", stream=True, racer={"mode": "synthesize"})
    served.gateway.upstreams["judge"].breaker.succeeded()
    *_, last = events(got.content)
    assert (last["error"]["type"], last["racer"]["guarantee"]) == ("racer_upstream", "void")
    assert b"[DONE]" not in got.content


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_written_from_one_answer(served, upstreams, stream):
    got = served.chat("large ?", stream=stream, racer={"mode": "synthesize"})
    assert got.headers["x-racer-guarantee"] == "holds"
    assert upstreams.models == ["large"]


def test_signs_of_life_come_while_a_judge_thinks_and_end_before_its_first_word(served, upstreams):
    upstreams.says["judge"] = lambda body: slow("the best of both", 0.5)(body)
    got = served.chat("small,large ?", stream=True, racer={"mode": "synthesize"})
    signs = [
        i for i, part in enumerate(got.parts) if part.startswith(b": racer waiting for 1 of 3")
    ]
    words = [i for i, part in enumerate(got.parts) if b"data:" in part]
    assert len(signs) >= 2
    assert max(signs) < min(words)


def test_a_stream_that_begins_with_an_error_has_a_status(served, upstreams):
    upstreams.says["large"] = [b'data: {"error": {"message": "overloaded", "code": 502}}\n\n']
    got = served.chat("large ?", stream=True)
    served.gateway.upstreams["large"].breaker.succeeded()
    assert (got.status, got.json["error"]["type"]) == (502, "racer_upstream")
    assert got.headers["x-racer-guarantee"] == "void"


@pytest.mark.parametrize("stream", [False, True])
def test_the_judges_own_label_is_none_of_what_it_wrote(start, upstreams, stream):
    made = start(routes__my__judge="large", audit={"share": 1.0})
    upstreams.says["large"] = "from both"
    got = made.chat("small,medium ?", stream=stream, racer={"mode": "synthesize"})
    name = got.headers["x-racer-id"]
    settled(made)
    assert made.ask("GET", f"/v1/racer/decisions/{name}").json["answered"] == "large"
    label = {"id": name, "source": "audit", "correct": {"small": 1, "medium": 0, "large": 0}}
    assert made.ask("POST", "/v1/feedback", label).json["new"]
    settled(made)
    labels = made.admin("GET", "/status").json["routes"]["my"]["monitors"]["labels"]
    assert (labels["num"], labels["misses"], labels["judged"]) == (1, 0, 0)


def test_all_answers_come_as_choices(served, upstreams):
    got = served.chat("small,medium,large ?", racer={"mode": "all"})
    choices = [(c["racer_model"], c["message"]["content"]) for c in got.json["choices"]]
    assert choices == [(m, f"I am {m}") for m in ("large", "medium", "small")]
    assert [c["index"] for c in got.json["choices"]] == [0, 1, 2]


def test_several_models_stream_as_one(served, upstreams):
    upstreams.says.update(small=slow("B", 0.4), large="A", medium=slow("B", 0.4))
    got = served.chat("small,medium,large ?", stream=True, stream_options={"include_usage": True})
    assert got.parts[0] == b": racer waiting for 3 of 3\n\n"
    assert b": racer waiting for 2 of 3\n\n" in got.parts
    *chunks, last, usage, done = events(got.content)
    assert done == "[DONE]"
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "B"
    assert last["racer"]["guarantee"] == "holds"
    assert last["choices"][0]["finish_reason"] == "stop"
    assert got.headers["x-racer-guarantee"] == "pending"
    assert usage["usage"]["prompt_tokens"] == 30
    assert usage["choices"] == []
    assert {c["id"] for c in chunks} == {got.headers["x-racer-id"]}
    assert all("stream" not in asked for asked in upstreams.asked)


def test_tools_are_left_to_a_judge(served, upstreams):
    tool = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    upstreams.says.update(
        small=completion(None, tool_calls=[tool]),
        medium=completion(None, tool_calls=[{**tool, "id": "c2"}]),
        judge="1",
    )
    got = served.chat("small,medium ?", tools=[{"type": "function", "function": {"name": "f"}}])
    assert got.json["racer"]["mode"] == "select"
    assert got.json["racer"]["reason"] == "unknown_group"
    assert sorted(got.json["racer"]["set"]) == ["large", "medium", "small"]
    refused = served.chat(
        "small,medium ?",
        tools=[{"type": "function", "function": {"name": "f"}}],
        racer={"mode": "vote"},
    )
    assert refused.status == 400
    assert "racer.mode" in refused.json["error"]["message"]


def test_a_client_may_name_a_model(served, upstreams):
    got = served.chat("hello", model="medium")
    assert got.json["choices"][0]["message"]["content"] == "I am medium"
    assert (got.json["racer"]["reason"], got.json["racer"]["guarantee"]) == ("bypass", "void")
    assert served.chat("hello", model="nobody").json["error"]["code"] == "model_not_found"


def test_models_are_listed(served):
    names = [entry["id"] for entry in served.ask("GET", "/v1/models").json["data"]]
    assert names == ["racer/my", "small", "medium", "large", "judge"]
    owners = [entry["owned_by"] for entry in served.ask("GET", "/v1/models").json["data"]]
    assert owners == ["racer"] + 4 * ["upstream"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["select", "all"])
def test_no_choice_of_a_model_is_left_out(served, upstreams, mode, stream):
    """A request for several answers of each model gets them all, streamed or not."""

    def both(body):
        whole = completion(f"{body['model']} 0")
        message = {"role": "assistant", "content": f"{body['model']} 1"}
        whole["choices"].append({"index": 1, "message": message, "finish_reason": "length"})
        return web.json_response(whole)

    upstreams.says.update(dict.fromkeys(MODELS, both), judge="1")
    got = served.chat("large ?", n=2, stream=stream, racer={"mode": mode})
    assert got.status == 200
    texts, ends = {}, {}
    for one in events(got.content)[:-1] if stream else [got.json]:
        for choice in one["choices"]:
            words = (choice.get("delta") or choice.get("message") or {}).get("content") or ""
            place = choice["index"]
            texts[place] = texts.get(place, "") + words
            ends[place] = choice["finish_reason"]
    assert len(set(texts.values())) == (6 if mode == "all" else 2)
    assert [text.split()[1] for text in texts.values()] == ["0", "1"] * (len(texts) // 2)
    assert list(ends.values()) == ["stop", "length"] * (len(ends) // 2)


def test_calls_are_under_way_as_soon_as_they_are_asked_for(run):
    steps = []

    async def work():
        steps.append("begun")
        await asyncio.sleep(0)
        steps.append("ended")
        return 7

    async def fails():
        raise CallFailedError("network")

    async def ask():
        task = started(work())
        steps.append("made")
        with pytest.raises(CallFailedError):
            await started(fails())
        return await task

    assert run(ask()) == 7
    at_once = ["begun", "made", "ended"]
    assert steps == (at_once if sys.version_info >= (3, 12) else ["made", "begun", "ended"])
