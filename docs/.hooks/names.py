"""Names as the reference shows them: whoever meets one can look it up.

A class that is named has an entry (`BESIDE` of `api.py`). An alias of a type, and a constant that
is a default, stand for something: that is shown in their place.

A NamedTuple and a Struct get the constructor that their fields make, as dataclasses have.
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import griffe

_FIELDS_MAKE_IT = ("NamedTuple", "Struct")


def _api() -> Any:
    """The hook that makes the pages, which is no package."""
    spec = importlib.util.spec_from_file_location("_api", Path(__file__).parent / "api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def has_entry(path: str, entries: frozenset[str]) -> bool:
    """Whether the reference can be asked for a name: another package's is there for its readers."""
    return not path.startswith("racer_jax.") or path in entries


def changed(expression: Any, change: Callable[[griffe.Expr], Any]) -> Any:
    """An expression with each of its parts as `change` gives it, the innermost first."""
    if isinstance(expression, (list, tuple)):
        return type(expression)(changed(part, change) for part in expression)
    if not isinstance(expression, griffe.Expr):
        return expression
    if not isinstance(expression, (griffe.ExprName, griffe.ExprAttribute)):
        parts = {
            field.name: changed(getattr(expression, field.name), change)
            for field in dataclasses.fields(expression)
            if field.name not in ("parent", "function")
        }
        expression = dataclasses.replace(expression, **parts)
    return change(expression)


def is_type_variable(value: Any) -> bool:
    """Whether a value is `TypeVar(...)`, which stands for any type."""
    return isinstance(value, griffe.ExprCall) and str(value.function) == "TypeVar"


def without_bounds(expression: griffe.Expr) -> Any:
    """A type without the bounds that `Annotated` joins to it; the words of an option stay."""
    if isinstance(expression, griffe.ExprSubscript) and str(expression.left) == "Annotated":
        kind, *notes = expression.slice.elements
        if not any(isinstance(note, str) for note in notes):
            return kind
    return expression


def everything(obj: griffe.Module | griffe.Class) -> Iterator[griffe.Object]:
    """What a package defines, that of its modules and classes included."""
    for member in obj.members.values():
        if not member.is_alias:
            yield member
            if isinstance(member, (griffe.Module, griffe.Class)):
                yield from everything(member)


def _fields(cls: griffe.Class) -> Iterator[griffe.Attribute]:
    for attribute in cls.attributes.values():
        if attribute.annotation is not None and "property" not in attribute.labels:
            yield attribute


def _default(value: Any) -> Any:
    """The default of a field: what its `default_factory` makes, where it has one."""
    if isinstance(value, griffe.ExprCall) and str(value.function) == "field":
        [factory] = value.arguments
        return griffe.ExprCall(function=factory.value, arguments=[])
    return value


def add_constructor(cls: griffe.Class) -> None:
    """Gives a NamedTuple or a Struct the constructor that its fields make."""
    family = [*reversed(cls.mro()), cls]
    bases = {str(base) for member in family for base in member.bases}
    if bases.isdisjoint(_FIELDS_MAKE_IT) or "__init__" in cls.members:
        return
    only_keywords = any("kw_only" in member.keywords for member in family)
    kind = (
        griffe.ParameterKind.keyword_only
        if only_keywords
        else griffe.ParameterKind.positional_or_keyword
    )
    fields = {field.name: field for member in family for field in _fields(member)}
    parameters = [
        griffe.Parameter(
            name, annotation=field.annotation, kind=kind, default=_default(field.value)
        )
        for name, field in fields.items()
    ]
    # What must be given comes first, as where it is called.
    parameters.sort(key=lambda parameter: parameter.default is not None)
    own = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
    init = griffe.Function("__init__", parameters=griffe.Parameters(own, *parameters))
    init.returns = "None"
    cls.set_member("__init__", init)


class KnownNames(griffe.Extension):
    """Leaves no name in the reference that a reader cannot look up."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrites annotations and defaults of a package."""
        api = _api()
        entries = api.entries()

        def meant(expression: griffe.Expr) -> Any:
            """What a name without an entry stands for; the expression itself where it is none."""
            if not isinstance(expression, griffe.ExprName):
                return without_bounds(expression)
            path = expression.canonical_path
            if has_entry(path, entries):
                return expression
            obj = pkg.modules_collection.get_member(path)
            value = obj.value if obj.is_attribute else None
            return expression if value is None or is_type_variable(value) else changed(value, meant)

        classes = [obj for obj in everything(pkg) if isinstance(obj, griffe.Class)]
        for cls in classes:
            add_constructor(cls)
        for obj in everything(pkg):
            if isinstance(obj, griffe.Attribute):
                obj.annotation = changed(obj.annotation, meant)
            if isinstance(obj, griffe.Function):
                obj.returns = changed(obj.returns, meant)
                for parameter in obj.parameters:
                    parameter.annotation = changed(parameter.annotation, meant)
                    parameter.default = changed(parameter.default, meant)
