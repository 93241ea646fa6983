"""One figure for any part of the items: accuracy with one class an item, AUROC with several, R@1 without.

Legend: n items, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics import decisions, zero_shot_scores
from domainclip.evaluation.metrics import labels as metrics_labels
from domainclip.evaluation.metrics.ranking import search
from domainclip.evaluation.metrics.retrieval_sets import galleries
from domainclip.evaluation.statistics import aggregates


@dataclass(frozen=True)
class Measured:
    """One figure that can be had for any part of the items."""

    name: str
    rows: np.ndarray  # (n,) where the items stand in the set
    scores: np.ndarray  # (n, …)
    chance: float | None
    figure: Callable[[np.ndarray], aggregates.Aggregate]  # of the items at these places
    # Yes-or-no answers by class: (n,) how surely yes was said, and the places of those it is right for.
    answers: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def measured_on(encoder: Encoder, data: EvaluationSet) -> Measured | None:
    """What can be measured on this set; None when it has neither two classes nor captions."""
    names = list(data.classes)
    if data.card.multi_label and names:
        return _several(encoder, data, names)
    if len(names) > 1:
        rows, truth = metrics_labels.one_class(data.items, names)
        prompts = [data.classes[name].positive for name in names]
        cosines = zero_shot_scores.cosines(
            encoder, data.items, zero_shot_scores.class_vectors(encoder, prompts)
        )[rows]
        hits = decisions.top_k_hits(cosines, truth)
        answers = {name: (hits, np.flatnonzero(truth == i)) for i, name in enumerate(names)}
        # With two classes, finding one is refusing the other; with more, each class has its accuracy.
        return Measured(
            "accuracy",
            rows,
            hits,
            1 / len(names),
            lambda _: aggregates.mean,
            answers if len(names) == 2 else {},
        )
    return _retrieved(encoder, data)


def _several(encoder: Encoder, data: EvaluationSet, names: Sequence[str]) -> Measured:
    labels = metrics_labels.several_classes(data.items, names)
    scores = zero_shot_scores.class_margins(encoder, data.items, data.classes)
    answers = {}
    if data.validation is not None and len(data.validation):
        before = zero_shot_scores.class_margins(encoder, data.validation, data.classes)
        truth = metrics_labels.several_classes(data.validation, names)
        for i, name in enumerate(names):
            if (limit := decisions.youden_threshold(before[:, i], truth[:, i])) is not None:
                answers[name] = ((scores[:, i] >= limit).astype(float), np.flatnonzero(labels[:, i] == 1))

    def figure(places: np.ndarray) -> aggregates.Aggregate:
        return partial(aggregates.macro_auroc, labels=labels[places])

    return Measured("macro_auroc", np.arange(len(data.items)), scores, 0.5, figure, answers)


def _retrieved(encoder: Encoder, data: EvaluationSet) -> Measured | None:
    rows: list[int] = []
    hits: list[float] = []
    for gallery in galleries(data, group_truth=True, pairwise=False, most=None, seed=0):
        images = encoder.images(data.items)[gallery.rows]
        (found,) = search(images, encoder.texts(gallery.texts), [gallery.by_image])
        rows += gallery.rows.tolist()
        hits += found.hit(1).tolist()
    if not rows:
        return None
    return Measured("image_to_text_r1", np.array(rows), np.array(hits), None, lambda _: aggregates.mean)
