"""Reads the configuration: TOML or YAML, references replaced, every fault with its path."""

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec

from racer_jax._files import address_problem
from racer_jax.core.risk_levels import exact_alpha
from racer_jax.data.errors import DataError
from racer_jax.racer.signatures import public_bytes
from racer_jax.sequential.normal_forms import UnknownFormError, forms_by_group
from racer_jax.serving.gateway._addresses import checked_url, is_loopback
from racer_jax.serving.gateway._faults import in_words
from racer_jax.serving.gateway._secrets import Secret, expanded, is_reference
from racer_jax.serving.gateway._views import check_view
from racer_jax.serving.gateway.settings import Settings

_SECRETS = frozenset({"api_key", "hash_key"})
# Tables whose names are the user's own: a model may be named as a field is.
_NAMED = frozenset({"$.models", "$.routes", "$.keys", "$.experiments"})
_TOO_DEEP = "must not be nested so deeply, or hold itself"


class _FaultError(ValueError):
    """A value that is not what it should be, with its path such as `$.models.small.base_url`."""


def load_settings(path: str | Path) -> Settings:
    """Reads a configuration.

    Use this when a gateway is described by a file, as `racer-jax serve` does.

    Args:
      path: A file of TOML (`.toml`) or YAML (`.yaml`, `.yml`).

    Returns:
      The settings; relative paths of the file are replaced by those from its folder.

    Raises:
      DataError: If it cannot be read, a field is unknown or out of range, a reference cannot be
        resolved, or two fields contradict each other.
    """
    path = Path(path)
    try:
        return settings_from(_plain(path), path.parent)
    except _FaultError as error:
        raise DataError(str(error), path=path) from None


def settings_from(plain: Any, folder: Path = Path()) -> Settings:
    """Settings of plain values, such as those of a file.

    Use this when the configuration is made by a program.

    Args:
      plain: Dictionaries, lists, texts and numbers.
      folder: What paths are relative to.

    Raises:
      ValueError: If they are not settings; the message holds the path of the fault.
    """
    try:
        resolved = _resolved(plain, "$", None, folder)
    except RecursionError:  # an alias of YAML may hold itself
        raise _FaultError(_TOO_DEEP) from None
    try:
        settings = _converted(resolved)
    except msgspec.ValidationError as error:
        raise _FaultError(in_words(error, plain, resolved, _converted)) from None
    for problem in _contradictions(settings):
        raise _FaultError(problem)
    return _placed(settings, folder)


def _converted(resolved: Any) -> Settings:
    """The settings of plain values without references."""
    return msgspec.convert(resolved, Settings, dec_hook=_secret)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the configuration. Use this when an editor shall check one."""
    schema = msgspec.json.schema(
        Settings, schema_hook=lambda _: {"type": "string", "pattern": r"^\$\{.*\}$"}
    )
    plain = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return cast(dict[str, Any], msgspec.json.decode(msgspec.json.encode(plain)))


def _plain(path: Path) -> Any:
    """What a file holds."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except OSError as error:
        problem = address_problem(path) or f"cannot be read: {error.strerror or error}"
        raise _FaultError(problem) from None
    except UnicodeDecodeError:
        raise _FaultError("must be TOML or YAML in UTF-8") from None
    if path.suffix == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise _FaultError(f"must be TOML: {error}") from None
        except RecursionError:
            raise _FaultError(_TOO_DEEP) from None
    if path.suffix not in (".yaml", ".yml"):
        raise _FaultError("must be a file whose name ends with .toml, .yaml or .yml")
    from racer_jax.serving.gateway._yaml import plain_yaml

    try:
        return plain_yaml(text)
    except ValueError as error:
        raise _FaultError(f"must be YAML: {error}") from None
    except RecursionError:
        raise _FaultError(_TOO_DEEP) from None


def _resolved(value: Any, path: str, name: str | None, folder: Path) -> Any:
    """The value with references replaced; secrets must be references."""
    if name in _SECRETS and value is not None and path.rpartition(".")[0] not in _NAMED:
        return _secret_at(value, path, folder)
    if isinstance(value, dict):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise _FaultError(
                f"must have names that are text, got {odd[0]!r:.60}: put it in quotes - at `{path}`"
            )
        return {k: _resolved(item, f"{path}.{k}", k, folder) for k, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, f"{path}[{i}]", None, folder) for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    try:
        return expanded(value, folder)
    except ValueError as error:
        raise _FaultError(f"{error} - at `{path}`") from None


def _secret_at(value: Any, path: str, folder: Path) -> str:
    """What the reference to a secret stands for; no message shows it, or what is in its place."""
    if not isinstance(value, str) or not is_reference(value):
        raise _FaultError(
            "must be a reference, ${VAR} or ${file:PATH}: a secret does not belong into the "
            f"configuration itself - at `{path}`"
        )
    try:
        secret = expanded(value, folder).strip()
    except ValueError as error:
        raise _FaultError(f"{error} - at `{path}`") from None
    if not secret or not secret.isprintable():
        raise _FaultError(
            f"must stand for one line of text, {value} is empty or holds other characters - at "
            f"`{path}`"
        )
    return secret


