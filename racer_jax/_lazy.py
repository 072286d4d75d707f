"""Names of a package that are imported when they are first asked for."""

from collections.abc import Callable, Mapping
from importlib import import_module


def attach(
    package: str, homes: Mapping[str, tuple[str, ...]], namespace: dict[str, object]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose names live in modules below it (PEP 562).

    Asking for a name imports its module and nothing beside it: who calibrates does not wait for
    Flax, and who asks for `--help` does not wait for JAX.

    Args:
      package: Name of the package, `__name__`.
      homes: Module below the package -> the names it provides.
      namespace: The package's `globals()`, where a name is kept once it was asked for.

    Returns:
      The two functions to assign to `__getattr__` and `__dir__`.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def getattribute(name: str) -> object:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home_of[name]}"), name)
        namespace[name] = value
        return value

    def names() -> list[str]:
        return sorted({*namespace, *home_of})

    return getattribute, names
