"""What a cascade cannot be asked for: it stops where its artefact says, and at no other limit."""

from racer_jax.core.risk_levels import level_name
from racer_jax.data.errors import DataError
from racer_jax.serving.gateway._errors import bad_request
from racer_jax.serving.gateway._loaded import Loaded
from racer_jax.serving.gateway._queries import Options
from racer_jax.serving.gateway.settings import Route

_WHY = "a cascade stops where its artefact says"


def check_limits(options: Options, loaded: Loaded) -> None:
    """Refuses another level, and the limits of a request that its cascade would not keep.

    Raises:
      GatewayError: If there is one.
    """
    if options.alpha is not None and not _is_level(options.alpha, loaded.alpha):
        words = f"racer.alpha must be {loaded.alpha} on this route, got {options.alpha}: {_WHY}"
        raise bad_request(words, "racer.alpha")
    most = options.max_models
    if most is not None and most < len(loaded.models):
        words = f"must be at least {len(loaded.models)} on this route, got {most}: {_WHY}"
        raise bad_request(f"racer.max_models {words}", "racer.max_models")
    if options.max_cost is not None:
        raise bad_request(f"racer.max_cost cannot be kept on this route: {_WHY}", "racer.max_cost")


def _is_level(alpha: str | float, name: str) -> bool:
    try:
        return level_name(alpha) == name
    except (TypeError, ValueError):
        return False


def check_route(loaded: Loaded, name: str, route: Route) -> None:
    """Refuses the limits of a route that its cascade would not keep.

    Raises:
      DataError: If there is one.
    """
    if loaded.cascade is None:
        return
    most = route.max_models
    limits = {
        "max_models": most is not None and most < len(loaded.models),
        "max_cost": route.max_cost is not None,
        "alphas": bool(set(route.alphas) - {loaded.alpha}),
    }
    if unkept := [limit for limit, is_set in limits.items() if is_set]:
        raise DataError(
            f"{_WHY}: remove {', '.join(unkept)} - at `$.routes.{name}`", path=loaded.path
        )
