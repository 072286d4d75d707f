"""The endpoint of completions: requests in, responses and streams out, whatever happens between."""

import asyncio
import time
from contextlib import nullcontext
from typing import Any

import msgspec

from racer_jax.serving.gateway._answers import Answer, without_judge
from racer_jax.serving.gateway._audits import start_audit
from racer_jax.serving.gateway._charging import give_back
from racer_jax.serving.gateway._completions import Completion
from racer_jax.serving.gateway._errors import GONE, CallFailedError, GatewayError
from racer_jax.serving.gateway._exchange import (
    CONNECTION,
    EVENTS,
    JSON,
    ClientGoneError,
    Receive,
    Scope,
    Send,
    body_of,
    check_origin,
    header_of,
    internal_error,
    respond,
    respond_error,
)
from racer_jax.serving.gateway._facts import Headers, undecided, usage_of
from racer_jax.serving.gateway._identifiers import new_id
from racer_jax.serving.gateway._judging import write_request
from racer_jax.serving.gateway._keys import Client
from racer_jax.serving.gateway._panel import all_failed
from racer_jax.serving.gateway._queries import query_of
from racer_jax.serving.gateway._replies import Usage
from racer_jax.serving.gateway._spans import is_traced, note, parent_of, request_span
from racer_jax.serving.gateway._streams import (
    DONE,
    Passing,
    chunks,
    error_event,
    event,
    waiting,
)
from racer_jax.serving.gateway.core import LOG, Gateway, cancel

# Time for the error of a stream to leave, where the client reads slowly or not at all.
_LAST_WORDS_SECONDS = 5.0


