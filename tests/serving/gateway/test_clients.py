"""Real clients: the `openai` package against a real port; responses; a cascade; the command."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading

import jax
import pytest

from racer_jax.cli.main import main
from racer_jax.data.errors import DataError
from racer_jax.serving.cascade import Cascade
from racer_jax.serving.gateway import inference_app, json_schema
from racer_jax.serving.gateway._server import _server, bounded_protocol, listening
from tests.docs.test_shown_commands import block
from tests.racer.test_racer import MODELS
from tests.sequential.pools import answered_table
from tests.serving.gateway.upstreams import completion, events, status

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


@pytest.fixture
def address(served):
    """The address of the gateway on a port of its own."""
    listener = listening("127.0.0.1", 0)
    server = _server(inference_app(served.gateway), bounded_protocol(5, 20000))
    task = asyncio.ensure_future(server.serve(sockets=[listener]), loop=served.run.__self__)

    async def started():
        while not server.started:
            await asyncio.sleep(0.005)

    served.run(started())
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    server.should_exit = True
    served.run(task)


class Noting:
    """A transport that notes what is written."""

    def __init__(self, transport, written):
        self._transport, self._written = transport, written

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def write(self, data):
        self._written.append(bytes(data))
        self._transport.write(data)


@pytest.mark.parametrize("keep", [b"keep-alive", b"close"])
def test_a_whole_answer_goes_out_in_one_piece(served, upstreams, keep):
    written = []

    class Noted(bounded_protocol(5, 20000)):
        def connection_made(self, transport):
            super().connection_made(Noting(transport, written))

    async def asked():
        listener = listening("127.0.0.1", 0)
        server = _server(inference_app(served.gateway), Noted)
        task = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.005)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        body = json.dumps({"model": "racer/my", "messages": messages("small ?")}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: %s\r\n"
        head += b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % (keep, len(body)) + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        size = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        answer += await reader.readexactly(size)
        writer.close()
        server.should_exit = True
        await task
        return answer

    answer = served.run(asked())
    assert answer.startswith(b"HTTP/1.1 200")
    assert written == [answer]


def messages(text):
    return [{"role": "user", "content": text}]


def test_the_asynchronous_client_of_openai(served, upstreams, address):
    openai = pytest.importorskip("openai")
    upstreams.says.update(small="B", medium="A", large="A")

    async def talk():
        async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0) as client:
            create = client.chat.completions.create
            vote = await create(
                model="racer/my",
                messages=messages("small,medium,large ?"),
                extra_body={"racer": {"group": "a"}},
            )
            parts = await create(
                model="racer/my", messages=messages("small,medium,large ?"), stream=True,
                stream_options={"include_usage": True},
            )  # fmt: skip
            stream = [part async for part in parts]
            one = await create(model="racer/my", messages=messages("large ?"), stream=True)
            passed = [part async for part in one]
            upstreams.says.update(
                small=completion(None, tool_calls=[CALL]),
                medium=completion(None, tool_calls=[CALL]),
                large=completion(None, tool_calls=[CALL]),
            )
            tool = await create(model="racer/my", messages=messages("small ?"), tools=[TOOL])
            names = [model.id async for model in client.models.list()]
            upstreams.says.update(large=status(500))
            with pytest.raises(openai.APIStatusError) as error:
                await create(model="racer/my", messages=messages("large ?"))
            upstreams.says.update(small=status(500), medium=status(500))
            late = await create(model="racer/my", messages=messages("small,large ?"), stream=True)
            with pytest.raises(openai.APIError) as late_error:
                [part async for part in late]
            return vote, stream, passed, tool, names, error.value, late_error.value

    vote, stream, passed, tool, names, error, late = served.run(talk())
    assert vote.choices[0].message.content == "A"
    assert vote.racer["guarantee"] == "holds"
    text = [part.choices[0].delta.content or "" for part in stream if part.choices]
    assert "".join(text) == "A"
    # Two A that come before the B decide the vote: then the third call is cancelled.
    racer = next(part.racer for part in stream if hasattr(part, "racer"))
    assert stream[-1].usage.prompt_tokens == 10 * (3 - len(racer.get("cancelled", ())))
    assert next(part.choices[0].delta.content for part in passed if part.choices) == "A"
    (called,) = tool.choices[0].message.tool_calls
    assert called.function.arguments == '{"x": 1}'
    assert "racer/my" in names
    assert (error.status_code, error.type) == (502, "racer_upstream")
    assert late.code == "racer_upstream"


def test_the_synchronous_client_of_openai(served, upstreams, address):
    openai = pytest.importorskip("openai")
    said = []

    def talk():
        with openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client:
            got = client.chat.completions.create(model="racer/my", messages=messages("large ?"))
            said.append(got.choices[0].message.content)
            response = client.responses.create(model="racer/my", input="large ?", store=False)
            said.append(response.output_text)
            with client.responses.stream(model="racer/my", input="large ?") as stream:
                deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
            said.append("".join(deltas))

    thread = threading.Thread(target=talk)
    thread.start()

    async def wait():
        while thread.is_alive():
            await asyncio.sleep(0.01)

    served.run(wait())
    assert said == ["I am large"] * 3


def test_responses_are_completions_in_other_words(served, upstreams):
    upstreams.says.update({m: completion(None, tool_calls=[CALL]) for m in ("small", "large")})
    upstreams.says.update(medium=completion(None, tool_calls=[CALL]))
    body = {
        "model": "racer/my",
        "instructions": "be brief",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "large ?"}]},
            {"type": "function_call", "call_id": "c0", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c0", "output": "7"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "max_output_tokens": 9,
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}},
    }
    got = served.ask("POST", "/v1/responses", body)
    assert got.json["output"][0]["call_id"] == "c1"
    asked = upstreams.asked[0]
    assert [m["role"] for m in asked["messages"]] == ["system", "user", "assistant", "tool"]
    assert asked["tools"][0]["function"]["name"] == "f"
    assert asked["max_completion_tokens"] == 9
    assert asked["response_format"]["json_schema"]["name"] == "x"
    for field in ("previous_response_id", "background"):
        assert served.ask("POST", "/v1/responses", {**body, field: "x"}).status == 400
    for wrong in ({"input": 7}, {"input": [7]}, {"tools": [{"type": "web_search"}]}):
        assert served.ask("POST", "/v1/responses", {**body, **wrong}).status == 400
    stream = served.ask("POST", "/v1/responses", {**body, "stream": True})
    kinds = [event["type"] for event in events(stream.content)]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


@pytest.fixture(scope="module")
def cascaded(start, tmp_path_factory, upstreams):
    table = answered_table(300, seed=4, groups=True)
    cascade = Cascade.fit(jax.random.key(3), table.select(slice(0, 200)), form="letter")
    path = tmp_path_factory.mktemp("cascade") / "my.cascade"
    cascade.save(path)
    model = {"base_url": upstreams.url, "tries": 1}
    gateway = start(
        scripted=False,
        models={name: model for name in cascade.models},
        routes={"my": {"artefact": str(path), "group": table.groups[0]}},
    )
    return cascade, gateway


def test_a_cascade_calls_one_after_another_and_stops(cascaded, upstreams):
    cascade, gateway = cascaded
    upstreams.reset()
    upstreams.says.update({model: "A" for model in cascade.models})
    got = gateway.chat("what?")
    state = cascade.start("what?", "a")
    while not state.done:
        state = cascade.tell(state, {model: "A" for model in state.call})
    assert upstreams.models == list(state.answers)
    assert got.json["choices"][0]["message"]["content"] == "A"
    racer = got.json["racer"]
    assert (racer["mode"], racer["stopped"], racer["calls"]) == ("cascade", "decided", state.calls)
    assert racer["guarantee"] == "holds"


def test_a_cascade_goes_on_without_a_model_that_fails(cascaded, upstreams):
    cascade, gateway = cascaded
    upstreams.reset()
    first = cascade.policy.calls[0]
    upstreams.says.update({model: "A" for model in cascade.models})
    upstreams.says[first] = status(500)
    got = gateway.chat("what else?")
    assert got.json["racer"]["failed"] == {first: "status_500"}
    assert (got.json["racer"]["reason"], got.json["racer"]["guarantee"]) == ("degraded", "void")
    assert gateway.chat("what?", tools=[TOOL]).status == 400
    gateway.gateway.upstreams[first].breaker.succeeded()


@pytest.mark.parametrize(
    ("racer", "param"),
    [({"max_models": 1}, "max_models"), ({"max_cost": 0}, "max_cost"), ({"alpha": 0.5}, "alpha")],
)
def test_a_limit_that_a_cascade_does_not_keep_is_refused(cascaded, upstreams, racer, param):
    _, gateway = cascaded
    got = gateway.chat("what?", racer=racer)
    assert (got.status, got.json["error"]["param"]) == (400, f"racer.{param}")
    assert not upstreams.asked


@pytest.mark.parametrize("limit", [{"max_models": 1}, {"max_cost": 1.0}, {"alphas": ["0.5"]}])
def test_a_route_of_a_cascade_has_no_limits_that_it_does_not_keep(
    cascaded, start, upstreams, limit
):
    cascade, gateway = cascaded
    path = gateway.gateway.settings.routes["my"].artefact
    model = {"base_url": upstreams.url, "dollars_in": 1.0, "dollars_out": 1.0}
    with pytest.raises(DataError, match=rf"remove {next(iter(limit))} - at `\$.routes.my`"):
        start(
            models=dict.fromkeys(cascade.models, model), routes={"my": {"artefact": path, **limit}}
        )


@pytest.mark.parametrize(
    ("on_abstain", "status", "guarantee"),
    [("fallback", 200, "void"), ("refusal", 200, "holds"), ("error", 422, "holds")],
)
def test_a_fallback_is_no_answer_that_a_cascade_promises(
    cascaded, start, tmp_path, upstreams, on_abstain, status, guarantee
):
    """At most alpha of the answers given are wrong: one that is not safe was not to be given."""
    cascade, gateway = cascaded
    rows = answered_table(300, seed=4, groups=True).select(slice(200, 300))
    cascade.calibrate(rows, 0.01, loss="wrong").save(tmp_path / "wrong.cascade")
    path, group = str(tmp_path / "wrong.cascade"), cascade.policy.groups[0]
    gateway = start(
        scripted=False,
        models={name: {"base_url": upstreams.url, "tries": 1} for name in cascade.models},
        routes={"my": {"artefact": path, "group": group, "on_abstain": on_abstain}},
    )
    upstreams.says.update(zip(cascade.models, "ABCDA", strict=True))
    got = gateway.chat("which?")
    assert got.status == status
    assert got.headers["x-racer-reason"] == "abstain"
    assert got.headers["x-racer-guarantee"] == guarantee


def test_the_command_prints_a_schema_and_a_key(capsys):
    assert main(["serve", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    assert main(["serve", "--new-key", "alice"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r'\[keys\."alice"\]\n', printed)
    assert "racer_" in printed
    assert main(["serve"]) == 1
    assert "give one of" in capsys.readouterr().err


def test_a_configuration_can_be_checked(artefacts, tmp_path, capsys):
    text = f"""
