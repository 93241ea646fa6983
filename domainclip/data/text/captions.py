"""The captions of an item: how they are made from its columns, and which of them an epoch shows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from domainclip.config.strict_model import StrictModel
from domainclip.data.text import report_sections

# Words that programs write for a missing caption. Some are class names as well ("None"): classes keep them.
EMPTY_WORDS = (
    *("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NaT", "None", "none", "NONE"),
    *("NULL", "Null", "null", "nil", "\\N", "-", "--", "\N{EN DASH}", "\N{EM DASH}"),
)
REWRITES = "rewrites"  # the key of an item's meta with its rewritten captions, as [text, language]
_COLUMN = re.compile(r"\{([^{}]+)\}")
# Between clauses: punctuation, or the space between two adjacent columns.
_SEPARATOR = re.compile(r"([,.;:](?:\s+|$)|(?<=\})\s+(?=\{))")


class Captions(StrictModel):
    """The card's options for captions; `template` may name any column of the source."""

    template: str | None = None  # columns in braces make the caption; null: unchanged
    empty_words: list[str] = list(EMPTY_WORDS)  # captions that count as empty, in this spelling
    # The text that an epoch shows of an item's captions: one of them, always the first, one sentence of one
    # of them, or one of the report's `sections`.
    policy: Literal["random", "first", "sentence", "section"] = "random"
    sections: list[str] = ["findings", "impression"]  # of a report, for policy: section
    headings: dict[str, list[str]] = {}  # further headings of a section besides its name, in any language
    # A caption longer than the base reads is truncated at its end, or each epoch shows another part of it
    # that fits ("window"), of `max_tokens` at most.
    overlong: Literal["truncate", "window"] = "truncate"
    max_tokens: int | None = Field(default=None, ge=4)  # of a window; null: what the model reads
    # The language that an epoch shows: in proportion to its captions, each equally, or with these weights.
    languages: Literal["natural", "balanced"] | dict[str, float] = "natural"
    merge_captions: bool = False  # rows that name the same image are one item with all their captions
    # Captions made of the labels, in training only: templates with one {}, for all labels or for each; or
    # "classes", the positive prompts of the card's classes.
    templates: list[str] | dict[str, list[str]] = []
    template_share: float = Field(default=0.5, ge=0, le=1)  # of the draws, where there are other captions
    rewrites: list[str] = []  # columns with the caption in other words, in training only
    rewrite_share: float = Field(default=0.5, ge=0, le=1)  # of the draws, where there are rewrites

    @field_validator("template")
    @classmethod
    def _names_a_column(cls, value: str | None) -> str | None:
        if not value:
            return None
        rest = re.sub(r"\{[^{}]+\}", "", value)
        if rest == value or "{" in rest or "}" in rest:
            raise ValueError('write each column in braces, as in "{style} painting, {text}"')
        return value and unicodedata.normalize("NFC", value)  # as the columns of a table are named

    @field_validator("templates")
    @classmethod
    def _templates_with_placeholder(
        cls, value: list[str] | dict[str, list[str]]
    ) -> list[str] | dict[str, list[str]]:
        if isinstance(value, list):
            check_templates(value)
        return value

    @field_validator("languages")
    @classmethod
    def _valid_weights(cls, value: str | dict[str, float]) -> str | dict[str, float]:
        if isinstance(value, dict) and (min(value.values(), default=0) < 0 or not sum(value.values())):
            raise ValueError(
                "a weight is negative, or all are 0: give weights of at least 0, one of them above 0"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Captions:
        if self.max_tokens is not None and self.overlong != "window":
            raise ValueError("max_tokens applies to windows only: set captions.overlong=window")
        unknown = sorted(set(self.headings) - set(self.sections))
        if unknown:
            raise ValueError(
                f'headings of "{unknown[0]}", which captions.sections does not name: add it there'
            )
        return self


def check_templates(templates: list[str]) -> None:
    """Refuse a template without exactly one placeholder for the name of a class.

    Raises: ValueError, which pydantic reports with the key.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f'"{template}" must hold {{}} once, where the name of the class goes')


def normalise(text: str) -> str:
    """A text in the form for comparisons: composed characters (NFC), no case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def template_columns(template: str) -> list[str]:
    """The columns that a template names, in order."""
    return list(dict.fromkeys(_COLUMN.findall(template)))


def without_columns(template: str, columns: Collection[str]) -> str | None:
    """The template without the clauses that name one of the columns; None when no column is left in it."""
    parts = _SEPARATOR.split(template)
    rest = ""
    for clause, separator in zip(parts[::2], ["", *parts[1::2]], strict=True):
        if not set(_COLUMN.findall(clause)) & set(columns):
            rest += (separator if rest else "") + clause
    return rest if _COLUMN.search(rest) else None


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """A template filled with the values of its columns, without its empty clauses.

    A clause lies between the template's , . ; and :, and adjacent columns are a clause each. A clause is
    omitted when a column in it is empty, or when it is a single column that repeats an earlier one:
    "chest x-ray, {label}. {text}" with no text, or with a text equal to the label, gives
    "chest x-ray, COVID-19.". The whole is empty when no column has a value.
    """
    parts = _SEPARATOR.split(template)  # clauses and separators alternate
    filled, used = "", set[str]()
    separator_of_omitted = ""
    for clause, separator in zip(parts[::2], ["", *parts[1::2]], strict=True):
        names = _COLUMN.findall(clause)
        texts = [values.get(name, "").strip() for name in names]
        repeats = clause.strip() == f"{{{names[0]}}}" and normalise(texts[0]) in used if names else False
        if not all(texts) or repeats:
            separator_of_omitted = separator_of_omitted or separator
            continue
        used |= {normalise(text) for text in texts}
        filled = _join(filled, separator, _COLUMN.sub(lambda match: values[match[1]].strip(), clause))
        separator_of_omitted = ""
    if not used:
        return ""
    # A full stop ends the sentence even when the next one is omitted; a comma would dangle.
    return _join(filled, "." if separator_of_omitted.startswith(".") else "", "").strip()


def _join(text: str, separator: str, clause: str) -> str:
    if not text:
        return clause
    # A value that ends with a full stop gets no second one.
    if separator.startswith(".") and text.rstrip().endswith((".", "!", "?")):
        text, separator = text.rstrip(), separator[1:]
    return text + separator + clause


def section_captions(text: str, options: Captions) -> list[str]:
    """The sections that the card names, each a caption; empty when the text has none of them."""
    headings = {name: options.headings.get(name, []) for name in options.sections}
    return list(report_sections.extract_sections(text, headings).values())


def length_histogram(lengths: Sequence[int], max_bins: int = 20) -> list[tuple[int, int, int]]:
    """Bins (first, last, count) of equal round width, at most `max_bins` of them."""
    if not len(lengths):
        return []
    low, high = int(min(lengths)), int(max(lengths))
    widths = (step * 10**power for power in range(12) for step in (1, 2, 5))
    width = next(w for w in widths if high // w - low // w < max_bins)
    bins = np.bincount(np.asarray(lengths) // width - low // width)
    first = low // width * width
    return [(first + i * width, first + (i + 1) * width - 1, int(n)) for i, n in enumerate(bins)]
