"""How the captions of an item are made from its columns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from domainclip.data.text import report_sections

_COLUMN = re.compile(r"\{([^{}]+)\}")
# Between clauses: punctuation, or the bare space between two columns side by side.
_SEPARATOR = re.compile(r"([,.;:](?:\s+|$)|(?<=\})\s+(?=\{))")


class Captions(BaseModel):
    """How the text of a pair is made, as the card says; `template` may name any column of the source."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    template: str | None = None
    # What one epoch shows of an item's captions: one of them, always the first, one sentence of one of
    # them, or one of the report's `sections`.
    policy: Literal["random", "first", "sentence", "section"] = "random"
    sections: list[str] = ["findings", "impression"]
    headings: dict[str, list[str]] = {}  # how a section is headed besides by its name, in any language
    # A caption longer than the base reads is cut at its end ("head"), or another part of it that fits is
    # shown each epoch ("window"), of `max_tokens` at most.
    overlong: Literal["truncate", "window"] = "truncate"
    max_tokens: int | None = Field(default=None, ge=4)
    # Which language an epoch shows: as often as it has captions, each alike, or with these weights.
    languages: Literal["natural", "balanced"] | dict[str, float] = "natural"
    merge_captions: bool = False  # rows that name the same picture are one item with all their captions
    # Captions made of the labels, in training only: templates with one {}, for all or for each label; or
    # "classes", the positive prompts of the card's own classes.
    templates: list[str] | dict[str, list[str]] = []
    template_share: float = Field(default=0.5, ge=0, le=1)  # how often, where there are other captions
    rewrites: list[str] = []  # columns that say the caption in other words, in training only
    rewrite_share: float = Field(default=0.5, ge=0, le=1)

    @field_validator("template")
    @classmethod
    def _names_a_column(cls, value: str | None) -> str | None:
        rest = re.sub(r"\{[^{}]+\}", "", value or "")
        if value is not None and (rest == value or "{" in rest or "}" in rest):
            raise ValueError('write each column in braces, as in "{style} painting, {text}"')
        return value

    @field_validator("templates")
    @classmethod
    def _with_a_place(cls, value: list[str] | dict[str, list[str]]) -> list[str] | dict[str, list[str]]:
        if isinstance(value, list):
            check_templates(value)
        return value

    @field_validator("languages")
    @classmethod
    def _weights(cls, value: str | dict[str, float]) -> str | dict[str, float]:
        if isinstance(value, dict) and (min(value.values(), default=0) < 0 or not sum(value.values())):
            raise ValueError("weights are not negative, and one at least is above 0")
        return value

    @model_validator(mode="after")
    def _used(self) -> Captions:
        if self.max_tokens is not None and self.overlong != "window":
            raise ValueError("max_tokens is the size of a window: set captions.overlong=window")
        others = sorted(set(self.headings) - set(self.sections))
        if others:
            raise ValueError(f'headings of "{others[0]}", which captions.sections does not name')
        return self


def check_templates(templates: list[str]) -> None:
    """Stops at a template without a place for the name of a class.

    Raises: ValueError, as pydantic wants it.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f'"{template}" must hold {{}} once, where the name of the class goes')


def normalise(text: str) -> str:
    """A text as it is compared with another: composed characters (NFC), no case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def template_columns(template: str) -> list[str]:
    """The columns that a template names, in order."""
    return list(dict.fromkeys(_COLUMN.findall(template)))


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """A template with the values of its columns, without the clauses that have nothing to say.

    A clause lies between the template's own , . ; and :, and columns side by side are a clause each. One
    is left out when a column in it is empty, or when it is a column alone that repeats an earlier one:
    "chest x-ray, {label}. {text}" with no text, or with a text equal to the label, gives
    "chest x-ray, COVID-19.". The whole is empty when no column has a value.
    """
    pieces = _SEPARATOR.split(template)
    said, used = "", set[str]()
    dropped_after = ""
    for clause, before in zip(pieces[::2], ["", *pieces[1::2]], strict=True):
        names = _COLUMN.findall(clause)
        texts = [values.get(name, "").strip() for name in names]
        repeats = clause.strip() == f"{{{names[0]}}}" and normalise(texts[0]) in used if names else False
        if not all(texts) or repeats:
            dropped_after = dropped_after or before
            continue
        used |= {normalise(text) for text in texts}
        said = _joined(said, before, _COLUMN.sub(lambda found: values[found[1]].strip(), clause))
        dropped_after = ""
    if not used:
        return ""
    # A full stop closes the sentence even when the next one is missing; a comma would dangle.
    return _joined(said, "." if dropped_after.startswith(".") else "", "").strip()


def _joined(said: str, separator: str, more: str) -> str:
    if not said:
        return more
    # A value that brings its own full stop does not get a second one.
    if separator.startswith(".") and said.rstrip().endswith((".", "!", "?")):
        said, separator = said.rstrip(), separator[1:]
    return said + separator + more


def section_captions(text: str, how: Captions) -> list[str]:
    """The sections that the card asks for, each a caption; nothing when the text has none of them."""
    found = report_sections.extract_sections(
        text, {name: how.headings.get(name, []) for name in how.sections}
    )
    return list(found.values())


def length_histogram(lengths: Sequence[int], most: int = 20) -> list[tuple[int, int, int]]:
    """Bins (from, up to and including, how many) of equal round width, at most `most` of them."""
    if not len(lengths):
        return []
    low, high = int(min(lengths)), int(max(lengths))
    widths = (step * 10**power for power in range(12) for step in (1, 2, 5))
    width = next(w for w in widths if high // w - low // w < most)
    bins = np.bincount(np.asarray(lengths) // width - low // width)
    first = low // width * width
    return [(first + i * width, first + (i + 1) * width - 1, int(n)) for i, n in enumerate(bins)]


REWRITES = "rewrites"  # where an item's meta keeps its captions in other words, as [text, language]
