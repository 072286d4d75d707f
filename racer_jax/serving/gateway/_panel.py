"""Several models called at once, their answers taken as they come, the rest cancelled."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from racer_jax.serving.gateway._errors import CallFailedError, GatewayError
from racer_jax.serving.gateway._replies import Fields, Reply, Usage
from racer_jax.serving.gateway._spans import (
    call_span,
    count_tokens,
    headers_of_calls,
    note,
    note_messages,
)
from racer_jax.serving.gateway._tasks import started
from racer_jax.serving.gateway._upstream import Upstream

_PROVIDER = "openai"  # the protocol that upstreams speak
Upstreams = Mapping[str, Upstream]


@dataclass
class Panel:
    """What became of the calls of a request.

    Use this when you read what `Gateway.count` counts.

    Attributes:
      replies: Answers by model, as they came.
      failed: Models that gave none, and why.
      cancelled: Models whose answers were not waited for.
      extra: Usage of calls beside those of the set: the judge's.
      extra_failed: Calls beside those of the set that gave no answer, and why.
    """

    replies: dict[str, Reply] = field(default_factory=dict)
    failed: dict[str, CallFailedError] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    extra: dict[str, Usage] = field(default_factory=dict)
    extra_failed: dict[str, CallFailedError] = field(default_factory=dict)

    @property
    def num_done(self) -> int:
        """Calls that have ended."""
        return len(self.replies) + len(self.failed)


@dataclass
class Asking:
    """What the ways of answering need to make calls.

    Attributes:
      upstreams: The models.
      fields: The request, field by field.
      headers: Further headers of the calls.
      panel: What became of the calls so far.
      total: Number of models that are asked.
      traced: Whether anybody would see the spans of the calls.
      begun: The models of all calls that were made, as often as they were.
    """

    upstreams: Upstreams
    fields: Fields
    headers: Mapping[str, str]
    panel: Panel = field(default_factory=Panel)
    total: int = 0
    traced: bool = False
    begun: list[str] = field(default_factory=list)

    async def one(self, model: str, fields: Fields | None = None) -> Reply:
        """The answer of one model.

        Raises:
          CallFailedError: If it gives none.
        """
        sent = fields or self.fields
        self.begun.append(model)
        if not self.traced:
            return await self.upstreams[model].call(sent, self.headers, self.begun)
        with call_span(model, _PROVIDER) as span:
            try:
                reply = await self.upstreams[model].call(sent, self._traced(span), self.begun)
            except CallFailedError as error:
                note(span, {"error.type": error.reason})
                raise
            note_messages(span, sent, [reply.message])
            note(
                span,
                {
                    "gen_ai.response.finish_reasons": [reply.finish_reason or "stop"],
                    "gen_ai.response.model": reply.said("model"),
                    "gen_ai.response.id": reply.said("id"),
                },
            )
            note_usage(span, model, reply.usage)
            return reply

    async def judged(self, judge: str, fields: Fields) -> Reply:
        """The answer of a judge.

        Raises:
          CallFailedError: If it gives none.
        """
        with self.judging(judge):
            reply = await self.one(judge, fields)
        self.panel.extra[judge] = reply.usage
        return reply

    @contextmanager
    def judging(self, judge: str) -> Iterator[None]:
        """Notes a judge's call that brings no answer, apart from those of the set."""
        self.total += 1
        try:
            yield
        except CallFailedError as error:
            self.panel.extra_failed[judge] = error
            raise
        except asyncio.CancelledError:  # the deadline has passed, or the client has gone
            self.panel.cancelled.append(judge)
            raise

    @asynccontextmanager
    async def stream(
        self, model: str, fields: Fields | None = None
    ) -> AsyncIterator[tuple[AsyncIterator[bytes], Callable[[Usage], None]]]:
        """The bytes of one model's stream, within a span that lasts as long.

        Yields:
          The bytes as they come, and a function that takes the usage once it is known.

        Raises:
          CallFailedError: If no bytes come, or they break off.
        """
        sent, upstream = fields or self.fields, self.upstreams[model]
        self.begun.append(model)
        spans = call_span(model, _PROVIDER, stream=True) if self.traced else nullcontext()
        with spans as span:
            note_messages(span, sent, ())
            try:
                async with upstream.stream(sent, self._traced(span)) as parts:
                    yield parts, lambda usage: note_usage(span, model, usage)
            except CallFailedError as error:
                note(span, {"error.type": error.reason})
                raise

    def _traced(self, span: Any) -> Mapping[str, str]:
        """The headers of a call, with those that carry its span."""
        return self.headers if span is None else {**self.headers, **headers_of_calls()}

    def several(self, models: Sequence[str]) -> "_Several":
        """Asks models at once; whoever has not answered at the end of the block is cancelled.

        Args:
          models: Whom to ask.

        Returns:
          A context of the models in the order in which they answer or fail.
        """
        return _Several(self, models)

    def take(self, model: str, task: "asyncio.Task[Reply]") -> None:
        """Notes what became of a call that has ended."""
        try:
            self.panel.replies[model] = task.result()
        except CallFailedError as error:
            self.panel.failed[model] = error

    async def all(self, models: Sequence[str]) -> None:
        """Asks models at once and waits for all; a single one is asked without a task of its own.

        Raises:
          GatewayError: If none of them gives an answer.
        """
        if len(models) == 1:
            self.total += 1
            try:
                self.panel.replies[models[0]] = await self.one(models[0])
            except CallFailedError as error:
                self.panel.failed[models[0]] = error
        else:
            async with self.several(models) as names:
                async for _ in names:
                    pass
        if not any(model in self.panel.replies for model in models):
            raise all_failed(self.panel.failed)


