"""What stands beside an answer: a route that only decides, conversations, labels of a hook, limits."""

import asyncio

import pytest
from aiohttp import web

from racer_jax.serving.gateway._cache import Cache, key_of
from racer_jax.serving.gateway._errors import GatewayError
from racer_jax.serving.gateway._hedging import Hedge
from racer_jax.serving.gateway._limits import Limits
from racer_jax.serving.gateway.settings import Key
from tests.serving.gateway.test_state import settled
from tests.serving.gateway.upstreams import Upstreams, slow, status, until


@pytest.fixture(scope="module")
def shadowed(start):
    return start(routes__my__shadow="small", audit={"share": 1.0})


def test_a_route_in_shadow_decides_and_another_model_answers(shadowed, upstreams):
    upstreams.reset()
    got = shadowed.chat("medium,large ?")
    racer = got.json["racer"]
    assert got.json["choices"][0]["message"]["content"] == "I am small"
    assert (racer["set"], racer["called"]) == (["large", "medium"], ["small"])
    assert (racer["reason"], racer["guarantee"]) == ("shadow", "void")
    assert got.headers["x-racer-reason"] == "shadow"
    settled(shadowed)
    assert sorted(upstreams.models) == ["large", "medium", "small"]  # those of the audit
    stored = shadowed.ask("GET", f"/v1/racer/decisions/{racer['id']}").json
    assert stored["decided"] == ["large", "medium"]
    assert stored["answered"] == "small"
    # Its labels say what the set would have missed.
    label = [{"id": racer["id"], "correct": {"small": 1, "medium": 0, "large": 0}}]
    shadowed.admin("POST", "/audit", label)
    labels = shadowed.admin("GET", "/status").json["routes"]["my"]["monitors"]["labels"]
    assert (labels["num"], labels["misses"]) == (1, 1)


def test_a_route_in_shadow_streams_and_never_abstains(shadowed, upstreams):
    upstreams.reset()
    got = shadowed.chat("abstain ?", stream=True)
    assert got.headers["x-racer-set"] == ""
    assert b"small" in got.content
    settled(shadowed)


def test_a_conversation_keeps_its_models_without_a_promise(served, upstreams):
    first = served.chat("small,large ?", racer={"session": "s1"})
    assert first.json["racer"]["guarantee"] == "holds"
    second = served.chat("medium ?", racer={"session": "s1"}).json["racer"]
    assert (second["set"], second["called"]) == (["medium"], ["large", "small"])
    assert second["void"] == ["the models of the conversation's first turn were kept"]
    other = served.chat("medium ?", racer={"session": "s2"}).json["racer"]
    assert (other["called"], other["guarantee"]) == (["medium"], "holds")
    empty = served.chat("abstain ?", racer={"session": "s3", "on_abstain": "refusal"})
    assert empty.json["choices"][0]["message"]["refusal"]
    kept = served.chat("small ?", racer={"session": "s3", "on_abstain": "refusal"})
    assert kept.json["racer"]["called"] == []


def test_old_conversations_are_forgotten(served, upstreams, monkeypatch):
    monkeypatch.setattr("racer_jax.serving.gateway._completions._PINNED_SESSIONS", 2)
    served.gateway.sessions.clear()
    for name in ("a", "b", "c"):
        served.chat("small ?", racer={"session": name})
    assert [key[2] for key in served.gateway.sessions] == ["b", "c"]


SAID = [
    ({"correct": {"small": 0, "medium": 1, "large": 1}}, [{"small": 0, "medium": 1, "large": 1}]),
    ({"correct": {"small": 0}}, []),
    ({"correct": {"small": 0, "medium": 2, "large": 1}}, []),
    ("no labels", []),
]


def test_a_hook_labels_audits(start, run, upstreams):
    asked, says = [], []

    async def listening():
        app = web.Application()

        async def hook(request):
            asked.append(await request.json())
            return web.json_response(says[-1])

        app.router.add_post("/hook", hook)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, site._server.sockets[0].getsockname()[1]

    upstreams.reset()
    runner, port = run(listening())
    url = f"http://127.0.0.1:{port}/hook"
    hooked = start(audit={"share": 1.0, "labeller": "hook", "hook": url})
    for said, labels in SAID:
        says.append(said)
        name = hooked.chat("small hooked?").json["id"]
        settled(hooked)
        assert asked[-1]["id"] == name
        assert asked[-1]["answers"] == {m: f"I am {m}" for m in ("small", "medium", "large")}
        assert asked[-1]["messages"][0]["content"] == "small hooked?"
        stored = hooked.ask("GET", f"/v1/racer/decisions/{name}").json
        assert [entry["correct"] for entry in stored["feedback"]] == labels
        assert all(entry["source"] == "test" for entry in stored["feedback"])
    assert len(asked) == len(SAID)
    run(runner.cleanup())


