"""Names that can be typed, without the modules that give them a meaning.

Those import JAX, which takes a second, and whoever reads a help does not wait for it. A registry
that is loaded already, since a program registered a router of its own before it called `main`, is
asked.
"""

import sys

FORMATS = (
    "lm_eval",
    "inspect",
    "every_eval_ever",
    "promptfoo",
    "helm",
    "routerdc",
    "routerbench",
    "routellm",
    "llmrouter",
    "routereval",
    "llmrouterbench",
    "embedllm",
    "routerarena",
    "long_csv",
    "wide_csv",
    "parquet",
    "score_matrix",
    "table",
)
CORPORA = ("routerdc", "routerbench")
BASE_URL = "https://raw.githubusercontent.com/shuhao02/RouterDC"
NONCONFORMITY = "J_learned"
PRICED = ("static", "J")  # orders that can depend on what the models cost
NULL_MODES = ("paper", "free", "never")


def routers() -> tuple[str, ...]:
    """Routers that go by a name. Use this when a command line names a router."""
    return _registered("racer_jax.routers.registry", "ROUTERS", ("mlp", "knn", "routerdc"))


def encoders() -> tuple[str, ...]:
    """Encoders that go by a name. Use this when a command line names an encoder."""
    return _registered("racer_jax.encoders.registry", "ENCODERS", ("hashed", "minilm", "both"))


def nonconformities() -> tuple[str, ...]:
    """Nonconformity scores that go by a name.

    Use this when a command line names a nonconformity score.
    """
    known = ("inverse_probability", "gap")
    return _registered("racer_jax.core.nonconformity", "NONCONFORMITIES", known)


def orders() -> tuple[str, ...]:
    """Orders of the models that go by a name. Use this when a command line names an order."""
    return _registered("racer_jax.orders.model_orders", "ORDERS", ("static", "J", "J_learned"))


def _registered(module: str, registry: str, built_in: tuple[str, ...]) -> tuple[str, ...]:
    """What a registry holds where its module is loaded; else what it holds at first."""
    loaded = sys.modules.get(module)
    return built_in if loaded is None else tuple(getattr(loaded, registry, built_in))
