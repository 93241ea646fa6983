"""Schemas, comments and paragraphs of the code as Markdown, for the generated pages."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping
from typing import Any


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
    """The comment of each field, by name: at the end of its line, or on the lines above it."""
    source = inspect.getsource(model)
    lines = source.splitlines()
    remarks = {}
    for node in ast.parse(textwrap.dedent(source)).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            _, _, remark = lines[(node.end_lineno or 1) - 1].partition("  # ")
            above = []
            for line in reversed(lines[: node.lineno - 1]):
                if not line.strip().startswith("# "):
                    break
                above.insert(0, line.strip().removeprefix("# "))
            remarks[node.target.id] = remark.strip() or " ".join(above)
    return remarks


def table_row(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return paragraph(text).replace("|", "\\|").replace("\n", " ")


def paragraph(text: str) -> str:
    """A paragraph that Markdown shows as it is; code stays code, and papers on arXiv become links."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    marks = r"([*<>\[\]]|(?<!\w)_|_(?!\w))"
    shown = "".join(one if i % 2 else re.sub(marks, r"\\\1", one) for i, one in enumerate(pieces))
    shown = re.sub(r"\\\[(arXiv:\d{4}\.\d{4,5})\\\]", r"\1", shown)
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", shown)
