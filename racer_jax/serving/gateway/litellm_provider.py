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

    _Base: Any = litellm.CustomLLM
except ModuleNotFoundError:
    litellm, _Base = None, object

_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens")
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
            response = client.post(url, headers=headers, data=body)
        return self._answer(options, response)

    async def acompletion(self, *args: Any, **options: Any) -> Any:
        """An answer. Use this when litellm calls it: nobody else does."""
        url, headers, body = self._request(options, stream=False)
        with _errors():
            client = options.get("client") or AsyncHTTPHandler()
            response = await client.post(url, headers=headers, data=body)
        return self._answer(options, response)

    def streaming(self, *args: Any, **options: Any) -> Iterator[dict[str, Any]]:
        """The pieces of an answer. Use this when litellm calls it: nobody else does."""
        url, headers, body = self._request(options, stream=True)
        with _errors():
            client = options.get("client") or HTTPHandler()
            response = client.post(url, headers=headers, data=body, stream=True)
            for line in response.iter_lines():
                if (chunk := _chunk(line)) is not None:
                    yield chunk

    async def astreaming(self, *args: Any, **options: Any) -> AsyncIterator[dict[str, Any]]:
        """The pieces of an answer. Use this when litellm calls it: nobody else does."""
        url, headers, body = self._request(options, stream=True)
        with _errors():
            client = options.get("client") or AsyncHTTPHandler()
            response = await client.post(url, headers=headers, data=body, stream=True)
            async for line in response.aiter_lines():
                if (chunk := _chunk(line)) is not None:
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
        headers = {"content-type": "application/json"}
        key = options.get("api_key") or os.environ.get("RACER_API_KEY")
        if key:
            headers["authorization"] = f"Bearer {key}"
        base = (options.get("api_base") or self._base).rstrip("/")
        return f"{base}/chat/completions", headers, msgspec.json.encode(body).decode()

    def _answer(self, options: dict[str, Any], response: Any) -> Any:
        plain = msgspec.json.decode(response.content)
        answer = litellm.ModelResponse(**{k: v for k, v in plain.items() if k != "racer"})
        answer.racer = plain["racer"]
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


def _chunk(line: str) -> dict[str, Any] | None:
    """What a line of a stream says; None for a comment or an end.

    Raises:
      CustomLLMError: If it is an error.
    """
    if not line.startswith("data: {"):
        return None
    event = msgspec.json.decode(line[6:])
    if "error" in event:
        raise CustomLLMError(502, event["error"]["message"])
    usage = event.get("usage")
    choice = event["choices"][0] if event["choices"] else {"delta": {}}
    calls = choice["delta"].get("tool_calls") or [None]
    tokens = facts = None
    if usage is not None:
        tokens = {name: usage[name] for name in _USAGE if name in usage}
    if "racer" in event:
        facts = {"racer": event["racer"]}
    return {
        "text": choice["delta"].get("content") or "",
        "tool_use": calls[0],
        "is_finished": choice.get("finish_reason") is not None,
        "finish_reason": choice.get("finish_reason") or "",
        "usage": tokens,
        "index": 0,
        "provider_specific_fields": facts,
    }


def __getattr__(name: str) -> Any:
    """`racer`, a provider for the configuration of litellm's proxy."""
    if name == "racer":
        return RacerProvider()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
