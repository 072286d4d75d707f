"""What a client sees when something goes wrong: one test for each row of the table in the docs."""

import numpy as np
import pytest
from aiohttp import web
from scipy.stats import binom

from racer_jax.data.errors import DataError
from tests.racer.test_racer import MODELS
from tests.serving.gateway.conftest import SCORES
from tests.serving.gateway.upstreams import completion, events, slow, status, until


@pytest.mark.long
def test_a_lost_call_voids_the_promise_of_its_request(served, upstreams):
    upstreams.says.update(small=status(500), medium="B", large="A")
    got = served.chat("small,medium,large ?")
    racer = got.json["racer"]
    assert racer["failed"] == {"small": "status_500"}
    assert (racer["reason"], racer["guarantee"]) == ("degraded", "void")
    assert got.json["choices"][0]["message"]["content"] == "A"


def test_the_status_bounds_what_lost_calls_add_to_the_risk(start, upstreams):
    gateway = start()
    assert gateway.admin("GET", "/status").json["routes"]["my"]["alpha_with_lost_calls"] is None
    for _ in range(7):
        gateway.chat("small,large ?")
    upstreams.says.update(small=status(500))
    assert gateway.chat("small,large ?").headers["x-racer-guarantee"] == "void"
    assert gateway.chat("small ?").status == 502
    gateway.chat("large ?", model="large")  # no request of the route
    # Of 9 requests 2 lost a call, though only 2 of 17 calls were lost: a rate r with
    # P(at most 2 of 9) = 0.05.
    shown = gateway.admin("GET", "/status").json["routes"]["my"]["alpha_with_lost_calls"] - 0.3
    assert binom.cdf(2, 9, shown) == pytest.approx(0.05)


def test_a_lost_call_that_could_not_change_the_vote_does_no_harm(served, upstreams):
    upstreams.says.update(small=status(500), medium=slow("A", 0.03), large=slow("A", 0.15))
    got = served.chat("small,medium,large ?")
    racer = got.json["racer"]
    assert racer["failed"] == {"small": "status_500"}
    assert (racer["reason"], racer["guarantee"]) == ("degraded", "holds")


def test_all_failing_names_each_error(served, upstreams):
    upstreams.says.update(small=status(500), large=lambda body: {"no": "completion"})
    got = served.chat("small,large ?")
    assert got.status == 502
    assert got.json["error"]["type"] == "racer_upstream"
    assert "small: status_500" in got.json["error"]["message"]
    assert "large: reply" in got.json["error"]["message"]
    assert got.json["racer"]["guarantee"] == got.headers["x-racer-guarantee"] == "void"


def test_all_at_their_limit_is_a_limit(served, upstreams):
    upstreams.says.update(
        small=status(429, {"retry-after": "7"}), large=status(429, {"retry-after": "3"})
    )
    got = served.chat("small,large ?")
    assert (got.status, got.headers["retry-after"]) == (429, "7")
    assert got.json["error"]["code"] == "rate_limit_exceeded"


def test_a_request_that_every_model_refuses_is_the_clients_fault(served, upstreams):
    upstreams.says.update(large=status(400, message="temperature must be below 2"))
    got = served.chat("large ?", temperature=9)
    assert got.status == 400
    assert "temperature must be below 2" in got.json["error"]["message"]
    assert not served.gateway.upstreams["large"].breaker.is_open


def test_the_deadline_ends_a_request(served, upstreams):
    upstreams.says.update(large=slow("A", 60))
    got = served.chat("large ?", racer={"deadline_ms": 400})
    assert got.status == 504
    assert got.json["error"]["type"] == "racer_deadline"
    served.run(until(lambda: upstreams.cancelled == ["large"]))


def test_a_client_that_goes_away_cancels_every_call(served, upstreams):
    upstreams.says.update(large=slow("A", 60), small=slow("A", 60))
    got = served.chat("small,large ?", gone_after=lambda: len(upstreams.asked) == 2)
    assert got.status is None
    served.run(until(lambda: sorted(upstreams.cancelled) == ["large", "small"]))
    assert served.gateway.in_flight == 0


