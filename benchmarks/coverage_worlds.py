"""Worlds in which a bootstrap fails: two models whose true difference is known; see benchmarks/coverage.py.

"Before" is the interval of the resamples alone, of the metric as it is usually reported. "After" is the
product's procedure, on the metric that the product judges in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import norm

from domainclip.evaluation.base import Metric
from domainclip.evaluation.metrics.decisions import youden_threshold
from domainclip.evaluation.metrics.direction_ranks import DirectionRanks, rank_metric
from domainclip.evaluation.metrics.gallery_parts import GalleryParts
from domainclip.evaluation.metrics.labels import frequent_classes
from domainclip.evaluation.metrics.ranking import Ranks, rank_answers
from domainclip.evaluation.statistics import aggregates
from domainclip.evaluation.statistics.aggregates import Aggregate
from domainclip.evaluation.statistics.gallery_effects import GalleryEffects, QueryParts


@dataclass(frozen=True)
class Pair:
    """The scores of two models, and the true difference of their metric."""

    aggregate: Aggregate
    base: np.ndarray
    adapted: np.ndarray
    groups: list[str]
    truth: float = 0.0
    gallery: Sequence[GalleryEffects] = ()  # of a metric of retrieval


@dataclass(frozen=True)
class Draw:
    """One draw of a world; `after` is None where the product judges nothing in its place."""

    before: Pair
    after: Pair | None


@dataclass(frozen=True)
class World:
    """Two models on the same items, whose true difference is known."""

    name: str
    draw: Callable[[np.random.Generator], Draw]


@dataclass(frozen=True)
class Family:
    """Differences that are judged together: `draw` returns them."""

    name: str
    draw: Callable[[np.random.Generator], list[Pair]]


def names(member: np.ndarray) -> list[str]:
    """Names of groups by number."""
    return [f"p{i:04d}" for i in member]


def few_positives(positives: int) -> World:
    """AUROCs of two equally good models, of a finding with so many positives of 150 patients."""

    def make(rng: np.random.Generator) -> Draw:
        labels = (np.arange(150) < positives).astype(float)
        pair = Pair(partial(aggregates.auroc, labels=labels), *_scores(rng, labels), names(np.arange(150)))
        return Draw(pair, pair)

    return World(f"AUROC, {positives} positives of 150", make)


def at_specificity(positives: int, specificity: float) -> World:
    """Sensitivity at each model's own Youden threshold of a validation split; after: at a specificity."""

    def make(rng: np.random.Generator) -> Draw:
        labels = (np.arange(150) < positives).astype(float)
        validation, measured = _scores(rng, labels), _scores(rng, labels)
        limits = [youden_threshold(scores, labels) or 0.0 for scores in validation]
        answers = [(s >= limit).astype(float) for s, limit in zip(measured, limits, strict=True)]
        groups = names(np.arange(150))
        base, adapted = (answer[labels == 1] for answer in answers)
        own = Pair(aggregates.mean, base, adapted, groups[:positives])
        at = partial(aggregates.sensitivity_at_specificity, labels=labels, specificity=specificity)
        return Draw(own, Pair(at, *measured, groups))

    return World(f"sensitivity, {positives} of 150: Youden's threshold → {specificity:.0%} specificity", make)


def rare_changes(groups: int, gained: float, lost: float, size: int = 1, icc: float = 0.5) -> World:
    """Two accuracies that seldom differ: the share of images gained and lost; patients of `size` images."""

    def make(rng: np.random.Generator) -> Draw:
        member = np.repeat(np.arange(groups), size)
        latent = np.sqrt(icc) * rng.normal(size=groups)[member]
        latent += np.sqrt(1 - icc) * rng.normal(size=len(member))
        change = (latent < norm.ppf(gained)).astype(float) - (latent > norm.isf(lost))
        pair = Pair(aggregates.mean, *_changed(rng, change), names(member), gained - lost)
        return Draw(pair, pair)

    together = f" (ICC {icc:g})" if size > 1 else ""
    return World(
        f"accuracy, {groups} patients of {size}{together}, {gained:.1%} gained, {lost:.1%} lost", make
    )


