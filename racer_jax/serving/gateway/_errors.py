"""What can go wrong with one request or one call, as types with the words that a client reads."""

from collections.abc import Mapping
from typing import Any

import msgspec

from racer_jax.serving.gateway._replies import Usage

GONE = 499  # the status that is recorded where the client went away before the answer


class GatewayError(Exception):
    """A request that gets no answer; it becomes an error of the OpenAI protocol.

    Use this when a request is refused: the client reads `type` and `code`, not the message.

    Attributes:
      status: The status of HTTP.
      type: What kind of error it is, such as `racer_abstained`.
      message: What was wrong and what would be right.
      code: A finer name; that of `type` where there is none.
      param: The field of the request that is at fault, or None.
      headers: Further headers of the response.
      facts: The `racer` object that goes with the error; empty where nothing was decided.
    """

    status: int
    type: str
    message: str
    code: str
    param: str | None
    headers: dict[str, str]
    facts: dict[str, Any]

    def __init__(
        self,
        status: int,
        type: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.type, self.message = status, type, message
        self.code, self.param = code or type, param
        self.headers, self.facts = dict(headers or {}), {}

    def to_dict(self) -> dict[str, Any]:
        """The body of the response."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        body: dict[str, Any] = {"error": error}
        if self.facts:
            body["racer"] = self.facts
        return body

    def to_json(self) -> bytes:
        """The body of the response as bytes."""
        return msgspec.json.encode(self.to_dict())


def bad_request(message: str, param: str | None = None) -> GatewayError:
    """A request that is not of the protocol."""
    return GatewayError(400, "invalid_request_error", message, param=param)


def busy(draining: bool) -> GatewayError:
    """Too many requests at once, or a server that is about to end."""
    what = "is shutting down" if draining else "has too many requests under way"
    return GatewayError(
        503, "server_error", f"the gateway {what}", code="busy", headers={"retry-after": "1"}
    )


def unwritten(words: str) -> GatewayError:
    """A state that takes nothing now."""
    return GatewayError(503, "server_error", words, code="state", headers={"retry-after": "5"})


class CallFailedError(Exception):
    """A call of an upstream that brought no answer, after its retries.

    Use this when you read `Panel.failed`.

    Attributes:
      kind: `connect`, `timeout`, `rate`, `status`, `refused`, `reply`, `size` or `open` (its
        breaker is open). `refused` is an upstream that finds the request itself at fault.
      status: The upstream's status, where it gave one.
      retry_after: Seconds it asks to wait, where it asks.
      detail: The words of an upstream that refused; empty otherwise.
      usage: What a stream that ended badly said that it took.
    """

    kind: str
    status: int | None
    retry_after: float | None
    detail: str
    usage: Usage

    def __init__(
        self,
        kind: str,
        status: int | None = None,
        retry_after: float | None = None,
        detail: str = "",
        usage: Usage | None = None,
    ) -> None:
        super().__init__(kind)
        self.usage = usage or Usage()
        self.kind, self.status, self.retry_after, self.detail = kind, status, retry_after, detail

    @property
    def reason(self) -> str:
        """One word for the `racer` object and the metrics."""
        return self.kind if self.status is None else f"{self.kind}_{self.status}"
