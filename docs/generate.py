"""Writes docs/commands.md, docs/methods.md and the JSON schemas from the code, so that they cannot drift.

make docs        (tests/test_docs.py compares)
"""

from __future__ import annotations

import ast
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
from domainclip.errors import DomainclipError
from domainclip.report.ablation_results import AblationFile
from domainclip.report.comparison import ComparisonFile
from domainclip.report.results_file import ResultsFile, Strict

DOCS = Path(__file__).parent
VERBS = [
    "demo",
    "finetune",
    "eval",
    "ablate",
    "plan",
    "validate",
    "schema",
    "merge",
    "push",
    "recipes",
    "data",
]
RECIPE_VERBS = ["list", "show", "copy"]
DATA_VERBS = ["check", "preview", "prepare", "cache", "cache list", "cache clear"]


def commands() -> str:
    """The help of every verb, in the order one uses them."""
    calls = [[], *([verb] for verb in VERBS), *(["recipes", verb] for verb in RECIPE_VERBS)]
    calls += [["data", *verb.split()] for verb in DATA_VERBS]
    note = "Made from `--help` by `make docs`. Exit codes: [exit-codes.md](exit-codes.md)."
    parts = ["# Commands", "", note, ""]
    for call in calls:
        parts += [f"## domainclip {' '.join(call)}".rstrip(), "", "```", _help(call), "```", ""]
    return "\n".join(parts)


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
        one = model.model_json_schema(ref_template="#/$defs/{model}", mode="serialization")
        definitions |= one.pop("$defs", {}) | {name: one}
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The figures of domainclip, version 1",
        "description": "Keys may be added, never removed or changed: ignore those you do not know.",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in files],
        "$defs": definitions,
    }
    return json.dumps(_open(whole), indent=1) + "\n"


