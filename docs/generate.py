"""Writes docs/commands.md and the JSON schemas from the code, so that they cannot drift.

make docs        (tests/test_docs.py compares)
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

from domainclip import recipe
from domainclip.cli import app
from domainclip.report.comparison import ComparisonFile
from domainclip.report.results import ResultsFile

DOCS = Path(__file__).parent
VERBS = ["demo", "finetune", "eval", "plan", "validate", "schema", "merge", "push", "recipes", "data"]
RECIPE_VERBS = ["ls", "show", "cp"]
DATA_VERBS = ["check", "preview", "prepare", "cache", "cache ls", "cache rm"]


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
    return json.dumps(recipe.schema(), indent=1) + "\n"


def results_schema() -> str:
    """The JSON schema of results.json and of results_compare.json."""
    files = {"results.json": ResultsFile, "results_compare.json": ComparisonFile}
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


if __name__ == "__main__":
    (DOCS / "commands.md").write_text(commands(), encoding="utf-8")
    (DOCS / "recipe.schema.json").write_text(schema(), encoding="utf-8")
    (DOCS / "results.schema.json").write_text(results_schema(), encoding="utf-8")
