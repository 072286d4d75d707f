"""A client of an OpenAI-compatible endpoint, which may be faulty or hostile.

A reply is bounded in bytes and in seconds from the request to its last byte, is not decompressed,
and its redirects are not followed. An error quotes neither the key nor control characters.
"""

import sys
import threading
import time
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from racer_jax._distribution import install_command
from racer_jax.data.errors import printable

# The largest reply that is read. A verdict on one answer takes some thousand bytes.
MAX_REPLY_BYTES = 4 << 20
_LONGEST_MESSAGE = 300
_SHORTEST_SECRET = 6


class EndpointError(RuntimeError):
    """The endpoint gave no usable reply; the message says for which query, and what to do.

    Use this when you catch an endpoint that fails.
    """


@dataclass(frozen=True)
class Endpoint:
    """An endpoint with the OpenAI protocol, and the evaluator model behind it.

    Use this when `elicit` shall ask a model for confidences: the endpoint says which model to ask,
    at which address, and how long to wait.

    Attributes:
      model: Name of the evaluator, at the endpoint.
      base_url: Where it is, such as `http://127.0.0.1:8000/v1`; that of OpenAI when None.
      api_key: The key; the environment variable OPENAI_API_KEY when None. A local server needs
        none. It is in no `repr` and no error.
      timeout: Seconds until a request is given up, however much of the reply has come.
      max_retries: How often a request that timed out, was refused for its rate (429) or failed on
        the server (5xx) is sent again, after growing pauses or the pause that the server asks for.
      num_workers: Requests under way at once.

    Raises:
      ValueError: If a number is out of range.
    """

    model: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    max_retries: int = 4
    num_workers: int = 8

    def __post_init__(self) -> None:
        if not (self.timeout > 0 and isfinite(self.timeout)):
            raise ValueError(f"timeout must be positive, in seconds, got {self.timeout}")
        if self.max_retries < 0:
            raise ValueError(f"max_retries must be at least 0, got {self.max_retries}")
        if self.num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {self.num_workers}")

    def client(self) -> Any:
        """A client of the endpoint; close it after use.

        Use this when you make several requests.

        Raises:
          ModuleNotFoundError: If the `openai` package is not installed.
          EndpointError: If no key is to be found for OpenAI itself.
        """
        try:
            import openai
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"asking an endpoint needs the openai client: {install_command('endpoint')}"
            ) from None
        key = self.api_key
        if key is None and self.base_url is not None:
            key = "none"  # the client insists on one, a local server does not
        try:
            return openai.OpenAI(
                api_key=key,
                base_url=self.base_url,
                timeout=self.timeout,
                max_retries=self.max_retries,
                http_client=_bounded_client(openai, self.timeout),
            )
        except openai.OpenAIError as error:
            raise EndpointError(f"the endpoint cannot be used: {error}") from None


def shown(text: object, key: str | None) -> str:
    """What an endpoint sent, fit for an error: short, without the key and control characters.

    Use this when an error quotes an endpoint.
    """
    words = str(text)
    if key is not None and len(key) >= _SHORTEST_SECRET:
        words = words.replace(key, "[key]")
    if len(words) > _LONGEST_MESSAGE:
        words = f"{words[:_LONGEST_MESSAGE]}..."
    return printable(words)


def _bounded_client(openai: Any, timeout: float) -> Any:
    """The HTTP client of the `openai` package, with bounds on the whole of a reply.

    The timeout of that client is for a single read: a server that sends a byte now and then keeps
    it waiting for ever. Here the exchange runs in a thread of its own, which is given up when time
    is up.
    """
    base = openai.DefaultHttpxClient
    http = sys.modules[base.__mro__[1].__module__.partition(".")[0]]  # httpx, or its successor

    def exchange(send: Any, request: Any, options: dict[str, Any], end: float) -> Any:
        response = send(request, **(options | {"stream": True}))
        try:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise http.DecodingError("the reply is compressed, which was not asked for")
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    raise http.ReadError(f"the reply has more than {MAX_REPLY_BYTES >> 20} MiB")
                if time.monotonic() > end:
                    raise http.ReadTimeout("the reply takes too long", request=request)
        finally:
            response.close()
        return http.Response(
            response.status_code, headers=response.headers, content=bytes(body), request=request
        )

    class Bounded(base):  # type: ignore[misc, valid-type]
        def send(self, request: Any, **options: Any) -> Any:
            request.headers["Accept-Encoding"] = "identity"
            outcome: list[Any] = []
            send = super().send

            def work() -> None:
                try:
                    outcome.append(exchange(send, request, options, time.monotonic() + timeout))
                except Exception as error:  # raised again where the reply is waited for
                    outcome.append(error)

            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join(timeout)
            if not outcome:
                raise http.ReadTimeout("the reply takes too long", request=request)
            if isinstance(outcome[0], Exception):
                raise outcome[0]
            return outcome[0]

    return Bounded(timeout=timeout, follow_redirects=False)
