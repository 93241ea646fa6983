"""Words that decide what a caption says, by language: sides, denials, numbers, and words that say little.

The words themselves stand in lexicon.yaml, which says how it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from domainclip.config import strict_yaml
from domainclip.data.text.languages import UNSPACED, script


@dataclass(frozen=True)
class Lexicon:
    """The words of one language."""

    language: str
    function_words: frozenset[str]  # words that say little
    conjunctions: frozenset[str]  # words that join equals
    sides: dict[str, str]  # each side -> the other
    presence: dict[str, str]  # what says that something is there or not -> the contrary, "" to drop it
    negations: frozenset[str]  # those of them that deny
    bare_negation: str  # what denies a caption that is a bare name, with _ in its place
    numbers: dict[str, tuple[str, ...]]  # each number as a word -> others

    @property
    def spaced(self) -> bool:
        """Whether words stand apart in this language."""
        return self.language not in ("zh", "ja", "th")


EMPTY = Lexicon("", frozenset(), frozenset(), {}, {}, frozenset(), "", {})


def find_lexicon(text: str, language: str = "") -> Lexicon:
    """The words of a language; where none is named, of the one whose small words the text holds most of."""
    code = language.replace("_", "-").split("-")[0].casefold()
    if code:
        return _read(code)
    name = script(text)
    if name in UNSPACED:
        return _read({"Han": "zh", "Japanese": "ja", "Thai": "th"}.get(name, ""))
    said = {word.casefold().strip(".,;:!?()\"'") for word in text.split()}
    found = [(len(said & _read(code).function_words), code) for code in _table()]
    most = max(hits for hits, _ in found)
    if most:
        return _read(next(code for hits, code in found if hits == most))
    return _read("en") if name == "Latin" else EMPTY


@cache
def _table() -> dict[str, dict[str, str]]:
    file = Path(__file__).parent / "lexicon.yaml"
    table: dict[str, dict[str, str]] = strict_yaml.load_yaml(file.read_text(encoding="utf-8"), file.name)
    return table


@cache
def _read(code: str) -> Lexicon:
    own = _table().get(code)
    if own is None:
        return EMPTY
    numbers = own.get("numbers", "")
    named: dict[str, tuple[str, ...]] = {one: (other,) for one, other in _pairs(numbers).items()}
    row = [word for word in numbers.split() if ">" not in word]
    for at, word in enumerate(row):
        # Its neighbours: a picture of three tells two from three, as a count of nine tells nobody.
        named[word] = tuple(row[i] for i in (at + 1, at - 1) if 0 <= i < len(row))
    presence = _pairs(own["presence"])
    return Lexicon(
        code,
        frozenset(own.get("little", "").split()),
        frozenset(own.get("joining", "").split()),
        _pairs(own["sides"]),
        presence,
        _denials(presence),
        own["bare"],
        named,
    )


def _pairs(said: str) -> dict[str, str]:
    """What each word becomes."""
    found: dict[str, str] = {}
    for entry in said.split():
        if "~" in entry:
            stems, _, endings = entry.partition(":")
            one, other = stems.split("~")
            for ending in endings.split(","):
                found |= {one + ending: other + ending, other + ending: one + ending}
        elif "/" in entry:
            one, other = entry.split("/")
            found |= {one: other, other: one}
        elif ">" in entry:
            one, other = entry.split(">")
            found[one] = other.replace("_", " ")
    return found


def _denials(presence: dict[str, str]) -> frozenset[str]:
    """What is left out to affirm, and what another word becomes before it is named itself."""
    found, met = set(), set[str]()
    for word, contrary in presence.items():
        if not contrary or (word in found and word not in met):
            found.add(word)
        elif word not in found and contrary not in met:
            found.add(contrary)
        met.add(word)
    return frozenset(found)
