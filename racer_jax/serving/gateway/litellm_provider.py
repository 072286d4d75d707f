"""A provider for litellm: its proxy or library asks a gateway, streams included.

    from racer_jax.serving.gateway.litellm_provider import RacerProvider

    litellm.custom_provider_map = [{"provider": "racer", "custom_handler": RacerProvider()}]
    litellm.completion(model="racer/demo", messages=..., api_base="http://127.0.0.1:8080/v1")

In the configuration of its proxy: `custom_handler:
racer_jax.serving.gateway.litellm_provider.racer`. What the gateway says of its decision is the
field `racer` of the response. litellm itself is not among the extras: whoever uses this has it.
"""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

try:
    import litellm
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, HTTPHandler
    from litellm.llms.custom_llm import CustomLLMError
    from litellm.types.utils import Delta, ModelResponseStream, StreamingChoices

    _Base: Any = litellm.CustomLLM
except ModuleNotFoundError:
    litellm, _Base = None, object

_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens")
# Errors that come after the stream has begun, and the status that each has before it.
_STATUSES = {"racer_abstained": 422, "racer_deadline": 504, "invalid_request_error": 400}
# What a chunk of one of several choices must hold to be passed on.
_CONTENT = ("content", "tool_calls", "refusal")
_BASE = "http://127.0.0.1:8080/v1"
# What litellm passes on that is for itself, not for the model.
_OWN = frozenset({"stream", "extra_headers", "max_retries", "extra_body", "custom_llm_provider"})