def test_a_stream_that_breaks_off_says_so_and_is_not_done(served, upstreams):
    upstreams.says.update(large=[b'data: {"choices": []}\n\n', None])
    got = served.chat("large ?", stream=True)
    *_, last = events(got.content)
    assert last["error"]["type"] == "racer_upstream"
    assert b"[DONE]" not in got.content


def test_a_stream_that_never_begins_has_a_status(served, upstreams):
    upstreams.says.update(large=status(503))
    got = served.chat("large ?", stream=True)
    assert (got.status, got.json["error"]["type"]) == (502, "racer_upstream")


def test_a_stream_of_several_that_fails_late_is_not_done(served, upstreams):
    upstreams.says.update(large=status(503), small=status(500))
    got = served.chat("small,large ?", stream=True)
    assert got.status == 200
    (last,) = events(got.content)
    assert last["error"]["code"] == "racer_upstream"
    assert last["racer"]["guarantee"] == "void"


def test_an_empty_set_goes_to_the_fallback(served, upstreams):
    got = served.chat("abstain ?")
    assert got.json["racer"]["reason"] == got.headers["x-racer-reason"] == "abstain"
    assert got.json["racer"]["set"] == []
    assert got.json["racer"]["guarantee"] == "holds"
    assert got.json["model"] == "large"
    streamed = served.chat("abstain ?", stream=True)
    assert streamed.headers["x-racer-answered"] == "large"


def test_an_empty_set_may_be_an_error_or_a_refusal(served, upstreams):
    error = served.chat("abstain ?", racer={"on_abstain": "error"})
    assert (error.status, error.json["error"]["type"]) == (422, "racer_abstained")
    refusal = served.chat("abstain ?", racer={"on_abstain": "refusal"})
    message = refusal.json["choices"][0]["message"]
    assert message["content"] is None
    assert "0.3" in message["refusal"]
    assert refusal.json["choices"][0]["finish_reason"] == "stop"
    stream = served.chat("abstain ?", racer={"on_abstain": "refusal"}, stream=True)
    assert events(stream.content)[0]["choices"][0]["delta"]["refusal"] == message["refusal"]
    assert upstreams.asked == []


def test_an_unknown_group_has_everybody_called(served, upstreams):
    got = served.chat("unknown ?", racer={"group": "nobody"})
    racer = got.json["racer"]
    assert sorted(racer["called"]) == ["large", "medium", "small"]
    assert (racer["reason"], racer["guarantee"]) == ("unknown_group", "holds")


def test_several_turns_are_a_group_of_their_own(served):
    messages = [{"role": r, "content": "small ?"} for r in ("user", "assistant", "user")]
    got = served.chat(messages=messages)
    racer = got.json["racer"]
    assert (racer["group"], racer["reason"]) == ("multi_turn", "unknown_group")
    assert len(racer["called"]) == 3


@pytest.fixture(scope="module")
def capped(start):
    return start(routes__my__max_models=2, models__small__capabilities=["images"])


def test_what_would_take_more_models_than_allowed_is_refused(capped, upstreams):
    upstreams.reset()
    unknown = capped.chat("unknown ?", racer={"group": "nobody"})
    assert (unknown.status, unknown.json["error"]["type"]) == (400, "racer_unknown_group")
    assert "a, b" in unknown.json["error"]["message"]
    infeasible = capped.chat("all ?")
    assert (infeasible.status, infeasible.json["error"]["type"]) == (400, "racer_infeasible")
    calibration = capped.gateway.planners["my"].loaded.racers["0.3"].calibration
    place = calibration.groups.index("a")  # of requests that name none
    levels = (k / 1000 for k in range(1, 1000))
    finite = (a for a in levels if np.isfinite(calibration.at(a).threshold[place]))
    assert f"the smallest alpha that can be kept is {next(finite)}" in infeasible.content.decode()
    assert upstreams.asked == []


def test_a_cap_that_binds_voids_the_promise(capped, upstreams):
    upstreams.reset()
    got = capped.chat("small,medium,large ?")
    racer = got.json["racer"]
    assert racer["called"] == ["large", "medium"]
    assert len(racer["set"]) == 3
    assert (racer["reason"], racer["guarantee"]) == ("capped", "void")
    fits = capped.chat("small,large ?", racer={"max_models": 1})
    assert fits.json["racer"]["called"] == ["large"]


