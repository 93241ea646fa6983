"""False captions made from the true one by rule, in any language.

No grammar and no model: lexicon.yaml lists the words, and each rule is a few lines that can be checked by
hand. A rule in doubt makes nothing, since a negative that happens to be true teaches the wrong thing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from domainclip import seeding
from domainclip.data.text.languages import UNSPACED, script
from domainclip.data.text.lexicon import Lexicon, find_lexicon
from domainclip.data.text.words import MAX_WORDS, SpacedText, find_phrase, match_case, split_words

Rule = Literal["swap", "numbers", "laterality", "negation", "order", "classes"]
_MAX_TRIES = 6  # negatives that one rule makes of one caption at most
# Not inside names such as COVID-19, T2 or L4/5: the result would name nothing, or something else.
_NUMBER = re.compile(r"(?<![\w.,/\-–:])\d+(?:[.,]\d+)?(?![\d/:]|[.,]\d|[-–]\d)")
_MEASURES = "个個只隻条條名位張张辆輛匹头頭件棵朵人本枚台つ杯群对對艘座块塊"
_COUNT = re.compile(rf"([两兩二三四五六七八九])(?=[{_MEASURES}])")
_COUNTS = "二三四五六七八九"
_STOPS = ".!?。！？؟।۔"
_SHORT, _SHORT_UNSPACED = 4, 12  # words, or characters, of a caption that is only a name


@dataclass(frozen=True)
class _Caption:
    text: str
    parsed: SpacedText
    lexicon: Lexicon
    spaced: bool
    seed: int
    labels: Sequence[str]
    classes: Sequence[str]

    def draw(self, purpose: str, number: int, count: int) -> int:
        return seeding.stable(self.seed, purpose, number) % count

    def shuffle(self, purpose: str, positions: Sequence[int]) -> list[int]:
        return sorted(positions, key=lambda position: seeding.stable(self.seed, purpose, position))

    def rotate(self, purpose: str, positions: Sequence[int]) -> dict[int, int]:
        """By position, another position: each once, and none itself, as in a ring."""
        ring = self.shuffle(purpose, positions)
        return dict(zip(ring, [*ring[1:], *ring[:1]], strict=True))


def make_negatives(
    text: str,
    rules: Sequence[Rule],
    seed: int,
    language: str = "",
    labels: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> Iterator[str]:
    """The negatives of a caption, one of each rule in turn, the rules in an order that the seed determines.

    The caption itself, or one of equal meaning, may be among them: the caller excludes other true captions.
    """
    lexicon = find_lexicon(text, language)
    spaced = lexicon.spaced and script(text) not in UNSPACED
    caption = _Caption(text, SpacedText.of(text), lexicon, spaced, seed, labels, classes)
    active = [_RULES[rule](caption) for rule in sorted(rules, key=lambda r: seeding.stable(seed, "rule", r))]
    while active:
        for negatives in list(active):
            negative = next(negatives, None)
            if negative is None:
                active.remove(negatives)
            else:
                yield negative


def _swap(caption: _Caption) -> Iterator[str]:
    """Two content words swap places; neither neighbours nor equals: "black and white" stays."""
    words = caption.parsed.words
    positions = caption.parsed.content_positions(_fixed_words(caption.lexicon))
    if not caption.spaced or len(positions) < 2:
        return
    for attempt in range(_MAX_TRIES):
        i = caption.draw("one", attempt, len(positions))
        j = caption.draw("other", attempt, len(positions) - 1)
        first, second = sorted((positions[i], positions[j + (j >= i)]))
        between = {word.casefold() for word in words[first + 1 : second]}
        negative = caption.parsed.replace_words({first: words[second], second: words[first]})
        # "A black dog and a white dog", swapped, is the same two dogs: every word has the neighbours it had.
        if between - caption.lexicon.conjunctions and _neighbours(negative) != _neighbours(caption.text):
            yield negative


def _neighbours(text: str) -> list[tuple[str, str]]:
    words = [word.casefold() for word in SpacedText.of(text).words]
    return sorted(pairwise(words))


def _order(caption: _Caption) -> Iterator[str]:
    """Each content word in the place of another; in scripts without spaces, pairs of characters."""
    if not caption.spaced:
        parts, separator = split_words(caption.text)
        for attempt in range(_MAX_TRIES if len(parts) > 3 else 0):
            source_of = caption.rotate(f"order {attempt}", range(len(parts)))
            yield separator.join(parts[source_of[i]] for i in range(len(parts)))
        return
    words = caption.parsed.words
    positions = caption.parsed.content_positions(_fixed_words(caption.lexicon))
    for attempt in range(_MAX_TRIES if len(positions) > 2 else 0):
        source_of = caption.rotate(f"order {attempt}", positions)
        yield caption.parsed.replace_words({target: words[source] for target, source in source_of.items()})


def _numbers(caption: _Caption) -> Iterator[str]:
    """A count, a size or a year becomes another: a neighbour of small ones, for a size half or double."""
    numbers = [(match.span(), _other_numbers(match[0])) for match in _NUMBER.finditer(caption.text)]
    if not caption.spaced:
        for match in _COUNT.finditer(caption.text):
            value = "二" if match[1] in "两兩二" else match[1]
            numbers.append((match.span(), [count for count in _COUNTS if count != value]))
    for number in caption.shuffle("number", range(len(numbers))):
        (start, end), others = numbers[number]
        other = others[caption.draw("value", number, len(others))]
        yield caption.text[:start] + other + caption.text[end:]
    words, number_words = caption.parsed.words[:MAX_WORDS], caption.lexicon.numbers
    positions = [i for i, word in enumerate(words) if word.casefold() in number_words]
    for position in caption.shuffle("word", positions):
        replacements = number_words[words[position].casefold()]
        other = replacements[caption.draw("value", position, len(replacements))]
        yield caption.parsed.replace_words({position: match_case(other, words[position])})


def _laterality(caption: _Caption) -> Iterator[str]:
    """Left becomes right, and right left, where only one is named: with both, the swap changes nothing."""
    sides = caption.lexicon.sides
    if not caption.spaced:
        named = [word for word in sides if word in caption.text]
        if len(named) == 1:
            yield caption.text.replace(named[0], sides[named[0]])
        return
    words = caption.parsed.words
    side_at = {i: word.casefold() for i, word in enumerate(words) if word.casefold() in sides}
    named_sides = set(side_at.values())
    if named_sides and not any(sides[side] in named_sides for side in named_sides):
        yield caption.parsed.replace_words(
            {i: match_case(sides[side], words[i]) for i, side in side_at.items()}
        )


def _negation(caption: _Caption) -> Iterator[str]:
    """A present thing is negated, and a negated one affirmed: one word changed, or a bare name negated."""
    if not caption.spaced:
        yield from _negation_unspaced(caption)
        return
    words, presence = caption.parsed.words, caption.lexicon.presence
    positions = [i for i, word in enumerate(words) if word.casefold() in presence]
    # Where a negation exists, only that is reversed: two negations have no clear meaning.
    negated = [i for i in positions if words[i].casefold() in caption.lexicon.negations]
    for i in caption.shuffle("denial", negated or positions):
        yield caption.parsed.replace_words({i: match_case(presence[words[i].casefold()], words[i])})
    named = caption.parsed.content_positions(frozenset())
    is_name = 0 < len(named) == len([word for word in words if word]) <= _SHORT and not positions
    has_function_word = bool(caption.lexicon.function_words & {word.casefold() for word in words})
    if is_name and caption.lexicon.bare_negation and not has_function_word:
        yield _negate_name(caption)


def _negation_unspaced(caption: _Caption) -> Iterator[str]:
    for word, opposite in caption.lexicon.presence.items():  # the longest negations come first in the lexicon
        if word in caption.text:
            yield caption.text.replace(word, opposite, 1)
            return
    name = caption.text.strip().rstrip(_STOPS)
    if name.isalnum() and len(name) <= _SHORT_UNSPACED:
        yield _negate_name(caption)


def _negate_name(caption: _Caption) -> str:
    """A bare name with its negation: "No pleural effusion." of "Pleural effusion."."""
    text = caption.text.strip()
    name = text.rstrip(_STOPS)
    before, _, after = caption.lexicon.bare_negation.partition("_")
    if before and name[:1].isupper() and name[1:2].islower():
        plain = name if caption.lexicon.language == "de" else name[:1].lower() + name[1:]
        return before[:1].upper() + before[1:] + plain + after + text[len(name) :]
    return before + name + after + text[len(name) :]


def _classes(caption: _Caption) -> Iterator[str]:
    """The name of a class of the item becomes that of another class."""
    labels = {label.casefold() for label in caption.labels}
    others = [name for name in caption.classes if name.casefold() not in labels]
    for label in caption.labels:
        starts = find_phrase(caption.parsed.words, label)
        for attempt in range(min(_MAX_TRIES, len(others)) if starts else 0):
            last = starts[0] + len(label.split()) - 1
            other = others[(caption.draw("class", 0, len(others)) + attempt) % len(others)]
            yield caption.parsed.replace_words(dict.fromkeys(range(starts[0], last), "") | {last: other})


def _fixed_words(lexicon: Lexicon) -> frozenset[str]:
    """The words that a swap leaves in place: function words, negations, number words and sides."""
    return (
        lexicon.function_words
        | lexicon.conjunctions
        | lexicon.presence.keys()
        | lexicon.numbers.keys()
        | lexicon.sides.keys()
    )


def _other_numbers(number: str) -> list[str]:
    """Other numbers in the same notation: digits of any script, a point or a comma."""
    digits = [unicodedata.decimal(c) if c.isdecimal() else c for c in number]
    zero = next(ord(c) - unicodedata.decimal(c) for c in number if c.isdecimal())
    text = "".join(map(str, digits))
    separator = next((c for c in text if c in ".,"), "")
    places = len(text.partition(separator)[2]) if separator else 0
    value = int(text.replace(separator, "") if separator else text)
    near = [value + 10**places, value - 10**places] if value < 20 * 10**places or _is_year(text) else []
    far = [] if _is_year(text) else [2 * value, value // 2]
    others = [other for other in dict.fromkeys([*near, *far]) if other > 0 and other != value]
    return [_format(other, places, separator, zero) for other in others] or [_format(1, 0, "", zero)]


def _is_year(text: str) -> bool:
    return len(text) == 4 and text.isdecimal() and 1000 <= int(text) <= 2100


def _format(value: int, places: int, separator: str, zero: int) -> str:
    text = str(value).rjust(places + 1, "0")
    text = text[: len(text) - places] + separator + text[len(text) - places :] if places else text
    return "".join(chr(zero + int(c)) if c.isdecimal() else c for c in text)


_RULES: dict[str, Callable[[_Caption], Iterator[str]]] = {
    "swap": _swap,
    "numbers": _numbers,
    "laterality": _laterality,
    "negation": _negation,
    "order": _order,
    "classes": _classes,
}
