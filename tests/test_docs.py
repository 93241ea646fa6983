"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from domainclip.cli import app, recipes
from domainclip.errors import ExitCode

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_up_to_date(generate: ModuleType) -> None:
    assert (DOCS / "commands.md").read_text() == generate.commands(), "run: make docs"
    assert (DOCS / "recipe.schema.json").read_text() == generate.schema(), "run: make docs"


def test_every_verb_is_in_the_reference_and_the_readme(generate: ModuleType) -> None:
    verbs = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback} | {"recipes"}
    assert verbs == set(generate.VERBS)
    inner = {c.name or c.callback.__name__ for c in recipes.registered_commands if c.callback}
    assert inner == set(generate.RECIPE_VERBS)
    readme = (ROOT / "README.md").read_text()
    assert [verb for verb in verbs if f"domainclip {verb}" not in readme] == []


def test_every_exit_code_is_documented() -> None:
    codes = {
        int(code) for code in re.findall(r"^\| (\d+) \|", (DOCS / "exit-codes.md").read_text(), re.MULTILINE)
    }
    assert codes == {int(code) for code in ExitCode}


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *DOCS.glob("*.md")]
    assert len(pages) > 5
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
