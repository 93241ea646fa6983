"""The sentences of a text, in any script; in doubt it is not split: half a sentence can be false."""

from __future__ import annotations

import re

# Abbreviations whose full stop ends no sentence: titles, measures, terms of reports, in several languages.
_SHORT = frozenset(
    (
        *("dr", "mr", "mrs", "ms", "prof", "st", "sr", "jr", "vs", "e.g", "i.e", "eg", "ie", "cf", "ca"),
        *("al", "approx", "fig", "figs", "ref", "vol", "pp", "hx", "dx", "tx", "pt", "a.m", "p.m"),
        *("bzw", "vgl", "abb", "str", "sog", "inkl", "usw", "evtl", "ggf", "bds", "li", "re", "lat", "med"),
        *("a.p", "p.a", "z.b", "d.h", "u.a", "i.v", "mme", "mlle", "env", "sra", "dra", "núm", "pág"),
    )
)
_BEFORE_NUMBERS = frozenset(("no", "nos", "nr", "n°", "art", "ed"))
_MONTHS = "Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember"
_LIST_MARK = r"\s*(?:[-*•–]|\(?\d{1,2}[.)])\s+"  # of a list entry
# A stop and its closing quotes. Stops of scripts without spaces, of Arabic, Urdu and Hindi need no space.
_STOP = re.compile(
    r"(?P<bare>[。！？｡؟۔।॥]+|\n\s*\n|\n(?=" + _LIST_MARK + r"))"
    # From the first stop of a run of stops: from each in turn, a long run would take quadratic time.
    r"|(?<![.!?…])(?P<stop>[.!?…]+)(?P<closing>[\"'”’»)\]]*)(?=\s)"
)


_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"\s*\(?\d{1,2}")  # of a list entry, before its full stop
_CONTEXT = 40  # characters that are examined before and after a stop: no relevant word is longer


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in order, without bullets and numbers of a list, spaces single.

    "Dr. Lee saw 2.5 cm. No mass." gives two; "1. Clear lungs. 2. No effusion." gives two as well.
    """
    parts, start = [], 0
    # In a text without capitals, as in some collections of reports, a lower-case letter is no evidence.
    has_capitals = any(letter.isupper() for letter in text)
    for stop in _STOP.finditer(text):
        if stop["stop"] is None or _ends_sentence(text, start, stop, has_capitals):
            parts.append(text[start : stop.end()])
            start = stop.end()
    sentences = (" ".join(re.sub("^" + _LIST_MARK, "", part).split()) for part in (*parts, text[start:]))
    return [sentence for sentence in sentences if any(letter.isalnum() for letter in sentence)]


def _ends_sentence(text: str, start: int, stop: re.Match[str], has_capitals: bool) -> bool:
    """Whether a sentence ends at a stop that is followed by a space."""
    space = _SPACE.match(text, stop.end())
    begin = space.end() if space else stop.end()
    after = text[begin : begin + _CONTEXT]
    if after[:1].islower() and (len(stop["stop"]) > 1 or has_capitals):
        return False
    if stop["stop"] != ".":
        return True
    words = text[max(start, stop.start() - _CONTEXT) : stop.start()].split()
    word = words[-1] if words else ""
    if _NUMBER.fullmatch(text, start, stop.start()):  # the number of a list entry
        return False
    if word.isdecimal() and re.match(_MONTHS, after):  # am 3. Mai
        return False
    bare = word.lstrip("(\"'“«")
    if bare.casefold() in _BEFORE_NUMBERS and after[:1].isdecimal():
        return False
    initial = len(bare) == 1 and bare.isupper() and after[:1].isupper()
    return bare.casefold() not in _SHORT and not initial
