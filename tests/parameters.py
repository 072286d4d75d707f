"""Parameters of which the tests that run by default take a few."""

from collections.abc import Iterable
from typing import Any

import pytest


def few_by_default(values: Iterable[Any], num: int = 2) -> list[Any]:
    """The values as parameters; those after the first `num` are tests that take long."""
    values = list(values)
    rest = [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.long)
        for value in values[num:]
    ]
    return [*values[:num], *rest]
