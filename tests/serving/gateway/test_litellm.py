"""The provider for litellm against the released litellm; skips where it is not installed."""

import asyncio
import json
import os
import threading

import pytest

from racer_jax.serving.gateway import inference_app
from racer_jax.serving.gateway._server import _server, bounded_protocol, listening
from racer_jax.serving.gateway.litellm_provider import RacerProvider, _Events
from tests.serving.gateway.upstreams import completion, slow, status

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
MESSAGES = [{"role": "user", "content": "small,medium,large ?"}]


def test_without_litellm_the_provider_says_what_it_needs(monkeypatch):
    monkeypatch.setattr("racer_jax.serving.gateway.litellm_provider.litellm", None)
    with pytest.raises(ModuleNotFoundError, match="pip install litellm"):
        RacerProvider()


@pytest.fixture
def provided(served, upstreams):
    """litellm with the provider, and the address of the gateway."""
    litellm = pytest.importorskip("litellm")
    listener = listening("127.0.0.1", 0)
    server = _server(inference_app(served.gateway), bounded_protocol(5, 20000))
    task = asyncio.ensure_future(server.serve(sockets=[listener]), loop=served.run.__self__)

    async def started():
        while not server.started:
            await asyncio.sleep(0.005)

    served.run(started())
    base = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    litellm.custom_provider_map = [{"provider": "racer", "custom_handler": RacerProvider(base)}]
    upstreams.says.update(small="B", medium="A", large="A")
    yield litellm
    server.should_exit = True
    served.run(task)


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
def test_litellm_asks_the_gateway(provided, served):
    async def talk():
        whole = await provided.acompletion(
            model="racer/my", messages=MESSAGES, extra_body={"racer": {"group": "b"}}
        )
        parts = await provided.acompletion(model="racer/my", messages=MESSAGES, stream=True)
        return whole, [part async for part in parts]

    whole, parts = served.run(talk())
    assert whole.choices[0].message.content == "A"
    assert whole.racer["group"] == "b"
    assert whole.racer["guarantee"] == "holds"
    # Two equal answers may decide the vote: then the third call is cancelled.
    assert whole.usage.prompt_tokens == 10 * (3 - len(whole.racer.get("cancelled", ())))
    assert "".join(part.choices[0].delta.content or "" for part in parts) == "A"


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
def test_litellm_asks_the_gateway_and_waits(provided, served, upstreams):
    said = []

    def talk():
        said.append(provided.completion(model="racer/my", messages=MESSAGES))
        said.append(list(provided.completion(model="racer/my", messages=MESSAGES, stream=True)))
        upstreams.says.update({name: status(500) for name in ("small", "medium", "large")})
        try:
            provided.completion(model="racer/my", messages=MESSAGES)
        except Exception as error:
            said.append(error)

    thread = threading.Thread(target=talk)
    thread.start()

    async def wait():
        while thread.is_alive():
            await asyncio.sleep(0.01)

    served.run(wait())
    whole, parts, error = said
    assert whole.choices[0].message.content == "A"
    assert "".join(part.choices[0].delta.content or "" for part in parts) == "A"
    assert "no model gave an answer" in str(error)


def _event(delta, finish=None, **more):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data:{json.dumps({'choices': [choice], **more}, ensure_ascii=False)}\n\n".encode()


def _pieces(content):
    events = _Events()
    pieces = [piece for one in content for piece in events.chunks(one)]
    return [*pieces, *events.end()]


def test_a_stream_is_read_wherever_it_is_cut():
    text = "one\u2028two\x85three\x0bfour\x1c"  # ends of lines to Python, not to a stream
    stream = _event({"content": text}) + _event({}, "stop") + b"data: [DONE]\r\n\r\n"
    for cut in range(len(stream)):
        pieces = _pieces([stream[:cut], stream[cut:]])
        assert "".join(piece["text"] for piece in pieces) == text
        assert [piece["finish_reason"] for piece in pieces] == ["", "stop"]


