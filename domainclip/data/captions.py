"""How the captions of an item are made from its columns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

_COLUMN = re.compile(r"\{([^{}]+)\}")
# Between clauses: punctuation, or the bare space between two columns side by side.
_SEPARATOR = re.compile(r"([,.;:](?:\s+|$)|(?<=\})\s+(?=\{))")


def normalise(text: str) -> str:
    """A text as it is compared with another: composed characters (NFC), no case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def columns_of(template: str) -> list[str]:
    """The columns that a template names, in order."""
    return list(dict.fromkeys(_COLUMN.findall(template)))


def fill(template: str, values: Mapping[str, str]) -> str:
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
