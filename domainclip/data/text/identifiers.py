"""What in a caption may identify a person: by its form, or as a value of the header of its own study.

A search by form finds what is written as people write it, and misses the rest: nothing here proves that a
text is de-identified.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_MONTHS = (
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mär|mai|okt|dez|janv|févr|mars|avr|juin|juil|août|déc|"
    r"ene|abr|ago|dic|gen|mag|giu|lug|set|ott)[a-zäéû]*\.?"
)
_DAY = (
    r"(?:\d{1,2}[./-]\d{1,2}[./-](?:(?:19|20)\d\d|\d\d)|(?:19|20)\d\d[./-]\d{1,2}[./-]\d{1,2}|"
    rf"\d{{1,2}}(?:st|nd|rd|th|\.|er)?(?: (?:of|de|di))? ?{_MONTHS}(?: de)? ?(?:19|20)\d\d|"
    rf"{_MONTHS} \d{{1,2}}(?:st|nd|rd|th)?,? (?:19|20)\d\d)(?!\d)"
)
_BORN = (
    r"(?:d\.?o\.?b\.?|date of birth|birth ?date|born(?: on)?|geb(?:oren|\.)?(?: am)?|geburtsdatum|née? le|"
    r"date de naissance|fecha de nacimiento|nacid[oa] el|data di nascita|nat[oa] il)"
)
# A longer word that begins like a label is none: "patch16-224".
_RECORD = (
    r"(?:mrn|(?:medical record|record|patient|pat|accession|acc|case|visit|fall|fallnummer|dossier|"
    r"historia(?: clínica)?|cartella)(?:(?![^\W\d_])|(?=(?:id|no|nr|num|number|nummer)(?![^\W\d_]))))"
    r"[\s.-]{0,2}(?:id|no|nr|num|number|nummer|#|№|n°)?\.?"
)
_CAPITALISED = r"[A-ZÀ-ÖØ-Þ][\w'’-]+"
_TITLE = r"(?:Mr|Mrs|Ms|Miss|Dr|Prof|Herrn?|Frau|Mme|Monsieur|Madame|Sra?|Sig(?:ra)?)\b\.?"
_SIGNED = (
    r"(?:(?:patient(?:'s)? )?name|(?:electronically )?signed(?: by)?|dictated by|reported by|"
    r"referring physician|radiologist|befundet von|nom|nombre)"
)
# The first kind that matches a place counts. Names need their capitals; words around numbers do not.
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("e-mail address", re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w")),
    # The root 1.2.840.10008 belongs to the standard: transfer syntaxes and classes, not persons.
    (
        "DICOM UID",
        re.compile(r"(?<![\w.])(?!1\.2\.840\.10008\.)[0-2](?:\.(?:0|[1-9]\d*)){6,}\b|\b2\.25\.\d{20,}"),
    ),
    ("date of birth", re.compile(rf"\b{_BORN}\W{{0,4}}(?:{_DAY}|(?:19|20)\d{{6}})", re.IGNORECASE)),
    (
        "telephone number",
        re.compile(
            r"(?:\b(?:tel|phone|fax|mobile|cell)[a-zé]*\W{0,3}\+?\d[\d ()/.-]{5,}\d"
            r"|\+\d{1,3}[ (]\d[\d ()/.-]{6,}\d)",
            re.IGNORECASE,
        ),
    ),
    (
        "national number",
        re.compile(r"(?<![\d.-])(?:\d{3}-\d{2}-\d{4}|\d{3} \d{3} \d{4}|756\.\d{4}\.\d{4}\.\d{2})(?![\d.-])"),
    ),
    (
        "record number",
        re.compile(rf"\b{_RECORD}\s*[:#=]?\s*(?=[\w-]*\d{{3}})[A-Z]{{0,4}}-?\d[\w-]{{3,}}", re.IGNORECASE),
    ),
    (
        "name",
        re.compile(
            rf"\b(?:{_TITLE} {_CAPITALISED}(?:[ ,^]+{_CAPITALISED})*"
            rf"|(?i:{_SIGNED})\s*[:=]\s*{_CAPITALISED}(?:[ ,^]+{_CAPITALISED})*"
            rf"|(?i:patient)\s*[:=]\s*{_CAPITALISED}(?:\^|, ?){_CAPITALISED})"
        ),
    ),
    (
        "age above 89",
        re.compile(
            r"\b(?:9\d|1[01]\d)[- ]?(?:years?|yrs?|y/?o|jahre|jährige[rn]?|ans|años|anni)\b", re.IGNORECASE
        ),
    ),
    ("date", re.compile(rf"(?<![\d.]){_DAY}", re.IGNORECASE)),
)


@dataclass(frozen=True)
class Identifier:
    """A part of a text that may identify a person: text[start:end]."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class KnownValues:
    """Values that belong to the person of an item: of the header of its study, or of its row."""

    names: Sequence[str] = ()  # single names, at least three letters each
    numbers: Sequence[str] = ()
    dates: Sequence[tuple[int, int, int]] = ()  # year, month, day

    def patterns(self) -> Iterator[tuple[str, re.Pattern[str]]]:
        """The kind and the pattern of each value that is there."""
        if self.names:
            # As names are written: "Long" and "LONG", but not the adjective "long".
            forms = (re.escape(form) for name in self.names for form in {name.capitalize(), name.upper()})
            yield "name", re.compile(rf"(?<!\w)(?:{'|'.join(forms)})(?!\w)")
        if self.numbers:
            numbers = "|".join(map(re.escape, self.numbers))
            yield "record number", re.compile(rf"(?<!\w)(?:{numbers})(?!\w)", re.IGNORECASE)
        if self.dates:
            yield "date of birth", re.compile("|".join(map(_date_pattern, self.dates)))


