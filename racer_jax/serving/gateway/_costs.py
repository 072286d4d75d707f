"""What the calls of a request may be expected to cost, before any is made."""

from collections.abc import Mapping
from typing import Any

from racer_jax.data.errors import DataError
from racer_jax.serving.gateway._loaded import Loaded
from racer_jax.serving.gateway._queries import Query
from racer_jax.serving.gateway.settings import Model, Route

# Bytes of a prompt, as JSON, that make a token: about so in English, fewer elsewhere.
_BYTES_OF_A_TOKEN = 4
_LIMITS = ("max_completion_tokens", "max_tokens")


def expected_costs(
    loaded: Loaded, models: Mapping[str, Model], query: Query
) -> dict[str, float | None]:
    """Dollars that one answer of each model may be expected to cost; None where nothing says it.

    The artefact knows what an answer cost on average. A prompt costs by its length beside that: by
    the price of the model, where the configuration has it. Without a cost in the artefact the
    answer counts as long as the request allows.

    Args:
      loaded: The artefact.
      models: The settings of the models.
      query: The request.
    """
    known = costs_of(loaded)
    tokens = len(bytes(query.fields.get("messages", b""))) / _BYTES_OF_A_TOKEN
    longest = _longest_answer(query)
    costs: dict[str, float | None] = {}
    for name in loaded.models:
        model = models[name]
        prompt = 0.0 if model.dollars_in is None else tokens * model.dollars_in / 1e6
        answer = known.get(name)
        if answer is None and model.dollars_out is not None and longest is not None:
            answer = longest * model.dollars_out / 1e6
        costs[name] = None if answer is None else prompt + answer
    return costs


def costs_of(loaded: Loaded) -> dict[str, float]:
    """Dollars that an answer of each model cost on average, by the artefact; empty without any."""
    racers: tuple[Any, ...] = tuple(loaded.racers.values())
    if not racers or racers[0].cost is None:
        return {}
    return dict(zip(loaded.models, racers[0].cost.tolist(), strict=True))


def check_costs(loaded: Loaded, route: Route, models: Mapping[str, Model]) -> None:
    """Refuses a limit of dollars for models whose cost nothing says.

    Raises:
      DataError: If the route has one, and there is such a model.
    """
    known = costs_of(loaded)
    unknown = [
        name for name in loaded.models if name not in known and models[name].dollars_out is None
    ]
    if route.max_cost is not None and unknown:
        raise DataError(
            f"has no costs, and the configuration no dollars_in and dollars_out for "
            f"{', '.join(unknown)}: max_cost = {route.max_cost:g} could not be kept",
            path=loaded.path,
        )


def _longest_answer(query: Query) -> int | None:
    """Tokens that an answer may have, where the request says it."""
    for name in _LIMITS:
        limit = query.value(name)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            return limit
    return None
