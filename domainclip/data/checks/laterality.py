"""Words for left and right in each language: captions with them become wrong in a mirrored image.

Conservative: a word that usually has another sense ("right" as correct, "derecho" as law, "left" as departed)
matches only next to a word for a paired part. "Both sides" remains true in a mirrored image, and does not
match.
"""

from __future__ import annotations

import re
from functools import cache

_PAIRED_PARTS = (
    "lung|lobe|hilum|hilar|base|basal|apex|apical|hemithorax|hemidiaphragm|costophrenic|pleural|atri(?:um|al)|"
    "ventric(?:le|ular)|heart|kidney|breast|eye|ear|hand|arm|leg|foot|shoulder|hip|knee|corner|half|edge|side|"
    "upper|lower|middle|mid|lateral|paratracheal|perihilar|subclavian|jugular|main|"
    # Findings, bones and devices on one side, as named in reports.
    "(?:hydro|hemo)?pneumothora(?:x|ces)|hemothorax|effusions?|pleura|pneumonia|atelectasis|consolidations?|"
    "opacity|opacities|infiltrates?|nodules?|mass|infrahilar|suprahilar|basilar|diaphragm|cardiophrenic|"
    "clavic(?:le|ular)|scapula|humer(?:us|al)|ribs?|femur|femoral|tibia|wrist|elbow|ankle|thora(?:x|cic)|chest|"
    "axilla(?:ry)?|neck|carotid|pulmonary|bronchus|mainstem|mastectomy|lobectomy|pneumonectomy|picc|ij|port|"
    "port-?a-?cath|pacemaker|central|internal|venous|catheter|pigtail|"
    r"(?:first|second|third|\w+th|\d+\w\w) ribs?"
)
# Matched as whole words, ignoring case.
_SIDE_WORDS = {
    "en": (
        r"left(?! (?:the|a|an|his|her|their|to|behind|home|hospital|alone|over|out)\b)"
        r"(?:[- ]?(?:sided|most|wards?))?"
        rf"|(?:on|to|at|from|in) (?:the|his|her|its) right|right[- ](?:sided|(?:{_PAIRED_PARTS})\b)"
        r"|[rl][uml]l"  # lobes: RUL, LLL
        r"|rightmost|rightwards?|dextro\w+|levo(?:scoliosis|cardia)"
    ),
    "de": r"linke[nmrs]?|links(?:seitig\w*)?|rechte[nmr]?|rechts(?:seitig\w*)?",
    "fr": (
        r"gauches?|à droite|de droite|(?:base|main|jambe|partie|moitié|épaule|coupole) droite"
        r"|(?:poumon|lobe|hile|côté|hémithorax|supérieur|inférieur|moyen|bras|œil|rein) droit"
    ),
    "es": (
        r"izquierd[oa]s?|derechas?"
        r"|(?:pulmón|lóbulo|hilio|lado|hemitórax|superior|inferior|medio|brazo|ojo) derecho"
    ),
    "it": r"sinistr[oaie]|destr[oaie]",
    "pt": (
        r"esquerd[oa]s?|à direita"
        r"|(?:pulmão|lobo|hilo|lado|hemitórax|superior|inferior|braço|olho) direito"
    ),
    "pl": r"lew(?:y|a|e|ego|ej|emu|ą|ym|ych|ymi)|praw(?:y|ego|ej|emu|ą|ym|ych|ymi)",
    "cs": (
        r"lev(?:ý|á|é|ého|ém|ému|ou|ým|ých|ými)|vlevo|doleva"
        r"|prav(?:ý|á|é|ého|ém|ému|ou|ým|ých|ými)|vpravo|doprava"
    ),
    "nl": (
        r"links(?:zijdig\w*)?|linker\w*|rechts(?:zijdig\w*)?"
        r"|rechter(?:long|kant|zijde|hand|been|arm|oog)\w*"
    ),
    "ru": r"слева|справа|лев(?:ый|ая|ое|ого|ой|ую|ом|ых)|прав(?:ый|ая|ого|ой|ую|ом|ых)",
}
# Matched anywhere: languages without spaces between words, or with attached particles. 左右 means "about".
_SIDE_CHARACTERS = {
    "zh": r"左(?!右)|(?<!左)右",
    "ja": r"左(?!右)|(?<!左)右",
    "ko": r"왼쪽|오른쪽|좌측|우측",
    "ar": r"يسار|اليسرى|الأيسر|أيسر|يسرى|يمين|اليمنى|الأيمن|أيمن|يمنى",
    "hi": r"बाएँ|बाएं|बायाँ|बायां|बायीं|बाईं|दाएँ|दाएं|दायाँ|दायां|दायीं|दाईं",
}


def names_side(text: str, language: str = "") -> bool:
    """Whether a text names left or right; in any language if `language`, a code, is unknown."""
    return any(pattern.search(text) for pattern in _side_patterns(re.split("[-_]", language.casefold())[0]))


@cache
def _side_patterns(language: str) -> tuple[re.Pattern[str], ...]:
    words = {code: rf"(?<!\w)(?:{pattern})(?!\w)" for code, pattern in _SIDE_WORDS.items()}
    patterns = {**words, **_SIDE_CHARACTERS}
    selected = [patterns[language]] if language in patterns else list(patterns.values())
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in selected)
