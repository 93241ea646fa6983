"""The sections of a report, extracted by their headings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

from domainclip.data.text import report_headings

_AND = r"(?:\s*[/&+,、・]\s*|\s+(?:and|und|et|y|e|en|og|och|i|a|и)\s+)"
# A section ends at each of these, even when the section that they begin is not extracted.
_ALL = (
    *report_headings.OTHERS,
    *(heading for name in report_headings.SYNONYMS for heading in report_headings.synonyms(name)),
)


def extract_sections(text: str, headings: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The text of each section by its name, in the order of `headings`; absent sections are omitted.

    `headings` lists the spellings of each section, case ignored. Its name is always one, and so are the usual
    synonyms of findings and impression, in many languages, unless another section has them. Recognised are
    "FINDINGS: …", "Findings - …", "## Findings", "**Findings**", "[FINDINGS]" and a heading alone on its
    line, and in running text a heading with a colon after a full stop. The text under "Findings and
    impression:" belongs to both.
    """
    text = unicodedata.normalize("NFC", text)  # some systems write accents as separate characters
    section_of = {heading: name for name in headings for heading in report_headings.synonyms(name.casefold())}
    section_of |= {
        " ".join(unicodedata.normalize("NFC", spelling).casefold().split()): name
        for name, spellings in headings.items()
        for spelling in (name, *spellings)
    }
    matches = list(_pattern(tuple(sorted({*section_of, *_ALL}))).finditer(text))
    bodies: dict[str, list[str]] = {}
    ends = [match.start() for match in matches[1:]] + [len(text)]
    for match, end in zip(matches, ends, strict=False):
        body = " ".join(text[match.end() : end].split()).strip("*_ ")
        whole = _heading(match)
        for heading in (whole, *re.split(_AND, whole)):
            name = section_of.get(heading)
            if name is not None and body and body not in bodies.setdefault(name, []):
                bodies[name].append(body)
    return {name: " ".join(bodies[name]) for name in headings if bodies.get(name)}


def _heading(match: re.Match[str]) -> str:
    return " ".join((match["line"] or match["inline"]).casefold().split())


@lru_cache(maxsize=16)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    # The longest first, so that "clinical history" is not read as "history".
    longest = sorted(names, key=len, reverse=True)
    words = "|".join(r"\s+".join(map(re.escape, name.split())) for name in longest)
    several = rf"(?:{words})(?:{_AND}(?:{words}))*"
    return re.compile(
        rf"(?:^|(?<=\n))[ \t]*(?:#+[ \t]*|\d+[.)][ \t]*)?[*_\[]*(?P<line>{several})[*_\]]*"
        rf"(?:[ \t]*[:：][*_]*|[ \t]+[-–—](?=\s)|[ \t]*(?=\n|$))"
        rf"|(?:(?<=[.!?;。]\s)|(?<=[.!?;。]\s\s))(?P<inline>{several})[ \t]*[:：]",
        re.IGNORECASE,
    )
