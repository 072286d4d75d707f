"""What the calls of a request may be expected to cost, may cost at most, and may have cost."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from racer_jax.data.errors import DataError
from racer_jax.serving.gateway._judging import LONGEST_PART, LONGEST_PICK
from racer_jax.serving.gateway._loaded import Loaded
from racer_jax.serving.gateway._queries import BESIDE_TEXT, Query
from racer_jax.serving.gateway._records import CallRow
from racer_jax.serving.gateway.settings import Model, Route, Settings

# Bytes of a prompt, as JSON, that make a token: about so in English, fewer elsewhere.
_BYTES_OF_A_TOKEN = 4
_MOST_TOKENS = 10**12
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
    longest, num = _longest_answer(query), _num_answers(query)
    costs: dict[str, float | None] = {}
    for name in loaded.models:
        model = models[name]
        prompt = 0.0 if model.dollars_in is None else tokens * model.dollars_in / 1e6
        answer = known.get(name)
        if answer is None and model.dollars_out is not None and longest is not None:
            answer = longest * model.dollars_out / 1e6
        costs[name] = None if answer is None else prompt + num * answer
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


def most_of_calls(
    query: Query,
    models: Mapping[str, Model],
    calls: Sequence[str],
    judge: str | None,
    picks: bool,
    streams: bool = False,
) -> tuple[float, bool]:
    """Dollars that calls may cost, as far as known, and whether they can cost no more.

    A text has at most as many tokens as bytes. How long an answer may be the request says, or else
    the configuration of the model; what images and sounds cost nothing says.

    Args:
      query: The request.
      models: The settings of the models.
      calls: Whom to call with the request itself.
      judge: Who is called with the answers; None without a judge.
      picks: Whether the judge answers with a number alone.
      streams: Whether the bytes of the one model are passed on: such a call is made once.
    """
    prompt = sum(map(len, query.fields.values()))
    num = _num_answers(query)
    total, is_most = 0.0, not query.needs & BESIDE_TEXT
    candidates = 0
    for name in calls:
        longest = _longest_answer(query) or models[name].longest_answer
        is_most &= longest is not None and _has_prices(models[name])
        times = 1 if streams else _num_calls(models[name])
        total += times * _price(models[name], prompt, num * (longest or 0))
        candidates += LONGEST_PART if longest is None else min(longest, LONGEST_PART)
    if judge is not None:
        longest = LONGEST_PICK if picks else _longest_answer(query) or models[judge].longest_answer
        is_most &= longest is not None and _has_prices(models[judge])
        reads = min(prompt, LONGEST_PART) + candidates + LONGEST_PART // 10  # its instructions
        total += _num_calls(models[judge]) * _price(models[judge], reads, longest or 0)
    return total, is_most


def estimated(
    query: Query,
    models: Mapping[str, Model],
    begun: Iterable[str],
    calls: Iterable[CallRow],
    answers: Mapping[str, float],
    passed: str = "",
) -> float:
    """Dollars of calls whose cost nobody said: their prompts, and what came of their answers.

    Args:
      query: The request.
      models: The settings of the models.
      begun: The models that were called, as often as they were.
      calls: What is known of the calls.
      answers: Tokens of what models wrote, about.
      passed: The model whose bytes were passed on as they came: it may have failed after them.
    """
    prompt = sum(map(len, query.fields.values())) / _BYTES_OF_A_TOKEN
    unsaid = Counter(begun)
    for row in calls:
        is_known = row.dollars is not None
        if row.outcome != "ok":
            is_known |= row.model != passed or not answers.get(row.model)
        if is_known and row.outcome != "cancelled":
            unsaid[row.model] -= 1
    prices = (
        num * _price(models[name], prompt, answers.get(name, 0.0))
        for name, num in unsaid.items()
        if num > 0
    )
    return sum(prices)


def unpriced(settings: Settings) -> Iterator[str]:
    """What to know of keys whose dollars of a day some models may never use up, in words."""
    names = [name for name, model in settings.models.items() if not _has_prices(model)]
    for client, key in settings.keys.items():
        if key.daily_dollars is not None and names:
            yield (
                f"daily_dollars of the key {client!r}: calls of {', '.join(names)} count only as "
                "far as the upstream says their cost. Give them dollars_in and dollars_out"
            )


def _has_prices(model: Model) -> bool:
    return model.dollars_in is not None and model.dollars_out is not None


def _price(model: Model, prompt: float, answer: float) -> float:
    """Dollars of tokens; 0 for a model without prices."""
    return (prompt * (model.dollars_in or 0.0) + answer * (model.dollars_out or 0.0)) / 1e6


def _num_calls(model: Model) -> int:
    """How many calls may cost where one is asked for: a slow one may be made elsewhere too."""
    return 2 if model.hedge and model.also else 1


def _num_answers(query: Query) -> int:
    """How many answers a request asks of each model."""
    num = query.value("n")
    return min(num, _MOST_TOKENS) if isinstance(num, int) and num > 1 else 1


def _longest_answer(query: Query) -> int | None:
    """Tokens that an answer may have, where the request says it."""
    limits = [query.value(name) for name in _LIMITS]
    whole = [n for n in limits if isinstance(n, int) and not isinstance(n, bool) and n > 0]
    # Some models know one of them alone; and no number may be beyond any float.
    return min(max(whole), _MOST_TOKENS) if whole else None
