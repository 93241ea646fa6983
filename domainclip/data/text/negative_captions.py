"""Captions that say something else than the picture shows, made from the true one by rule, in any language.

No grammar and no model: lexicon.yaml lists the words, and every rule is a few lines that a person can check.
Where a rule is in doubt it makes nothing, since a negative that is true teaches the wrong thing.
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
_TRIES = 6  # what one rule makes of one caption at most
# Not inside names such as COVID-19, T2 or L4/5: what would come out names nothing, or something else.
_NUMBER = re.compile(r"(?<![\w.,/\-–:])\d+(?:[.,]\d+)?(?![\d/:]|[.,]\d|[-–]\d)")
_MEASURES = "个個只隻条條名位张張辆輛匹头頭件棵朵人本枚台つ杯群对對艘座块塊"
_COUNT = re.compile(rf"([两兩二三四五六七八九])(?=[{_MEASURES}])")
_COUNTS = "二三四五六七八九"
_STOPS = ".!?。！？؟।۔"
_SHORT, _SHORT_UNSPACED = 4, 12  # words, or characters, of a caption that is only a name


@dataclass(frozen=True)
class _Caption:
    text: str
    said: SpacedText
    lexicon: Lexicon
    spaced: bool
    seed: int
    labels: Sequence[str]
    classes: Sequence[str]

    def drawn(self, what: str, at: int, count: int) -> int:
        return seeding.stable(self.seed, what, at) % count

    def shuffled(self, what: str, places: Sequence[int]) -> list[int]:
        return sorted(places, key=lambda place: seeding.stable(self.seed, what, place))

    def moved(self, what: str, places: Sequence[int]) -> dict[int, int]:
        """By place, another place: each once, and none its own, as in a ring."""
        ring = self.shuffled(what, places)
        return dict(zip(ring, [*ring[1:], *ring[:1]], strict=True))


def make_negatives(
    text: str,
    rules: Sequence[Rule],
    seed: int,
    language: str = "",
    labels: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> Iterator[str]:
    """What the rules make of a caption, one of each in turn, the rules in an order that the seed decides.

    The caption itself, or one that reads like it, may be among them: the caller knows what else is true.
    """
    words = find_lexicon(text, language)
    spaced = words.spaced and script(text) not in UNSPACED
    caption = _Caption(text, SpacedText.of(text), words, spaced, seed, labels, classes)
    left = [_RULES[rule](caption) for rule in sorted(rules, key=lambda r: seeding.stable(seed, "rule", r))]
    while left:
        for made in list(left):
            found = next(made, None)
            if found is None:
                left.remove(made)
            else:
                yield found


def _swap(caption: _Caption) -> Iterator[str]:
    """Two words that say much change places; not neighbours, nor equals: "black and white" stays."""
    words, places = caption.said.words, caption.said.content_positions(_silent(caption.lexicon))
    if not caption.spaced or len(places) < 2:
        return
    for at in range(_TRIES):
        i, j = caption.drawn("one", at, len(places)), caption.drawn("other", at, len(places) - 1)
        first, second = sorted((places[i], places[j + (j >= i)]))
        between = {word.casefold() for word in words[first + 1 : second]}
        found = caption.said.replace_words({first: words[second], second: words[first]})
        # "A black dog and a white dog" is the same two dogs the other way round: no neighbours have changed.
        if between - caption.lexicon.conjunctions and _neighbours(found) != _neighbours(caption.text):
            yield found


def _neighbours(text: str) -> list[tuple[str, str]]:
    words = [word.casefold() for word in SpacedText.of(text).words]
    return sorted(pairwise(words))


def _order(caption: _Caption) -> Iterator[str]:
    """Each word that says much in the place of another; in scripts without spaces, pairs of characters."""
    if not caption.spaced:
        own, glue = split_words(caption.text)
        for at in range(_TRIES if len(own) > 3 else 0):
            turned = caption.moved(f"order {at}", range(len(own)))
            yield glue.join(own[turned[i]] for i in range(len(own)))
        return
    places = caption.said.content_positions(_silent(caption.lexicon))
    for at in range(_TRIES if len(places) > 2 else 0):
        turned = caption.moved(f"order {at}", places)
        yield caption.said.replace_words({p: caption.said.words[q] for p, q in turned.items()})


def _numbers(caption: _Caption) -> Iterator[str]:
    """A count, a size or a year becomes another: a neighbour of small ones, for a size one half or double."""
    found = [(one.span(), _others(one[0])) for one in _NUMBER.finditer(caption.text)]
    if not caption.spaced:
        for one in _COUNT.finditer(caption.text):
            value = "二" if one[1] in "两兩二" else one[1]
            found.append((one.span(), [count for count in _COUNTS if count != value]))
    for at in caption.shuffled("number", range(len(found))):
        (start, end), others = found[at]
        yield caption.text[:start] + others[caption.drawn("value", at, len(others))] + caption.text[end:]
    words, numbers = caption.said.words[:MAX_WORDS], caption.lexicon.numbers
    for place in caption.shuffled("word", [i for i, word in enumerate(words) if word.casefold() in numbers]):
        others = list(numbers[words[place].casefold()])
        other = others[caption.drawn("value", place, len(others))]
        yield caption.said.replace_words({place: match_case(other, words[place])})


def _laterality(caption: _Caption) -> Iterator[str]:
    """Left becomes right, and right left, where one is named: "right and left" turned round says the same."""
    yield from _everywhere(caption, caption.lexicon.sides)


def _everywhere(caption: _Caption, pairs: dict[str, str]) -> Iterator[str]:
    if not caption.spaced:
        named = [word for word in pairs if word in caption.text]
        if len(named) == 1:
            yield caption.text.replace(named[0], pairs[named[0]])
        return
    words = caption.said.words
    here = {at: word.casefold() for at, word in enumerate(words) if word.casefold() in pairs}
    said = set(here.values())
    if said and not any(pairs[word] in said for word in said):
        yield caption.said.replace_words(
            {at: match_case(pairs[word], words[at]) for at, word in here.items()}
        )


def _negation(caption: _Caption) -> Iterator[str]:
    """What is there is denied, and what is denied is there: one word changed, or a bare name denied."""
    if not caption.spaced:
        yield from _negation_unspaced(caption)
        return
    words, presence = caption.said.words, caption.lexicon.presence
    here = [at for at, word in enumerate(words) if word.casefold() in presence]
    # Where something is denied already, that alone is turned round: two denials say nobody knows what.
    denied = [at for at in here if words[at].casefold() in caption.lexicon.negations]
    for at in caption.shuffled("denial", denied or here):
        yield caption.said.replace_words({at: match_case(presence[words[at].casefold()], words[at])})
    places = caption.said.content_positions(frozenset())
    is_name = 0 < len(places) == len([word for word in words if word]) <= _SHORT and not here
    if (
        is_name
        and caption.lexicon.bare_negation
        and not caption.lexicon.function_words & {w.casefold() for w in words}
    ):
        yield _denied(caption)


def _negation_unspaced(caption: _Caption) -> Iterator[str]:
    for word, contrary in caption.lexicon.presence.items():  # the longest denials stand first there
        if word in caption.text:
            yield caption.text.replace(word, contrary, 1)
            return
    name = caption.text.strip().rstrip(_STOPS)
    if name.isalnum() and len(name) <= _SHORT_UNSPACED:
        yield _denied(caption)


def _denied(caption: _Caption) -> str:
    """A bare name with its denial: "No pleural effusion." of "Pleural effusion."."""
    text = caption.text.strip()
    name = text.rstrip(_STOPS)
    before, _, behind = caption.lexicon.bare_negation.partition("_")
    if before and name[:1].isupper() and name[1:2].islower():
        plain = name if caption.lexicon.language == "de" else name[:1].lower() + name[1:]
        return before[:1].upper() + before[1:] + plain + behind + text[len(name) :]
    return before + name + behind + text[len(name) :]


def _classes(caption: _Caption) -> Iterator[str]:
    """The name of a class that holds becomes that of one that does not."""
    own = {label.casefold() for label in caption.labels}
    others = [name for name in caption.classes if name.casefold() not in own]
    for label in caption.labels:
        at = find_phrase(caption.said.words, label)
        for number in range(min(_TRIES, len(others)) if at else 0):
            last = at[0] + len(label.split()) - 1
            other = others[(caption.drawn("class", 0, len(others)) + number) % len(others)]
            yield caption.said.replace_words(dict.fromkeys(range(at[0], last), "") | {last: other})


def _silent(words: Lexicon) -> frozenset[str]:
    """Words that a swap leaves where they are: those that say little, deny, count, or name a side."""
    return (
        words.function_words
        | words.conjunctions
        | words.presence.keys()
        | words.numbers.keys()
        | words.sides.keys()
    )


def _others(number: str) -> list[str]:
    """Other numbers in the same writing: digits of any script, a point or a comma."""
    digits = [unicodedata.decimal(c) if c.isdecimal() else c for c in number]
    zero = next(ord(c) - unicodedata.decimal(c) for c in number if c.isdecimal())
    text = "".join(map(str, digits))
    separator = next((c for c in text if c in ".,"), "")
    places = len(text.partition(separator)[2]) if separator else 0
    value = int(text.replace(separator, "") if separator else text)
    near = [value + 10**places, value - 10**places] if value < 20 * 10**places or _year(text) else []
    far = [] if _year(text) else [2 * value, value // 2]
    wanted = [other for other in dict.fromkeys([*near, *far]) if other > 0 and other != value]
    return [_written(other, places, separator, zero) for other in wanted] or [_written(1, 0, "", zero)]


def _year(text: str) -> bool:
    return len(text) == 4 and text.isdecimal() and 1000 <= int(text) <= 2100


def _written(value: int, places: int, separator: str, zero: int) -> str:
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
