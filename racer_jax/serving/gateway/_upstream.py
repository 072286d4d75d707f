"""Calls of the models: bounded in bytes and seconds, tried again elsewhere, never redirected."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from racer_jax.serving.gateway._addresses import checked_url, may_be_called
from racer_jax.serving.gateway._breaker import Breaker
from racer_jax.serving.gateway._errors import CallFailedError
from racer_jax.serving.gateway._hedging import Hedge
from racer_jax.serving.gateway._replies import Fields, Reply, reply_of
from racer_jax.serving.gateway._secrets import Redaction
from racer_jax.serving.gateway.settings import Deployment, Model

_LONGEST_DETAIL = 500
# The upstream finds the request itself at fault: another try would end the same way.
_REFUSED = frozenset({400, 404, 405, 413, 415, 422})
_NOT_THE_MODELS_FAULT = frozenset({"refused", "rate", "size"})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class _Resolver(AbstractResolver):
    """Names to addresses, but to none of a link-local or metadata service."""

    def __init__(self) -> None:
        self._real = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        """The addresses of a name that may be called."""
        addresses = await self._real.resolve(host, port, family)
        allowed = [entry for entry in addresses if may_be_called(entry["host"])]
        if not allowed:
            raise OSError(f"{host} is the name of an address that must not be called")
        return allowed

    async def close(self) -> None:
        """Nothing is held."""


@dataclass
class Calls:
    """What became of the calls of a model since the start.

    Attributes:
      num: Calls that ended, retries not counted.
      lost: Those that brought no answer, breaker not counted.
      outcomes: Number of calls by outcome.
    """

    num: int = 0
    lost: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    url: str
    headers: Mapping[str, str]
    name: msgspec.Raw
    key: str


class Upstream:
    """One model of the pool, wherever it can be called.

    Args:
      name: Its name in the pool.
      model: Its settings.
      session: The session that all upstreams share; see `new_session`.
    """

    def __init__(self, name: str, model: Model, session: aiohttp.ClientSession) -> None:
        self.name, self.model, self._session = name, model, session
        self.breaker = Breaker(model.breaker_failures, model.breaker_seconds)
        self.calls = Calls()
        self._places = [_place(name, place) for place in (model, *model.also)]
        self._hedge = Hedge() if model.hedge else None
        self._timeout = aiohttp.ClientTimeout(
            total=model.total_seconds, sock_connect=model.connect_seconds
        )
        # A call that is not streamed has one clock of its own for its first and its last byte.
        self._connect_timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=model.connect_seconds
        )

    async def call(
        self,
        fields: Fields,
        headers: Mapping[str, str] | None = None,
        begun: list[str] | None = None,
    ) -> Reply:
        """One answer, not streamed.

        Args:
          fields: The request, field by field; `model` and `stream` are set here.
          headers: Further headers.
          begun: Takes the model's name where a second call was made that may cost as well.

        Raises:
          CallFailedError: If there is no answer after all tries.
        """
        body = {name: raw for name, raw in fields.items() if name not in _STREAMING}
        loop, model = asyncio.get_running_loop(), self.model
        started = loop.time()

        async def once(place: _Place) -> Reply:
            async with asyncio.timeout_at(_earlier(loop.time(), model)) as clock:
                end = loop.time() + model.total_seconds
                async with self._request(place, body, headers, self._connect_timeout) as response:
                    if response.status != 200:
                        raise await _refusal(response, place.key)
                    if not response.content.is_eof():  # a timer costs more than a short answer
                        clock.reschedule(end)
                    content = await self._content(response)
            try:
                return reply_of(self.name, content, loop.time() - started)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                raise CallFailedError("reply") from None

        async def twice(place: _Place) -> Reply:
            first, second = self._places[:2]
            if hedge is None or place is not first:
                return await once(place)
            second_calls: list[str] = []

            def again() -> Coroutine[Any, Any, Reply]:
                second_calls.append(self.name)
                return once(second)

            try:
                reply: Reply = await hedge.first_of(lambda: once(first), again)
            except Exception:
                second_calls.clear()  # calls that bring no answer do not count
                raise
            finally:
                if begun is not None:
                    begun.extend(second_calls)
            return reply

        hedge = self._hedge
        reply: Reply = await self._tried(once if hedge is None else twice)
        return reply

    @asynccontextmanager
    async def stream(
        self, fields: Fields, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of a streamed answer, as they come; tried elsewhere until the first.

        Args:
          fields: The request, field by field; `model` is set here.
          headers: Further headers.

        Yields:
          The bytes; iterating raises `CallFailedError` where they break off.

        Raises:
          CallFailedError: If no upstream sends a first byte.
        """
        opened: list[Any] = []

        async def once(place: _Place) -> bytes:
            context = self._post(place, fields, headers)
            response = await context.__aenter__()
            try:
                async with asyncio.timeout(self.model.first_seconds):
                    first = await response.content.readany()
                if not first:
                    raise CallFailedError("reply")
            except BaseException as error:
                await context.__aexit__(type(error), error, None)
                raise
            opened[:] = [context, response]
            return first

        first = await self._tried(once)
        context, response = opened
        try:
            yield self._rest(first, response)
        finally:
            await context.__aexit__(None, None, None)

    async def _rest(self, first: bytes, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        size = len(first)
        yield first
        try:
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > self.model.max_reply_bytes:
                    raise CallFailedError("size")
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.breaker.failed()
            raise _failure_of(error) from None

    async def _tried(self, once: Any) -> Any:
        """Tries the places of the model in turn; counts what became of the call."""
        if not self.breaker.may_call():
            raise CallFailedError("open")
        model, pause = self.model, _FIRST_PAUSE
        for attempt in range(model.tries):
            place = self._places[attempt % len(self._places)]
            try:
                result = await once(place)
            except CallFailedError as error:
                failure = error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = _failure_of(error)
            else:
                self.breaker.succeeded()
                self._count("ok")
                return result
            if failure.kind in ("refused", "size") or attempt + 1 == model.tries:
                break
            if attempt + 1 >= len(self._places):
                await asyncio.sleep(min(failure.retry_after or pause, _LONGEST_PAUSE))
                pause *= 2
        if failure.kind not in _NOT_THE_MODELS_FAULT:
            self.breaker.failed()
        self._count(failure.kind)
        raise failure

    def _count(self, outcome: str) -> None:
        calls = self.calls
        calls.outcomes[outcome] = calls.outcomes.get(outcome, 0) + 1
        if outcome != "refused":
            calls.num += 1
            calls.lost += outcome != "ok"

    @asynccontextmanager
    async def _post(
        self, place: _Place, fields: Fields, headers: Mapping[str, str] | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A streamed request whose headers have come, with a status of success."""
        async with asyncio.timeout(self.model.first_seconds) as waiting:
            async with self._request(place, fields, headers, self._timeout) as response:
                if response.status != 200:
                    raise await _refusal(response, place.key)
                _check_stream(response)
                waiting.reschedule(None)
                yield response

    def _request(
        self,
        place: _Place,
        fields: Fields,
        headers: Mapping[str, str] | None,
        timeout: aiohttp.ClientTimeout,
    ) -> Any:
        """A request to one place of the model; a context with its response."""
        body = msgspec.json.encode({**fields, "model": place.name})
        sent = place.headers if not headers else {**place.headers, **headers}
        return self._session.post(
            place.url, data=body, headers=sent, allow_redirects=False, timeout=timeout
        )

    async def _content(self, response: aiohttp.ClientResponse) -> bytes:
        """The bytes of an answer, at most as many as are allowed."""
        most = self.model.max_reply_bytes
        if (response.content_length or 0) > most:
            raise CallFailedError("size")
        if response.content.is_eof():  # all of it is here
            content: bytes = response.content.read_nowait()
            if len(content) > most:
                raise CallFailedError("size")
            return content
        parts, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > most:
                raise CallFailedError("size")
            parts.append(chunk)
        return b"".join(parts)


_STREAM = "text/event-stream"
_STREAMING = frozenset({"stream", "stream_options"})


def _place(name: str, place: Deployment) -> _Place:
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    key = "" if place.api_key is None else place.api_key.reveal()
    if key:
        headers["authorization"] = f"Bearer {key}"
    url = checked_url(place.base_url, place.insecure)
    encoded = msgspec.json.encode(place.name or name)
    return _Place(f"{url}/chat/completions", headers, msgspec.Raw(encoded), key)


def new_session() -> aiohttp.ClientSession:
    """The session of all upstreams: no cookies, no proxy of the environment, no decompression."""
    connector = aiohttp.TCPConnector(limit=0, resolver=_Resolver())
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        headers={"user-agent": "racer-jax"},
    )


def _earlier(now: float, model: Model) -> float:
    """When a call must have begun to answer."""
    return now + min(model.first_seconds, model.total_seconds)


def _failure_of(error: BaseException) -> CallFailedError:
    if isinstance(error, TimeoutError):
        return CallFailedError("timeout")
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientResponseError):
        return CallFailedError("reply")
    return CallFailedError("connect")


def _check_stream(response: aiohttp.ClientResponse) -> None:
    """Refuses what would be passed through though it is no stream: a page, say.

    Raises:
      CallFailedError: If it says so itself.
    """
    kind = response.headers.get("content-type", _STREAM).partition(";")[0].strip().lower()
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if kind not in (_STREAM, "text/plain", "application/octet-stream") or encoding != "identity":
        raise CallFailedError("reply")


async def _refusal(response: aiohttp.ClientResponse, key: str) -> CallFailedError:
    """What a status other than 200 means; its words, without the key that was sent."""
    status = response.status
    if status == 429:
        return CallFailedError("rate", status, _retry_after(response.headers.get("retry-after")))
    if status not in _REFUSED:
        return CallFailedError("status", status)
    content = await response.content.read(1 << 16)
    try:
        error = msgspec.json.decode(content)["error"]
        detail = error["message"] if isinstance(error, dict) else error
    except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError, RecursionError):
        detail = ""
    words = Redaction([key]).clean(str(detail))
    return CallFailedError("refused", status, detail=words[:_LONGEST_DETAIL])


def _retry_after(text: str | None) -> float | None:
    """Seconds of a header `retry-after`, in either of its forms."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), 3600.0) if seconds == seconds else None