def _open(schema: object) -> object:
    """The schema without the ban on further keys, which is for our own reading only."""
    if isinstance(schema, list):
        return [_open(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _open(value) for key, value in schema.items() if (key, value) != ("additionalProperties", False)
    }


def _help(call: list[str]) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        app([*call, "--help"], prog_name="domainclip", terminal_width=100)
    return "\n".join(line.rstrip() for line in said.getvalue().strip().splitlines())


KINDS = {
    "strategies": ("Strategies: which weights learn", "strategy"),
    "objectives": ("Objectives: terms of the loss", "objectives"),
    "curation": ("Curation: which pairs are trained on", "curation"),
    "probes": ("Probes: what is measured", "probes"),
}
# What a field of Views costs the loop, by its name in `needs`.
COSTS = {
    "anchor_text": "some general sentences are encoded in every step (`anchor_texts.per_step`)",
    "base_anchor_text": "the base encodes the general sentences once",
    "base_image": "the base encodes every training picture once; kept on disk",
    "image_2": "a second view of every picture is decoded and encoded in every step",
    "image_tokens": "memory for a vector of every patch",
    "text_tokens": "memory for a vector of every token",
    "teachers": "each teacher encodes the corpus once; kept on disk",
    "extra_text": "further texts of each pair are encoded in every step",
    "labels": "",
    "pair_value": "",
}
METHODS = """# Methods

Made from the parts by `make docs`: what each is for, its formula, when to take it, what it costs, its
options and its source. A part is named in a recipe: `strategy: lora`, or
`objectives: {contrastive: {}, anchor: {weight: 20}}`. Objectives add up, each with a `weight` (1); they see
embeddings only, so each goes with every strategy that leaves it something to learn. What does not go together
is refused by name before training. Which of them help: [ablation.md](ablation.md).

Notation: image and text embeddings x_i, y_j of unit length, s_ij = x_i · y_j, temperature τ, b pairs.
"""


def methods() -> str:
    """What every part is for, from its own docstring, options and citation."""
    pages = [METHODS]
    for kind, (title, key) in KINDS.items():
        pages.append(f"## {title}\n")
        pages += [_part(kind, key, name) for name in registry.names(kind)]
    pages.append(_interpolate())
    return "\n".join(pages)


def _part(kind: str, key: str, name: str) -> str:
    part = registry.find(kind, name)
    # The first paragraph of the file says what for; the first of the class is the formula.
    purpose = (inspect.getdoc(inspect.getmodule(part)) or "").split("\n\n")[0]
    formula, *more = (inspect.getdoc(part) or "").split("\n\n")
    facts = [f"*Cost:* {cost}." for cost in [_cost(kind, part)] if cost]
    if rate := getattr(part, "default_learning_rate", None):
        facts.append(f"*Learning rate:* {rate:g} unless `train.learning_rate` says otherwise.")
    facts.append(f"*Source:* {_text(part.citation)}. *In a recipe:* `{key}: {{{name}: {{}}}}`.")
    said = [f"### {name}", _text(purpose), "> " + _text(formula), *map(_text, more), _options(kind, name)]
    return "\n\n".join([*filter(None, said), " ".join(facts)]) + "\n"


def _interpolate() -> str:
    """α is no part, but a key of its own."""
    model = recipe.WeightInterpolation
    purpose = _text(inspect.getdoc(model) or "")
    said = ["## After training\n", "### weight_interpolation\n", f"{purpose}\n", "> (1 − α) θ₀ + α θ\n"]
    said.append("For an adapter α scales its update. How α is chosen: [training.md](training.md).\n")
    return "\n".join(
        [*said, f"*Source:* {_text(model.citation)}. *In a recipe:* `weight_interpolation: {{}}`.\n"]
    )


def _cost(kind: str, part: Any) -> str:
    """Its own word, or what its needs cost the loop; nothing where the docstring has said it."""
    if own := getattr(part, "cost", ""):
        return _text(str(own).rstrip("."))
    if kind != "objectives" or re.search(r"\bCosts?\b", part.__doc__ or ""):
        return ""
    try:  # what an objective needs may depend on its options
        needs = part().needs
    except (TypeError, ValueError, DomainclipError):
        needs = part.needs
    if isinstance(needs, property):
        return "that of what it asks for, which depends on its options"
    return "; ".join(filter(None, (COSTS.get(name, "") for name in sorted(needs)))) or "no further encoding"


def _options(kind: str, name: str) -> str:
    """A table of the options: what they take, their default, and what the code says beside them."""
    schema = registry.schema(kind, name)
    known = schema.get("properties", {})
    if not known:
        return ""
    remarks = _remarks(registry.find(kind, name))
    rows = ["| Option | Takes | Default | |", "|---|---|---|---|"]
    for option, about in known.items():
        default = json.dumps(about["default"], ensure_ascii=False) if "default" in about else "required"
        takes = _takes(about, schema.get("$defs", {}))
        rows.append(f"| `{option}` | {_cell(takes)} | {_cell(default)} | {_cell(remarks.get(option, ''))} |")
    return "\n".join(rows)


def _takes(about: dict[str, Any], known: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in about:
        return _takes(known[about["$ref"].rsplit("/", 1)[1]], known)
    if "anyOf" in about:
        return " or ".join(_takes(one, known) for one in about["anyOf"])
    if "enum" in about:
        return ", ".join(map(str, about["enum"]))
    if "const" in about:
        return str(about["const"])
    bounds = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
    said = ", ".join(text.format(about[key]) for key, text in bounds.items() if key in about)
    kind = {"null": "null", "boolean": "true, false", "object": "mapping", "string": "text"}
    word = kind.get(about.get("type", ""), about.get("type", "any"))
    if word == "array":
        inner: dict[str, Any] = about.get("items") or next(iter(about.get("prefixItems", [])), {})
        return f"list of {_takes(inner, known)}" if inner else "list"
    return f"{word} {said}".strip()


def _remarks(part: type[Any]) -> dict[str, str]:
    """The comment behind each option, by option."""
    source = inspect.getsource(part)
    lines = source.splitlines()
    found = {}
    for node in ast.parse(inspect.cleandoc(source)).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            _, _, remark = lines[(node.end_lineno or 1) - 1].partition("  # ")
            found[node.target.id] = remark.strip()
    return found


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|").replace("\n", " ")


def _text(text: str) -> str:
    """A paragraph that Markdown shows as it is; code stays code, and papers on arXiv are links."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    marks = r"([*<>\[\]]|(?<!\w)_|_(?!\w))"
    shown = "".join(one if i % 2 else re.sub(marks, r"\\\1", one) for i, one in enumerate(pieces))
    shown = re.sub(r"\\\[(arXiv:\d{4}\.\d{4,5})\\\]", r"\1", shown)
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", shown)


if __name__ == "__main__":
    (DOCS / "commands.md").write_text(commands(), encoding="utf-8")
    (DOCS / "methods.md").write_text(methods(), encoding="utf-8")
    (DOCS / "recipe.schema.json").write_text(schema(), encoding="utf-8")
    (DOCS / "results.schema.json").write_text(results_schema(), encoding="utf-8")
