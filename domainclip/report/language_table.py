"""Retrieval by language and direction as one table for each set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.report import phrasing

_METRICS = (
    "image_to_text_r1",
    "image_to_text_minus_english",
    "text_to_image_r1",
    "text_to_image_minus_english",
)
_HEAD = ("Language", "Items", "Image to text", "… minus English", "Text to image", "… minus English")
_NONE = "–"


@dataclass(frozen=True)
class LanguageTable:
    """One row for each language: base → adapted, and the difference from English with its interval."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def language_tables(rows: Sequence[ComparisonRow]) -> list[LanguageTable]:
    """The tables of the probe `multilingual`; none where it was not measured."""
    measured = [row for row in rows if row.probe == "multilingual" and row.whole in _METRICS]
    tables = []
    for name in dict.fromkeys(row.dataset for row in measured):
        by_language: dict[str, dict[str, ComparisonRow]] = {}
        for row in measured:
            if row.dataset == name:
                by_language.setdefault(row.part, {})[row.whole] = row
        # English, the only one without a difference from it, comes first.
        order = sorted(by_language, key=lambda language: (len(by_language[language]), language))
        lines = [_line(language, by_language[language]) for language in order]
        tables.append(LanguageTable(f"R@1 by language and direction on {name}", _HEAD, lines))
    return tables


def _line(language: str, metrics: Mapping[str, ComparisonRow]) -> list[str]:
    items = str(metrics["text_to_image_r1"].n) if "text_to_image_r1" in metrics else _NONE
    return [language, items, *(_cell(metrics.get(metric)) for metric in _METRICS)]


def _cell(row: ComparisonRow | None) -> str:
    if row is None:
        return _NONE
    if row.unit == "share":
        before = phrasing.number(row.base.value, row.unit)
        return before if row.adapted is None else f"{before} → {phrasing.number(row.adapted.value, row.unit)}"
    last = row.adapted or row.base
    before = "" if row.adapted is None else f"{phrasing.signed(row.base.value, row.unit)} → "
    return f"{before}{phrasing.signed(last.value, row.unit)} ({phrasing.span(last, row.unit, sign=True)})"