class Chat:
    """`POST /v1/chat/completions`, as an application of ASGI.

    Args:
      gateway: The gateway.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        gateway, started = self._gateway, time.monotonic()
        try:
            check_origin(scope, gateway.settings.server)
            client = gateway.keys.client(header_of(scope, b"authorization"), "infer")
            with gateway.admitted():
                await self._admitted(client, scope, receive, send)
        except GatewayError as error:
            gateway.metrics.count_request("refused", "", error.status)
            seconds = time.monotonic() - started
            await respond_error(send, error, undecided(new_id(), error.type, seconds))
        except ClientGoneError:
            return

    async def _admitted(self, client: Client, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads and answers a request.

        Raises:
          GatewayError: If it is none for a completion.
          ClientGoneError: If the client went away before its end.
        """
        server = self._gateway.settings.server
        body = await body_of(scope, receive, server)
        query = query_of(body, scope["headers"], client, server.max_messages)
        completion = Completion(self._gateway, query, client)
        if traceparent := header_of(scope, b"traceparent"):
            completion.parent_span = parent_of({"traceparent": traceparent})
        await self._serve(completion, scope, receive, send)

    async def _serve(
        self, completion: Completion, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answers, unless the client goes away first: then every call is cancelled."""
        answering = _Answering(completion, send, scope.get(CONNECTION))
        client = ClientPresence(scope, receive, answering)
        try:
            await self._answer(completion, answering)
        except asyncio.CancelledError:
            if not client.gone:  # the server ends: what was called is recorded all the same
                completion.finish(GONE, answering.usage)
                raise
            client.noticed()
            completion.finish(GONE, answering.usage)
            return
        finally:
            client.ignore()
            give_back(completion)
        start_audit(completion)

    async def _answer(self, completion: Completion, answering: "_Answering") -> None:
        """Answers within the deadline."""
        seconds = completion.seconds
        completion.asking.traced = is_traced(completion.parent_span)
        if not completion.asking.traced:
            await self._within(seconds, completion, answering)
            return
        query = completion.query
        with request_span(query.model, completion.parent_span, query.stream) as span:
            await self._within(seconds, completion, answering)
            if span is not None and completion.plan is not None:
                facts = completion.facts
                names = ("id", "set", "answered", "reason", "guarantee", "mode", "alpha")
                note(span, {f"racer.{name}": facts[name] for name in names})

    async def _within(
        self, seconds: float, completion: Completion, answering: "_Answering"
    ) -> None:
        """Answers, or sends the error of what went wrong; counts the request."""
        try:
            try:
                async with asyncio.timeout(seconds):
                    await answering.run()
            except TimeoutError:
                raise GatewayError(
                    504, "racer_deadline", f"there was no answer within {seconds:g} s"
                ) from None
            completion.finish(200, answering.usage)
        except GatewayError as error:
            await answering.fail(error)
            completion.finish(error.status, answering.usage)
        except Exception:
            LOG.exception("a request failed")
            await answering.fail(internal_error())
            completion.finish(500, answering.usage)


class _Answering:
    """The sending of one answer; a whole one goes out in one piece where the connection can."""

    def __init__(self, completion: Completion, send: Send, connection: Any = None) -> None:
        self._completion, self._send, self._connection = completion, send, connection
        self._begun = False
        self._beating: asyncio.Task[None] | None = None
        self._error: GatewayError | None = None
        self.usage: dict[str, Any] = {}
        self.ended = False

    async def run(self) -> None:
        """Decides, calls and sends.

        Raises:
          GatewayError: If there is no answer.
        """
        completion = self._completion
        await completion.decide()
        if not completion.query.stream:
            await completion.respond()
            body, more_headers = completion.body()
            self._begun = self.ended = True
            sent = [JSON, *more_headers], msgspec.json.encode(body)
            with nullcontext() if self._connection is None else self._connection.joined():
                await respond(self._send, 200, *sent)
            return
        single = completion.single()
        if single is not None:
            await self._pass_through(single, None)
        else:
            await self._stream()

    async def fail(self, error: GatewayError) -> None:
        """Sends an error: as the response, or as an event where a stream has begun."""
        self._completion.has_failed(error)
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                if self._begun:
                    await self._event(error_event(error), last=True)
                else:
                    self.ended = True
                    headers = self._completion.headers_of(error)
                    await respond_error(self._send, error, headers)
        except TimeoutError:  # the client does not read: it may stay for ever, the request may not
            if self._connection is not None:
                self._connection.transport.abort()
                await asyncio.sleep(0)  # till the connection knows that it is lost

    async def _begin(self, more_headers: Headers) -> None:
        self._begun = True
        sent = [EVENTS, (b"cache-control", b"no-cache"), *more_headers]
        await self._send({"type": "http.response.start", "status": 200, "headers": sent})

    async def _event(self, content: bytes, last: bool = False) -> None:
        self.ended = last
        await self._send({"type": "http.response.body", "body": content, "more_body": not last})

    async def _pass_through(self, model: str, fields: Any) -> None:
        """The bytes of one model as they come, from the first on.

        Raises:
          GatewayError: If they do not come, or break off.
        """
        try:
            await self._passed(model, fields)
        except CallFailedError as error:
            self._completion.asking.panel.failed[model] = error
            raise all_failed({model: error}) from None

    async def _passed(self, model: str, fields: Any) -> None:
        """The bytes of one model as they come; what begins with an error is not begun.

        Raises:
          CallFailedError: If they do not come, or break off.
        """
        completion, passing = self._completion, Passing()
        began = time.monotonic()
        async with completion.asking.stream(model, fields) as (parts, note_usage):
            async for part in parts:
                passing.add(part)
                if not completion.passed:
                    if passing.has_error:
                        raise CallFailedError("reply")
                    await self._quiet()
                    completion.passed = model
                    if not self._begun:
                        await self._begin(completion.headers())
                completion.num_passed += part.count(b"data:")
                await self._event(part)
            if (usage := passing.usage) is not None:
                note_usage(usage)
            if not passing.is_whole:
                raise CallFailedError("reply", usage=usage)
        self.usage[model] = usage or Usage()  # a call that says nothing of its tokens is one too
        completion.gateway.count_stream(model, time.monotonic() - began, usage)
        await self._event(b"", last=True)

    async def _stream(self) -> None:
        """Signs of life while several models are called, then the answer in chunks."""
        completion = self._completion
        plan = completion.plan
        assert plan is not None
        writes = plan.mode == "synthesize" and len(plan.models) > 1
        # Not known before the calls: the last chunk says it, where a judge's own is not passed on.
        await self._begin(completion.headers("void" if plan.void or writes else "pending"))
        await self._event(waiting(0, len(plan.models)))
        self._beating = asyncio.ensure_future(self._beat())
        try:
            answer = await (self._written() if writes else completion.respond())
        finally:
            await self._quiet()
        if answer is None:
            return
        usage = None
        if completion.query.include_usage:
            usage, _ = usage_of(completion.asking.panel, completion.gateway.settings.models)
        await self._event(self._chunks(answer, usage), last=True)

    async def _beat(self) -> None:
        """Signs of life, till the first bytes of the answer."""
        asking = self._completion.asking
        seconds = self._completion.gateway.settings.server.heartbeat_seconds
        while True:
            await asyncio.sleep(seconds)
            await self._event(waiting(asking.panel.num_done, asking.total))

    async def _quiet(self) -> None:
        """No sign of life from now on: it could fall between two bytes of one event."""
        if self._beating is not None:
            beating, self._beating = self._beating, None
            await cancel(beating)

    async def _written(self) -> Answer | None:
        """The judge's own stream; where none of it comes, the answer in its place."""
        completion = self._completion
        assert completion.planner is not None
        candidates = await completion.candidates()
        completion.answer = Answer([], judge="wrote")
        judge = str(completion.planner.route.judge)
        fields = write_request(completion.query.fields, candidates.replies)
        try:
            with completion.asking.judging(judge):
                await self._passed(judge, fields)
        except CallFailedError as error:
            if completion.passed:
                completion.answer.more["judge_error"] = error.reason
                raise all_failed({judge: error}) from None
            completion.answer = without_judge(candidates.replies, error)
            return completion.answer
        return None

    def _chunks(self, answer: Answer, usage: Any) -> bytes:
        completion = self._completion
        base = {"created": 0, **completion.base()}
        if len(answer.replies) == 1:
            reply = answer.replies[0]
            base["created"] = reply.fields.get("created", 0)
            return b"".join(chunks(reply, base, completion.facts, usage))
        body, _ = completion.body()
        return b"".join(_whole(body, base, completion.facts, usage))


def _whole(body: dict[str, Any], base: dict[str, Any], facts: Any, usage: Any) -> list[bytes]:
    """Several choices, or a refusal, as chunks of one choice each."""
    head = {**base, "object": "chat.completion.chunk"}
    parts = []
    for choice in body["choices"]:
        delta = choice["message"]
        rest = {key: value for key, value in choice.items() if key != "message"}
        parts.append(event({**head, "choices": [{**rest, "delta": delta}]}))
    last: dict[str, Any] = {**head, "choices": [], "racer": facts}
    if usage is not None:
        last["usage"] = usage
    return [*parts, event(last), DONE]


class ClientPresence:
    """Cancels the task that answers where the client goes away before the end of the answer.

    The connection of `racer-jax serve` says so itself, which costs nothing for a client that stays.
    Under another server a second task waits for it.

    Args:
      scope: The request.
      receive: Where the end of the connection is heard of under another server.
      answering: The answer; nothing is cancelled once its end is on the way.
    """

    def __init__(self, scope: Scope, receive: Receive, answering: "_Answering") -> None:
        self.gone = False
        self._answering = answering
        self._worker = asyncio.current_task()
        self._waiter: asyncio.Task[None] | None = None
        self._connection: Any = scope.get(CONNECTION)
        if self._connection is None:
            self._waiter = asyncio.ensure_future(self._wait(receive))
        elif self._connection.is_lost:
            asyncio.get_running_loop().call_soon(self._leave)
        else:
            self._connection.on_leave = self._leave

    async def _wait(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        worker = self._worker
        if worker is not None and not worker.done() and not self._answering.ended:
            self.gone = True
            worker.cancel()

    def noticed(self) -> None:
        """The worker has ended by the cancellation, and goes on."""
        if self._worker is not None:
            self._worker.uncancel()

    def ignore(self) -> None:
        """Nothing is cancelled any more."""
        self._worker = None
        if self._waiter is not None:
            self._waiter.cancel()
        elif self._connection is not None and self._connection.on_leave == self._leave:
            self._connection.on_leave = None
