"""The other processes of `benchmarks/gateway.py`: upstreams that echo, and servers beside ours.

    python benchmarks/gateway_servers.py echo
    python benchmarks/gateway_servers.py bare http://127.0.0.1:PORT/v1
    python benchmarks/gateway_servers.py litellm http://127.0.0.1:PORT/v1

Each prints its port. This file needs nothing of racer_jax, so that litellm can run in an
environment of its own, which has neither JAX nor this package.
"""

import asyncio
import json
import os
import re
import socket
import sys

MODELS = ("small", "medium", "large")
_REPLY = json.dumps(
    {
        "id": "echo",
        "object": "chat.completion",
        "created": 0,
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "B"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21},
    }
).encode()
_DELAY = re.compile(rb'"take_ms": *([0-9.]+)')  # however it is spaced
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class Echo(asyncio.Protocol):
    """Answers every request with the same completion, at once or after the time it asks for."""

    def connection_made(self, transport):
        """A client has come."""
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        """Answers the requests that are whole."""
        self.buffer += data
        while True:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            lower = head.lower()
            start = lower.index(b"content-length:") + 15
            size = int(lower[start:].split(b"\r\n")[0])
            if len(rest) < size:
                return
            self.buffer = rest[size:]
            delay = _DELAY.search(rest[:size])
            if delay is None:
                self.answer()
            else:
                asyncio.get_running_loop().call_later(float(delay[1]) / 1e3, self.answer)

    def answer(self):
        """Sends the completion, unless the client has gone."""
        if self.transport.is_closing():
            return
        self.transport.write(_HEAD % len(_REPLY) + _REPLY)


async def echo():
    """The upstreams."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    say_port(server.sockets[0])
    await server.serve_forever()


async def bare(base):
    """Forwards each body, and its answer, with the packages that the gateway stands on.

    It reads nothing of either: what it adds is what these packages and the machine cost.
    """
    import aiohttp
    import uvicorn

    url, plain = f"{base}/chat/completions", {"content-type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def app(scope, receive, send):
            body, more = b"", True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
            async with session.post(url, data=body, headers=plain) as response:
                content, status = await response.read(), response.status
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
            ]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": content})

        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="error", lifespan="off", http="httptools")
        say_port(listener)
        await uvicorn.Server(config).serve(sockets=[listener])


async def litellm_router(base):
    """Answers as the gateway does, with litellm's Router: `one` by one call, `three` by three.

    The server around it is that of aiohttp, whose own cost is a few percent of litellm's.
    """
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm
    from aiohttp import web

    litellm.suppress_debug_info = True
    parameters = {"api_base": base, "api_key": "none"}
    names = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", **parameters}}
        for name in MODELS
    ]
    router = litellm.Router(model_list=names)

    async def answer(request):
        body = json.loads(await request.read())
        models = MODELS if body["model"] == "three" else MODELS[:1]
        extra = {"take_ms": body["take_ms"]} if "take_ms" in body else None
        replies = await asyncio.gather(
            *(
                router.acompletion(model=name, messages=body["messages"], extra_body=extra)
                for name in models
            )
        )
        return web.Response(
            body=replies[0].model_dump_json().encode(), content_type="application/json"
        )

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    say_port(site._server.sockets[0])
    await asyncio.Event().wait()


def say_port(listener):
    print(listener.getsockname()[1], flush=True)


def run(work):
    """The result of a coroutine, in a fast loop where there is one."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(work)
    return uvloop.run(work)


if __name__ == "__main__":
    what, base = sys.argv[1:2], sys.argv[2:]
    if (what, len(base)) not in ((["echo"], 0), (["bare"], 1), (["litellm"], 1)):
        sys.exit(__doc__)
    if what == ["echo"]:
        # Not on uvloop: its timers count whole milliseconds from the last one that began.
        asyncio.run(echo())
    elif what == ["bare"]:
        run(bare(*base))
    else:
        asyncio.run(litellm_router(*base))
