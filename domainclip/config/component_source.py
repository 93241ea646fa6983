"""The options of a component, read from its source file: importing the component would import torch.

Only what its options consist of is executed: the fields of the class, and the imports and constants that
their types and defaults name. So a wrong option is reported in a fraction of a second.
"""

from __future__ import annotations

import ast
from functools import cache
from typing import Any

from domainclip import registry


@cache
def option_class(kind: str, name: str) -> type[Any]:
    """A dataclass with the options and class variables of a component, without its methods and checks.

    Raises: RecipeError for an unknown component.
    """
    file = registry.source_file(kind, name)
    module = ast.parse(file.read_text(encoding="utf-8"))
    class_name = registry.class_name(name)
    found = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    found.bases = [ast.parse("registry.Component", mode="eval").body]
    found.body = [node for node in found.body if _is_option(node)] or [ast.Pass()]
    needed = [found, *_definitions(found, module)]
    module.body = [node for node in module.body if node in needed]
    ast.fix_missing_locations(module)
    namespace: dict[str, Any] = {"registry": registry, "__name__": f"domainclip.options.{name}"}
    # Without the future import of annotations, so that types are evaluated here.
    exec(compile(module, str(file), "exec", dont_inherit=True), namespace)
    options: type[Any] = namespace[class_name]
    return options


def check_options(kind: str, name: str, options: dict[str, Any], where: str) -> None:
    """Check names and types of a component's options; what its own checks refuse is found when it is built.

    Raises: RecipeError with the key and the remedy.
    """
    if (
        registry.outside(kind, name) is None
    ):  # a component outside this package is imported, whatever that takes
        registry.validated(option_class(kind, name), options, where)


def model_options(kind: str, name: str) -> tuple[str, ...]:
    """The options of a component that name models.

    Raises: RecipeError for an unknown component.
    """
    component = registry.find(kind, name) if registry.outside(kind, name) else option_class(kind, name)
    models: tuple[str, ...] = component.models
    return models


def _definitions(wanted: ast.ClassDef, module: ast.Module) -> list[ast.stmt]:
    """The statements of a module that define the names in a class, and those that they need in turn."""
    found, names = list[ast.stmt](), _used(wanted)
    others = [node for node in module.body if node is not wanted]
    while further := [node for node in others if node not in found and names & _defined(node)]:
        found += further
        names = {name for node in further for name in _used(node)}
    return found


def _is_option(node: ast.stmt) -> bool:
    """Whether a statement of a class is an option, or names those that are models."""
    if not isinstance(node, ast.AnnAssign):
        return False
    return "ClassVar" not in _used(node.annotation) or ast.unparse(node.target) == "models"


def _used(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _defined(statement: ast.stmt) -> set[str]:
    """The names that an import or an assignment defines."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name for alias in statement.names}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}
