"""A check and a preview as one self-contained HTML page: no script, no request, light and dark."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from domainclip import __version__
from domainclip.data.schema import SPLITS
from domainclip.errors import RecipeError
from domainclip.pipelines.data_check import contact_sheet
from domainclip.pipelines.data_check.check import CorpusCheck

LEVELS = {"error": "✕ error", "warning": "▲ warning", "info": "· note"}
_CLASSES = 60  # rows of the table of classes


def write_page(checkup: CorpusCheck, out: Path) -> Path:
    """The findings and tables, without pictures or captions.

    Raises: RecipeError when the file cannot be written.
    """
    return _write(out, _build(checkup, []))


def write_preview(checkup: CorpusCheck, out: Path, number: int) -> Path:
    """The same, and a contact sheet of `number` items: it shows pictures, captions and labels.

    Only its owner may read the file.

    Raises: RecipeError when the file cannot be written.
    """
    return _write(out, _build(checkup, list(contact_sheet.items(checkup, number))), mode=0o600)


def _build(checkup: CorpusCheck, shown: list[contact_sheet.ShownItem]) -> dict[str, Any]:
    """Everything that the template names."""
    corpus, base, recipe = checkup.corpus, checkup.base, checkup.target.recipe
    most = max((n for _, _, n in checkup.tokens), default=1)
    return {
        "name": corpus.card.pretty_name or corpus.card.name,
        "levels": LEVELS,
        "errors": checkup.errors,
        "findings": checkup.findings,
        "splits": [
            (name, len(corpus.splits[name]), len(set(corpus.splits[name]["group"][:]))) for name in SPLITS
        ],
        "left_out": checkup.left_out(),
        "notes": corpus.notes,
        "limit": base.max_tokens if base else 0,
        "tokens": [
            (low, high, n, max(1, round(100 * n / most)) if n else 0) for low, high, n in checkup.tokens
        ],
        "scripts": checkup.scripts,
        "classes": _classes(checkup),
        "decoders": checkup.decoders,
        "shown": shown,
        "prepared": base is not None,
        "augmentation": recipe.train.augmentation if recipe else "none",
        "private": not corpus.card.names_may_show,
        "version": __version__,
    }


def _classes(checkup: CorpusCheck) -> list[tuple[str, list[int]]]:
    rows = [(name, [by_split[split] for split in SPLITS]) for name, by_split in checkup.classes.items()]
    return sorted(rows, key=lambda row: (-sum(row[1]), row[0]))[:_CLASSES]


def _write(out: Path, page: dict[str, Any], mode: int = 0o666) -> Path:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = templates.get_template("checkup.html.j2").render(page)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            if mode == 0o600:  # also where a page that all may read stood before
                os.fchmod(handle, mode)
            stream.write(text)
    except OSError as error:
        raise RecipeError(f"{out}: cannot be written: {error.strerror}: name another file") from None
    return out