class _Several:
    """`Asking.several`: calls that are under way within a block, as they end.

    Not a generator, which a block that is left early would have to close, nor a queue of asyncio,
    of which a call that ends asks ten functions.

    Args:
      asking: Who asks.
      models: The models.
    """

    def __init__(self, asking: Asking, models: Sequence[str]) -> None:
        self._asking, self._models = asking, models
        self._tasks: dict[asyncio.Task[Reply], str] = {}
        self._ended: deque[asyncio.Task[Reply]] = deque()
        self._waiter: asyncio.Future[None] | None = None

    async def __aenter__(self) -> "_Several":
        self._asking.total += len(self._models)
        for model in self._models:
            task = started(self._asking.one(model))
            self._tasks[task] = model
            task.add_done_callback(self._note)
        self._num_left = len(self._tasks)
        return self

    def _note(self, task: "asyncio.Task[Reply]") -> None:
        """A call has ended."""
        self._ended.append(task)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> "_Several":
        return self

    async def __anext__(self) -> str:
        if not self._num_left:
            raise StopAsyncIteration
        while not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._num_left -= 1
        task = self._ended.popleft()
        model = self._tasks.pop(task)
        self._asking.take(model, task)
        return model

    async def __aexit__(self, *error: object) -> None:
        left = {task: model for task, model in self._tasks.items() if not task.done()}
        for task in left:
            task.cancel()
        for task, model in self._tasks.items():
            if task not in left:  # it ended at the same moment as the block
                self._asking.take(model, task)
        if left:
            self._asking.panel.cancelled += left.values()
            await asyncio.gather(*left, return_exceptions=True)


def note_usage(span: Any, model: str, usage: Usage) -> None:
    """Notes the tokens of a call in its span, and counts them."""
    note(
        span,
        {
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
        },
    )
    count_tokens(model, _PROVIDER, usage.prompt_tokens, usage.completion_tokens)


def all_failed(failed: Mapping[str, CallFailedError]) -> GatewayError:
    """The error of a request for which every call failed."""
    named = "; ".join(f"{model}: {error.reason}" for model, error in failed.items())
    errors = list(failed.values())
    kinds = {error.kind for error in errors}
    if kinds == {"refused"}:
        first = errors[0]
        return GatewayError(
            first.status or 400,
            "invalid_request_error",
            f"every model refused the request ({named}): {first.detail}",
            code="upstream_refused",
        )
    if kinds == {"rate"}:
        wait = max((error.retry_after or 1.0 for error in errors), default=1.0)
        return GatewayError(
            429,
            "rate_limit_error",
            f"every model is at its limit ({named})",
            code="rate_limit_exceeded",
            headers={"retry-after": str(max(1, round(wait)))},
        )
    return GatewayError(502, "racer_upstream", f"no model gave an answer: {named}")
