"""The gateway: an OpenAI-compatible server that decides, calls, merges, and tests its own promise.

Needs the extra `serve`. May use: `core`, `data`, `racer`, `sequential`, `serving`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.serving.gateway._errors import GatewayError
    from racer_jax.serving.gateway.app import inference_app, management_app
    from racer_jax.serving.gateway.configuration import json_schema, load_settings, settings_from
    from racer_jax.serving.gateway.core import Gateway
    from racer_jax.serving.gateway.settings import Settings

_HOMES = {
    "_errors": ("GatewayError",),
    "app": ("inference_app", "management_app"),
    "configuration": ("json_schema", "load_settings", "settings_from"),
    "core": ("Gateway",),
    "settings": ("Settings",),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "Gateway",
    "GatewayError",
    "Settings",
    "inference_app",
    "json_schema",
    "load_settings",
    "management_app",
    "settings_from",
]
