"""What several probes need besides scores: captions, samples, labelled examples, a first-found image.

Legend: n items, q queries, m candidates, c classes, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from domainclip import statistics
from domainclip.contracts import Encoder, EvaluationSet, Metric
from domainclip.data.captions import normalise
from domainclip.data.order import stable
from domainclip.errors import DataError
from domainclip.scoring import chosen, hits, metric, several_classes
from domainclip.statistics.aggregates import mean_of_defined, ratio_of

if TYPE_CHECKING:
    from datasets import Dataset

_DIGITS = 6  # single-precision towers do not mean more: what is closer is a tie
_BLOCK = 512  # queries compared with all images at once


@dataclass(frozen=True)
class Caption:
    """One text of one item, with the position of that item in its set."""

    row: int
    language: str
    text: str


@dataclass(frozen=True)
class Examples:
    """Labelled images that a probe may fit on; never the measured ones."""

    features: np.ndarray  # (n, d)
    labels: np.ndarray  # (n, c) of 1 and 0, NaN where unknown
    ids: list[str]
    groups: list[str]

    def pick(self, rows: Sequence[int] | np.ndarray) -> Examples:
        """Some of the examples."""
        ids, groups = [self.ids[i] for i in rows], [self.groups[i] for i in rows]
        return Examples(self.features[rows], self.labels[rows], ids, groups)

    def join(self, other: Examples) -> Examples:
        """These and the others."""
        return Examples(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.labels, other.labels]),
            self.ids + other.ids,
            self.groups + other.groups,
        )


def alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(q, m) between unit rows (q, d) and (m, d), rounded so that what means the same is a tie."""
    rounded: np.ndarray = np.round(a.astype(np.float64) @ b.astype(np.float64).T, _DIGITS)
    return rounded


def column_means(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r, k) the mean of each column of scores (n, k) over the items that have it: NaN marks the others."""
    there = ~np.isnan(scores)
    return ratio_of(weights @ np.where(there, scores, 0.0), weights @ there)


def mean_of_columns(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) means of the columns' means."""
    return mean_of_defined(column_means(scores, weights))


def captions(data: EvaluationSet) -> list[Caption]:
    """Every text that says something, in the order of the items."""
    rows = enumerate(zip(data.items["texts"], data.items["language"], strict=True))
    return [
        Caption(row, language, text)
        for row, (texts, languages) in rows
        for text, language in zip(texts, languages, strict=True)
        if normalise(text)
    ]


def caption_vectors(encoder: Encoder, data: EvaluationSet, texts: Sequence[str]) -> np.ndarray:
    """(q, d) of captions of the set, asked for as `retrieval` does: all of a language at once, in order.

    An encoder keeps what a request gave, so captions that several probes need are encoded once. One wording
    stands for all that read the same.
    """
    said: dict[str, dict[str, str]] = {}
    for one in captions(data):
        wordings, key = said.setdefault(one.language, {}), normalise(one.text)
        wordings[key] = min(one.text, wordings.get(key, one.text))
    wanted = [normalise(text) for text in texts]
    found: dict[str, np.ndarray] = {}
    for language in sorted(said):
        keys = sorted(said[language])
        if not set(wanted).isdisjoint(keys):
            found |= zip(keys, encoder.texts([said[language][key] for key in keys]), strict=True)
    return np.stack([found[key] for key in wanted])


def sample(data: EvaluationSet, rows: Iterable[int], most: int, purpose: str) -> list[int]:
    """At most so many of the rows, in order; which ones depends on their ids alone."""
    ids = list(data.items["id"])
    drawn = sorted(set(rows), key=lambda row: (stable(purpose, ids[row]), ids[row]))
    return sorted(drawn[:most])


def class_names(data: EvaluationSet) -> list[str]:
    """The classes of the card, else those that the training split holds, in sorted order."""
    if data.classes:
        return sorted(data.classes)
    return sorted({label for labels in data.train["labels"] for label in labels} if data.train else ())


def examples(encoder: Encoder, items: Dataset | None, names: Sequence[str], most: int) -> Examples | None:
    """At most so many readable items with their embeddings; None when there are none.

    They stand in an order that depends on their ids alone, so that what is fitted on them does too.
    """
    if items is None or not len(items):
        return None
    ids = list(items["id"])
    order = sorted(range(len(ids)), key=lambda row: (stable("examples", ids[row]), ids[row]))[:most]
    left = readable(encoder, items.select(order, keep_in_memory=True))
    if not len(left):
        return None
    features = encoder.images(left).astype(np.float64)
    return Examples(features, several_classes(left, names), list(left["id"]), list(left["group"]))


