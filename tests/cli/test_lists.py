"""Cards and components are listed, shown and copied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainclip import disk_cache, registry
from domainclip.cli.app import main
from domainclip.config import builtin
from domainclip.pipelines import early_checks
from domainclip.pipelines.plan import make_plan


def run(*words: str) -> int:
    try:
        main(list(words))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_every_card_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cards", "list") == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["card", "reader", "languages", "licence", "corpus"]
    assert [line.split()[0] for line in lines] == builtin.builtin_names("data_cards", ".md")
    assert max(map(len, lines)) < 140
    run("cards", "list", "--json")
    cards = {card["card"]: card for card in json.loads(capsys.readouterr().out)}
    assert cards["medical_xray"]["reader"] == "table"


def test_a_card_is_shown_and_copied_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = builtin.find_file("data_cards", "astronomy", ".md").read_text(encoding="utf-8")
    run("cards", "show", "astronomy")
    assert capsys.readouterr().out == text
    assert run("cards", "copy", "astronomy", str(tmp_path)) == 0
    assert (tmp_path / "astronomy.md").read_text(encoding="utf-8") == text
    assert run("cards", "copy", "astronomy", str(tmp_path)) == 2
    assert capsys.readouterr().err.endswith("astronomy.md: exists already; name another file\n")
    assert run("cards", "show", "astronmy") == 2
    assert 'did you mean "astronomy"?' in capsys.readouterr().err


def test_every_component_is_listed_without_importing_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("components", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(one["kind"], one["name"]) for one in listed] == [
        (kind, name) for kind in registry.KINDS for name in registry.names(kind)
    ]
    assert all(one["purpose"] for one in listed)
    run("components", "list", "curation")
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[1] for line in lines] == registry.names("curation")


def test_the_options_of_a_component(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("components", "show", "subset", "--json") == 0
    (component,) = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in component["options"]] == list(
        registry.schema("curation", "subset")["properties"]
    )
    run("components", "show", "subset")
    shown = capsys.readouterr().out
    for option in component["options"]:
        assert f"{option['name']}  " in shown
        assert option["type"] in shown
        assert option["meaning"] in shown
    assert run("components", "show", "loar") == 2
    assert 'no component "loar": did you mean "lora"?' in capsys.readouterr().err


def document(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The JSON document that a command prints."""
    assert run(*words) == 0
    return json.loads(capsys.readouterr().out)


def test_json_of_commands_that_print_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path))
    with disk_cache.writing("embeddings", "entry", (2,), np.float32, {"what": "two numbers"}) as array:
        array[:] = 0
    (entry,) = document(capsys, "data", "cache", "list", "--json")["entries"]
    assert (entry["kind"], entry["name"], entry["description"]) == ("embeddings", "entry", "two numbers")
    assert document(capsys, "validate", "-r", "astronomy", "--json") == {
        "schema_version": 1,
        "recipe": "astronomy",
        "valid": True,
    }
    planned = make_plan.Plan([("learns", "all")], ("small",))
    monkeypatch.setattr(early_checks, "check_recipe", lambda recipe: None)
    monkeypatch.setattr(make_plan, "plan", lambda *words, **options: planned)
    assert document(capsys, "plan", "-r", "astronomy", "--json") == {
        "schema_version": 1,
        "lines": [{"name": "learns", "value": "all"}],
        "warnings": ["small"],
    }
    assert run("plan", "-r", "astronomy") == 0
    assert capsys.readouterr().out.splitlines() == ["plan    value", "learns  all", "warning: small"]
    assert run("data", "cache", "list") == 0
    header, row, total = capsys.readouterr().out.splitlines()
    assert header.split() == ["kind", "name", "size", "used", "content"]
    assert row.split()[:2] == ["embeddings", "entry"]
    assert total.startswith("1 entry, ")
