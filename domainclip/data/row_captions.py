"""The captions of a row, from the columns that hold them or a template, and its further columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from domainclip.data.cards import Card
from domainclip.data.files.column_roles import Columns
from domainclip.data.schema import ACQUISITION, CANDIDATES, CHANGE, REFERENCE, SOURCE, WRITTEN
from domainclip.data.text import captions, languages
from domainclip.data.text.cells import caption_texts, cell_text, of_column, template_text

# Templates of notes; each is counted, and filled with its count once all rows are read.
_NFC = "{} captions and class names were not in composed form (NFC), and are now"
_BROKEN = "{} captions and class names contain broken characters (shown as \N{REPLACEMENT CHARACTER})"
_WHOLE = "{} captions have none of the sections that the card names, and are used whole"
_EMPTY_WORDS = "{} captions are words for a missing value, and count as empty (corpus.captions.empty_words)"


def used_columns(columns: Columns, card: Card) -> list[str]:
    """Every column of the source that the items are made of; {text} and {label} of a template are none."""
    labels = [columns.labels] if isinstance(columns.labels, str) else columns.labels or []
    roles = [columns.id, columns.language, columns.group, columns.truth, columns.split, columns.source]
    roles += [columns.reference, columns.change, columns.candidates, columns.written]
    texts = [*(columns.texts or []), *card.captions.rewrites]
    template = captions.template_columns(card.captions.template or "")
    return [
        name for name in (*roles, *texts, *labels, *columns.meta, *columns.acquisition, *template) if name
    ]


def compose_and_count(text: str, note_counts: Counter[str]) -> str:
    """The text in composed form; `note_counts` counts the changed and the broken texts by their note."""
    composed = languages.to_nfc(text)
    note_counts[_NFC] += composed != text
    note_counts[_BROKEN] += "\N{REPLACEMENT CHARACTER}" in text
    return composed


def captions_in_columns(
    values: Mapping[str, Any], names: list[str], columns: Columns, card: Card, note_counts: Counter[str]
) -> dict[str, str]:
    """The texts of some columns, each once, with their languages; of reports, the sections of the card.

    Raises: CellFault for a cell that is no text and of no known form.
    """
    default, by_section = _language(values, columns, card), card.captions.policy == "section"
    language_of: dict[str, str] = {}
    for name in names:
        for cell in of_column(caption_texts, values, name):
            if cell in card.captions.empty_words:
                note_counts[_EMPTY_WORDS] += 1
                continue
            text = compose_and_count(cell, note_counts)
            sections = captions.section_captions(text, card.captions) if by_section else []
            note_counts[_WHOLE] += by_section and not sections
            language_of |= dict.fromkeys(sections or [text], columns.languages.get(name, default))
    return language_of


def captions_of_row(
    values: Mapping[str, Any], columns: Columns, card: Card, labels: list[str], note_counts: Counter[str]
) -> dict[str, str]:
    """Each caption of a row once, with its language.

    Raises: CellFault for a cell that is no text and of no known form.
    """
    template = card.captions.template
    named = [] if template is None else captions.template_columns(template)
    # A template without {text} makes one caption, whatever the number of texts.
    text_columns = (columns.texts or []) if template is None or "text" in named else []
    texts = captions_in_columns(values, text_columns, columns, card, note_counts)
    if template is None:
        return texts
    default = _language(values, columns, card)
    cells = {
        name: compose_and_count(
            _without_empty_words(of_column(template_text, values, name), card), note_counts
        )
        for name in named
        if name != "text" and not (name == "label" and columns.labels)
    }
    if columns.labels:
        cells["label"] = ", ".join(labels)
    filled = [
        (captions.fill_template(template, {**cells, "text": text}), language)
        for text, language in texts.items() or [("", default)]
    ]
    return {text: language for text, language in filled if text}


def meta_of_row(
    values: Mapping[str, Any],
    columns: Columns,
    card: Card,
    note_counts: Counter[str],
    *,
    with_texts: bool,
) -> dict[str, Any]:
    """The columns for subgroups and of other roles, and with its texts the rewritten captions of a row.

    Raises: CellFault for a cell that is no text and of no known form.
    """
    meta: dict[str, Any] = {name: of_column(cell_text, values, name) for name in columns.meta}
    if columns.source:
        meta[SOURCE] = languages.to_nfc(of_column(cell_text, values, columns.source))
    acquisition = [of_column(cell_text, values, name) for name in columns.acquisition]
    if any(acquisition):
        meta[ACQUISITION] = languages.to_nfc(", ".join(filter(None, acquisition)))
    if columns.reference and (id := of_column(cell_text, values, columns.reference)):
        meta[REFERENCE] = id  # as the ids of items, in whatever form their letters have
    if columns.change and (change := of_column(cell_text, values, columns.change)):
        meta[CHANGE] = languages.to_nfc(change)
    if columns.candidates and (ids := _listed(values, columns.candidates)):
        meta[CANDIDATES] = ids
    if columns.written and (words := _listed(values, columns.written)):
        meta[WRITTEN] = [languages.to_nfc(word) for word in words]
    if card.captions.rewrites and with_texts:
        rewrites = captions_in_columns(values, card.captions.rewrites, columns, card, note_counts)
        meta[captions.REWRITES] = list(rewrites.items())
    return meta


def _listed(values: Mapping[str, Any], name: str) -> list[str]:
    """The texts of a cell: those of a list, or of a text with ; between them."""
    parts = [part for cell in of_column(caption_texts, values, name) for part in cell.split(";")]
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _language(values: Mapping[str, Any], columns: Columns, card: Card) -> str:
    language = of_column(cell_text, values, columns.language) if columns.language else ""
    return language or (card.language[0] if len(card.language) == 1 else "")


def _without_empty_words(text: str, card: Card) -> str:
    return "" if text in card.captions.empty_words else text