def _secret(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise msgspec.ValidationError("Expected `str`")


def _contradictions(settings: Settings) -> Iterator[str]:
    """What two fields say together that cannot be."""
    for name, model in settings.models.items():
        for i, place in enumerate((model, *model.also)):
            where = f"$.models.{name}" + (f".also[{i - 1}]" if i else "")
            try:
                checked_url(place.base_url, place.insecure)
            except ValueError as error:
                yield f"{error} - at `{where}.base_url`"
        if (model.dollars_in is None) != (model.dollars_out is None):
            yield f"needs both of dollars_in and dollars_out, or none - at `$.models.{name}`"
        if model.hedge and not model.also:
            yield f"needs another place, also, where hedge = true - at `$.models.{name}`"
    for name, route in settings.routes.items():
        yield from _route_contradictions(f"$.routes.{name}", settings, route)
    for name, experiment in settings.experiments.items():
        if name in settings.routes:
            yield f"must not be the name of a route - at `$.experiments.{name}`"
        if unknown := [arm for arm in experiment.arms if arm not in settings.routes]:
            yield f"must be routes, got {', '.join(unknown)} - at `$.experiments.{name}.arms`"
    audit = settings.audit
    if audit.labeller == "judge" and audit.judge not in settings.models:
        yield f"must be one of the models {sorted(settings.models)} - at `$.audit.judge`"
    if audit.labeller == "hook" and audit.hook is None:
        yield "must be an address where labeller is 'hook' - at `$.audit.hook`"
    for where, url in (("audit.hook", audit.hook), ("monitors.webhook", settings.monitors.webhook)):
        try:
            checked_url(url or "http://127.0.0.1", insecure=False)
        except ValueError as error:
            yield f"{error} - at `$.{where}`"
    for i, trusted in enumerate(settings.trusted_keys):
        try:
            public_bytes(trusted)
        except ValueError as error:
            yield f"{error} - at `$.trusted_keys[{i}]`"
    for name, key in settings.keys.items():
        yield from _levels(f"$.keys.{name}.alphas", key.alphas or ())
    prefixes = [key.prefix for key in settings.keys.values()]
    if len(set(prefixes)) < len(prefixes):
        yield "must have prefixes that are all different - at `$.keys`"
    server = settings.server
    if not settings.keys and not is_loopback(server.host):
        yield "must be 127.0.0.1, or there must be keys - at `$.server.host`"
    admins = any("admin" in key.roles for key in settings.keys.values())
    if not admins and not is_loopback(server.admin_host):
        yield "must be 127.0.0.1, or a key must have the role admin - at `$.server.admin_host`"


def _route_contradictions(where: str, settings: Settings, route: Any) -> Iterator[str]:
    for field in ("judge", "fallback", "shadow"):
        if getattr(route, field) not in (None, *settings.models):
            yield f"must be one of the models {sorted(settings.models)} - at `{where}.{field}`"
    if route.mode in ("select", "synthesize") and route.judge is None:
        yield f"must be a model where mode is {route.mode!r} - at `{where}.judge`"
    try:
        check_view(route.view)
    except ValueError as error:
        yield f"{error} - at `{where}.view`"
    if problem := address_problem(route.artefact):
        yield f"{problem} - at `{where}.artefact`"
    yield from _levels(f"{where}.alphas", route.alphas)
    verifier = route.verifier
    if verifier is not None:
        if (verifier.url is None) == (not verifier.command):
            yield f"must have one of url and command - at `{where}.verifier`"
        try:
            checked_url(verifier.url or "http://127.0.0.1", insecure=False)
        except ValueError as error:
            yield f"{error} - at `{where}.verifier.url`"
    if route.form is not None:
        try:
            forms_by_group(route.form)
        except UnknownFormError as error:
            yield f"{error} - at `{where}.form`"


def _levels(where: str, alphas: Iterable[str]) -> Iterator[str]:
    """What is wrong with levels alpha."""
    for i, alpha in enumerate(alphas):
        try:
            exact_alpha(alpha)
        except ValueError as error:
            yield f"{error} - at `{where}[{i}]`"


def _placed(settings: Settings, folder: Path) -> Settings:
    """The settings with paths that do not depend on where the process runs."""
    routes = {
        name: msgspec.structs.replace(route, artefact=str(folder / route.artefact))
        for name, route in settings.routes.items()
    }
    state = settings.state
    if "://" not in state.path:
        state = msgspec.structs.replace(state, path=str(folder / state.path))
    return msgspec.structs.replace(settings, routes=routes, state=state)
