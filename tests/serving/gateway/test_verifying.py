"""One model after another until a test accepts an answer."""

import asyncio
import sys

import pytest
from aiohttp import web

from racer_jax.data.errors import DataError
from racer_jax.serving.gateway import settings_from
from tests.serving.gateway.conftest import plain_settings
from tests.serving.gateway.upstreams import status

# Accepts what says B; 1 for anything else.
PROGRAM = "import json, sys; sys.exit('B' not in json.load(sys.stdin)['message']['content'])"
COMMAND = [sys.executable, "-c", PROGRAM]


def verifying(start, verifier, **changes):
    return start(routes__my__mode="cascade", routes__my__verifier=verifier, **changes)


@pytest.fixture(scope="module")
def sound(start):
    return verifying(start, {"command": COMMAND, "sound": True})


def facts(got):
    racer = got.json["racer"]
    return got.json["model"], racer["verifier"], racer["guarantee"], racer["called"]


def test_calls_stop_at_the_first_answer_that_is_accepted(sound, upstreams):
    upstreams.reset()
    upstreams.says.update(large="A", medium="B", small="B")
    got = sound.chat("small,medium,large ?")
    assert facts(got) == ("medium", "accepted", "holds", ["large", "medium", "small"])
    assert upstreams.models == ["large", "medium"]
    assert got.json["usage"]["prompt_tokens"] == 20
    upstreams.reset()
    upstreams.says.update(large="A", medium="A", small="A")
    assert facts(sound.chat("small,large ?"))[:3] == ("large", "accepted none", "holds")
    assert upstreams.models == ["large", "small"]


def test_a_lost_call_does_no_harm_where_a_later_answer_is_accepted(sound, upstreams):
    upstreams.reset()
    upstreams.says.update(large=status(500), small="B")
    got = sound.chat("small,large ?")
    assert facts(got)[:3] == ("small", "accepted", "holds")
    assert got.json["racer"]["failed"] == {"large": "status_500"}
    upstreams.says.update(small="A")
    assert facts(sound.chat("small,large ?"))[:3] == ("small", "accepted none", "void")
    upstreams.says.update(small=status(500))
    assert sound.chat("small,large ?").status == 502


def test_a_stream_comes_once_an_answer_is_accepted(sound, upstreams):
    upstreams.reset()
    upstreams.says.update(large="A", small="B")
    got = sound.chat("small,large ?", stream=True)
    assert b"B" in got.content
    assert got.content.endswith(b"data: [DONE]\n\n")
    assert upstreams.models == ["large", "small"]


def test_a_verifier_that_may_accept_wrong_answers_keeps_no_promise(start, upstreams):
    gateway = verifying(start, {"command": COMMAND})
    upstreams.reset()
    upstreams.says.update(large="B")
    got = gateway.chat("small,large ?")
    assert facts(got)[:3] == ("large", "accepted", "void")
    assert "not said to be sound" in got.json["racer"]["void"][0]


@pytest.mark.parametrize(
    "command", [["/not/there"], [sys.executable, "-c", "import sys; sys.exit(3)"]]
)
def test_a_program_that_fails_accepts_nothing(start, upstreams, command):
    gateway = verifying(start, {"command": command, "sound": True})
    upstreams.reset()
    assert facts(gateway.chat("small,large ?"))[:3] == ("large", "failed", "holds")
    assert upstreams.models == ["large", "small"]


def test_an_address_may_test_and_has_its_time(start, run, upstreams):
    asked = []
    says = {
        "large": {"accepted": False},
        "medium": {"accepted": "yes"},
        "small": {"accepted": True},
    }

    async def test(request):
        asked.append(await request.json())
        if asked[-1]["message"]["content"] == "late":
            await asyncio.sleep(30)
        return web.json_response(says[asked[-1]["model"]])

    async def listening():
        app = web.Application()
        app.router.add_post("/test", test)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, site._server.sockets[0].getsockname()[1]

    runner, port = run(listening())
    url = f"http://127.0.0.1:{port}/test"
    gateway = verifying(start, {"url": url, "sound": True, "seconds": 0.3})
    upstreams.reset()
    got = gateway.chat("small,medium,large ?")
    assert facts(got)[:3] == ("small", "accepted", "holds")
    assert [one["model"] for one in asked] == ["large", "medium", "small"]
    assert asked[0]["messages"][0]["content"] == "small,medium,large ?"
    upstreams.says.update(large="late")
    assert facts(gateway.chat("large ?"))[:2] == ("large", "failed")
    run(runner.cleanup())


@pytest.mark.parametrize(
    ("verifier", "problem"),
    [
        ({}, "one of url and command"),
        ({"url": "http://127.0.0.1/", "command": ["x"]}, "one of url and command"),
        ({"url": "http://169.254.169.254/"}, r"verifier\.url"),
    ],
)
def test_a_verifier_is_a_program_or_an_address(upstreams, artefacts, verifier, problem):
    with pytest.raises(ValueError, match=problem):
        settings_from(plain_settings(upstreams, artefacts, routes__my__verifier=verifier))


def test_a_cascade_needs_a_test_or_an_artefact_of_one(start, served):
    with pytest.raises(DataError, match="needs a verifier"):
        start(routes__my__mode="cascade")
    got = served.chat("large ?", racer={"mode": "cascade"})
    assert got.status == 400