def test_every_call_of_a_tool_is_passed_on():
    calls = [{"index": i, "function": {"name": name}} for i, name in enumerate("ab")]
    stream = _event({"tool_calls": calls}) + _event({}, "tool_calls", racer={"reason": "ok"})
    pieces = _pieces([stream])
    assert [piece["tool_use"] for piece in pieces] == [*calls, None]
    assert pieces[-1]["provider_specific_fields"] == {"racer": {"reason": "ok"}}


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
def test_half_an_answer_is_an_error():
    pytest.importorskip("litellm")
    from racer_jax.serving.gateway.litellm_provider import CustomLLMError

    with pytest.raises(CustomLLMError, match="ended before the answer did") as raised:
        _pieces([_event({"content": "half of"})])
    assert raised.value.status_code == 502
    error = {"message": "too late", "type": "racer_deadline"}
    with pytest.raises(CustomLLMError, match="too late") as raised:
        _pieces([f"data: {json.dumps({'error': error})}\n\n".encode()])
    assert raised.value.status_code == 504


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
def test_what_litellm_is_told_reaches_the_gateway(provided, served, upstreams):
    text = "one\u2028two"
    upstreams.says["small"] = [_event({"content": text}), _event({}, "stop"), b"data:[DONE]\n\n"]

    def ask(words, **options):
        messages = [{"role": "user", "content": words}]
        return provided.acompletion(model="racer/my", messages=messages, **options)

    async def talk():
        stream = await ask("small ?", stream=True)
        passed = "".join([part.choices[0].delta.content or "" async for part in stream])
        upstreams.says["small"] = "A"
        named = await ask("small ?", extra_headers={"X-Racer-Group": "b"})
        refused = await ask("abstain ?", extra_body={"racer": {"on_abstain": "refusal"}})
        errors = []
        upstreams.says["large"] = slow("A", 20)
        for words, options in (
            ("large ?", {"timeout": 0.3}),
            ("abstain ?", {"extra_body": {"racer": {"on_abstain": "error"}}}),
            ("small ?", {"extra_body": {"racer": {"group": 7}}}),
        ):
            try:
                await ask(words, max_retries=0, num_retries=0, **options)
            except Exception as error:
                errors.append(error)
        return passed, named, refused, errors

    passed, named, refused, errors = served.run(talk())
    assert passed == text
    assert named.racer["group"] == "b"
    assert (refused.racer["reason"], refused.racer["guarantee"]) == ("abstain", "holds")
    assert refused.choices[0].message.content is None
    assert len(errors) == 3
    assert "imeout" in type(errors[0]).__name__ + str(errors[0])
    assert "no model is plausible enough" in str(errors[1])
    assert "racer.group must be text" in str(errors[2])


def _texts(parts):
    """The text and the model of each choice of a stream, and how it ended."""
    texts, models, ends = {}, {}, []
    for part in parts:
        for choice in part.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if getattr(choice, "racer_model", None):
                models[choice.index] = choice.racer_model
            ends += [choice.finish_reason] if choice.finish_reason else []
    return texts, models, ends


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("waits", [False, True])
def test_each_of_several_answers_is_a_choice_of_its_own(provided, served, upstreams, waits):
    """All texts in one choice would be an answer that no model gave."""
    upstreams.says.update(small="a small answer", medium="", large="a large one")
    upstreams.says["medium"] = completion(None, refusal="I will not")
    messages = [{"role": "user", "content": "small,medium,large ?"}]
    options = {
        "model": "racer/my", "messages": messages, "stream": True,
        "extra_body": {"racer": {"mode": "all"}}, "stream_options": {"include_usage": True},
    }  # fmt: skip
    said = []

    async def talk():
        if not waits:
            stream = await provided.acompletion(**options)
            said.extend([part async for part in stream])
            return
        thread = threading.Thread(target=lambda: said.extend(provided.completion(**options)))
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.01)

    served.run(talk())
    texts, models, ends = _texts(said)
    assert texts == {0: "a large one", 1: "I will not", 2: "a small answer"}
    assert models == {0: "large", 1: "medium", 2: "small"}
    assert ends == ["stop"]
    assert [part.usage.prompt_tokens for part in said if getattr(part, "usage", None)] == [30]
    (facts,) = [part.racer for part in said if getattr(part, "racer", None)]
    assert facts["answered"] == ["large", "medium", "small"]


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
def test_several_choices_of_one_model_stay_apart():
    pytest.importorskip("litellm")

    def choice(index, text, finish=None):
        one = {"index": index, "delta": {"content": text}, "finish_reason": finish}
        return f"data: {json.dumps({'choices': [one]})}\n\n".encode()

    stream = [
        *(choice(0, "a"), choice(1, ""), choice(1, "b"), choice(0, "c", "length")),
        *(choice(1, ""), choice(1, "d", "stop"), b"data: [DONE]\n\n"),
    ]
    first, *pieces, last = _pieces(stream)
    assert (first["text"], last["finish_reason"], last["text"]) == ("a", "length", "")
    said = [(one.choices[0].index, one.choices[0].delta.content) for one in pieces]
    assert said == [(1, "b"), (0, "c"), (1, "d")]