def test_dollars_leave_out_the_least_plausible(served, upstreams):
    got = served.chat("small,medium,large ?", racer={"max_cost": 0.1105})
    assert got.json["racer"]["called"] == ["large", "medium"]
    assert got.json["racer"]["guarantee"] == "void"
    broke = served.chat("small,large ?", racer={"max_cost": 0.05})
    assert (broke.status, broke.json["error"]["type"]) == (429, "insufficient_quota")


def test_a_long_prompt_costs_more(served, upstreams):
    """At one dollar per million tokens, 400,000 bytes are 0.1 dollars beside the answer's."""
    limit = {"max_cost": 0.15}
    assert served.chat("large ?", racer=limit).json["racer"]["called"] == ["large"]
    history = [{"role": "system", "content": "x" * 400_000}, {"role": "user", "content": "large ?"}]
    long = served.chat(messages=history, racer=limit)
    assert (long.status, long.json["error"]["code"]) == (429, "racer_budget")


def test_a_limit_that_nothing_can_be_held_against_is_refused(start, served, monkeypatch):
    monkeypatch.setattr("racer_jax.serving.gateway._costs.costs_of", lambda loaded: {})
    # 100 tokens at 10 dollars a million are 0.001 dollars.
    limit = {"max_cost": 0.0011}
    unknown = served.chat("small,large ?", racer=limit)
    assert (unknown.status, unknown.json["error"]["param"]) == (400, "racer.max_cost")
    fits = served.chat("small,large ?", racer=limit, max_completion_tokens=100)
    assert fits.json["racer"]["called"] == ["large"]
    changes = {f"models__{name}__dollars_{way}": None for name in SCORES for way in ("in", "out")}
    with pytest.raises(DataError, match="max_cost = 1 could not be kept"):
        start(routes__my__max_cost=1.0, **changes)


def test_every_answer_and_error_has_its_headers(served, capped, upstreams):
    always = {"x-racer-id", "x-racer-reason", "x-racer-guarantee", "x-racer-overhead-ms"}
    more = {"x-racer-set", "x-racer-answered", "x-racer-artefact", "x-racer-alpha"}
    for got in (
        served.chat("large ?"),
        served.chat("large ?", stream=True),
        served.chat("small,large ?", stream=True),
        served.chat("abstain ?", racer={"on_abstain": "error"}),
    ):
        assert always | more <= set(got.headers)
    upstreams.says.update(large=status(500))
    failed = served.chat("large ?")
    assert always | more <= set(failed.headers)
    assert float(failed.headers["x-racer-overhead-ms"]) >= 0
    body = {"model": "racer/my", "input": "large ?"}
    response = served.ask("POST", "/v1/responses", body)
    assert always | more <= set(response.headers)
    assert (response.status, response.json["racer"]["failed"]) == (502, {"large": "status_500"})
    upstreams.says.update(large=slow("A", 5))
    late = served.ask("POST", "/v1/responses", {**body, "racer": {"deadline_ms": 50}})
    assert (late.status, late.json["error"]["type"]) == (504, "racer_deadline")
    assert late.headers["x-racer-id"] == late.json["racer"]["id"]
    undecided = capped.chat("unknown ?", racer={"group": "nobody"})
    assert undecided.headers["x-racer-id"] == undecided.json["racer"]["id"]
    assert undecided.headers["x-racer-reason"] == "unknown_group"
    assert undecided.headers["x-racer-guarantee"] == "void"
    nobody = served.chat("large ?", model="racer/none")
    assert (nobody.status, nobody.headers["x-racer-reason"]) == (404, "refused")
    for early in (served.chat("large ?", stream="yes"), served.chat("?", headers={"host": "x.y"})):
        assert always <= set(early.headers)  # before there was anything to decide
        assert early.headers["x-racer-guarantee"] == "void"


def test_models_that_cannot_see_are_left_out(start, served, upstreams, capped):
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    nobody = served.chat(messages=[{"role": "user", "content": image}])
    assert (nobody.status, nobody.json["error"]["type"]) == (400, "racer_capabilities")
    seeing = start(models__small__capabilities=["images"])
    upstreams.reset()
    got = seeing.chat(messages=[{"role": "user", "content": image}])
    assert got.json["racer"]["called"] == ["small"]
    assert (got.json["racer"]["reason"], got.json["racer"]["guarantee"]) == ("capped", "void")
    assert upstreams.asked[0]["messages"][0]["content"] == image