class RacerProvider(_Base):  # type: ignore[misc]
    """Sends completions to a gateway of this package.

    Use this when traffic already goes through litellm: its keys, budgets and logs stay in front.

    Args:
      api_base: Address of the gateway; RACER_API_BASE, else the local one, where None.

    Raises:
      ModuleNotFoundError: If litellm is not installed.
    """

    def __init__(self, api_base: str | None = None) -> None:
        if litellm is None:
            raise ModuleNotFoundError("a provider for litellm needs it: pip install litellm")
        super().__init__()
        self._base = api_base or os.environ.get("RACER_API_BASE", _BASE)

    # --- what litellm calls -----------------------------------------------------------------------

    def completion(self, *args: Any, **options: Any) -> Any:
        """An answer. Use this when litellm calls it: nobody else does."""
        url, headers, body = self._request(options, stream=False)
        with _errors():
            client = options.get("client") or HTTPHandler()
            response = client.post(url, headers=headers, data=body, timeout=_timeout(options))
        return self._answer(options, response)

    async def acompletion(self, *args: Any, **options: Any) -> Any:
        """An answer. Use this when litellm calls it: nobody else does."""
        url, headers, body = self._request(options, stream=False)
        with _errors():
            client = options.get("client") or AsyncHTTPHandler()
            response = await client.post(url, headers=headers, data=body, timeout=_timeout(options))
        return self._answer(options, response)

    def streaming(self, *args: Any, **options: Any) -> Iterator[Any]:
        """The pieces of an answer. Use this when litellm calls it: nobody else does."""
        url, headers, body = self._request(options, stream=True)
        with _errors():
            client = options.get("client") or HTTPHandler()
            response = client.post(
                url, headers=headers, data=body, stream=True, timeout=_timeout(options)
            )
            events = _Events()
            for part in response.iter_bytes():
                yield from events.chunks(part)
            yield from events.end()

    async def astreaming(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        """The pieces of an answer. Use this when litellm calls it: nobody else does."""
        url, headers, body = self._request(options, stream=True)
        with _errors():
            client = options.get("client") or AsyncHTTPHandler()
            response = await client.post(
                url, headers=headers, data=body, stream=True, timeout=_timeout(options)
            )
            events = _Events()
            async for part in response.aiter_bytes():
                for chunk in events.chunks(part):
                    yield chunk
            for chunk in events.end():
                yield chunk

    # --- inside -----------------------------------------------------------------------------------

    def _request(self, options: dict[str, Any], *, stream: bool) -> tuple[str, dict[str, str], str]:
        """Address, headers and body."""
        params = dict(options.get("optional_params") or {})
        extra = params.pop("extra_body", None) or {}
        fields = {name: value for name, value in params.items() if name not in _OWN}
        model = str(options["model"])
        body: dict[str, Any] = {
            **fields,
            **extra,
            "model": model if model.startswith("racer/") else f"racer/{model}",
            "messages": options["messages"],
        }
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        passed = options.get("headers") or {}
        headers = {name.lower(): str(value) for name, value in passed.items()}
        headers["content-type"] = "application/json"
        key = options.get("api_key") or os.environ.get("RACER_API_KEY")
        if key:
            headers["authorization"] = f"Bearer {key}"
        base = (options.get("api_base") or self._base).rstrip("/")
        return f"{base}/chat/completions", headers, msgspec.json.encode(body).decode()

    def _answer(self, options: dict[str, Any], response: Any) -> Any:
        plain = msgspec.json.decode(response.content)
        answer = litellm.ModelResponse(**{k: v for k, v in plain.items() if k != "racer"})
        answer.racer = plain.get("racer")
        return answer


class _errors:  # noqa: N801  # a block, not a thing
    """Errors of HTTP in a block become those that litellm knows, with the gateway's words."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        response = getattr(error, "response", None)
        if response is None:
            return
        status = int(getattr(response, "status_code", 500))
        message = getattr(error, "message", None) or getattr(error, "text", None) or str(error)
        raise CustomLLMError(status, str(message)) from None


def _timeout(options: dict[str, Any]) -> Any:
    """The time that litellm gives a request; that of litellm itself where it gives none."""
    limit = options.get("timeout")
    return litellm.request_timeout if limit is None else limit


class _Events:
    """The pieces of a stream, from bytes that may be cut anywhere.

    litellm reads one answer from pieces, and takes all texts for parts of it: those of several
    choices go to it as whole chunks, and what says that one of them ends waits for the last.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._is_whole = False
        self._finish = ""  # of the first of several choices
        self._are_several = False

    def chunks(self, part: bytes) -> Iterator[Any]:
        """What the lines say that end within more bytes.

        Raises:
          CustomLLMError: If one is an error.
        """
        # No other characters end a line, though Python thinks so: a text may hold them.
        *lines, self._rest = (self._rest + part).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            data = line[5:].strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                self._is_whole = True
            elif data.startswith(b"{"):
                yield from self._pieces(msgspec.json.decode(data))

    def _pieces(self, event: dict[str, Any]) -> Iterator[Any]:
        """What an event says; several pieces where it holds several calls of tools.

        Raises:
          CustomLLMError: If it is an error.
        """
        if event.get("error") is not None:
            status = _STATUSES.get(event["error"].get("type"), 502)
            raise CustomLLMError(status, event["error"]["message"])
        usage = event.get("usage")
        tokens = None
        if usage is not None:
            tokens = {name: usage[name] for name in _USAGE if name in usage}
        facts = {"racer": event["racer"]} if "racer" in event else {}
        choices = event.get("choices") or []
        self._is_whole |= any(choice.get("finish_reason") for choice in choices)
        if not self._are_several:
            self._are_several = any(c.get("index") or "racer_model" in c for c in choices)
        if not self._are_several:
            for choice in choices or [{}]:
                yield from _chunks(choice, tokens, facts)
            return
        for choice in choices:
            if not choice.get("index"):
                self._finish = choice.get("finish_reason") or self._finish
            if any((choice.get("delta") or {}).get(name) for name in _CONTENT):
                yield _whole_chunk(event, choice)
        if tokens or facts:
            yield _piece("", None, "", tokens, facts)

    def end(self) -> Iterator[dict[str, Any]]:
        """The last piece, where it waited for others.

        Raises:
          CustomLLMError: If the last words of the stream are missing: half an answer would pass for
            a whole one.
        """
        if not self._is_whole:
            raise CustomLLMError(502, "the stream of the gateway ended before the answer did")
        if self._are_several:
            yield _piece("", None, self._finish or "stop", None, {})


def _chunks(choice: dict[str, Any], tokens: Any, facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the only choice of an event says."""
    delta = choice.get("delta") or {}
    more = dict(facts)
    if delta.get("refusal") is not None:
        more["refusal"] = delta["refusal"]
    *calls, last = delta.get("tool_calls") or [None]
    for call in calls:
        yield _piece("", call, "", None, {})
    text, finish = delta.get("content") or "", choice.get("finish_reason") or ""
    yield _piece(text, last, finish, tokens, more)


def _piece(text: str, call: Any, finish: str, usage: Any, more: dict[str, Any]) -> dict[str, Any]:
    """A piece of a stream as litellm reads it."""
    return {
        "text": text,
        "tool_use": call,
        "is_finished": bool(finish),
        "finish_reason": finish,
        "usage": usage,
        "index": 0,
        "provider_specific_fields": more or None,
    }


def _whole_chunk(event: dict[str, Any], choice: dict[str, Any]) -> Any:
    """A chunk of one of several choices, with its place and the model that wrote it.

    A refusal is a text too: litellm takes a chunk without one for the end.
    """
    delta = dict(choice["delta"])
    delta["content"] = delta.get("content") or delta.get("refusal") or ""
    named = {name: choice[name] for name in ("racer_model",) if name in choice}
    return ModelResponseStream(
        id=event.get("id"),
        created=event.get("created"),
        model=event.get("model"),
        choices=[StreamingChoices(index=choice.get("index", 0), delta=Delta(**delta), **named)],
    )


def __getattr__(name: str) -> Any:
    """`racer`, a provider for the configuration of litellm's proxy."""
    if name == "racer":
        return RacerProvider()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