def readable(encoder: Encoder, items: Dataset) -> Dataset:
    """The items whose image can be decoded, embedded by now."""
    try:
        encoder.images(items)
    except DataError as error:
        left: Dataset | None = getattr(error, "readable", None)
        if left is None:
            raise
        return left
    return items


def always_commonest(counts: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) hits of a model that sees nothing and always says the commonest class, ties by lot."""
    hits: np.ndarray = chosen(counts[None, :])[0][truth]
    return hits


def recall_at_1(
    encoder: Encoder,
    data: EvaluationSet,
    rows: Sequence[int],
    texts: Sequence[str],
    encode: Callable[[list[str]], np.ndarray] | None = None,
    also: Sequence[tuple[int, str]] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """(q,) chances that the image found first for a text is right, and the same for a random image.

    `texts[i]` asks for the item `rows[i]`; all images of the set are candidates. Right are the images of
    that item's group, and those of every item that is asked for with the same words, or stands with them
    in `also`.
    """
    owner = np.unique(np.asarray(list(data.items["group"]), dtype=str), return_inverse=True)[1]
    said: dict[str, str] = {}
    for text in texts:
        said[normalise(text)] = min(text, said.get(normalise(text), text))
    place = {key: i for i, key in enumerate(sorted(said))}
    asked = np.array([place[normalise(text)] for text in texts])
    pairs = [*zip(rows, asked, strict=True)]
    pairs += [(row, place[key]) for row, text in also if (key := normalise(text)) in place]
    items, keys = np.array(pairs).T
    marks = (np.ones(len(pairs), dtype=bool), (keys, owner[items]))
    accepted = csr_matrix(marks, shape=(len(place), int(owner.max()) + 1))
    images, queries = encoder.images(data.items), (encode or encoder.texts)([said[key] for key in place])
    found = []
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, start + _BLOCK)
        right = accepted[block].toarray()[:, owner]
        found.append(np.stack([(chosen(alike(queries[block], images)) * right).sum(1), right.mean(1)]))
    hits, guesses = np.concatenate(found, axis=1)
    return hits[asked], guesses[asked]


def single(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows with exactly one class, and which one it is, from labels (n, c)."""
    rows = np.flatnonzero(np.nansum(labels, axis=1) == 1)
    return rows, np.nan_to_num(labels[rows]).argmax(axis=1)


def both_sides(labels: np.ndarray) -> np.ndarray:
    """(c,) whether a class has items with it and items without."""
    sides: np.ndarray = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
    return sides


def figure(scores: np.ndarray, labels: np.ndarray, several: bool) -> float:
    """Macro accuracy, or macro AUROC where an item may hold several classes; to choose by."""
    if several:
        both = both_sides(labels)
        if not both.any():
            return 0.0
        return statistics.whole(partial(statistics.macro_auroc, labels=labels[:, both]), scores[:, both])
    rows, truth = single(labels)
    return statistics.whole(partial(statistics.macro_mean, classes=truth), hits(scores[rows], truth))


def figures(
    data: EvaluationSet, names: Sequence[str], scores: np.ndarray, labels: np.ndarray, train: Examples
) -> list[Metric]:
    """What a classifier that was fitted on `train` reaches: accuracies, or AUROCs by `multi_label`.

    Chance is what the classifier would reach that saw only how common each class is in `train`.
    """
    if data.card.multi_label:
        return _areas(data.items, names, scores, labels, both_sides(labels) & both_sides(train.labels))
    rows, truth = single(labels)
    if not len(rows):
        return []
    found, macro = hits(scores[rows], truth), partial(statistics.macro_mean, classes=truth)
    counts = np.bincount(single(train.labels)[1], minlength=len(names))
    blind = always_commonest(counts, truth)
    return [
        metric("macro_accuracy", data.items, rows, found, macro, statistics.whole(macro, blind)),
        metric(
            "accuracy", data.items, rows, found, statistics.mean, statistics.whole(statistics.mean, blind)
        ),
    ]


def _areas(
    items: Dataset, names: Sequence[str], scores: np.ndarray, labels: np.ndarray, both: np.ndarray
) -> list[Metric]:
    if not both.any():
        return []
    macro = partial(statistics.macro_auroc, labels=labels[:, both])
    metrics = [metric("macro_auroc", items, np.arange(len(labels)), scores[:, both], macro, 0.5)]
    for i in np.flatnonzero(both).tolist():
        known = np.flatnonzero(~np.isnan(labels[:, i]))
        area = partial(statistics.auroc, labels=labels[known, i])
        metrics.append(metric(f"auroc/{names[i]}", items, known, scores[known, i], area, 0.5))
    return metrics