ASKING = {
    "audio": {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
    "n": {"n": 2},
    "logprobs": {"logprobs": True},
    "json": {"response_format": {"type": "json_object"}},
    "tools": {"tools": [{"type": "function", "function": {"name": "f"}}]},
    "images": {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
        ]
    },
}


def test_models_that_lack_what_a_request_needs_are_not_called(start, upstreams):
    incapable = start(**{f"models__{name}__capabilities": [] for name in MODELS})
    upstreams.reset()
    for need, fields in ASKING.items():
        got = incapable.chat("small,medium,large ?", **fields)
        assert (got.status, got.json["error"]["type"]) == (400, "racer_capabilities")
        assert got.json["error"]["message"].endswith(f"what the request needs: {need}")
    assert upstreams.asked == []


def test_a_question_stays_of_its_group_where_probabilities_are_asked_for(served, upstreams):
    """They change no answer, so a vote and its promise stay what they are."""
    upstreams.says.update(small="A", medium="B", large="A")
    racer = served.chat("small,medium,large ?", logprobs=True).json["racer"]
    assert (racer["mode"], racer["reason"], racer["guarantee"]) == ("vote", "ok", "holds")
    assert upstreams.asked[0]["logprobs"] is True


def test_another_place_of_the_same_model_keeps_the_promise(start, upstreams):
    also = [{"base_url": upstreams.url, "name": "spare"}]
    gateway = start(models__large__also=also, models__large__tries=2)
    upstreams.reset()
    upstreams.says.update(large=status(500), spare="A")
    got = gateway.chat("large ?")
    assert upstreams.models == ["large", "spare"]
    assert got.json["racer"]["guarantee"] == "holds"
    assert got.json["model"] == "large"


def test_too_many_at_once_are_sent_away(start, upstreams):
    gateway = start(server__max_in_flight=1)
    upstreams.reset()
    gateway.gateway.in_flight = 1
    got = gateway.chat("large ?")
    assert (got.status, got.headers["retry-after"]) == (503, "1")
    gateway.gateway.in_flight = 0
    assert gateway.admin("POST", "/drain", {}).json == {"in_flight": 0, "background": 0}
    assert gateway.chat("large ?").status == 503
    assert gateway.admin("GET", "/readyz").status == 503


def test_an_answer_that_is_too_long_is_no_answer(start, upstreams):
    gateway = start(models__large__max_reply_bytes=1000)
    upstreams.reset()
    upstreams.says.update(large="x" * 2000)
    got = gateway.chat("large ?")
    assert got.json["racer"]["failed"] == {"large": "size"}


def test_silence_is_a_timeout(start, upstreams):
    gateway = start(models__large__first_seconds=0.1)
    upstreams.reset()
    upstreams.says.update(large=slow("A", 2))
    assert gateway.chat("large ?").json["racer"]["failed"] == {"large": "timeout"}
    assert gateway.chat("large ?", stream=True).json["racer"]["failed"] == {"large": "timeout"}


def test_votes_without_a_normal_form_leave_the_most_plausible(served, upstreams):
    upstreams.says.update(small="I do not know", large=completion(None, refusal="no"))
    got = served.chat("small,large ?")
    assert got.json["model"] == "large"
    assert got.json["racer"]["votes"] == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("racer", {"nonsense": 1}),
        ("racer", {"alpha": 0.2}),
        ("racer", {"mode": "cascade"}),
        ("racer", {"max_models": 0}),
        ("racer", {"deadline_ms": -1}),
        ("racer", 5),
        ("messages", []),
        ("messages", "hello"),
        ("messages", [{"role": "system", "content": "x"}]),
        ("stream", "yes"),
        ("model", 7),
    ],
)
def test_nonsense_is_refused(served, upstreams, field, value):
    got = served.chat("large ?", **{field: value})
    assert got.status == 400
    assert got.json["error"]["type"] == "invalid_request_error"
    assert upstreams.asked == []


