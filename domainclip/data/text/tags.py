"""Tags of an image: the words that its captions name as present, without a parser.

A content word counts where no negation stands before it in its sentence: "no effusion" names none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from domainclip.data.text.lexicon import find_lexicon
from domainclip.data.text.sentences import split_sentences
from domainclip.data.text.words import SpacedText


def named_words(text: str, language: str = "") -> set[str]:
    """The content words of a text in lower case, without those that follow a negation in their sentence."""
    lexicon = find_lexicon(text, language)
    found: set[str] = set()
    for sentence in split_sentences(text):
        spaced = SpacedText.of(sentence)
        words = [word.casefold() for word in spaced.words]
        end = next((place for place, word in enumerate(words) if word in lexicon.negations), len(words))
        found |= {words[place] for place in spaced.content_positions(lexicon.function_words) if place < end}
    return found


def item_words(texts: Sequence[str], languages: Sequence[str] = ()) -> set[str]:
    """The words that some caption of an item names as present; languages "" where unknown."""
    known = [*languages, *[""] * (len(texts) - len(languages))]
    return {
        word for text, language in zip(texts, known, strict=False) for word in named_words(text, language)
    }


def frequent_words(
    items: Iterable[tuple[Sequence[str], Sequence[str]]], count: int, min_items: int
) -> tuple[str, ...]:
    """Up to `count` words that captions of at least `min_items` items name, the most frequent first.

    `items` are captions and their languages. A word of all items separates none and is left out.
    """
    frequency: Counter[str] = Counter()
    total = 0
    for texts, languages in items:
        frequency.update(item_words(texts, languages))
        total += 1
    words = [word for word, number in frequency.items() if min_items <= number < total]
    return tuple(sorted(words, key=lambda word: (-frequency[word], word))[:count])
