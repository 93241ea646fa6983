"""Hooks of the documentation site (mkdocs.yml): pages from outside docs/, links, the order of the menu.

make docs-site
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
# Pages at the top of the repository, and where they stand on the site.
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "internals/contributing.md",
    "CHANGELOG.md": "changelog.md",
    **{
        f"data_cards/{card.name}": f"cards/{card.name}" for card in sorted((ROOT / "data_cards").glob("*.md"))
    },
}
# Commands of 110 columns fit beside the menus.
STYLE = "assets/site.css"
STYLES = """.md-grid { max-width: 76rem; }
.md-typeset pre > code { font-size: .6rem; }
.md-typeset table:not([class]) { font-size: .66rem; }
"""
# The menu. Pages of a folder that stand in no section come last in the section of the folder.
MENU: dict[str, list[str]] = {
    "Start": ["index.md", "guide/start.md", "guide/comparison.md"],
    "Tutorials": ["tutorials/index.md", "tutorials/own_table.md", "tutorials/class_folders.md"],
    "How to": [
        *("guide/how_to.md", "guide/data.md", "guide/dicom.md", "guide/training.md", "guide/ablation.md"),
        *(
            "guide/use.md",
            "guide/export.md",
            "guide/push.md",
            "guide/audit.md",
            "guide/reliability.md",
            "guide/scale.md",
            "guide/speed.md",
        ),
    ],
    "Concepts": ["guide/concepts.md", "guide/evaluation.md", "guide/report.md"],
    "Reference": ["reference/commands.md", "reference/recipe-keys.md", "reference/components.md"],
    "Data cards": [],
    "Results": ["results/results.md"],
    "Development": ["internals/contributing.md", "internals/architecture.md"],
}
FOLDERS = {
    "tutorials": "Tutorials",
    "guide": "How to",
    "reference": "Reference",
    "cards": "Data cards",
    "results": "Results",
    "internals": "Development",
    "": "Development",
}


def on_files(files: Files, config: Any) -> Files:
    """The pages of docs/ and those from outside it, with a menu that names every page once."""
    files.append(File.generated(config, STYLE, content=STYLES))
    config.extra_css.append(STYLE)
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=page_from_outside(ROOT / source, page)))
    pages = [file.src_uri for file in files.documentation_pages()]
    config.nav = menu([page for page in pages if (ROOT / "docs" / page).exists() or page in OUTSIDE.values()])
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """The text of a page; links out of docs/ lead to the page of the site, or become plain names."""
    source = ROOT / "docs" / page.file.src_uri
    return with_site_links(markdown, source, page.file.src_uri) if source.exists() else markdown


def menu(pages: list[str]) -> list[dict[str, list[str]]]:
    """The sections of the menu with the pages that exist."""
    named = {page for section in MENU.values() for page in section}
    sections = {title: [page for page in section if page in pages] for title, section in MENU.items()}
    for page in sorted(set(pages) - named):
        sections[FOLDERS[page.rpartition("/")[0]]].append(page)
    return [{title: section} for title, section in sections.items() if section]


def page_from_outside(source: Path, page: str) -> str:
    """The Markdown of a file as a page of the site; the YAML of a data card is shown as code."""
    text = source.read_text(encoding="utf-8")
    if header := re.match(r"---\n(.*?\n)---\n", text, re.DOTALL):
        title = f"# {source.stem}\n\n" if "\n# " not in text else ""
        body = text[header.end() :]
        text = f"{title}{body}\n## The card\n\n```yaml\n{header[1]}```\n"
    return with_site_links(text, source, page)


def with_site_links(text: str, source: Path, page: str) -> str:
    """The text with each relative link rewritten for the place of the page on the site."""
    targets = {(ROOT / file).resolve(): place for file, place in OUTSIDE.items()}

    def rewrite(match: re.Match[str]) -> str:
        label, target, heading = match[1], match[2], match[3] or ""
        linked = (source.parent / target).resolve()
        if linked.is_relative_to(ROOT / "docs"):
            place = linked.relative_to(ROOT / "docs").as_posix()
        elif linked in targets:
            place = targets[linked]
        else:  # a file of the repository that is no page
            return f"{label}`{os.path.relpath(linked, ROOT)}`" if label.endswith("!") else label.strip("[]!")
        return f"{label}({os.path.relpath(place, os.path.dirname(page) or '.')}{heading})"

    return re.sub(r"(!?\[[^\]]*\])\(([^)#:\s]+)(#[^)\s]*)?\)", rewrite, text)
