"""Sensitivity to word order: a caption against the same words in another order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import Encoder
from domainclip.data.text.captions import normalise
from domainclip.data.text.words import split_words
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics.captions import captions
from domainclip.evaluation.metrics.labelled_examples import sample_items
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.evaluation.metrics.truth import right_captions
from domainclip.seeding import stable

_MIN_WORDS = 4


@dataclass(frozen=True, kw_only=True)
class WordOrder(Probe):
    """The true caption against reordered variants of it, for each image. [arXiv:2210.01936]

    The paper's perturbations that need no grammar (all words shuffled, trigrams shuffled, words inside the
    trigrams shuffled), and two swaps: neighbours, and the two longest words, which in most languages are
    content words. Captions of fewer than four words are left out, and long ones are cut to their first forty
    words. Ties count 1/t: the paper's scripts count them as wrong on two tasks and as correct on two.
    """

    citation: ClassVar[str] = "arXiv:2210.01936"
    version: ClassVar[int] = 2

    max_items: Annotated[int, Field(ge=1)] = 96  # items; each costs up to six texts

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Share of items whose caption scores above all its variants; then against each variant alone."""
        variants_of: dict[int, dict[str, str]] = {}
        ids, right = list(data.items["id"]), right_captions(data.items)
        for caption in captions(data):
            if caption.row not in variants_of and (
                variants := orders(caption.text, ids[caption.row], right[caption.row])
            ):
                variants_of[caption.row] = variants
        if not variants_of:
            return not_measured(
                "word_order", data, self.version, "captions of four words that can be reordered"
            )
        rows = np.array(sample_items(data, variants_of, self.max_items, "word order"))
        variants_by_item = [variants_of[int(row)] for row in rows]
        vectors = encoder.texts([text for variants in variants_by_item for text in variants.values()]).astype(
            np.float64
        )
        images = encoder.images(data.items)[rows].astype(np.float64)
        ends = np.cumsum([len(variants) for variants in variants_by_item])
        cosines = [
            np.round(text_vectors @ image, 6)
            for text_vectors, image in zip(np.split(vectors, ends[:-1]), images, strict=True)
        ]
        hits = np.array([(scores[0] == scores.max()) / (scores == scores.max()).sum() for scores in cosines])
        chance = float(np.mean([1 / len(scores) for scores in cosines]))
        metrics = [metric("accuracy", data.items, rows, hits, chance=chance)]
        for rule in _RULES:
            with_rule = [i for i, variants in enumerate(variants_by_item) if rule in variants]
            if not with_rule:
                continue
            reordered = [cosines[i][list(variants_by_item[i]).index(rule)] for i in with_rule]
            wins = np.array(
                [_win(cosines[i][0], value) for i, value in zip(with_rule, reordered, strict=True)]
            )
            metrics.append(metric(f"accuracy/{rule}", data.items, rows[with_rule], wins, chance=0.5))
        details = {"items": len(rows), "with_captions_long_enough": len(variants_of)}
        return ProbeResult("word_order", data.name, metrics, "accuracy", self.version, details)


def orders(text: str, item: str, right: Collection[str] = ()) -> dict[str, str]:
    """The caption under "", and its reordered variants by rule; empty when there are none.

    Shuffles depend on the item's id alone. A variant that is a caption of the same truth key is no wrong one:
    `right` are those captions, normalised.
    """
    words, glue = split_words(text)
    if len(words) < _MIN_WORDS:
        return {}
    true = glue.join(words)
    variants = {"": true}
    for rule, reorder in _RULES.items():
        draw = np.random.Generator(np.random.Philox(key=stable("word order", rule, item)))
        reordered = glue.join(reorder(words, draw))
        if reordered not in variants.values() and normalise(reordered) not in right:
            variants[rule] = reordered
    return variants if len(variants) > 1 else {}


def _win(true: float, reordered: float) -> float:
    return float(true > reordered) + 0.5 * float(true == reordered)


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
    reordered = list(words)
    reordered[i], reordered[j] = reordered[j], reordered[i]
    return reordered


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
