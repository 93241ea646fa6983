"""The words of a text, with what stands around them, so that some can change places and the rest stays."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Scripts that write no space between words; there, two characters stand for a word.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
MAX_WORDS = 40  # words; a swap behind the model's window would be no swap


def split_words(text: str, most: int | None = MAX_WORDS) -> tuple[list[str], str]:
    """The first words of a text and what joins them; character pairs in scripts without spaces."""
    compact = "".join(text.split())
    if 2 * len(_UNSPACED.findall(compact)) > len(compact):
        return [compact[i : i + 2] for i in range(0, len(compact), 2)][:most], ""
    return text.split()[:most], " "


@dataclass(frozen=True)
class SpacedText:
    """A text cut at its spaces; each word without the punctuation that clings to it."""

    words: tuple[str, ...]  # "" where punctuation stands alone
    punctuation: tuple[tuple[str, str], ...]  # what stands before and behind each

    @classmethod
    def of(cls, text: str) -> SpacedText:
        """The words of a text."""
        cut = [_bare(token) for token in text.split()]
        return cls(tuple(word for _, word, _ in cut), tuple((before, behind) for before, _, behind in cut))

    def replace_words(self, by: Mapping[int, str]) -> str:
        """The text with other words in some places; a first word takes on, and gives up, its capital.

        A word that is left out ("") leaves its punctuation to those beside it.
        """
        tokens: list[str] = []
        waiting = ""
        for at, (before, behind) in enumerate(self.punctuation):
            if self.words[at] and by.get(at) == "":
                waiting += before
                tokens[-1:] = [tokens[-1] + behind] if tokens else []
            else:
                word = self._fitting(at, by[at]) if at in by else self.words[at]
                tokens.append(waiting + before + word + behind)
                waiting = ""
        text = " ".join(tokens)
        # What was left out at the beginning leaves its capital to what now stands there.
        first = self.words[0] if self.words else ""
        return text[:1].upper() + text[1:] if first[:1].isupper() and by.get(0) == "" else text

    def _fitting(self, at: int, word: str) -> str:
        first = self.words[0]
        if at == 0 and first[:1].isupper():
            return word[:1].upper() + word[1:]
        # German writes its nouns large wherever they stand, and abbreviations are large in all their letters.
        once_first = word == first and word[1:].islower() and not self._large_inside()
        return word[:1].lower() + word[1:] if at and once_first else word

    def _large_inside(self) -> bool:
        """Whether some word within the text begins with a capital, as nouns do in German."""
        return any(word[:1].isupper() and word[1:].islower() for word in self.words[1:])

    def content_positions(self, little: frozenset[str]) -> list[int]:
        """Where words stand that say much: letters only, two at least, and not among the little ones."""
        return [
            at
            for at, word in enumerate(self.words[:MAX_WORDS])
            if len(word) > 1 and word.casefold() not in little and not any(c.isdigit() for c in word)
        ]


def match_case(word: str, like: str) -> str:
    """A word with the capitals of another."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def find_phrase(words: Sequence[str], phrase: str) -> list[int]:
    """Where the words of a phrase begin to stand, case not counting."""
    wanted, said = phrase.casefold().split(), [word.casefold() for word in words]
    places = range(len(said) - len(wanted) + 1) if wanted else range(0)
    return [at for at in places if said[at : at + len(wanted)] == wanted]


def _bare(token: str) -> tuple[str, str, str]:
    """What stands before a word, the word, and what stands behind it."""
    start, end = 0, len(token)
    while start < end and _clings(token[start]):
        start += 1
    while end > start and _clings(token[end - 1]):
        end -= 1
    return token[:start], token[start:end], token[end:]


def _clings(character: str) -> bool:
    return unicodedata.category(character)[0] in "PSC"
