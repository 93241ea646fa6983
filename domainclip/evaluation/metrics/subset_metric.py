"""One metric for any subset of the items: accuracy (single-label), macro AUROC (multi-label), or R@1.

Legend: n items, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics import decisions, zero_shot_scores
from domainclip.evaluation.metrics import labels as metrics_labels
from domainclip.evaluation.metrics.ranking import rank_answers
from domainclip.evaluation.metrics.retrieval_gallery import build_galleries
from domainclip.evaluation.statistics import aggregates


@dataclass(frozen=True)
class SubsetMetric:
    """A metric that is defined on any subset of the items."""

    name: str
    rows: np.ndarray  # (n,) positions of the items in the set
    scores: np.ndarray  # (n, …)
    chance: float | None
    aggregate_on: Callable[[np.ndarray], aggregates.Aggregate]  # for the subset at these indices of `rows`
    labels: np.ndarray | None = None  # (n, c) of a mean over classes, as the scores
    # By class: (n,) share of the positive answer, and the indices of the positives.
    binary_answers: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def over(self, classes: Sequence[int]) -> SubsetMetric:
        """The same mean over these classes only."""
        assert self.labels is not None
        labels = self.labels[:, classes]
        return replace(
            self, scores=self.scores[:, classes], labels=labels, aggregate_on=partial(_macro_auroc_on, labels)
        )


def make_subset_metric(encoder: Encoder, data: EvaluationSet) -> SubsetMetric | None:
    """The metric that the set allows; None when it has neither two classes nor captions."""
    names = list(data.classes)
    if data.card.multi_label and names:
        return _macro_auroc(encoder, data, names)
    if len(names) > 1:
        rows, truth = metrics_labels.single_label_items(data.items, names)
        positives = {name: Prompts(positive=data.classes[name].positive) for name in names}
        scores = zero_shot_scores.class_margins(encoder, data.items, positives)[rows]
        hits = decisions.top_k_hits(scores, truth)
        binary_answers = {name: (hits, np.flatnonzero(truth == i)) for i, name in enumerate(names)}
        # With two classes, recognising one is rejecting the other; with more, each class has its accuracy.
        return SubsetMetric(
            "accuracy",
            rows,
            hits,
            1 / len(names),
            lambda _: aggregates.mean,
            binary_answers=binary_answers if len(names) == 2 else {},
        )
    return _recall_at_1(encoder, data)


def _macro_auroc(encoder: Encoder, data: EvaluationSet, names: Sequence[str]) -> SubsetMetric:
    labels = metrics_labels.label_matrix(data.items, names)
    scores = zero_shot_scores.class_margins(encoder, data.items, data.classes)
    binary_answers = {}
    if data.validation is not None and len(data.validation):
        validation_scores = zero_shot_scores.class_margins(encoder, data.validation, data.classes)
        truth = metrics_labels.label_matrix(data.validation, names)
        for i, name in enumerate(names):
            if (limit := decisions.youden_threshold(validation_scores[:, i], truth[:, i])) is not None:
                binary_answers[name] = (
                    (scores[:, i] >= limit).astype(float),
                    np.flatnonzero(labels[:, i] == 1),
                )

    everyone, on = np.arange(len(data.items)), partial(_macro_auroc_on, labels)
    return SubsetMetric("macro_auroc", everyone, scores, 0.5, on, labels, binary_answers)


def _macro_auroc_on(labels: np.ndarray, subset: np.ndarray) -> aggregates.Aggregate:
    return partial(aggregates.macro_auroc, labels=labels[subset])


def _recall_at_1(encoder: Encoder, data: EvaluationSet) -> SubsetMetric | None:
    rows: list[int] = []
    hits: list[float] = []
    for gallery in build_galleries(data):
        images = encoder.images(data.items)[gallery.rows]
        (ranks,) = rank_answers(images, encoder.texts(gallery.texts), [gallery.by_image])
        rows += gallery.rows.tolist()
        hits += ranks.hits_at(1).tolist()
    if not rows:
        return None
    return SubsetMetric("image_to_text_r1", np.array(rows), np.array(hits), None, lambda _: aggregates.mean)
