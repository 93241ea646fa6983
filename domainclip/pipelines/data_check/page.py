"""The check or preview of a corpus as one self-contained HTML page: no script, no request, light and dark."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from domainclip import __version__, report
from domainclip.data.schema import SPLITS
from domainclip.errors import RecipeError
from domainclip.pipelines.data_check import contact_sheet
from domainclip.pipelines.data_check.check import CorpusCheck

LEVELS = {"error": "✕ error", "warning": "▲ warning", "info": "· note"}
# Of this page, and of all reports: base.css.
_TEMPLATES = [Path(__file__).parent / "templates", Path(report.__file__).parent / "templates"]
_CLASSES = 60  # rows of the table of classes


def write_page(corpus_check: CorpusCheck, out: Path) -> Path:
    """Write findings and tables, without images or captions.

    Raises: RecipeError when the file cannot be written.
    """
    return _write(out, _build(corpus_check, []))


def write_preview(corpus_check: CorpusCheck, out: Path, number: int) -> Path:
    """Write the same and a contact sheet of `number` items, which shows images, captions and labels.

    Only its owner may read the file.

    Raises: RecipeError when the file cannot be written.
    """
    return _write(out, _build(corpus_check, list(contact_sheet.items(corpus_check, number))), mode=0o600)


def _build(corpus_check: CorpusCheck, shown: list[contact_sheet.ShownItem]) -> dict[str, Any]:
    """The variables of the template."""
    corpus, base, recipe = corpus_check.corpus, corpus_check.base, corpus_check.target.recipe
    most = max((n for _, _, n in corpus_check.tokens), default=1)
    return {
        "name": corpus.card.pretty_name or corpus.card.name,
        "levels": LEVELS,
        "errors": corpus_check.errors,
        "findings": corpus_check.findings,
        "splits": [
            (name, len(corpus.splits[name]), len(set(corpus.splits[name]["group"][:]))) for name in SPLITS
        ],
        "left_out": corpus_check.left_out(),
        "notes": corpus.notes,
        "limit": base.max_tokens if base else 0,
        "tokens": [
            (low, high, n, max(1, round(100 * n / most)) if n else 0) for low, high, n in corpus_check.tokens
        ],
        "scripts": corpus_check.scripts,
        "classes": _classes(corpus_check),
        "decoders": corpus_check.decoders,
        "shown": shown,
        "prepared": base is not None,
        "augmentation": recipe.train.augmentation if recipe else "none",
        "private": not corpus.card.names_may_show,
        "version": __version__,
    }


def _classes(corpus_check: CorpusCheck) -> list[tuple[str, list[int]]]:
    rows = [(name, [by_split[split] for split in SPLITS]) for name, by_split in corpus_check.classes.items()]
    return sorted(rows, key=lambda row: (-sum(row[1]), row[0]))[:_CLASSES]


def _write(out: Path, page: dict[str, Any], mode: int = 0o666) -> Path:
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = templates.get_template("check.html.j2").render(page)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            if mode == 0o600:  # also of a page that others could read before
                os.fchmod(handle, mode)
            stream.write(text)
    except OSError as error:
        raise RecipeError(f"{out}: cannot be written: {error.strerror}: name another file") from None
    return out
