"""Names of classes that stand for an absence, and prompts that negate twice."""

from __future__ import annotations

import re

from domainclip.data.text.captions import normalise

# "no No Finding" has the opposite meaning: it once gave an AUROC of 0.07.
_NORMAL = re.compile(
    r"no (\w+ )?(findings?|abnormality|abnormalities)|(normal|healthy|unremarkable)"
    r"( (chest|lungs?|heart|brain|eyes?|fundus|retina|skin|tissue|mucosa|control|study|exam|examination"
    r"|image|scan|film|radiograph|x ray|xray|cxr|ct|mri))*|(chest|lungs?) normal"
)
_NEGATION = r"(?:no|not|without)"
# "no evidence of no finding" matches, "no fluid and no air" does not: only words that carry the negation on
# may stand between the two.
_DOUBLE_NEGATION = re.compile(
    rf"\b(?:{_NEGATION}|absence of|negative for|free of)\s+"
    r"(?:(?:\w+\s+){0,2}(?:evidence|signs?|indications?|suggestions?|presence|features?|findings?)\s+(?:of|for)\s+)?"
    rf"(?:(?:any|an?|the)\s+)?{_NEGATION}\b"
)


def comparable_text(text: str) -> str:
    """The text for comparisons: lower case, with words joined by "_" or "-" separated."""
    return normalise(re.sub(r"(?<=\w)[_-]+(?=\w)|_+", " ", text))


def has_double_negation(prompt: str) -> bool:
    """Whether a prompt contains a double negation such as "no No Finding", in any spelling."""
    return bool(_DOUBLE_NEGATION.search(comparable_text(prompt)))


def names_normal_class(name: str) -> bool:
    """Whether a class is the normal one, as "No Finding" or "healthy lungs", whose opposite has no name."""
    return bool(_NORMAL.fullmatch(comparable_text(name)))
