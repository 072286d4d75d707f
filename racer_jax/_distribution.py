"""The distribution: its version, and how an optional extra is installed.

In a module of its own: code that records the version, or names an extra, needs nothing else.
"""

__version__ = "0.1.0"


def install_command(extra: str) -> str:
    """What to type so that an extra is installed; the package is installed from a clone.

    Use this when an error or a note names what is missing.

    >>> install_command("report")
    "pip install -e '.[report]' in your clone of racer_jax"
    """
    return f"pip install -e '.[{extra}]' in your clone of racer_jax"
