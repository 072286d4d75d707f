"""A client of an OpenAI-compatible endpoint."""

from dataclasses import dataclass
from typing import Any


class EndpointError(RuntimeError):
    """The endpoint gave no usable reply; the message says for which query, and what to do."""


@dataclass(frozen=True)
class Endpoint:
    """An endpoint that speaks the OpenAI protocol, and the evaluator model behind it.

    Attributes:
      model: Name of the evaluator, as the endpoint knows it.
      base_url: Where it is, such as `http://127.0.0.1:8000/v1`; that of OpenAI when None.
      api_key: The key; the environment variable OPENAI_API_KEY when None. A local server needs
        none.
      timeout: Seconds until a request is given up.
      max_retries: How often a request that timed out, was refused for its rate (429) or failed on
        the server (5xx) is sent again, after growing pauses or the pause that the server asks for.
      num_workers: Requests under way at once.

    Raises:
      ValueError: If a number is out of range.
    """

    model: str
    base_url: str | None = None
    api_key: str | None = None
    timeout: float = 60.0
    max_retries: int = 4
    num_workers: int = 8

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise ValueError(f"timeout must be positive, in seconds, got {self.timeout}")
        if self.max_retries < 0:
            raise ValueError(f"max_retries must be at least 0, got {self.max_retries}")
        if self.num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {self.num_workers}")

    def client(self) -> Any:
        """A client of the endpoint; close it after use.

        Raises:
          ModuleNotFoundError: If the `openai` package is not installed.
          EndpointError: If no key is to be found for OpenAI itself.
        """
        try:
            import openai
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "asking an endpoint needs the openai client: pip install 'racer-jax[endpoint]'"
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
            )
        except openai.OpenAIError as error:
            raise EndpointError(f"the endpoint cannot be used: {error}") from None
