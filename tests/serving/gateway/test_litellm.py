"""The provider for litellm against the released litellm; skips where it is not installed."""

import asyncio
import os
import threading

import pytest

from racer_jax.serving.gateway import inference_app
from racer_jax.serving.gateway._server import _server, bounded_protocol, listening
from racer_jax.serving.gateway.litellm_provider import RacerProvider
from tests.serving.gateway.upstreams import status

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
