"""Writes docs/commands.md and docs/recipe.schema.json from the code, so that they cannot drift.

make docs        (tests/test_docs.py compares)
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

from domainclip import recipe
from domainclip.cli import app

DOCS = Path(__file__).parent
VERBS = ["demo", "finetune", "eval", "plan", "validate", "schema", "merge", "push", "recipes"]
RECIPE_VERBS = ["ls", "show", "cp"]


def commands() -> str:
    """The help of every verb, in the order one uses them."""
    calls = [[], *([verb] for verb in VERBS), *(["recipes", verb] for verb in RECIPE_VERBS)]
    note = "Made from `--help` by `make docs`. Exit codes: [exit-codes.md](exit-codes.md)."
    parts = ["# Commands", "", note, ""]
    for call in calls:
        parts += [f"## domainclip {' '.join(call)}".rstrip(), "", "```", _help(call), "```", ""]
    return "\n".join(parts)


def schema() -> str:
    """The JSON schema of a recipe."""
    return json.dumps(recipe.schema(), indent=1) + "\n"


def _help(call: list[str]) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        app([*call, "--help"], prog_name="domainclip", terminal_width=100)
    return "\n".join(line.rstrip() for line in said.getvalue().strip().splitlines())


if __name__ == "__main__":
    (DOCS / "commands.md").write_text(commands(), encoding="utf-8")
    (DOCS / "recipe.schema.json").write_text(schema(), encoding="utf-8")
