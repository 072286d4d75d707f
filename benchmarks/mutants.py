"""The mutants of a module: one operator, number, condition or check changed at a time.

Used by `benchmarks/mutation.py`. What changes nothing that a result shows is left out: docstrings,
texts of errors, annotations, decorators, `if TYPE_CHECKING`.
"""

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_PAIRS = (
    ("minimum", "maximum"),
    ("min", "max"),
    ("any", "all"),
    ("floor", "ceil"),
    ("argmin", "argmax"),
    ("left", "right"),
    ("nanmin", "nanmax"),
    ("cumsum", "cumprod"),
    ("logical_and", "logical_or"),
)
NAMES = dict(_PAIRS) | {second: first for first, second in _PAIRS}


@dataclass(frozen=True)
class Mutant:
    """A change that can be made to the tree it was read from.

    Attributes:
      module: Path of the module, relative to the repository.
      function: Function or class it is in; empty at the level of the module.
      lines: First and last line of the statement.
      what: The statement, or its head, before and after.
      parent: Node whose field is replaced.
      field: Its name.
      index: Place in the field where that is a list.
      node: What it is replaced by.
    """

    module: str
    function: str
    lines: tuple[int, int]
    what: str
    parent: ast.AST
    field: str
    index: int | None
    node: ast.AST

    @property
    def key(self) -> str:
        """What names it as long as the statement stays as it is."""
        return f"{self.module}::{self.function}: {self.what}"

    def apply(self) -> None:
        """Changes the tree."""
        _put(self.parent, self.field, self.index, self.node)


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Each way to change one expression."""
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            if type(operator) in COMPARISONS:
                other = copy.deepcopy(node)
                other.ops[i] = COMPARISONS[type(operator)]()
                yield other
    elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OPERATORS:
        other = copy.deepcopy(node)
        other.op = OPERATORS[type(node.op)]()
        yield other
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _changed_constants(node.value)
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        other = copy.copy(node)
        other.attr = NAMES[node.attr]
        yield other
    elif isinstance(node, ast.Name) and node.id in NAMES and isinstance(node.ctx, ast.Load):
        yield ast.Name(NAMES[node.id], ast.Load())


def _changed_constants(value: object) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield from (ast.Constant(value + 1), ast.Constant(value - 1))
    elif isinstance(value, str) and value in NAMES:
        yield ast.Constant(NAMES[value])


def _changed_statements(node: ast.AST) -> Iterator[ast.AST]:
    """Each way to change a statement as such: a check left out, a loop left early or late."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.Continue):
        yield ast.Break()
    elif isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        other = copy.copy(node)
        other.op = OPERATORS[type(node.op)]()
        yield other


def _is_skipped(node: ast.AST) -> bool:
    """Errors, texts and imports."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("Error", "warn")):
        return True
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


_SKIPPED_FIELDS = ("returns", "annotation", "decorator_list", "type_params", "msg")


def mutants(module: str, tree: ast.Module) -> list[Mutant]:
    """All mutants of a module, each named apart from the others."""
    listed: list[Mutant] = []

    def visit(parent: ast.AST, function: str, head: ast.AST) -> None:
        for field, value in ast.iter_fields(parent):
            if field in _SKIPPED_FIELDS or not isinstance(value, ast.AST | list):
                continue
            for i, node in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(node, ast.AST) or _is_skipped(node):
                    continue
                index = i if isinstance(value, list) else None
                inner = _head(parent, field, node, head)
                place = (parent, field, index)
                listed.extend(
                    _mutant(module, function, inner, place, other)
                    for other in (*_changes(node), *_changed_statements(node))
                )
                visit(node, _name(function, node), inner)

    visit(tree, "", tree)
    return _numbered(listed)


def _head(parent: ast.AST, field: str, node: ast.AST, head: ast.AST) -> ast.AST:
    """What a mutant is shown as: a plain statement, or an expression in the head of a block."""
    if isinstance(node, ast.stmt) and not hasattr(node, "body"):
        return node
    is_block = isinstance(parent, ast.stmt) and hasattr(parent, "body")
    if is_block and field not in ("body", "orelse", "finalbody"):
        return node
    return head


def _name(function: str, node: ast.AST) -> str:
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return f"{function}.{node.name}".lstrip(".")
    return function


def _mutant(
    module: str,
    function: str,
    head: ast.AST,
    place: tuple[ast.AST, str, int | None],
    other: ast.AST,
) -> Mutant:
    parent, field, index = place
    before = getattr(parent, field) if index is None else getattr(parent, field)[index]
    ast.copy_location(other, before)
    if head is before:  # the whole of what is shown
        texts = [ast.unparse(before), ast.unparse(other)]
    else:
        texts = [ast.unparse(head)]
        _put(parent, field, index, other)
        texts.append(ast.unparse(head))
        _put(parent, field, index, before)
    lines = (getattr(head, "lineno", 1), getattr(head, "end_lineno", 1))
    return Mutant(module, function, lines, " -> ".join(texts), parent, field, index, other)


def _numbered(listed: list[Mutant]) -> list[Mutant]:
    """The same, with a number where two would read alike."""
    seen: Counter[str] = Counter()
    numbered = []
    for mutant in listed:
        seen[mutant.key] += 1
        if seen[mutant.key] > 1:
            fields = {**vars(mutant), "what": f"{mutant.what}  ({seen[mutant.key]})"}
            mutant = Mutant(**fields)
        numbered.append(mutant)
    return numbered
