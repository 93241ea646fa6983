"""The options of a component in words: type, default and meaning, from its fields and their comments."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from domainclip import registry


@dataclass(frozen=True)
class Option:
    """One option of a component."""

    name: str
    type: str  # in words: "integer ≥ 1 or null"
    default: str  # as JSON, or "required"
    meaning: str  # the comment beside the field; may be empty


def describe_options(kind: str, name: str) -> list[Option]:
    """The options of a component, in their order.

    Raises: RecipeError for an unknown component.
    """
    schema = registry.schema(kind, name)
    component = registry.find(kind, name)
    remarks, factories = field_comments(component), _factories(component)
    return [
        Option(
            option,
            schema_type(about, schema.get("$defs", {})),
            _default(about, factories.get(option)),
            remarks.get(option, ""),
        )
        for option, about in schema.get("properties", {}).items()
    ]


def _factories(component: type[Any]) -> dict[str, Callable[[], Any]]:
    """What makes the default of an option that is a list or a mapping; a schema has no such default."""
    fields = dataclasses.fields(component)
    return {f.name: f.default_factory for f in fields if f.default_factory is not dataclasses.MISSING}


def _default(about: Mapping[str, Any], factory: Callable[[], Any] | None) -> str:
    if "default" not in about and factory is None:
        return "required"
    return json.dumps(about["default"] if factory is None else factory(), ensure_ascii=False)


def purpose(kind: str, name: str) -> str:
    """The first paragraph of a component's file, on one line; nothing is imported."""
    text = ast.get_docstring(ast.parse(registry.source_file(kind, name).read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def schema_type(about: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in about:
        return schema_type(known[about["$ref"].rsplit("/", 1)[1]], known)
    if "anyOf" in about:
        return " or ".join(schema_type(option, known) for option in about["anyOf"])
    if "enum" in about:
        return ", ".join(map(str, about["enum"]))
    if "const" in about:
        return str(about["const"])
    bounds = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
    limits = ", ".join(text.format(about[key]) for key, text in bounds.items() if key in about)
    kind = {"null": "null", "boolean": "true, false", "object": "mapping", "string": "text"}
    word = kind.get(about.get("type", ""), about.get("type", "any"))
    if word == "array":
        inner: dict[str, Any] = about.get("items") or next(iter(about.get("prefixItems", [])), {})
        return f"list of {schema_type(inner, known)}" if inner else "list"
    return f"{word} {limits}".strip()


def field_comments(model: type[Any]) -> dict[str, str]:
    """The comment of each field, by name, of the class and of the classes that it inherits from.

    A comment stands at the end of the field's lines, or on the lines above it.
    """
    remarks: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if owner.__module__.partition(".")[0] == model.__module__.partition(".")[0]:
            remarks |= _own_comments(owner)
    return remarks


def _own_comments(model: type[Any]) -> dict[str, str]:
    lines = inspect.getsource(model).splitlines()
    remarks = {}
    for node in ast.parse(textwrap.dedent("\n".join(lines))).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            own = (line.partition("  # ")[2] for line in lines[node.lineno - 1 : node.end_lineno])
            remark = " ".join(filter(None, map(str.strip, own)))
            above: list[str] = []
            for line in reversed(lines[: node.lineno - 1]):
                if not line.strip().startswith("# "):
                    break
                above.insert(0, line.strip().removeprefix("# "))
            remarks[node.target.id] = remark or " ".join(above)
    return remarks