def test_a_key_may_send_so_many_requests_a_minute():
    now = [0.0]
    key = Key(prefix="a" * 8, sha256="0" * 64, per_minute=30)
    limits = Limits({"alice": key, "bob": Key(prefix="b" * 8, sha256="0" * 64)}, lambda: now[0])
    for _ in range(30):
        limits.take("alice")
    with pytest.raises(GatewayError, match="30 requests a minute") as refused:
        limits.take("alice")
    assert (refused.value.status, refused.value.headers) == (429, {"retry-after": "3"})
    for _ in range(100):
        limits.take("bob")
    now[0] = 2.0
    limits.take("alice")
    with pytest.raises(GatewayError):
        limits.take("alice")
    now[0] = 1e6
    for _ in range(30):
        limits.take("alice")
    with pytest.raises(GatewayError):
        limits.take("alice")


@pytest.mark.long
def test_a_slow_call_is_made_elsewhere_too(start, run):
    """The sooner answer counts, the other call is cancelled, and few calls are made twice."""
    first, second = Upstreams(), Upstreams()
    run(first.start())
    run(second.start())
    model = {"base_url": first.url, "also": [{"base_url": second.url}], "hedge": True}
    gateway = start(models__small=model)
    hedge = gateway.gateway.upstreams["small"]._hedge
    second.says.update(small="elsewhere")

    def says(text="small ?"):
        return gateway.chat(text).json["choices"][0]["message"]["content"]

    assert {says() for _ in range(20)} == {"I am small"}
    hedge._quantile = 0.05
    first.says.update(small=slow("late", 5))
    assert says() == "elsewhere"
    run(until(lambda: first.cancelled == ["small"]))
    assert (len(second.asked), hedge.num_second) == (1, 1)
    # One in twenty has been made twice: the next slow one waits.
    first.says.update(small=slow("late", 0.2))
    assert says() == "late"
    hedge.num = 1000
    first.says.update(small=slow("late", 0.2))
    second.says.update(small=status(500))
    assert says() == "late"
    assert gateway.chat("small ?").json["racer"]["failed"] == {}
    run(first.stop())
    run(second.stop())


def test_the_pause_before_a_second_call_is_a_quantile():
    hedge = Hedge()
    for i in range(19):
        hedge.note(i)
        assert hedge.seconds is None
    hedge.note(19)
    assert hedge.seconds == 18
    for _ in range(300):
        hedge.note(1.0)
    assert hedge.seconds == 1.0


def test_a_failure_before_the_pause_is_a_failure(run):
    async def fails():
        raise OSError("no")

    async def answers():
        return 1

    hedge = Hedge()
    for _ in range(20):
        hedge.note(0.01)
    with pytest.raises(OSError, match="no"):
        run(hedge.first_of(fails, answers))

    async def late(result):
        await asyncio.sleep(0.05)
        if result is None:
            raise OSError("late")
        return result

    assert run(hedge.first_of(lambda: late(None), lambda: late(2))) == 2


def test_an_answer_at_temperature_0_is_kept_for_a_while(start, upstreams):
    upstreams.reset()
    kept = start(routes__my__cache_seconds=60.0)
    text, calls = "small,large same ?", []

    def ask(**options):
        got = kept.chat(text, **{"temperature": 0, **options})
        calls.append(len(upstreams.asked))
        return got

    first, second = ask(), ask()
    assert [got.headers["x-racer-cache"] for got in (first, second)] == ["miss", "hit"]
    assert calls == [2, 2]
    assert first.json["id"] != second.json["id"]
    assert first.json["choices"] == second.json["choices"]
    assert second.json["racer"]["guarantee"] == "holds"
    assert (first.json["usage"]["cost"] > 0, second.json["usage"]["cost"]) == (True, 0)
    stored = kept.ask("GET", f"/v1/racer/decisions/{second.json['id']}").json
    assert (stored["calls"], stored["dollars"], stored["answered"]) == ([], None, "large")
    # Other requests, those that are not greedy, and streams are asked.
    for options in (
        {"temperature": 1},
        {"max_tokens": 5},
        {"racer": {"mode": "all"}},
        {"stream": True},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "racer": {"mode": "all"}},
    ):
        before = len(upstreams.asked)
        assert ask(**options).headers.get("x-racer-cache") in (None, "miss")
        assert len(upstreams.asked) > before
    # What was answered by a part of the set is not kept.
    upstreams.says.update(small=status(500))
    degraded = [ask(seed=1).headers["x-racer-cache"] for _ in range(2)]
    assert degraded == ["miss", "miss"]


def test_values_are_kept_for_their_time_and_the_latest_asked_for():
    now = [0.0]
    cache = Cache(most=2, clock=lambda: now[0])
    for name in (b"a", b"b"):
        cache.put(name, 10.0, name)
    assert cache.get(b"a") == b"a"
    cache.put(b"c", 20.0, b"c")
    assert [cache.get(name) for name in (b"a", b"b", b"c")] == [b"a", None, b"c"]
    now[0] = 10.0
    assert [cache.get(name) for name in (b"a", b"c")] == [None, b"c"]
    assert key_of({"x": b"1", "y": b"2"}) == key_of({"y": b"2", "x": b"1"})
    assert len({key_of({"x": b"12"}), key_of({"x1": b"2"}), key_of({}, "x", "12")}) == 3
