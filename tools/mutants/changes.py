"""The single changes of a module: operators, numbers, flags, conditions, calls and raised errors."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq},
    **{ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In},
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
    **{ast.LShift: ast.RShift, ast.RShift: ast.LShift},
}
_NAMES = {
    **{"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"},
    **{"nanmin": "nanmax", "nanmax": "nanmin", "floor": "ceil", "ceil": "floor"},
    **{"clamp_min": "clamp_max", "clamp_max": "clamp_min", "amin": "amax", "amax": "amin"},
    **{"argmin": "argmax", "argmax": "argmin", "startswith": "endswith", "endswith": "startswith"},
}


@dataclass(frozen=True)
class Change:
    """One change of one module."""

    module: str
    lines: range  # of the statement, or of its head
    text: str  # the line of the change, without indentation
    edit: str  # "old → new"; with its number where the line has several of these
    tree: ast.Module

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies the change while the line stays as it is: module, line and edit."""
        return self.module, self.text, self.edit


def changes_of(module: str, source: str) -> list[Change]:
    """Every change of the module, in the order of its lines."""
    tree, lines = ast.parse(source), source.splitlines()
    found: list[Change] = []
    alike: Counter[tuple[int, str]] = Counter()
    for node, statement in _places(tree):
        for edited in _edits(node):
            place = ast.copy_location(edited, node)
            ast.fix_missing_locations(place)
            edit = f"{_short(node)} → {_short(edited)}"
            alike[node.lineno, edit] += 1
            if alike[node.lineno, edit] > 1:
                edit = f"{edit} ({alike[node.lineno, edit]})"
            text = lines[node.lineno - 1].strip()
            found.append(Change(module, _head(statement), text, edit, _replaced(tree, node, place)))
    return found


def _places(tree: ast.Module) -> Iterator[tuple[ast.stmt | ast.expr, ast.stmt]]:
    """Every statement and expression that runs, with the statement that it is in."""

    def walk(node: ast.AST, statement: ast.stmt | None) -> Iterator[tuple[ast.stmt | ast.expr, ast.stmt]]:
        if isinstance(node, ast.stmt):
            statement = node
        if isinstance(node, ast.stmt | ast.expr) and statement is not None:
            yield node, statement
        for child in _children(node):
            yield from walk(child, statement)

    return walk(tree, None)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a node, without annotations, decorators, assertions and what only a type checker reads."""
    if isinstance(node, ast.Assert) or (
        isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ):
        return
    for name, value in ast.iter_fields(node):
        # `strict` of zip guards what is true by construction; a format is a text.
        if name in ("annotation", "returns", "decorator_list", "type_params", "format_spec"):
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST) and not (isinstance(part, ast.keyword) and part.arg == "strict"):
                yield part


def _edits(node: ast.stmt | ast.expr) -> Iterator[ast.stmt | ast.expr]:
    match node:
        case ast.Compare():
            for i, operator in enumerate(node.ops):
                ops = [*node.ops[:i], _COMPARISONS[type(operator)](), *node.ops[i + 1 :]]
                yield ast.Compare(node.left, ops, node.comparators)
        case ast.BinOp() if (
            type(node.op) in _OPERATORS and not _is_text(node.left) and not _is_text(node.right)
        ):
            yield ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
        case ast.AugAssign() if type(node.op) in _OPERATORS and not _is_text(node.value):
            yield ast.AugAssign(node.target, _OPERATORS[type(node.op)](), node.value)
        case ast.BoolOp():
            yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield node.operand
        case ast.If() | ast.While() | ast.IfExp() if _is_plain(node.test) and not _is_for_types(node):
            edited = copy.copy(node)
            edited.test = ast.UnaryOp(ast.Not(), node.test)
            yield edited
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int()):
            yield ast.Constant(node.value + 1)
            if node.value > 0:
                yield ast.Constant(node.value - 1)
        case ast.Constant(value=float()):
            yield ast.Constant(node.value + 1)
        case ast.Name(ctx=ast.Load()) if node.id in _NAMES:
            yield ast.Name(_NAMES[node.id], ast.Load())
        case ast.Attribute() if node.attr in _NAMES:
            yield ast.Attribute(node.value, _NAMES[node.attr], node.ctx)
        case ast.Expr(value=ast.Call()) | ast.Raise():
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _is_plain(test: ast.expr) -> bool:
    """Whether a condition has no operator that is changed by itself."""
    return isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Subscript | ast.NamedExpr)


def _is_text(*nodes: ast.expr) -> bool:
    return any(
        isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        for node in nodes
    )


def _head(statement: ast.stmt) -> range:
    """The lines of a statement, without its body."""
    body = getattr(statement, "body", None)
    last = body[0].lineno - 1 if body else statement.end_lineno
    return range(statement.lineno, max(statement.lineno, last or 0) + 1)


def _short(node: ast.AST) -> str:
    """The code of a node on one line; of a compound statement, its head."""
    return (
        ast.unparse(node).splitlines()[0]
        if isinstance(node, ast.stmt)
        else " ".join(ast.unparse(node).split())
    )


def _replaced(tree: ast.Module, node: ast.AST, edited: ast.AST) -> ast.Module:
    """The tree with one node replaced; everything else is shared with the original."""

    def rebuild(part: ast.AST) -> ast.AST:
        if part is node:
            return edited
        if not any(node is below for below in ast.walk(part)):
            return part
        clone = copy.copy(part)
        for name, value in ast.iter_fields(part):
            if isinstance(value, list):
                setattr(clone, name, [rebuild(v) if isinstance(v, ast.AST) else v for v in value])
            elif isinstance(value, ast.AST):
                setattr(clone, name, rebuild(value))
        return clone

    rebuilt = rebuild(tree)
    assert isinstance(rebuilt, ast.Module)
    return rebuilt
