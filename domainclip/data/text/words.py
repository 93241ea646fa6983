"""The words of a text with the punctuation around each, so that words can be exchanged and the rest stays."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Scripts without spaces between words; there, two characters count as a word.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
MAX_WORDS = 40  # a swap beyond the part that the model reads would have no effect


def split_words(text: str, max_words: int | None = MAX_WORDS) -> tuple[list[str], str]:
    """The first words of a text and their separator; character pairs in scripts without spaces."""
    compact = "".join(text.split())
    if 2 * len(_UNSPACED.findall(compact)) > len(compact):
        return [compact[i : i + 2] for i in range(0, len(compact), 2)][:max_words], ""
    return text.split()[:max_words], " "


@dataclass(frozen=True)
class SpacedText:
    """A text split at its spaces; each word without the punctuation attached to it."""

    words: tuple[str, ...]  # "" for punctuation without a word
    punctuation: tuple[tuple[str, str], ...]  # before and after each word

    @classmethod
    def of(cls, text: str) -> SpacedText:
        """The words of a text."""
        tokens = [_split_punctuation(token) for token in text.split()]
        return cls(
            tuple(word for _, word, _ in tokens), tuple((before, after) for before, _, after in tokens)
        )

    def replace_words(self, replacements: Mapping[int, str]) -> str:
        """The text with other words at some positions; a first word takes on, and gives up, its capital.

        A word replaced by "" is omitted, and its punctuation moves to its neighbours.
        """
        tokens: list[str] = []
        pending = ""
        for position, (before, after) in enumerate(self.punctuation):
            if self.words[position] and replacements.get(position) == "":
                pending += before
                tokens[-1:] = [tokens[-1] + after] if tokens else []
            else:
                word = self.words[position]
                if position in replacements:
                    word = self._capitalised_for(position, replacements[position])
                tokens.append(pending + before + word + after)
                pending = ""
        text = " ".join(tokens)
        # A first word that is omitted passes its capital to the word that is now first.
        first = self.words[0] if self.words else ""
        return text[:1].upper() + text[1:] if first[:1].isupper() and replacements.get(0) == "" else text

    def _capitalised_for(self, position: int, word: str) -> str:
        first = self.words[0]
        if position == 0 and first[:1].isupper():
            return word[:1].upper() + word[1:]
        # German capitalises nouns at any position, and abbreviations are in capitals throughout.
        was_first = word == first and word[1:].islower() and not self._has_capitalised_words()
        return word[:1].lower() + word[1:] if position and was_first else word

    def _has_capitalised_words(self) -> bool:
        """Whether some word after the first begins with a capital, as nouns do in German."""
        return any(word[:1].isupper() and word[1:].islower() for word in self.words[1:])

    def content_positions(self, function_words: frozenset[str]) -> list[int]:
        """The positions of content words: no digits, two letters or more, and no function word."""
        return [
            position
            for position, word in enumerate(self.words[:MAX_WORDS])
            if len(word) > 1 and word.casefold() not in function_words and not any(c.isdigit() for c in word)
        ]


def match_case(word: str, pattern: str) -> str:
    """A word with the capitals of another."""
    if len(pattern) > 1 and pattern.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if pattern[:1].isupper() else word


def find_phrase(words: Sequence[str], phrase: str) -> list[int]:
    """The positions at which a phrase begins; case is ignored."""
    phrase_words, text_words = phrase.casefold().split(), [word.casefold() for word in words]
    starts = range(len(text_words) - len(phrase_words) + 1) if phrase_words else range(0)
    return [start for start in starts if text_words[start : start + len(phrase_words)] == phrase_words]


def _split_punctuation(token: str) -> tuple[str, str, str]:
    """The punctuation before a word, the word, and the punctuation after it."""
    start, end = 0, len(token)
    while start < end and _is_punctuation(token[start]):
        start += 1
    while end > start and _is_punctuation(token[end - 1]):
        end -= 1
    return token[:start], token[start:end], token[end:]


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] in "PSC"
