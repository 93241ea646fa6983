"""The captions of a row, from the columns that hold them or the template that names columns."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from domainclip.data.cards import Card, Columns
from domainclip.data.text import captions, languages

_NFC = "{} captions and class names were not in composed form (NFC), and are now"
_BROKEN = "{} captions and class names hold letters that were broken (shown as \N{REPLACEMENT CHARACTER})"
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a letter, as JSON can say it; no file can hold it
_WHOLE = "{} captions have none of the sections that the card asks for, and are taken whole"


def cell_text(value: Any) -> str:
    """A cell as text: nothing for null, NaN and the "nan" that some writers put for it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", str(value)).strip()
    return "" if text in ("nan", "NaN") else text  # but Nan is a name


def cell_values(value: Any) -> list[Any]:
    """The values of a cell, which may hold several."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def count_and_compose(text: str, told: Counter[str]) -> str:
    """The text in composed form, and counted when that changed it: `told` counts notes by their text."""
    whole = languages.to_nfc(text)
    told[_NFC] += whole != text
    told[_BROKEN] += "\N{REPLACEMENT CHARACTER}" in text
    return whole


def captions_in_columns(
    values: Mapping[str, Any], names: list[str], columns: Columns, card: Card, told: Counter[str]
) -> dict[str, str]:
    """The texts of some columns, each once, with their languages; of reports, the sections that count."""
    default, by_section = _language(values, columns, card), card.captions.policy == "section"
    own: dict[str, str] = {}
    for name in names:
        for cell in filter(None, map(cell_text, cell_values(values.get(name)))):
            text = count_and_compose(cell, told)
            found = captions.section_captions(text, card.captions) if by_section else []
            told[_WHOLE] += by_section and not found
            own |= dict.fromkeys(found or [text], columns.languages.get(name, default))
    return own


def captions_of_row(
    values: Mapping[str, Any], columns: Columns, card: Card, labels: list[str], told: Counter[str]
) -> dict[str, str]:
    """Each caption of a row once, with its language."""
    own = list(captions_in_columns(values, columns.texts or [], columns, card, told).items())
    template = card.captions.template
    if template is None:
        return dict(own)
    default = _language(values, columns, card)
    said = {
        name: count_and_compose(cell_text(values.get(name)), told)
        for name in captions.template_columns(template)
    }
    if columns.labels:
        said["label"] = ", ".join(labels)
    if "text" not in said:
        own = [("", default)]  # the template says all, and says it once
    own = own or [("", default)]
    filled = [(captions.fill_template(template, {**said, "text": text}), spoken) for text, spoken in own]
    return {text: spoken for text, spoken in filled if text}


def _language(values: Mapping[str, Any], columns: Columns, card: Card) -> str:
    spoken = cell_text(values.get(columns.language)) if columns.language else ""
    return spoken or (card.language[0] if len(card.language) == 1 else "")