def macro(counts: Sequence[int], gained: float, lost: float, rare: float | None = None) -> World:
    """Macro accuracies over classes of these sizes; in classes below ten items `rare` is gained instead."""
    classes = np.repeat(np.arange(len(counts)), counts)
    kept = frequent_classes(np.asarray(counts))
    gains = np.where(kept, gained, gained if rare is None else rare)

    def make(rng: np.random.Generator) -> Draw:
        draw = rng.random(len(classes))
        change = (draw < gains[classes]).astype(float) - (draw > 1 - lost)
        base, adapted = _changed(rng, change)
        groups, counted = np.arange(len(classes)), kept[classes]

        def pair(rows: np.ndarray, truth: float) -> Pair:
            aggregate = partial(aggregates.macro_mean, classes=classes[rows])
            return Pair(aggregate, base[rows], adapted[rows], names(groups[rows]), truth)

        return Draw(pair(counted | True, float(gains.mean()) - lost), pair(counted, gained - lost))

    sizes = ", ".join(map(str, counts))
    return World(f"macro accuracy, classes of {sizes}, {gained:.0%} gained and {lost:.0%} lost", make)


def retrieval(
    patients: int,
    hubs: float,
    alike: float = 0.0,
    k: int = 1,
    to_image: bool = False,
    few: int = 0,
    also: int = 0,
) -> World:
    """R@k of two equally good models, two images and a caption a patient; image to text by default.

    `hubs`: how much nearer to all queries some answers lie, others for each model. `alike`: the share of the
    patients with one and the same caption; `few`: the number of captions, each of as many patients; `also`:
    that of further captions, one of which each patient has beside the own one.
    """
    first = np.where(np.arange(patients) < alike * patients, 0, np.arange(patients))
    texts, of_patient = np.unique(first % few if few else first, return_inverse=True)
    captions = [of_patient, *([len(texts) + np.arange(patients) % also] if also else [])]
    right = np.zeros((patients, len(texts) + also), dtype=bool)
    for of in captions:
        right[np.arange(patients), of] = True
    search = _Search(right, np.repeat(np.arange(patients), 2), to_image, k)

    def make(rng: np.random.Generator) -> Draw:
        meaning = rng.normal(size=(right.shape[1], 12))
        noise = 2.2 if few else 1.2
        metrics = []
        for _ in range(2):
            images = (right @ meaning)[search.member] + noise * rng.normal(size=(len(search.member), 12))
            written = meaning + 0.4 * rng.normal(size=meaning.shape)
            near = hubs * rng.exponential(size=len(images) if to_image else len(written))
            metrics.append(search.recall(images, written, near))
        first, second = metrics
        pair = Pair(aggregates.mean, first.scores, second.scores, list(first.groups))
        effects = [metric.gallery for metric in metrics if metric.gallery is not None]
        return Draw(pair, replace(pair, gallery=effects))

    same = f", {alike:.0%} with one caption" if alike else f", {few} captions" if few else ""
    same += f", also one of {also} captions" if also else ""
    direction = "text-to-image" if to_image else "image-to-text"
    return World(f"{direction} R@{k}, {patients} patients of 2, hubs {hubs:g}{same}", make)


@dataclass(frozen=True)
class _Search:
    """The queries and the right answers of one direction of retrieval."""

    right: np.ndarray  # (patients, m) bool: the captions of each patient
    member: np.ndarray  # (n,) the patient of each image
    to_image: bool
    k: int

    def recall(self, images: np.ndarray, texts: np.ndarray, near: np.ndarray) -> Metric:
        """R@k as the probe `retrieval` measures it; `near` is added to the cosines of each answer."""
        patient, asked = np.nonzero(self.right)  # each caption of a patient is a query
        count = min(100, len(self.right))
        of_texts, of_images = self.right.argmax(axis=0) % count, self.member % count
        truth = csr_matrix(self.right[self.member])
        parts = GalleryParts(count, of_images, [of_texts])
        if self.to_image:
            right_images = csr_matrix(self.right[self.member].T[asked])
            own = QueryParts(of_texts[asked], patient % count, parts.shares(right_images, of_images))
            queries, answers, truth, of_answers = texts[asked], images, right_images, of_images
        else:
            own = QueryParts(of_images, of_images, parts.shares(truth, of_texts))
            queries, answers, of_answers, patient = images, texts, of_texts, self.member
        queries, answers = np.c_[queries, np.ones(len(queries))], np.c_[answers, near]
        (ranks,) = rank_answers(queries, answers, [truth], of_answers)
        groups = names(patient)
        direction = DirectionRanks("", groups, groups, own, np.bincount(asked), ranks, ranks)
        return rank_metric("", [direction], partial(Ranks.hits_at, k=self.k))


