"""The sections of a report, extracted by their headings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Headings that end a section even when the section that they begin is not extracted: the usual ones of
# radiology reports [LOINC 18748-4]. Others, and those of other languages, are named by the card.
_USUAL = (
    *("examination", "exam", "study", "procedure", "indication", "clinical indication", "reason for exam"),
    *("reason for examination", "reason for study", "history", "clinical history", "clinical information"),
    *("comparison", "comparisons", "technique", "contrast", "findings", "impression", "impressions"),
    *("conclusion", "conclusions", "opinion", "summary", "recommendation", "recommendations", "addendum"),
    *("notification", "wet read", "final report", "report", "attestation", "signed by", "dictated by"),
)
_AND = r"(?:\s*[/&+,]\s*|\s+(?:and|und|et|y|e)\s+)"


def extract_sections(text: str, headings: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The text of each section by its name, in the order of `headings`; absent sections are omitted.

    `headings` lists the spellings of each section, case ignored; its name is always one. Recognised are
    "FINDINGS: …", "Findings - …", "## Findings", "**Findings**", "[FINDINGS]" and a heading alone on its
    line, and in running text a heading with a colon after a full stop. The text under "Findings and
    impression:" belongs to both.
    """
    section_of = {
        " ".join(spelling.casefold().split()): name
        for name, spellings in headings.items()
        for spelling in (name, *spellings)
    }
    matches = list(_pattern((*section_of, *_USUAL)).finditer(text))
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


def _pattern(names: Sequence[str]) -> re.Pattern[str]:
    # The longest first, so that "clinical history" is not read as "history".
    longest = sorted(set(names), key=len, reverse=True)
    words = "|".join(r"\s+".join(map(re.escape, name.split())) for name in longest)
    several = rf"(?:{words})(?:{_AND}(?:{words}))*"
    return re.compile(
        rf"(?:^|(?<=\n))[ \t]*(?:#+[ \t]*|\d+[.)][ \t]*)?[*_\[]*(?P<line>{several})[*_\]]*"
        rf"(?:[ \t]*[:：][*_]*|[ \t]+[-–—](?=\s)|[ \t]*(?=\n|$))"
        rf"|(?:(?<=[.!?;。]\s)|(?<=[.!?;。]\s\s))(?P<inline>{several})[ \t]*[:：]",
        re.IGNORECASE,
    )
