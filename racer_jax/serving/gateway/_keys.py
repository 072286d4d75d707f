"""Keys of clients: made at random, kept as hashes, compared in constant time."""

import hashlib
import hmac
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass

from racer_jax.serving.gateway._errors import GatewayError
from racer_jax.serving.gateway._limits import Limits
from racer_jax.serving.gateway.settings import Key

_LETTERS = string.ascii_letters + string.digits
_NOBODY = "0" * 64
# Who asks where there are no keys: somebody on this machine, who may do everything.
LOCAL = Key(
    prefix=_NOBODY[:8],
    sha256=_NOBODY,
    roles=("infer", "feedback", "feedback:audit", "admin"),
    overrides=(
        "alpha", "group", "mode", "max_models", "max_cost", "deadline_ms", "on_abstain", "verbose",
        "session",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Client:
    """Who sent a request.

    Attributes:
      name: The key's name in the configuration; empty where there are no keys.
      key: What it may do.
    """

    name: str
    key: Key


def new_key() -> tuple[str, str, str]:
    """A new key of 256 bits: the key itself, its public prefix, and its hash."""
    prefix = "".join(secrets.choice(_LETTERS) for _ in range(8))
    key = f"racer_{prefix}_{secrets.token_urlsafe(32)}"
    return key, prefix, hashlib.sha256(key.encode()).hexdigest()


class KeyRing:
    """The keys that are known.

    Args:
      keys: Key by name.
    """

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self._clients = {key.prefix: Client(name, key) for name, key in keys.items()}
        self._limits = Limits(keys)

    def client(self, authorization: str, role: str) -> Client:
        """Who sends a request with this header `authorization`.

        Args:
          authorization: `Bearer KEY`.
          role: What the request needs.

        Raises:
          GatewayError: If the key is not known (401), may not do this (403), or has sent too many
            requests (429).
        """
        if not self._clients:
            return Client("", LOCAL)
        scheme, _, key = authorization.partition(" ")
        key = key.strip()
        parts = key.split("_", 2)
        known = self._clients.get(parts[1]) if len(parts) == 3 else None
        expected = _NOBODY if known is None else known.key.sha256
        # Compared even where the prefix is not known, so that time tells nothing.
        right = hmac.compare_digest(hashlib.sha256(key.encode()).hexdigest(), expected)
        if known is None or not right or scheme.lower() != "bearer":
            raise GatewayError(
                401,
                "invalid_request_error",
                "the header authorization must be 'Bearer KEY' with a key of this server",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        if role not in known.key.roles:
            raise GatewayError(
                403, "permission_error", f"this key does not have the role {role!r}", code="role"
            )
        self._limits.take(known.name)
        return known
