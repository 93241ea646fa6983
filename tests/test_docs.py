"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from domainclip import registry
from domainclip.cli.app import app
from domainclip.cli.data import cache, data
from domainclip.cli.recipes import recipes
from domainclip.errors import ExitCode
from domainclip.report import results_file
from tests.report.made_results import context, evaluation

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
    assert (DOCS / "methods.md").read_text() == generate.methods(), "run: make docs"
    assert (DOCS / "recipe.schema.json").read_text() == generate.schema(), "run: make docs"
    assert (DOCS / "results.schema.json").read_text() == generate.results_schema(), "run: make docs"


def test_every_part_is_in_the_methods_whole(generate: ModuleType) -> None:
    page = generate.methods()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    named = {name for kind in generate.KINDS for name in registry.names(kind)}
    assert len(named) > 25
    assert sections.keys() == named | {"weight_interpolation"}
    for kind in generate.KINDS:
        for name in registry.names(kind):
            said = sections[name]
            assert "\n> " in said, f"{name}: no formula"
            assert "*Source:* " in said, f"{name}: no source"
            assert [
                o for o in registry.schema(kind, name).get("properties", {}) if f"| `{o}` |" not in said
            ] == []
            if kind == "objectives":
                assert re.search(r"\bCosts?\b", said), f"{name}: no cost"
    lora = sections["lora"]
    assert "Low-rank updates: the base stays, a small adapter learns beside it." in lora
    assert "> W + (alpha / rank) B A on the attention projections, B starting at zero." in lora
    assert "[arXiv:2106.09685](https://arxiv.org/abs/2106.09685)" in lora
    assert "| `rank` | integer ≥ 1 | 8 |  |" in lora
    assert "| `last_layers` | integer ≥ 1 or null | null | null: all of them |" in lora
    assert "*Learning rate:* 0.0005 unless" in lora
    anchor = sections["anchor"]
    assert "*Cost:* the base encodes the general sentences once; some general sentences" in anchor


def test_the_published_schema_knows_every_key_of_a_result(generate: ModuleType) -> None:
    schema = json.loads(generate.results_schema())["$defs"]
    file = results_file.to_results(evaluation(), context())
    assert set(schema["Result"]["properties"]) == set(file.results[0].model_dump())
    assert set(schema["results.json"]["properties"]) == set(file.model_dump())
    added = {"unit", "verdict", "primary", "chance"}
    assert set(schema["Result"]["required"]) == set(file.results[0].model_dump()) - added
    assert "additionalProperties" not in schema["Result"]  # keys may be added


def test_every_verb_is_in_the_reference_and_the_readme(generate: ModuleType) -> None:
    verbs = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    verbs |= {"recipes", "data"}
    assert verbs == set(generate.VERBS)
    inner = {c.name or c.callback.__name__ for c in recipes.registered_commands if c.callback}
    assert inner == set(generate.RECIPE_VERBS)
    data_verbs = {c.name or c.callback.__name__ for c in data.registered_commands if c.callback}
    data_verbs |= {f"cache {c.name or c.callback.__name__}" for c in cache.registered_commands if c.callback}
    assert data_verbs | {"cache"} == set(generate.DATA_VERBS)
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
