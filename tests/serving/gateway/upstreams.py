"""Upstreams that answer as a test says, on loopback, in the loop of the test."""

import asyncio
import json
from types import SimpleNamespace

from aiohttp import web


def completion(text, model="any", **message):
    """A completion with this text."""
    return {
        "id": "chatcmpl-upstream",
        "object": "chat.completion",
        "created": 17,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }


class Upstreams:
    """One server for all models; `says[model]` is its text, or a function of the request.

    A function may return a text, a dictionary (the completion), or a `web.Response`.
    """

    def __init__(self):
        self.says = {}
        self.asked = []
        self.headers = []
        self.cancelled = []

    async def start(self):
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"

    async def stop(self):
        await self._runner.cleanup()

    def reset(self):
        self.says.clear()
        self.asked.clear()
        self.headers.clear()
        self.cancelled.clear()

    @property
    def models(self):
        return [body["model"] for body in self.asked]

    async def _answer(self, request):
        body = json.loads(await request.read())
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        says = self.says.get(body["model"], f"I am {body['model']}")
        try:
            if callable(says):
                says = says(body)
            if asyncio.iscoroutine(says):
                says = await says
        except asyncio.CancelledError:
            self.cancelled.append(body["model"])
            raise
        if isinstance(says, web.StreamResponse):
            return says
        if isinstance(says, list):
            return await self._pieces(request, says)
        if isinstance(says, str):
            says = completion(says, body["model"])
        if body.get("stream"):
            return await self._stream(request, body, says)
        return web.json_response(says)

    async def _stream(self, request, body, says):
        text = says["choices"][0]["message"]["content"]
        head = {"id": "chatcmpl-upstream", "object": "chat.completion.chunk", "created": 17}
        chunks = [
            {**head, "model": body["model"], "choices": [{"index": 0, "delta": {"content": word}}]}
            for word in text.split(" ")
        ]
        chunks.append({**head, "choices": [], "usage": says["usage"]})
        pieces = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
        return await self._pieces(request, [*pieces, b"data: [DONE]\n\n"])

    async def _pieces(self, request, pieces):
        """Bytes as they are; None breaks the connection off."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            if piece is None:
                request.transport.abort()
                return response
            await response.write(piece)
        return response


def status(code, headers=None, message="no"):
    """A function that refuses."""
    return lambda body: web.json_response(
        {"error": {"message": message, "type": "x"}}, status=code, headers=headers
    )


def slow(text, seconds):
    """A function that answers late."""

    async def answer(body):
        await asyncio.sleep(seconds)
        return text

    return answer


async def until(happened, seconds=60.0):
    """Waits for what another task of the loop, or another thread, is about to do."""
    async with asyncio.timeout(seconds):
        while not happened():
            await asyncio.sleep(0.002)


async def call(app, method, path, body=None, headers=None, gone_after=None, raw=None):
    """One request to an application of ASGI, and its response.

    `gone_after` is a number of seconds, or a function of what has happened before the client goes.
    """
    content = raw if raw is not None else (b"" if body is None else json.dumps(body).encode())
    sent = {"host": "127.0.0.1", "content-type": "application/json", **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(k.encode(), v.encode()) for k, v in sent.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    messages = [{"type": "http.request", "body": content, "more_body": False}]
    parts, head, times = [], {}, []
    finished = asyncio.Event()

    async def receive():
        if messages:
            return messages.pop(0)
        if callable(gone_after):
            await until(gone_after)
        elif gone_after is not None:
            await asyncio.sleep(gone_after)
        else:
            await finished.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.start":
            head.update(message)
        else:
            parts.append(message.get("body", b""))
            times.append(asyncio.get_running_loop().time())
            if not message.get("more_body"):
                finished.set()

    await app(scope, receive, send)
    own = {k.decode(): v.decode() for k, v in head.get("headers", [])}
    content = b"".join(parts)
    return SimpleNamespace(
        status=head.get("status"),
        headers=own,
        content=content,
        parts=parts,
        times=times,
        json=json.loads(content) if own.get("content-type") == "application/json" else None,
    )


def events(content):
    """The events of a stream, those that are JSON read."""
    lines = [line[6:] for line in content.decode().splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
