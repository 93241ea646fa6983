"""Writes the generated pages of docs/reference from the code, so that they cannot drift from it.

make docs        (tests/test_docs.py compares)
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import re
from pathlib import Path
from typing import Any

from domainclip import registry
from domainclip.cli.app import app
from domainclip.config import loading, recipe
from domainclip.config.option_types import describe_options
from domainclip.errors import DomainclipError
from domainclip.report.ablation_results import AblationFile
from domainclip.report.comparison_file import ComparisonFile
from domainclip.report.results_file import ResultsFile
from domainclip.report.strict_file import Strict
from tools.markdown import paragraph, table_row
from tools.recipe_keys import recipe_keys

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
COMMANDS = [
    "demo",
    "doctor",
    "init",
    "validate",
    "plan",
    "finetune",
    "eval",
    "tune",
    "merge",
    "ablate",
    "classify",
    "search",
    "caption",
    "explore",
    "embed",
    "export",
    "push",
    "audit",
    "schema",
    "recipes",
    "cards",
    "components",
    "data",
]
RECIPE_COMMANDS = CARD_COMMANDS = ["list", "show", "copy"]
COMPONENT_COMMANDS = ["list", "show"]
DATA_COMMANDS = ["check", "preview", "prepare", "cache", "cache list", "cache clear"]


def commands() -> str:
    """The help of every command, in the order of use."""
    calls = [[], *([name] for name in COMMANDS), *(["recipes", name] for name in RECIPE_COMMANDS)]
    calls += [["cards", name] for name in CARD_COMMANDS]
    calls += [["components", name] for name in COMPONENT_COMMANDS]
    calls += [["data", *name.split()] for name in DATA_COMMANDS]
    note = "Generated from `--help` by `make docs`. Exit codes: [exit-codes.md](exit-codes.md)."
    lines = ["# Commands", "", note, ""]
    for call in calls:
        lines += [f"## domainclip {' '.join(call)}".rstrip(), "", "```", _help(call), "```", ""]
    return "\n".join(lines)


def schema() -> str:
    """The JSON schema of a recipe."""
    return json.dumps(loading.schema(), indent=1) + "\n"


def results_schema() -> str:
    """The JSON schema of results.json, results_compare.json and ablation.json."""
    files: dict[str, type[Strict]] = {
        "results.json": ResultsFile,
        "results_compare.json": ComparisonFile,
        "ablation.json": AblationFile,
    }
    definitions: dict[str, object] = {}
    for name, model in files.items():
        part = model.model_json_schema(ref_template="#/$defs/{model}", mode="serialization")
        definitions |= part.pop("$defs", {}) | {name: part}
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The figures of domainclip, version 1",
        "description": "Keys may be added, never removed or changed: ignore those you do not know.",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in files],
        "$defs": definitions,
    }
    return json.dumps(_allow_further_keys(whole), indent=1) + "\n"


def _allow_further_keys(part: object) -> object:
    """The schema without the ban on further keys, which holds only where domainclip itself reads a file."""
    if isinstance(part, list):
        return [_allow_further_keys(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    banned = ("additionalProperties", False)
    return {key: _allow_further_keys(value) for key, value in part.items() if (key, value) != banned}


def _help(call: list[str]) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        app([*call, "--help"], prog_name="domainclip", terminal_width=100)
    return "\n".join(line.rstrip() for line in output.getvalue().strip().splitlines())


KINDS = {
    "strategies": ("Strategies: which weights are trained", "strategy"),
    "objectives": ("Objectives: terms of the loss", "objectives"),
    "curation": ("Curation: which pairs are trained on", "curation"),
    "probes": ("Probes: what is measured", "probes"),
}
# What a field of Views costs the training loop, by its name in `needs`.
COSTS = {
    "prose": "some anchor texts are encoded in every step (`anchor_texts.per_step`)",
    "anchor_prose": "the base model encodes the anchor texts once",
    "anchor_text": "some anchor texts are encoded in every step (`anchor_texts.per_step`)",
    "base_anchor_text": "the base model encodes the anchor texts once",
    "anchor_image": "some anchor images are encoded in every step (`anchor_images.per_step`)",
    "base_anchor_image": "the base model encodes the anchor images once; cached on disk",
    "base_image": "the base model encodes every training image once; cached on disk",
    "image_2": "a second view of every image is decoded and encoded in every step",
    "image_tokens": "memory for a vector of every patch",
    "text_tokens": "memory for a vector of every token",
    "teachers": "each teacher encodes the corpus once; cached on disk",
    "said": "further texts of each pair are encoded in every step",
    "extra_text": "further texts of each pair are encoded in every step",
    "labels": "",
    "value": "",
    "pair_value": "",
}
COMPONENTS = """# Components

