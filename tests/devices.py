"""Processes that see several devices on one CPU."""

import os


def devices(count: int) -> dict[str, str]:
    """The environment of a process that sees so many devices; other flags of XLA stay."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return {**os.environ, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
