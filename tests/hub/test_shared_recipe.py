"""A pushed recipe and its data cards run elsewhere: in an empty home, from a folder that was downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from domainclip.cli.app import app
from domainclip.config import builtin
from domainclip.config.loading import load_recipe
from domainclip.config.recipe import Recipe
from domainclip.data.cards import Card, load_card
from domainclip.errors import RecipeError
from domainclip.hub.allowlist import files_to_push
from domainclip.hub.shared_recipe import shared_texts
from tests.support.run_folders import made_run

CARD = """---
pretty_name: Films of a clinic
license: cc-by-4.0
language: [de]
domainclip:
  reader: dicom
  columns: {image: file, texts: report, labels: finding, group: patient}
  options: {reports: /srv/PACS/DOE_JANE/reports.csv}
  classes: {normal: [ohne Befund], effusion: {positive: [ein Erguss], negative: [kein Erguss]}}
  retention: {card: general, path: ../DOE_JANE_general}
  privacy: {identifiers: de-identified, burned_in_text: "no"}
  obtain: ask Jane Doe for /srv/PACS
  verified: [patient Doe was removed]
---

# Films

Films of the
year 2020.

Patient Doe, 4711.
"""


@pytest.fixture
def pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a push of a run with a card of its own, in a folder on another machine."""
    (tmp_path / "clinic.md").write_text(CARD, encoding="utf-8")
    corpus = {"path": "/srv/PACS/DOE_JANE", "card": str(tmp_path / "clinic.md"), "min_items": 3}
    settings = Recipe.model_validate(
        {"name": "films", "base": {"path": "lab/clip"}, "corpus": corpus, "strategy": {"lora": {}}}
    )
    run = made_run(tmp_path / "run", settings=settings)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for file in files_to_push(run):
        if isinstance(file.source, bytes):
            (folder / file.path).write_bytes(file.source)
    (tmp_path / "clinic.md").unlink()
    monkeypatch.setenv("HOME", str(tmp_path / "empty"))
    monkeypatch.chdir(folder)
    return folder


def test_it_validates_with_the_paths_of_whoever_runs_it(pushed: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    given = [f"corpus.path={tmp_path / 'films'}", "corpus.options.reports=reports.csv", "retention=null"]
    done = CliRunner().invoke(app, ["validate", "-r", "recipe.yaml", *given])
    assert (done.exit_code, done.output) == (0, "recipe.yaml: valid\n")
    recipe = load_recipe("recipe.yaml", given)
    card = load_card(recipe.corpus.card, recipe.corpus.overrides())
    assert (card.name, card.reader, card.language, card.min_items) == ("clinic", "dicom", ["de"], 3)
    assert card.classes["effusion"].negative == ["kein Erguss"]
    assert card.options == {"reports": "reports.csv"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [],
            "recipe.yaml: corpus.path: (local) stands for a path that was taken out when this was shared: name it with corpus.path=PATH",
        ),
        (
            ["corpus.path=films"],
            "recipe.yaml: retention.path: (local) stands for a path that was taken out when this was shared: "
            "name it with retention.path=PATH, or retention=null corpus.retention=null to measure no retention set",
        ),
        (
            ["corpus.path=films", "retention=null"],
            "data_card.md: options.reports: (local) stands for a path that was taken out when this was "
            "shared: name it with corpus.options.reports=PATH",
        ),
    ],
)
def test_a_path_that_is_missing_is_named(pushed: Path, given: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["validate", "-r", "recipe.yaml", *given])
    assert isinstance(done.exception, RecipeError)
    assert str(done.exception) == message


def test_the_card_has_neither_paths_nor_notes(pushed: Path) -> None:
    text = (pushed / "data_card.md").read_text(encoding="utf-8")
    assert not [word for word in ("DOE", "Doe", "4711", "PACS", "srv", "verified", "obtain") if word in text]
    assert text.endswith("---\n\nFilms of the\nyear 2020.\n")
    front = yaml.safe_load(text.split("---")[1])
    assert (front["pretty_name"], front["license"], front["language"]) == (
        "Films of a clinic",
        "cc-by-4.0",
        ["de"],
    )
    assert load_card(str(pushed / "retention_card.md")).name == "general"


@pytest.mark.parametrize("name", builtin.builtin_names("data_cards", ".md"))
def test_every_built_in_card_is_the_same_after_a_push(name: str, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "base": {"path": "a/b"},
            "corpus": {"path": "/x", "card": name},
            "strategy": {"full": {}},
        }
    )
    texts = {file: text for file, text, _ in shared_texts(recipe)}
    (tmp_path / "data_card.md").write_text(texts["data_card.md"], encoding="utf-8")
    without = {"description", "verified", "not_verified", "retention", "obtain"}
    before = load_card(name).model_dump(exclude=without)
    assert load_card(str(tmp_path / "data_card.md")).model_dump(exclude=without) == before
    assert before != Card().model_dump(exclude=without)


def test_a_corpus_on_the_hub_keeps_its_name() -> None:
    corpus = {"path": "lab/chests", "reader": "hub"}
    recipe = Recipe.model_validate(
        {"name": "x", "base": {"path": "a/b"}, "corpus": corpus, "strategy": {"full": {}}}
    )
    (only,) = shared_texts(recipe)
    assert yaml.safe_load(only[1])["corpus"] == corpus | {"card": None}
