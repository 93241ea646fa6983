"""The documentation site: every page has one place in the menu, and links fit the places; `make docs-site` builds it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tools import docs_site

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")), *docs_site.OUTSIDE.values()]


def test_every_page_has_one_place_in_the_menu() -> None:
    placed = [page for section in docs_site.menu(PAGES) for pages in section.values() for page in pages]
    assert len(PAGES) > 40
    assert sorted(placed) == sorted(PAGES)
    assert placed[0] == "index.md"


def test_a_page_of_an_unknown_folder_is_an_error() -> None:
    with pytest.raises(KeyError, match="elsewhere"):
        docs_site.menu(["elsewhere/page.md"])


@pytest.mark.parametrize(
    ("link", "source", "page", "on_the_site"),
    [
        ("[a](docs/guide/data.md#cells)", "README.md", "index.md", "[a](guide/data.md#cells)"),
        ("![a](docs/images/report.png)", "README.md", "index.md", "![a](images/report.png)"),
        ("[a](CONTRIBUTING.md)", "README.md", "index.md", "[a](internals/contributing.md)"),
        (
            "[a](docs/internals/releases.md)",
            "CONTRIBUTING.md",
            "internals/contributing.md",
            "[a](releases.md)",
        ),
        ("[a](../../README.md)", "docs/guide/use.md", "guide/use.md", "[a](../index.md)"),
        ("[a](../../data_cards/general.md)", "docs/guide/use.md", "guide/use.md", "[a](../cards/general.md)"),
        ("[a](../../Makefile)", "docs/guide/use.md", "guide/use.md", "a"),
        ("[a](https://arxiv.org/abs/1)", "README.md", "index.md", "[a](https://arxiv.org/abs/1)"),
        ("[a](#cells)", "docs/guide/data.md", "guide/data.md", "[a](#cells)"),
    ],
)
def test_links_lead_to_the_page_of_the_site(link: str, source: str, page: str, on_the_site: str) -> None:
    assert docs_site.with_site_links(link, ROOT / source, page) == on_the_site


def test_a_data_card_shows_its_yaml() -> None:
    text = docs_site.page_from_outside(ROOT / "data_cards/art_paintings.md", "cards/art_paintings.md")
    assert text.startswith("\n# Paintings")
    block = text.partition("```yaml\n")[2].partition("```")[0]
    assert yaml.safe_load(block)["domainclip"]["reader"] == "table"


def test_the_site_asks_no_other_host_and_is_strict() -> None:
    settings = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in settings
    assert "strict: true" in settings
    assert settings.count("warn") == 5
