"""`POST /v1/responses`, without a state: translated to a completion and back."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from racer_jax.serving.gateway._audits import start_audit
from racer_jax.serving.gateway._charging import give_back
from racer_jax.serving.gateway._completions import Completion
from racer_jax.serving.gateway._errors import GONE, GatewayError, bad_request
from racer_jax.serving.gateway._exchange import (
    CONNECTION,
    EVENTS,
    JSON,
    Receive,
    Scope,
    Send,
    body_of,
    header_of,
    internal_error,
    respond,
)
from racer_jax.serving.gateway._facts import Headers
from racer_jax.serving.gateway._keys import Client
from racer_jax.serving.gateway._queries import query_of
from racer_jax.serving.gateway.core import LOG, Gateway, cancel

# Fields of a response's request that mean the same in a completion.
_SAME = ("model", "temperature", "top_p", "stream", "racer", "user", "parallel_tool_calls", "store")
_PIECE = 2000


class Responses:
    """The endpoint of responses."""

    async def __call__(self, gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        client = gateway.keys.client(header_of(scope, b"authorization"), "infer")
        with gateway.admitted():
            completed = await self._completed(gateway, client, scope, receive)
            if completed is None:
                return
            completion, stream, plain, more_headers = completed
            start_audit(completion)
            try:
                async with asyncio.timeout(gateway.settings.server.deadline_seconds):
                    await self._send(send, stream, plain, more_headers)
            except TimeoutError:  # the client does not read
                if (connection := scope.get(CONNECTION)) is not None:
                    connection.transport.abort()

    async def _send(self, send: Send, stream: bool, plain: Any, more_headers: Headers) -> None:
        """Sends a finished response."""
        if not stream:
            await respond(send, 200, [JSON, *more_headers], msgspec.json.encode(plain))
            return
        await send(
            {"type": "http.response.start", "status": 200, "headers": [EVENTS, *more_headers]}
        )
        for part in events(plain):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _completed(
        self, gateway: Gateway, client: Client, scope: Scope, receive: Receive
    ) -> tuple[Completion, bool, Any, Headers] | None:
        """The completion, whether to stream it, its response and headers; None for one gone."""
        server = gateway.settings.server
        body = chat_request(await body_of(scope, receive, server))
        query = query_of(body, scope["headers"], client, server.max_messages)
        stream, query.stream = query.stream, False
        query.fields.pop("stream", None)
        completion = Completion(gateway, query, client)
        work = asyncio.ensure_future(self._answer(completion))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await cancel(work)
                completion.finish(GONE)
                return None
            plain, more_headers = work.result()
        except asyncio.CancelledError:  # the server ends: what was called is recorded all the same
            await cancel(work)
            completion.finish(GONE)
            raise
        finally:
            gone.cancel()
            give_back(completion)
        return completion, stream, plain, more_headers

    async def _answer(self, completion: Completion) -> Any:
        seconds = completion.seconds
        try:
            try:
                async with asyncio.timeout(seconds):
                    await completion.decide()
                    await completion.respond()
                body, more_headers = completion.body()
                plain = response_of(msgspec.json.decode(msgspec.json.encode(body)))
            except TimeoutError:
                raise GatewayError(
                    504, "racer_deadline", f"there was no answer within {seconds:g} s"
                ) from None
            except GatewayError:
                raise
            except Exception:
                LOG.exception("a request failed")
                raise internal_error() from None
        except GatewayError as error:
            completion.has_failed(error)
            error.headers |= {k.decode(): v.decode() for k, v in completion.headers_of(error)}
            completion.finish(error.status)
            raise
        completion.finish(200)
        return plain, more_headers


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def chat_request(body: bytes) -> bytes:
    """The request for a completion that a request for a response stands for.

    Raises:
      GatewayError: If it is none, or wants a state that is not kept.
    """
    try:
        request = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the request is not one for a response: {error}") from None
    for field in ("previous_response_id", "conversation", "background"):
        if request.get(field):
            raise bad_request(f"{field} is not supported: nothing is kept between requests", field)
    chat = {name: request[name] for name in _SAME if name in request and name != "store"}
    chat["messages"] = list(_messages(request))
    if request.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = request["max_output_tokens"]
    tools = request.get("tools")
    if tools:
        chat["tools"] = [_tool(tool) for tool in tools]
        if "tool_choice" in request:
            chat["tool_choice"] = request["tool_choice"]
    form = request.get("text")
    if isinstance(form, dict) and isinstance(form.get("format"), dict):
        chat |= _format(form["format"])
    return msgspec.json.encode(chat)


def _tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise bad_request("tools must be of the type 'function'", "tools")
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}


def _format(form: dict[str, Any]) -> dict[str, Any]:
    kind = form.get("type", "text")
    if kind == "text":
        return {}
    if kind == "json_schema":
        schema = {key: value for key, value in form.items() if key != "type"}
        return {"response_format": {"type": kind, "json_schema": schema}}
    return {"response_format": {"type": kind}}


def _messages(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if request.get("instructions"):
        yield {"role": "system", "content": request["instructions"]}
    items = request.get("input")
    if isinstance(items, str):
        yield {"role": "user", "content": items}
        return
    if not isinstance(items, list):
        raise bad_request("input must be a text or a list of items", "input")
    for item in items:
        if not isinstance(item, dict):
            raise bad_request("input must be a text or a list of items", "input")
        yield _message(item)


def _message(item: dict[str, Any]) -> dict[str, Any]:
    kind = item.get("type", "message")
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}
    if kind != "message" or "role" not in item:
        raise bad_request(
            "items of input must be messages, function_call or function_call_output", "input"
        )
    content = item.get("content")
    if isinstance(content, list):
        content = [_part(part) for part in content]
    role = "system" if item["role"] == "developer" else item["role"]
    return {"role": role, "content": content}


def _part(part: Any) -> Any:
    if not isinstance(part, dict):
        raise bad_request("parts of a content must be objects", "input")
    kind = part.get("type")
    if kind in ("input_text", "output_text"):
        return {"type": "text", "text": part.get("text", "")}
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url")}}
    return part


def response_of(body: dict[str, Any]) -> dict[str, Any]:
    """The response that a completion stands for."""
    output: list[dict[str, Any]] = []
    for choice in body["choices"]:
        message = choice["message"]
        output += [_output_call(call) for call in message.get("tool_calls") or ()]
        if message.get("content") is not None or message.get("refusal") is not None:
            output.append(_output_message(message))
    usage = body.get("usage") or {}
    return {
        "id": f"resp_{body['id'].removeprefix('chatcmpl-')}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": body["model"],
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "store": False,
        "usage": {
            "input_tokens": usage.get("prompt_tokens", 0),
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage.get("completion_tokens", 0),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.get("total_tokens", 0),
        },
        "racer": body["racer"],
    }


def _output_call(call: Any) -> dict[str, Any]:
    """A call of a tool; a model may leave out what its own name for the call is."""
    call = call if isinstance(call, dict) else {}
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    name = f"fc_{secrets.token_hex(12)}"
    return {
        "type": "function_call",
        "id": name,
        "call_id": call.get("id") or name,
        "name": function.get("name") or "",
        "arguments": function.get("arguments") or "",
        "status": "completed",
    }


def _output_message(message: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = {
        "type": "output_text", "text": message.get("content") or "", "annotations": []
    }  # fmt: skip
    if message.get("content") is None:
        part = {"type": "refusal", "refusal": message["refusal"]}
    return {
        "type": "message",
        "id": f"msg_{secrets.token_hex(12)}",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }


def events(response: dict[str, Any]) -> Iterator[bytes]:
    """The events of a finished response."""
    number = 0

    def event(kind: str, **fields: Any) -> bytes:
        nonlocal number
        plain = {"type": kind, "sequence_number": number, **fields}
        number += 1
        return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode(plain) + b"\n\n"

    yield event("response.created", response={**response, "status": "in_progress", "output": []})
    for i, item in enumerate(response["output"]):
        empty = {**item, "status": "in_progress"}
        if item["type"] == "message":
            empty["content"] = []
        yield event("response.output_item.added", output_index=i, item=empty)
        if item["type"] == "message" and item["content"][0]["type"] == "output_text":
            yield from _text_events(event, i, item)
        yield event("response.output_item.done", output_index=i, item=item)
    yield event("response.completed", response=response)


def _text_events(event: Any, place: int, item: dict[str, Any]) -> Iterator[bytes]:
    part = item["content"][0]
    at = {"item_id": item["id"], "output_index": place, "content_index": 0}
    yield event("response.content_part.added", **at, part={**part, "text": ""})
    for start in range(0, len(part["text"]), _PIECE):
        piece = part["text"][start : start + _PIECE]
        yield event("response.output_text.delta", **at, delta=piece, logprobs=[])
    yield event("response.output_text.done", **at, text=part["text"], logprobs=[])
    yield event("response.content_part.done", **at, part=part)
