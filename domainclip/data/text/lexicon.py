"""Words that carry the meaning of a caption, by language: sides, negations, numbers; and function words.

The words are in lexicon.yaml, whose head describes its notation.
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
    function_words: frozenset[str]
    conjunctions: frozenset[str]  # that join equals
    sides: dict[str, str]  # each side -> the opposite one
    presence: dict[str, str]  # each word of presence or absence -> its opposite, "" to omit the word
    negations: frozenset[str]  # the words of `presence` that negate
    bare_negation: str  # the negation of a caption that is only a name, with _ in the place of the name
    numbers: dict[str, tuple[str, ...]]  # each number word -> other ones

    @property
    def spaced(self) -> bool:
        """Whether the language puts spaces between words."""
        return self.language not in ("zh", "ja", "th")


EMPTY = Lexicon("", frozenset(), frozenset(), {}, {}, frozenset(), "", {})


def find_lexicon(text: str, language: str = "") -> Lexicon:
    """The lexicon of a language; without one, that whose function words are the most frequent in the text."""
    code = language.replace("_", "-").split("-")[0].casefold()
    if code:
        return _load(code)
    script_name = script(text)
    if script_name in UNSPACED:
        return _load({"Han": "zh", "Japanese": "ja", "Thai": "th"}.get(script_name, ""))
    words = {word.casefold().strip(".,;:!?()\"'") for word in text.split()}
    matches = [(len(words & _load(code).function_words), code) for code in _table()]
    highest = max(count for count, _ in matches)
    if highest:
        return _load(next(code for count, code in matches if count == highest))
    return _load("en") if script_name == "Latin" else EMPTY


@cache
def _table() -> dict[str, dict[str, str]]:
    file = Path(__file__).parent / "lexicon.yaml"
    table: dict[str, dict[str, str]] = strict_yaml.load_yaml(file.read_text(encoding="utf-8"), file.name)
    return table


@cache
def _load(code: str) -> Lexicon:
    entry = _table().get(code)
    if entry is None:
        return EMPTY
    presence = _replacements(entry["presence"])
    return Lexicon(
        code,
        frozenset(entry.get("function_words", "").split()),
        frozenset(entry.get("conjunctions", "").split()),
        _replacements(entry["sides"]),
        presence,
        _negations(presence),
        entry["bare_negation"],
        _numbers(entry.get("numbers", "")),
    )


def _numbers(entry: str) -> dict[str, tuple[str, ...]]:
    """Each number word with the words that may replace it: its neighbours in the row, or the ones named."""
    numbers: dict[str, tuple[str, ...]] = {word: (other,) for word, other in _replacements(entry).items()}
    row = [word for word in entry.split() if ">" not in word]
    for place, word in enumerate(row):
        # Neighbours: an image of three distinguishes two from three, but hardly eight from nine.
        numbers[word] = tuple(row[i] for i in (place + 1, place - 1) if 0 <= i < len(row))
    return numbers


def _replacements(entry: str) -> dict[str, str]:
    """Each word of an entry with the word that replaces it."""
    replacements: dict[str, str] = {}
    for term in entry.split():
        if "~" in term:
            stems, _, endings = term.partition(":")
            word, other = stems.split("~")
            for ending in endings.split(","):
                replacements |= {word + ending: other + ending, other + ending: word + ending}
        elif "/" in term:
            word, other = term.split("/")
            replacements |= {word: other, other: word}
        elif ">" in term:
            word, other = term.split(">")
            replacements[word] = other.replace("_", " ")
    return replacements


def _negations(presence: dict[str, str]) -> frozenset[str]:
    """The words that are omitted to affirm, and those that replace a word before they are entries."""
    negations, earlier = set(), set[str]()
    for word, opposite in presence.items():
        if not opposite or (word in negations and word not in earlier):
            negations.add(word)
        elif word not in negations and opposite not in earlier:
            negations.add(opposite)
        earlier.add(word)
    return frozenset(negations)
