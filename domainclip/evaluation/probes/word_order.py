"""Whether the order of the words counts: a caption against the same words in another order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import Encoder
from domainclip.data.text.words import split_words
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics.captions import captions
from domainclip.evaluation.metrics.labelled_examples import sample_items
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.seeding import stable

_FEWEST = 4


@dataclass(frozen=True, kw_only=True)
class WordOrder(Probe):
    """The true caption against orders made from it by rule, each image on its own. [arXiv:2210.01936]

    The paper's perturbations that need no grammar (all words shuffled, trigrams shuffled, words inside the
    trigrams shuffled), and two swaps: neighbours, and the two longest words, which in most languages are
    content words. Captions of fewer than four words are left out, and of long ones the first forty words
    are used. Ties count 1/t: the paper's own scripts count them as wrong on two tasks and right on two.
    """

    citation: ClassVar[str] = "arXiv:2210.01936"
    version: ClassVar[int] = 1

    max_items: Annotated[int, Field(ge=1)] = 96  # items; each costs up to six texts

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Share of items whose caption beats all its other orders; then against each order alone."""
        candidates: dict[int, dict[str, str]] = {}
        ids = list(data.items["id"])
        for one in captions(data):
            if one.row not in candidates and (made := orders(one.text, ids[one.row])):
                candidates[one.row] = made
        if not candidates:
            return not_measured(
                "word_order", data, self.version, "captions of four words that can be reordered"
            )
        rows = np.array(sample_items(data, candidates, self.max_items, "word order"))
        asked = [candidates[int(row)] for row in rows]
        vectors = encoder.texts([text for made in asked for text in made.values()]).astype(np.float64)
        images = encoder.images(data.items)[rows].astype(np.float64)
        ends = np.cumsum([len(made) for made in asked])
        cosines = [
            np.round(part @ image, 6)
            for part, image in zip(np.split(vectors, ends[:-1]), images, strict=True)
        ]
        hits = np.array([(one[0] == one.max()) / (one == one.max()).sum() for one in cosines])
        chance = float(np.mean([1 / len(one) for one in cosines]))
        metrics = [metric("accuracy", data.items, rows, hits, chance=chance)]
        for rule in _RULES:
            having = [i for i, made in enumerate(asked) if rule in made]
            if not having:
                continue
            other = [cosines[i][list(asked[i]).index(rule)] for i in having]
            wins = np.array([_beats(cosines[i][0], value) for i, value in zip(having, other, strict=True)])
            metrics.append(metric(f"accuracy/{rule}", data.items, rows[having], wins, chance=0.5))
        details = {"items": len(rows), "with_captions_long_enough": len(candidates)}
        return ProbeResult("word_order", data.name, metrics, "accuracy", self.version, details)


def orders(text: str, item: str) -> dict[str, str]:
    """The caption under "", and its other orders by rule; empty when it has none.

    Which order a shuffle gives depends on the item's id alone.
    """
    words, glue = split_words(text)
    if len(words) < _FEWEST:
        return {}
    true = glue.join(words)
    made = {"": true}
    for rule, reorder in _RULES.items():
        draw = np.random.Generator(np.random.Philox(key=stable("word order", rule, item)))
        other = glue.join(reorder(words, draw))
        if other not in made.values():
            made[rule] = other
    return made if len(made) > 1 else {}


def _beats(own: float, other: float) -> float:
    return float(own > other) + 0.5 * float(own == other)


def _neighbours(words: Sequence[str], draw: np.random.Generator) -> list[str]:
    places = [i for i in range(len(words) - 1) if words[i] != words[i + 1]]
    return _swapped(words, *_pair(places, draw)) if places else list(words)


def _pair(places: Sequence[int], draw: np.random.Generator) -> tuple[int, int]:
    first = places[int(draw.integers(len(places)))]
    return first, first + 1


def _longest(words: Sequence[str], draw: np.random.Generator) -> list[str]:
    order = sorted(range(len(words)), key=lambda i: (-len(words[i]), i))
    second = next((i for i in order[1:] if words[i] != words[order[0]]), order[0])
    return _swapped(words, order[0], second)


def _swapped(words: Sequence[str], i: int, j: int) -> list[str]:
    other = list(words)
    other[i], other[j] = other[j], other[i]
    return other


def _all_words(words: Sequence[str], draw: np.random.Generator) -> list[str]:
    return [words[i] for i in draw.permutation(len(words))]


def _trigrams(words: Sequence[str], draw: np.random.Generator) -> list[str]:
    starts = draw.permutation(range(0, len(words), 3))
    return [word for start in starts for word in words[start : start + 3]]


def _inside_trigrams(words: Sequence[str], draw: np.random.Generator) -> list[str]:
    mixed: list[str] = []
    for start in range(0, len(words), 3):
        mixed += _all_words(words[start : start + 3], draw)
    return mixed


_RULES: dict[str, Callable[[Sequence[str], np.random.Generator], list[str]]] = {
    "neighbours swapped": _neighbours,
    "longest words swapped": _longest,
    "trigrams shuffled": _trigrams,
    "inside trigrams shuffled": _inside_trigrams,
    "all words shuffled": _all_words,
}