def _scores(rng: np.random.Generator, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two equally good models, which agree in part."""
    signal = 1.2 * labels + rng.normal(size=len(labels)) / 2
    return signal + rng.normal(size=len(labels)), signal + rng.normal(size=len(labels))


def _changed(rng: np.random.Generator, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right answers of a model with 60 %, and of one that gains and loses these."""
    base = np.where(change > 0, 0.0, np.where(change < 0, 1.0, rng.random(len(change)) < 0.6))
    return base, base + change


WORLDS = [
    *(few_positives(count) for count in (1, 2, 3, 5, 10, 20)),
    at_specificity(15, 0.9),
    at_specificity(40, 0.9),
    at_specificity(40, 0.95),
    rare_changes(100, 0.01, 0.01),
    rare_changes(200, 0.01, 0.01),
    rare_changes(200, 0.03, 0.01),
    rare_changes(400, 0.0, 0.01),
    rare_changes(50, 0.02, 0.02, size=5),
    rare_changes(100, 0.05, 0.05, size=5),
    rare_changes(100, 0.03, 0.01, size=5, icc=0.95),
    rare_changes(20, 0.2, 0.05, size=5),
    macro([10] * 6, 0.02, 0.02),
    macro([10, 12, 15, 200], 0.1, 0.1),
    macro([30, 40, 60], 0.2, 0.05),
    macro([1, 1, 1, 2, 12, 40, 60], 0.2, 0.05, rare=0.6),
    *(retrieval(patients, hubs) for hubs in (0.0, 1.0, 2.0) for patients in (30, 75, 150)),
    retrieval(300, 0.3),
    retrieval(60, 4.0),
    retrieval(150, 4.0),
    retrieval(75, 2.0, k=5),
    retrieval(75, 2.0, to_image=True),
    retrieval(75, 1.0, alike=0.25),
    retrieval(75, 2.0, alike=0.25, to_image=True),
    retrieval(150, 2.0, alike=0.5),
    retrieval(75, 1.0, alike=0.75),
    retrieval(75, 1.0, few=12),
    retrieval(75, 2.0, also=8),
    retrieval(75, 1.0, also=8, to_image=True),
    retrieval(75, 1.0, few=5),
]


def classes(count: int, gaining: int, gained: float = 0.25, size: int = 20, changed: float = 0.15) -> Family:
    """Accuracies of classes of `size` items, of which some gain; the others change both ways alike."""

    def make(rng: np.random.Generator) -> list[Pair]:
        pairs = []
        for i in range(count):
            up = gained if i < gaining else changed
            draw = rng.random(size)
            change = (draw < up).astype(float) - (draw > 1 - changed)
            pairs.append(Pair(aggregates.mean, *_changed(rng, change), names(np.arange(size)), up - changed))
        return pairs

    return Family(f"recall of {count} classes of {size}, {gaining} gain {gained - changed:.0%}", make)


def findings(positives: Sequence[int]) -> Family:
    """AUROCs of equally good models, of findings with so many positives of 200 patients."""

    def make(rng: np.random.Generator) -> list[Pair]:
        pairs = []
        for count in positives:
            labels = (np.arange(200) < count).astype(float)
            area = partial(aggregates.auroc, labels=labels)
            pairs.append(Pair(area, *_scores(rng, labels), names(np.arange(200))))
        return pairs

    return Family(f"AUROC of {len(positives)} findings, {min(positives)} to {max(positives)} of 200", make)


def models(count: int, patients: int = 60) -> Family:
    """So many models of equal accuracy against one base; patients of three images."""

    def make(rng: np.random.Generator) -> list[Pair]:
        member = np.repeat(np.arange(patients), 3)
        shared = rng.normal(size=patients)[member] + rng.normal(size=len(member))
        first, *others = (
            (shared + rng.normal(size=len(member)) < 1.0).astype(float) for _ in range(count + 1)
        )
        return [Pair(aggregates.mean, first, other, names(member)) for other in others]

    return Family(f"{count} models against one, {patients} patients of 3", make)


FAMILIES = [
    classes(20, 0),
    classes(20, 10, gained=0.55, size=60),
    classes(12, 0, size=200, changed=0.01),
    findings([10, 12, 15, 20, 30, 40, 50, 60, 70, 80]),
    models(8),
]