@pytest.mark.parametrize(
    ("body", "words", "param"),
    [
        ({"racer": {"mode": "x"}}, "racer.mode must be one of 'all', 'cascade'", "racer.mode"),
        ({"racer": {"max_modles": 1}}, "unknown field `max_modles`: did you mean", "racer"),
        ({"racer": {"group": 5}}, "racer.group must be text, got 5", "racer.group"),
        ({"racer": [1]}, "racer must be a table of fields, got [1]", "racer"),
        ({"racer": {"max_models": 0}}, "racer.max_models must be at least 1", "racer.max_models"),
        ({"messages": "hi"}, "messages must be a list, got 'hi'", "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0]: `role` is missing", "messages[0]"),
        ({"stream": "yes"}, "stream must be true or false, got 'yes'", "stream"),
        ({"model": 7}, "model must be text, got 7", "model"),
    ],
)
def test_an_error_names_the_field_and_what_would_be_right(served, body, words, param):
    error = served.chat("large ?", **body).json["error"]
    assert words in error["message"]
    assert error["param"] == param


def test_what_is_missing_is_named_and_null_is_nothing(served, upstreams):
    missing = served.ask("POST", "/v1/chat/completions", {"messages": []})
    assert missing.json["error"]["message"] == "model is missing"
    array = served.ask("POST", "/v1/chat/completions", [1])
    assert "Expected `object`, got `array`" in array.json["error"]["message"]
    header = served.chat("large ?", headers={"x-racer-max-models": "two"}).json["error"]
    assert header["message"] == "the header x-racer-max-models must be a whole number, got 'two'"
    assert served.chat("large ?", racer=None, stream=None).status == 200


def test_other_methods_and_paths_are_errors_of_the_protocol(served):
    path = "/v1/chat/completions"
    other = served.ask("GET", path)
    assert (other.status, other.json["error"]["code"]) == (405, "method")
    assert other.headers["allow"] == "POST"
    assert served.ask("POST", f"{path}/", {}).json["error"]["code"] == "path"


@pytest.mark.parametrize(
    ("raw", "num"),
    [(b"", 1), (b"{", 1), (b"[]", 1), (b"\xff", 1), (b'{"a":', 5000), (b"null", 1), (b"NaN", 1)],
)
def test_what_is_no_json_is_refused(served, raw, num):
    got = served.ask("POST", "/v1/chat/completions", raw=raw * num)
    assert got.status == 400


def test_headers_say_the_same_as_the_body(served):
    got = served.chat("small,large ?", headers={"x-racer-mode": "all", "x-racer-group": "b"})
    assert (got.json["racer"]["mode"], got.json["racer"]["group"]) == ("all", "b")
    assert served.chat("large ?", headers={"x-racer-nonsense": "1"}).status == 400
    assert served.chat("large ?", headers={"x-racer-max-models": "one"}).status == 400


@pytest.mark.parametrize("finish", ["stop", "error"])
def test_a_completion_that_holds_an_error_is_no_answer(served, upstreams, finish):
    """Streams and whole answers alike: some upstreams fail with a status of success."""
    whole = completion("half of an answer")
    whole["choices"][0]["finish_reason"] = finish
    if finish == "stop":
        whole["error"] = {"message": "overloaded", "code": 502}
    upstreams.says["large"] = lambda body: web.json_response(whole)
    got = served.chat("large ?")
    assert (got.status, got.headers["x-racer-guarantee"]) == (502, "void")
    voted = served.chat("small,large ?", racer={"mode": "select"})
    assert voted.json["racer"]["failed"] == {"large": "reply"}
    assert voted.json["racer"]["guarantee"] == "void"
    whole = {**completion("a whole answer"), "error": None}
    assert served.chat("large ?").status == 200


def test_the_limits_of_a_turn_are_kept_by_the_models_of_a_conversation(served, upstreams):
    """The models of its first turn are kept, as far as the later turn allows."""
    racer = {"session": "a talk that is limited"}
    first = served.chat("small,medium,large ?", racer=racer).json["racer"]
    assert first["called"] == ["large", "medium", "small"]
    upstreams.asked.clear()
    one = served.chat("small,medium,large ?", racer={**racer, "max_models": 1}).json["racer"]
    assert (one["called"], upstreams.models, one["guarantee"]) == (["large"], ["large"], "void")
    again = served.chat("small ?", racer=racer).json["racer"]
    assert (again["called"], again["guarantee"]) == (first["called"], "void")
