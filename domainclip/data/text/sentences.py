"""The sentences of a text, in any script; when in doubt it is not cut: half a sentence says wrong things."""

from __future__ import annotations

import re

# Full stops that end no sentence: titles, measures, the shorthand of reports, in the languages that use them.
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
_MARK = r"\s*(?:[-*•–]|\(?\d{1,2}[.)])\s+"  # of an entry in a list
# A stop and what closes with it. Stops of scripts without spaces, and of Arabic, Urdu and Hindi, need none.
_STOP = re.compile(
    r"(?P<bare>[。！？｡؟۔।॥]+|\n\s*\n|\n(?=" + _MARK + r"))"
    # From the first stop of a row of them: from each in turn, a long row would take the square of its length.
    r"|(?<![.!?…])(?P<stop>[.!?…]+)(?P<closing>[\"'”’»)\]]*)(?=\s)"
)


_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"\s*\(?\d{1,2}")  # of a list, before its full stop
_WORD = 40  # letters that are looked at before and after a stop: no word that matters is longer


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in order, without bullets and numbers of a list, spaces single.

    "Dr. Lee saw 2.5 cm. No mass." gives two; "1. Clear lungs. 2. No effusion." gives two as well.
    """
    found, start = [], 0
    # Where nothing is a capital, as in some collections of reports, a small letter says nothing.
    capitals = any(letter.isupper() for letter in text)
    for stop in _STOP.finditer(text):
        if stop["stop"] is None or _ends(text, start, stop, capitals):
            found.append(text[start : stop.end()])
            start = stop.end()
    pieces = (" ".join(re.sub("^" + _MARK, "", piece).split()) for piece in (*found, text[start:]))
    return [piece for piece in pieces if any(letter.isalnum() for letter in piece)]


def _ends(text: str, start: int, stop: re.Match[str], capitals: bool) -> bool:
    """Whether a sentence ends at a stop that is followed by a space."""
    space = _SPACE.match(text, stop.end())
    begin = space.end() if space else stop.end()
    after = text[begin : begin + _WORD]
    spoken_on = len(stop["stop"]) > 1 or capitals
    if after[:1].islower() and spoken_on:
        return False
    if stop["stop"] != ".":
        return True
    words = text[max(start, stop.start() - _WORD) : stop.start()].split()
    word = words[-1] if words else ""
    if _NUMBER.fullmatch(text, start, stop.start()):  # the number of a list, not its sentence
        return False
    if word.isdecimal() and re.match(_MONTHS, after):  # am 3. Mai
        return False
    bare = word.lstrip("(\"'“«")
    if bare.casefold() in _BEFORE_NUMBERS and after[:1].isdecimal():
        return False
    initial = len(bare) == 1 and bare.isupper() and after[:1].isupper()
    return bare.casefold() not in _SHORT and not initial