NOTHING_KNOWN = KnownValues()


def find_identifiers(text: str, known: KnownValues = NOTHING_KNOWN) -> list[Identifier]:
    """The parts of a text that may identify a person, in order, none within another."""
    found: list[Identifier] = []
    for kind, pattern in (*known.patterns(), *_FORMS):
        for match in pattern.finditer(text):
            start, whole = match.span()
            # A name ends where another part begins: "Mr. Smith, DOB 1.2.1950". "Mr." alone is none.
            end = min([whole, *(other.start for other in found if start < other.start)])
            end = start + len(text[start:end].rstrip(" ,"))
            apart = all(end <= other.start or other.end <= start for other in found)
            if apart and (end == whole or pattern.fullmatch(text, start, end)):
                found.append(Identifier(kind, start, end))
    return sorted(found, key=lambda identifier: identifier.start)


def count_by_kind(identifiers: Sequence[Identifier]) -> Counter[str]:
    """One for each kind that a caption holds, however often: counts of captions add up."""
    return Counter({identifier.kind for identifier in identifiers})


def listed(counts: Counter[str]) -> str:
    """The kinds with their numbers of captions, most frequent first: "date in 12 captions, name in 1"."""
    first, *others = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join([f"{first[0]} in {first[1]} captions", *(f"{kind} in {n}" for kind, n in others)])


def redact(text: str, identifiers: Sequence[Identifier]) -> str:
    """The text with the kind of each part in its place, in brackets."""
    for identifier in reversed(identifiers):
        text = f"{text[: identifier.start]}[{identifier.kind}]{text[identifier.end :]}"
    return text


def _date_pattern(date: tuple[int, int, int]) -> str:
    """A date in figures, in any order and with any separator."""
    year, month, day = date
    y, m, d = rf"(?:{year}|{year % 100:02d})", f"0?{month}", f"0?{day}"
    mark = r"[./ -]"
    orders = (rf"{d}{mark}{m}{mark}{y}", rf"{m}{mark}{d}{mark}{y}", rf"{year}{mark}{m}{mark}{d}")
    return rf"(?<!\d)(?:{'|'.join(orders)}|{year}{month:02d}{day:02d})(?!\d)"
