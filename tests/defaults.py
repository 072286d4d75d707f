"""The options of a function that a caller need not name, and what they are then."""

import inspect


def defaults(function):
    """Name -> default, of those that have one and are no function."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty and not callable(parameter.default)
    }
