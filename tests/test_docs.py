"""The documentation agrees with the code, and its links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from domainclip import registry
from domainclip.cli.app import app
from domainclip.cli.cards import cards
from domainclip.cli.components import components
from domainclip.cli.data import cache, data
from domainclip.cli.recipes import recipes
from domainclip.config import loading
from domainclip.data.cards import Card
from domainclip.errors import ExitCode
from domainclip.report import results_file
from tests.report.made_results import context, evaluation
from tools import generate_docs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", generate_docs.PAGES)
def test_the_generated_pages_are_up_to_date(page: str) -> None:
    assert (DOCS / "reference" / page).read_text() == generate_docs.PAGES[page](), "run: make docs"


def test_every_component_is_described_in_full() -> None:
    page = generate_docs.components()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    named = {name for kind in generate_docs.KINDS for name in registry.names(kind)}
    assert len(named) > 25
    assert sections.keys() == named | {"weight_interpolation"}
    for kind in generate_docs.KINDS:
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
    assert "Low-rank updates: the base is frozen, a small adapter is added to it and learns." in lora
    assert "> W + (alpha / rank) B A on the attention projections, B starting at zero." in lora
    assert "[arXiv:2106.09685](https://arxiv.org/abs/2106.09685)" in lora
    assert "| `rank` | integer ≥ 1 | 8 | columns of A and B: more learn more, and forget more |" in lora
    assert "| `last_layers` | integer ≥ 1 or null | null | null: all of them |" in lora
    assert "*Learning rate:* 0.0005, unless" in lora
    anchor = sections["anchor"]
    assert "*Cost:* some anchor texts are encoded in every step" in anchor


def test_the_page_of_recipe_keys_has_every_key_with_its_type_and_default() -> None:
    rows = {}
    for line in generate_docs.recipe_keys().splitlines():
        if match := re.fullmatch(r"\| `([\w.]+)` \| (.*?) \| (.*?) \| (.*?) \|", line):
            rows[match[1]] = match.groups()[1:]
    schema = loading.schema()
    for kind, key in {**{kind: kind for kind in registry.PACKAGES}, "strategies": "strategy"}.items():
        prefix = "corpus.options" if kind == "readers" else key
        for name in registry.names(kind):
            for option in registry.schema(kind, name).get("properties", {}):
                assert (f"{prefix}.{option}" if kind == "readers" else f"{key}.{name}.{option}") in rows
    models = {**schema["$defs"], "Card": Card.model_json_schema()}
    for prefix, model in {
        "train.": "TrainConfig",
        "corpus.": "Card",
        "retention.": "RetentionSource",
    }.items():
        assert {f"{prefix}{key}" for key in models[model]["properties"]} <= rows.keys()
    assert rows["train.precision"][:2] == ("auto, fp32, tf32, bf16, fp16", '"auto"')
    assert rows["corpus.captions.overlong"][:2] == ("truncate, window", '"truncate"')
    assert rows["strategy.lora.rank"][:2] == ("integer ≥ 1", "8")
    assert rows["objectives.anchor.weight"][0] == "number ≥ 0"
    assert not [key for key, (type_, *_) in rows.items() if type_ in ("", "any", "list")]


def test_the_published_schema_knows_every_key_of_a_result() -> None:
    schema = json.loads(generate_docs.results_schema())["$defs"]
    file = results_file.to_results(evaluation(), context())
    assert set(schema["Result"]["properties"]) == set(file.results[0].model_dump())
    assert set(schema["results.json"]["properties"]) == set(file.model_dump())
    assert set(schema["Result"]["required"]) == set(file.results[0].model_dump())
    assert "additionalProperties" not in schema["Result"]  # keys may be added


def test_every_command_is_in_the_reference_and_the_readme() -> None:
    commands = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    commands |= {"recipes", "cards", "components", "data"}
    assert commands == set(generate_docs.COMMANDS)
    inner = {c.name or c.callback.__name__ for c in recipes.registered_commands if c.callback}
    assert inner == set(generate_docs.RECIPE_COMMANDS)
    for group, named in (
        (cards, generate_docs.CARD_COMMANDS),
        (components, generate_docs.COMPONENT_COMMANDS),
    ):
        assert [c.name for c in group.registered_commands] == named
    data_commands = {c.name or c.callback.__name__ for c in data.registered_commands if c.callback}
    data_commands |= {
        f"cache {c.name or c.callback.__name__}" for c in cache.registered_commands if c.callback
    }
    assert data_commands | {"cache"} == set(generate_docs.DATA_COMMANDS)
    readme = (ROOT / "README.md").read_text()
    assert [name for name in commands if f"domainclip {name}" not in readme] == []


def test_every_exit_code_is_documented() -> None:
    codes = {
        int(code)
        for code in re.findall(
            r"^\| (\d+) \|", (DOCS / "reference" / "exit-codes.md").read_text(), re.MULTILINE
        )
    }
    assert codes == {int(code) for code in ExitCode}


PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *DOCS.rglob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
        *(ROOT / "data_cards").glob("*.md"),
    ]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, heading in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", text):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page.name}: {target}"
        assert not heading or heading in _anchors(linked), f"{page.name}: {target}#{heading}"


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_pages_name_exist(page: Path) -> None:
    named = re.findall(r"(?<![\w/.])(docs/[\w./-]+\.(?:md|json))", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_tests_that_the_threat_model_names_exist() -> None:
    text = (ROOT / "docs/internals/threat-model.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/.]+)`", text))
    assert len(named) > 15
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    # Each row of the two tables of ways and attacks names one, or a target of make.
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.count("|") == 4]
    rows = [row for row in rows if not row.endswith("| Test |")]
    assert [row for row in rows if "`tests/" not in row and "`make " not in row] == []
