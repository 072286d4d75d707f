"""Models of a pool by name. Nothing here imports JAX: a command refuses a wrong name before."""

from collections.abc import Sequence
from difflib import get_close_matches


def places_without(pool: Sequence[str], models: Sequence[str]) -> list[int]:
    """Places of the models of a pool that are left without some of them.

    Use this when models are taken out of a pool.

    Args:
      pool: All models, in their order.
      models: Those to leave out.

    Raises:
      ValueError: If none is named, one is not in the pool, or none would be left.

    >>> places_without(("a", "b", "c"), ["b"])
    [0, 2]
    """
    if not models:
        raise ValueError("without must name at least one model, got none")
    for model in models:
        if model not in pool:
            close = get_close_matches(str(model), pool, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(pool)}"
            raise ValueError(f"{model!r} is not a model of the pool: {hint}")
    places = [place for place, name in enumerate(pool) if name not in models]
    if not places:
        raise ValueError("without must leave at least one model, got all of the pool")
    return places
