"""The captions of a row, from the columns that hold them or the template that names columns."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from domainclip.data.cards import Card, Columns
from domainclip.data.text import captions, languages

# Templates of notes; each is counted, and filled with its count once all rows are read.
_NFC = "{} captions and class names were not in composed form (NFC), and are now"
_BROKEN = "{} captions and class names contain broken characters (shown as \N{REPLACEMENT CHARACTER})"
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which JSON can contain, but no file
_WHOLE = "{} captions have none of the sections that the card names, and are used whole"


def cell_text(value: Any) -> str:
    """A cell as text: empty for null, NaN and the "nan" that some writers store for it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", str(value)).strip()
    return "" if text in ("nan", "NaN") else text  # but Nan is a name


def cell_values(value: Any) -> list[Any]:
    """The values of a cell, which may hold several."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def compose_and_count(text: str, note_counts: Counter[str]) -> str:
    """The text in composed form; `note_counts` counts the changed and the broken texts by their note."""
    composed = languages.to_nfc(text)
    note_counts[_NFC] += composed != text
    note_counts[_BROKEN] += "\N{REPLACEMENT CHARACTER}" in text
    return composed


def captions_in_columns(
    values: Mapping[str, Any], names: list[str], columns: Columns, card: Card, note_counts: Counter[str]
) -> dict[str, str]:
    """The texts of some columns, each once, with their languages; of reports, the sections of the card."""
    default, by_section = _language(values, columns, card), card.captions.policy == "section"
    language_of: dict[str, str] = {}
    for name in names:
        for cell in filter(None, map(cell_text, cell_values(values.get(name)))):
            text = compose_and_count(cell, note_counts)
            sections = captions.section_captions(text, card.captions) if by_section else []
            note_counts[_WHOLE] += by_section and not sections
            language_of |= dict.fromkeys(sections or [text], columns.languages.get(name, default))
    return language_of


def captions_of_row(
    values: Mapping[str, Any], columns: Columns, card: Card, labels: list[str], note_counts: Counter[str]
) -> dict[str, str]:
    """Each caption of a row once, with its language."""
    texts = list(captions_in_columns(values, columns.texts or [], columns, card, note_counts).items())
    template = card.captions.template
    if template is None:
        return dict(texts)
    default = _language(values, columns, card)
    cells = {
        name: compose_and_count(cell_text(values.get(name)), note_counts)
        for name in captions.template_columns(template)
    }
    if columns.labels:
        cells["label"] = ", ".join(labels)
    if "text" not in cells:
        texts = []  # the template makes one caption, whatever the number of texts
    filled = [
        (captions.fill_template(template, {**cells, "text": text}), language)
        for text, language in texts or [("", default)]
    ]
    return {text: language for text, language in filled if text}


def _language(values: Mapping[str, Any], columns: Columns, card: Card) -> str:
    language = cell_text(values.get(columns.language)) if columns.language else ""
    return language or (card.language[0] if len(card.language) == 1 else "")
