"""The domain of a corpus: by the names of its columns, the words of its captions, and its files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from domainclip.data.readers.guesses.column_words import IDENTIFYING, find_word, words

Domain = Literal["medical", "astronomy", "art", "general"]

_MIN_SHARE = 0.15  # of the captions or class names with a word of the domain
_MIN_CHEST = 0.3
_COLUMNS: dict[Domain, frozenset[str]] = {
    "medical": frozenset(
        [
            "patient",
            "patients",
            "finding",
            "findings",
            "impression",
            "diagnosis",
            "disease",
            "pathology",
            "radiologist",
            "accession",
            "dicom",
            "mrn",
            "bodypart",
            "lesion",
            "biopsy",
            "histology",
            "anatomy",
            "clinical",
        ]
    ),
    "astronomy": frozenset(
        [
            "galaxy",
            "redshift",
            "magnitude",
            "constellation",
            "telescope",
            "ra",
            "dec",
            "declination",
            "nebula",
            "hubble",
            "sky",
            "observatory",
        ]
    ),
    "art": frozenset(["artist", "painter", "painting", "artwork", "movement", "canvas", "museum"]),
}
_TEXTS: dict[Domain, re.Pattern[str]] = {
    "medical": re.compile(
        r"\b(?:x-?rays?|radiographs?|radiography|patients?|ct|mri|ultrasound|lesions?|pneumonia|effusion|lungs?|"
        r"chest|biopsy|tumou?rs?|carcinoma|fractures?|cardiomegaly|consolidation|covid-19|thorax|retina|fundus|"
        r"melanoma|no finding|röntgen|befund)\b",
        re.IGNORECASE,
    ),
    "astronomy": re.compile(
        r"\b(?:galax(?:y|ies)|nebulae?|telescope|supernovae?|star cluster|open cluster|globular cluster|"
        r"quasar|constellation|hubble|light[- ]years?|comet|asteroid)\b",
        re.IGNORECASE,
    ),
    "art": re.compile(
        r"\b(?:paintings?|oil on canvas|watercolou?r|impressionism|expressionism|baroque|cubism|realism|"
        r"fresco|engraving|romanticism|surrealism)\b",
        re.IGNORECASE,
    ),
}
_CHEST = re.compile(
    r"\b(?:chest|thorax|thoracic|lungs?|pneumonia|pleural|cxr|röntgen-?thorax)\b", re.IGNORECASE
)
_MAX_TEXTS = 2000


@dataclass(frozen=True)
class DomainGuess:
    """A domain, the reason, and what follows from it."""

    domain: Domain
    reason: str
    persons: bool  # whether cells may identify a person: then no value is shown
    chest: bool = False  # medical: whether the images are chest X-rays


def guess_domain(
    columns: Sequence[str], texts: Iterable[str], names: Iterable[str], files: Literal["dicom", "fits", ""]
) -> DomainGuess:
    """The domain of a source with these columns, captions, and names of classes and folders."""
    sample = [text for text, _ in zip(texts, range(_MAX_TEXTS), strict=False)] + list(names)
    chest = sum(bool(_CHEST.search(text)) for text in sample) > _MIN_CHEST * len(sample)
    persons = any(find_word(column, IDENTIFYING) for column in columns)
    if files == "dicom":
        return DomainGuess("medical", "DICOM files", persons=True, chest=chest)
    if files == "fits":
        return DomainGuess("astronomy", "FITS files", persons=persons)
    best: tuple[float, Domain, str] | None = None
    for domain, pattern in _TEXTS.items():
        named = [column for column in columns if _COLUMNS[domain] & {*words(column)}]
        hits = sum(bool(pattern.search(text)) for text in sample)
        share = hits / max(1, len(sample))
        score = share + 0.3 * min(2, len(named))
        reasons = [f"columns {', '.join(named[:4])}"] if named else []
        reasons += [f"{hits} of {len(sample)} captions and classes hold its words"] if share >= 0.05 else []
        if (share >= _MIN_SHARE or (named and share >= 0.05) or len(named) > 1) and (
            best is None or score > best[0]
        ):
            best = (score, domain, "; ".join(reasons))
    if best is None:
        return DomainGuess("general", "no words or files of another domain", persons=persons)
    return DomainGuess(best[1], best[2], persons=persons or best[1] == "medical", chest=chest)
