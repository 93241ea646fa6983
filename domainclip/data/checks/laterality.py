"""Words for left and right, language by language: what a mirror makes untrue.

Conservative: where the usual sense of a word is another ("right" as correct, "derecho" as law, "left" of one
who went), it counts only beside a word that has a side. "Both sides" stays true in a mirror, and is no match.
"""

from __future__ import annotations

import re
from functools import cache

_PAIRED_PARTS = (
    "lung|lobe|hilum|hilar|base|basal|apex|apical|hemithorax|hemidiaphragm|costophrenic|pleural|atri(?:um|al)|"
    "ventric(?:le|ular)|heart|kidney|breast|eye|ear|hand|arm|leg|foot|shoulder|hip|knee|corner|half|edge|side|"
    "upper|lower|middle|mid|lateral|paratracheal|perihilar|subclavian|jugular|main|"
    # Findings, bones and devices that lie on one side, as reports name them.
    "(?:hydro|hemo)?pneumothora(?:x|ces)|hemothorax|effusions?|pleura|pneumonia|atelectasis|consolidations?|"
    "opacity|opacities|infiltrates?|nodules?|mass|infrahilar|suprahilar|basilar|diaphragm|cardiophrenic|"
    "clavic(?:le|ular)|scapula|humer(?:us|al)|ribs?|femur|femoral|tibia|wrist|elbow|ankle|thora(?:x|cic)|chest|"
    "axilla(?:ry)?|neck|carotid|pulmonary|bronchus|mainstem|mastectomy|lobectomy|pneumonectomy|picc|ij|port|"
    "port-?a-?cath|pacemaker|central|internal|venous|catheter|pigtail|"
    r"(?:first|second|third|\w+th|\d+\w\w) ribs?"
)
# Whole words, without case.
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
# Without spaces between words, or with particles attached: anywhere in the text. 左右 is "about".
_SIDE_CHARACTERS = {
    "zh": r"左(?!右)|(?<!左)右",
    "ja": r"左(?!右)|(?<!左)右",
    "ko": r"왼쪽|오른쪽|좌측|우측",
    "ar": r"يسار|اليسرى|الأيسر|أيسر|يسرى|يمين|اليمنى|الأيمن|أيمن|يمنى",
    "hi": r"बाएँ|बाएं|बायाँ|बायां|बायीं|बाईं|दाएँ|दाएं|दायाँ|दायां|दायीं|दाईं",
}


def names_side(text: str, language: str = "") -> bool:
    """Whether a text says left or right; in an unknown language, in any of them."""
    return any(pattern.search(text) for pattern in _side_patterns(re.split("[-_]", language.casefold())[0]))


@cache
def _side_patterns(language: str) -> tuple[re.Pattern[str], ...]:
    known = {
        **{code: rf"(?<!\w)(?:{words})(?!\w)" for code, words in _SIDE_WORDS.items()},
        **_SIDE_CHARACTERS,
    }
    chosen = [known[language]] if language in known else list(known.values())
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in chosen)
