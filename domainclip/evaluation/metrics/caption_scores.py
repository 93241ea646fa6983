"""Scores of a written caption against the captions that people gave: BLEU and CIDEr-D.

Legend: n items, o orders of n-grams, r resamples.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import exp, log, sqrt

import numpy as np

from domainclip.data.text.captions import normalise
from domainclip.data.text.words import split_words
from domainclip.evaluation.statistics.aggregates import ratio_of

ORDERS = 4  # o: n-grams of 1 to 4 words
_SIGMA = 6.0  # of CIDEr-D: words by which lengths may differ
_PUNCTUATION = re.compile(r"[^\w\s]+")
Grams = tuple[Counter[tuple[str, ...]], ...]  # by order


def caption_words(text: str) -> list[str]:
    """The words without capitals and punctuation; pairs of characters in scripts without spaces."""
    return split_words(_PUNCTUATION.sub(" ", normalise(text)), None)[0]


def bleu_counts(written: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """(n, 2 o + 2): n-grams that some reference has, and all, by order; words, and those of the closest.

    An n-gram counts at most as often as the reference that has it most often [Papineni et al., ACL 2002].
    """
    rows = []
    for text, others in zip(written, references, strict=True):
        words, known = caption_words(text), [caption_words(other) for other in others]
        grams, most = _grams(words), [_union(orders) for orders in zip(*map(_grams, known), strict=True)]
        matched = [(own & other).total() for own, other in zip(grams, most, strict=True)]
        closest = min((abs(len(other) - len(words)), len(other)) for other in known)[1]
        rows.append([*matched, *(own.total() for own in grams), len(words), closest])
    return np.array(rows, dtype=np.float64)


def bleu(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) BLEU-4 of the corpus, from `bleu_counts` (n, 10): 0 where an order has no match."""
    sums = weights @ scores
    precision = ratio_of(sums[:, :ORDERS], sums[:, ORDERS : 2 * ORDERS])
    brevity = np.minimum(1.0, np.exp(1 - ratio_of(sums[:, -1], sums[:, -2])))
    with np.errstate(divide="ignore"):
        values: np.ndarray = np.exp(np.log(np.nan_to_num(precision)).mean(axis=1)) * np.nan_to_num(brevity)
    return values


def cider(written: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """(n,) CIDEr-D, 0 to 10: cosines of the n-grams, weighted by how rare they are, mean over the orders.

    Rare among the references of all n items. An n-gram of the caption counts at most as often as in the
    reference, and a difference of l words multiplies by exp(−l² / 72). [arXiv:1411.5726]
    """
    known = [[_grams(caption_words(text)) for text in texts] for texts in references]
    frequency = Counter(
        gram for texts in known for gram in {gram for grams in texts for order in grams for gram in order}
    )
    scores = []
    for text, texts in zip(written, known, strict=True):
        own = _grams(caption_words(text))
        values = [_cosine(own, other, frequency, len(known)) for other in texts]
        scores.append(10 * sum(values) / len(values))
    return np.array(scores)


def _cosine(own: Grams, other: Grams, frequency: Counter[tuple[str, ...]], items: int) -> float:
    """The mean over the orders of the clipped cosine, times the penalty of the lengths."""

    def weighted(counts: Counter[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
        return {gram: n * log(items / max(1, frequency[gram])) for gram, n in counts.items()}

    total = 0.0
    for mine, theirs in zip(map(weighted, own), map(weighted, other), strict=True):
        product = sum(
            min(value, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, value in mine.items()
        )
        norms = sqrt(sum(v * v for v in mine.values())) * sqrt(sum(v * v for v in theirs.values()))
        total += product / norms if norms > 0 else 0.0
    difference = own[0].total() - other[0].total()
    return total / ORDERS * exp(-(difference**2) / (2 * _SIGMA**2))


def _grams(words: Sequence[str]) -> Grams:
    return tuple(
        Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1)) for n in range(1, ORDERS + 1)
    )


def _union(counts: Sequence[Counter[tuple[str, ...]]]) -> Counter[tuple[str, ...]]:
    most: Counter[tuple[str, ...]] = Counter()
    for one in counts:
        most |= one
    return most