Generated from the code by `make docs`: the purpose of each component, its formula, when to use it, its cost,
its options and its source. A recipe names a component like this: `strategy: lora`, or
`objectives: {contrastive: {}, anchor: {weight: 20}}`. Objectives add up, each with a `weight` (default 1).
They see only embeddings, so each works with every strategy that leaves it weights to train. Combinations that
do not work are refused before training, with the name of the key. How to measure which ones help:
[ablation.md](../guide/ablation.md).

Notation: image and text embeddings x_i, y_j of unit length, s_ij = x_i · y_j, temperature τ, b pairs.
"""


def components() -> str:
    """What every component is for, from its docstring, options and citation."""
    sections = [COMPONENTS]
    for kind, (title, key) in KINDS.items():
        sections.append(f"## {title}\n")
        sections += [_component(kind, key, name) for name in registry.names(kind)]
    sections.append(_interpolation())
    return "\n".join(sections)


def _component(kind: str, key: str, name: str) -> str:
    component = registry.find(kind, name)
    # The first paragraph of the file gives the purpose; the first of the class is the formula.
    purpose = (inspect.getdoc(inspect.getmodule(component)) or "").split("\n\n")[0]
    formula, *more = (inspect.getdoc(component) or "").split("\n\n")
    facts = [f"*Cost:* {cost}." for cost in [_cost(kind, component)] if cost]
    if rate := getattr(component, "default_learning_rate", None):
        facts.append(f"*Learning rate:* {rate:g}, unless `train.learning_rate` is set.")
    facts.append(f"*Source:* {paragraph(component.citation)}. *In a recipe:* `{key}: {{{name}: {{}}}}`.")
    body = [
        paragraph(purpose),
        "> " + paragraph(formula),
        *map(paragraph, more),
        _options(kind, name),
    ]
    return "\n\n".join([f"### {name}", *filter(None, body), " ".join(facts)]) + "\n"


def _interpolation() -> str:
    """Weight interpolation is a recipe key, not a component."""
    model = recipe.WeightInterpolation
    purpose = paragraph(inspect.getdoc(model) or "")
    lines = ["## After training\n", "### weight_interpolation\n", f"{purpose}\n", "> (1 − α) θ₀ + α θ\n"]
    lines.append(
        "For an adapter, α scales its update. How α is chosen: [training.md](../guide/training.md).\n"
    )
    lines.append(f"*Source:* {paragraph(model.citation)}. *In a recipe:* `weight_interpolation: {{}}`.\n")
    return "\n".join(lines)


def _cost(kind: str, component: Any) -> str:
    """The component's `cost`, or what its needs cost the loop; empty where its docstring states it."""
    if cost := getattr(component, "cost", ""):
        return paragraph(str(cost).rstrip("."))
    if kind != "objectives" or re.search(r"\bCosts?\b", component.__doc__ or ""):
        return ""
    try:  # what an objective needs may depend on its options
        needs = component().needs
    except (TypeError, ValueError, DomainclipError):
        needs = component.needs
    if isinstance(needs, property):
        return "depends on its options"
    return "; ".join(filter(None, (COSTS.get(name, "") for name in sorted(needs)))) or "no further encoding"


def _options(kind: str, name: str) -> str:
    """A table of the options: type, default, and the comment in the code."""
    options = describe_options(kind, name)
    if not options:
        return ""
    rows = ["| Option | Type | Default | |", "|---|---|---|---|"]
    rows += [table_row(f"`{one.name}`", one.type, one.default, one.meaning) for one in options]
    return "\n".join(rows)


PAGES = {
    "commands.md": commands,
    "components.md": components,
    "recipe-keys.md": recipe_keys,
    "recipe.schema.json": schema,
    "results.schema.json": results_schema,
}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (REFERENCE / page).write_text(make(), encoding="utf-8")
