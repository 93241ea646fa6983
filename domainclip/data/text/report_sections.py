"""The sections of a report, cut out by their headings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Headings that end a section even when nobody asks for what they begin: the usual ones of radiology reports
# [LOINC 18748-4]. Others, and those of other languages, are named by the card.
_USUAL = (
    *("examination", "exam", "study", "procedure", "indication", "clinical indication", "reason for exam"),
    *("reason for examination", "reason for study", "history", "clinical history", "clinical information"),
    *("comparison", "comparisons", "technique", "contrast", "findings", "impression", "impressions"),
    *("conclusion", "conclusions", "opinion", "summary", "recommendation", "recommendations", "addendum"),
    *("notification", "wet read", "final report", "report", "attestation", "signed by", "dictated by"),
)
_AND = r"(?:\s*[/&+,]\s*|\s+(?:and|und|et|y|e)\s+)"


def extract_sections(text: str, headings: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What stands under each heading, by its name, in the order of `headings`; absent ones are left out.

    `headings` gives each section its spellings, case not counting; its own name is always one. Read are
    "FINDINGS: …", "Findings - …", "## Findings", "**Findings**", "[FINDINGS]" and a heading alone on its
    line, and in running text a heading with a colon after a full stop. What stands under "Findings and
    impression:" belongs to both.
    """
    spelt = {" ".join(w.casefold().split()): name for name, own in headings.items() for w in (name, *own)}
    marks = list(_pattern((*spelt, *_USUAL)).finditer(text))
    found: dict[str, list[str]] = {}
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=False):
        body = " ".join(text[mark.end() : end].split()).strip("*_ ")
        whole = _plain(mark)
        for heading in (whole, *re.split(_AND, whole)):
            name = spelt.get(heading)
            if name is not None and body and body not in found.setdefault(name, []):
                found[name].append(body)
    return {name: " ".join(found[name]) for name in headings if found.get(name)}


def _plain(mark: re.Match[str]) -> str:
    return " ".join((mark["line"] or mark["inline"]).casefold().split())


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