[models.small]
base_url = "http://127.0.0.1:9/v1"
[models.medium]
base_url = "http://127.0.0.1:9/v1"
[routes.my]
artefact = "{artefacts / "my.racer"}"
form = "letter"
"""
    (tmp_path / "g.toml").write_text(text)
    assert main(["serve", str(tmp_path / "g.toml"), "--check"]) == 1
    assert 'add [models."large"]' in capsys.readouterr().err
    more = '[models.large]\nbase_url = "http://127.0.0.1:9/v1"\n'
    (tmp_path / "g.toml").write_text(text + more + '[state]\npath = ":memory:"\n')
    assert main(["serve", str(tmp_path / "g.toml"), "--check"]) == 0
    assert "routes: 1, models: 3; all is well" in capsys.readouterr().out


@pytest.mark.long
def test_what_a_server_compiles_is_kept_for_its_next_start(artefacts, tmp_path):
    """Its options are read before JAX is imported, and a folder for compiled code is set after."""
    models = "".join(f'[models.{m}]\nbase_url = "http://127.0.0.1:9/v1"\n' for m in MODELS)
    route = f'[routes.my]\nartefact = "{artefacts / "my.racer"}"\nform = "letter"\n'
    (tmp_path / "g.toml").write_text(models + route + '[state]\npath = ":memory:"\n')
    # As a user has it: the tests have one folder for all processes.
    environment = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    environment |= {"RACER_JAX_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "racer_jax", "serve", str(tmp_path / "g.toml"), "--check"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert list((tmp_path / "cache" / "compiled").rglob("*-cache"))


def test_what_is_not_installed_is_said_before_any_work(monkeypatch, capsys):
    monkeypatch.setattr("racer_jax.cli.serve._NEEDED", ("starlette", "not_there_at_all"))
    assert main(["serve", "nowhere.toml"]) == 1
    assert "pip install -e '.[serve]'" in capsys.readouterr().err


@pytest.mark.long
def test_the_demo_prints_a_line_that_works(tmp_path):
    command = [sys.executable, "-m", "racer_jax", "serve", "--demo", "--folder", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--admin-port", "0"],
        stdout=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    try:
        line = next(line for line in process.stdout if line.startswith("curl"))
        done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        assert answer["racer"]["guarantee"] == "holds"
        # The README's block: what this test was installed with, the command, the question.
        typed, ask = block("README.md", "serve --demo").split("\n", 1)
        install, serve = typed.split(" && ")
        assert install == "pip install -e '.[serve]'"
        assert serve.split("#")[0].split()[1:] == command[3:5]
        port = re.search(r"127\.0\.0\.1:(\d+)/", line)[1]
        ask = ask.replace(":8080/", f":{port}/")
        done = subprocess.run(ask, shell=True, capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        assert answer["racer"]["id"].startswith("chatcmpl-")
        assert "answer" in answer["choices"][0]["message"]["content"]  # right or wrong, not unknown
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
