"""The demo: simulated upstreams and an artefact trained on invented questions, all on loopback."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import jax
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from racer_jax.data.combine import concat
from racer_jax.data.synthetic import simulated_pool
from racer_jax.data.table import RoutingTable
from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway._server import UnsignalledServer
from racer_jax.serving.gateway.configuration import settings_from
from racer_jax.serving.gateway.settings import Settings

_SIZES = {"gsm8k": 300, "mmlu": 500, "arc_challenge": 200}
# At a lower level nearly every question calls all seven: the router learns from few questions.
_ALPHA = 0.2
_FOR_VOTES = "inverse_probability"
_DELAY_SECONDS = 0.02


def demo_table(seed: int = 0) -> tuple[RoutingTable, RoutingTable]:
    """Labelled questions drawn at random: those of training and of calibration."""
    pool = simulated_pool(jax.random.key(seed), test_sizes=_SIZES, train_sizes=_SIZES)
    train = concat([benchmark.train for benchmark in pool.values()])
    return train, concat([benchmark.test for benchmark in pool.values()])


def demo_artefact(folder: Path, seed: int = 0) -> tuple[Path, RoutingTable]:
    """Trains and calibrates the demo's artefact, unless it is there already.

    Returns:
      Its folder, and the questions that the simulated models know.
    """
    path = folder / "gateway-demo.racer"
    train, calibration = demo_table(seed)
    if not path.exists():
        racer = Racer.fit(jax.random.key(seed + 1), train, "knn", nonconformity=_FOR_VOTES)
        racer.calibrate(calibration, _ALPHA).save(path)
    return path, calibration


def demo_settings(
    artefact: Path, table: RoutingTable, upstream: str, ports: tuple[int, int], state: str
) -> Settings:
    """The configuration of the demo."""
    groups = table.groups
    return settings_from(
        {
            "models": {
                name: {"base_url": upstream, "dollars_in": 1.0, "dollars_out": 2.0}
                for name in table.models
            },
            "routes": {
                "demo": {
                    "artefact": str(artefact.absolute()),
                    "form": "text",
                    "mode": "vote",
                    "group": groups[0],
                }
            },
            "server": {"port": ports[0], "admin_port": ports[1]},
            "state": {"path": state},
            "audit": {"share": 0.05},
        }
    )


class SimulatedUpstreams:
    """Models that answer rightly where the table says so, and anything else otherwise.

    Args:
      table: The questions they know.
    """

    def __init__(self, table: RoutingTable) -> None:
        self._rows = {text.strip(): i for i, text in enumerate(table.texts)}
        self._models = {name: j for j, name in enumerate(table.models)}
        self._correct = table.correct

    @property
    def app(self) -> Starlette:
        """The server of them all, an application of ASGI."""
        return Starlette(routes=[Route("/v1/chat/completions", self._answer, methods=["POST"])])

    def _text(self, model: str, question: str) -> str:
        row = self._rows.get(question.strip())
        if row is None:
            return "A simulated model knows only the questions of the demo."
        right = bool(self._correct[row, self._models[model]])
        return "The right answer." if right else f"A wrong answer of {model}."

    async def _answer(self, request: Request) -> Response:
        body = msgspec.json.decode(await request.body())
        users = [m for m in body["messages"] if m["role"] == "user"]
        content = users[-1]["content"] if users else ""
        text = self._text(body["model"], content if isinstance(content, str) else "")
        await asyncio.sleep(_DELAY_SECONDS)
        usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
        head = {"id": "simulated", "created": 0, "model": body["model"]}
        if body.get("stream"):
            return StreamingResponse(_pieces(head, text), media_type="text/event-stream")
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse(
            {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        )


async def _pieces(head: dict[str, Any], text: str) -> Any:
    for word in text.split(" "):
        choice = {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}
        chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
        yield b"data: " + msgspec.json.encode(chunk) + b"\n\n"
    yield b"data: [DONE]\n\n"


async def serve_upstreams(table: RoutingTable, listener: socket.socket) -> None:
    """Serves the simulated upstreams until it is cancelled, and then closes what is open."""
    config = uvicorn.Config(
        SimulatedUpstreams(table).app,
        lifespan="off",
        access_log=False,
        log_config=None,
        ws="none",
        timeout_graceful_shutdown=1,
    )
    server = UnsignalledServer(config)
    serving = asyncio.ensure_future(server.serve([listener]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await serving


def curl_line(port: int, table: RoutingTable) -> str:
    """A line of a shell that asks the demo one of its questions."""
    body = {
        "model": "racer/demo",
        "messages": [{"role": "user", "content": table.texts[0]}],
    }
    text = msgspec.json.encode(body).decode().replace("'", "'\\''")
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    return f"curl -s {url} -H 'content-type: application/json' -d '{text}'"
