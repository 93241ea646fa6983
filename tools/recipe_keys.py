"""The page of all keys of a recipe: of the run, of the card that `corpus` overrides, of every component."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from domainclip import registry
from domainclip.config import recipe
from domainclip.config.option_types import describe_options, field_comments, schema_type
from domainclip.config.sources import MixedSource
from domainclip.data.cards import Card
from tools.markdown import paragraph, table_row

_HEAD = """# Recipe keys

Generated from the code by `make docs`: every key with its type or allowed values, its default and meaning. On
the command line a key is written `KEY=VALUE`, e.g. `train.epochs=3` or `strategy.lora.rank=8`.

- [The run](#the-run), [train](#train) and the other sections of a recipe
- [The card](#the-card): keys that `corpus` overrides for the run, as in `corpus.captions.policy=first`;
  `retention` takes them, too
- [Options of readers](#options-of-readers): `corpus.options`
- [Options of components](#options-of-components): `strategy`, `objectives`, `curation`, `probes`. What
  each is for: [components.md](components.md)
"""
_COMPONENTS = {
    "strategies": "strategy",
    "objectives": "objectives",
    "curation": "curation",
    "probes": "probes",
}
_TABLE = ["| Key | Type | Default | |", "|---|---|---|---|"]


def recipe_keys() -> str:
    """The page."""
    lines = [_HEAD, *_keys_of(recipe.Recipe, "", "## The run")]
    for key in recipe.Recipe.model_fields:
        if (model := _section(recipe.Recipe, key)) is not None:
            lines += [*_keys_of(model, f"{key}.", f"## {key}"), *_inner(model, f"{key}.")]
    lines += _keys_of(MixedSource, "train.mix.NAME.", "### train.mix.NAME")
    lines += [*_keys_of(Card, "corpus.", "## The card"), *_inner(Card, "corpus.")]
    lines += ["## Options of readers", "", "Of the reader that the card or `corpus.reader` names.", ""]
    for name in registry.names("readers"):
        lines += _options("readers", name, "corpus.options.", f"### reader {name}")
    lines += ["## Options of components", ""]
    for kind, key in _COMPONENTS.items():
        for name in registry.names(kind):
            lines += _options(kind, name, f"{key}.{name}.", f"### {key}.{name}")
    return "\n".join(lines)


def _inner(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """The sections inside a model, at any depth."""
    for key in model.model_fields:
        if (inner := _section(model, key)) is not None:
            yield from _keys_of(inner, f"{prefix}{key}.", f"### {prefix}{key}")
            yield from _inner(inner, f"{prefix}{key}.")


def _keys_of(model: type[BaseModel], prefix: str, title: str) -> list[str]:
    about, remarks = model.model_json_schema(), field_comments(model)
    rows = [title, "", paragraph(inspect.getdoc(model) or ""), "", *_TABLE]
    for name, field in about["properties"].items():
        inner = _section(model, name) is not None
        type_ = "mapping" if inner else schema_type(field, about.get("$defs", {}))
        default = json.dumps(field["default"], ensure_ascii=False) if "default" in field else "required"
        if inner:
            default = _default_of_section(field, name in about.get("required", []))
        rows.append(table_row(f"`{prefix}{name}`", type_, default, remarks.get(name, "")))
    return [*rows, ""]


def _default_of_section(field: dict[str, Any], required: bool) -> str:
    if required:
        return "required"
    return "null" if field.get("default", {}) is None else ""


def _section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of a key that is a section of its own; None for a value."""
    annotation = model.model_fields[name].annotation
    candidates = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _options(kind: str, name: str, prefix: str, title: str) -> list[str]:
    options = describe_options(kind, name)
    weight = [table_row(f"`{prefix}weight`", "number ≥ 0", "1.0", "of its loss in the sum")]
    if not options and kind != "objectives":
        return [title, "", "No options.", ""]
    rows = [table_row(f"`{prefix}{one.name}`", one.type, one.default, one.meaning) for one in options]
    return [title, "", *_TABLE, *rows, *(weight if kind == "objectives" else []), ""]
