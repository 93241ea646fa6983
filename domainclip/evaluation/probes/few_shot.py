"""Few-shot classification: the gain over the prompts from a few labelled images per class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics.classifier_metrics import majority_class_hits
from domainclip.evaluation.metrics.decisions import top_k_hits
from domainclip.evaluation.metrics.labelled_examples import Examples, labelled_examples
from domainclip.evaluation.metrics.labels import (
    frequent_classes,
    has_frequent_class,
    single_label_items,
    single_label_rows,
)
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.evaluation.metrics.zero_shot_scores import class_vectors
from domainclip.evaluation.statistics import aggregates
from domainclip.seeding import stable


@dataclass(frozen=True, kw_only=True)
class FewShot(Probe):
    """A linear head, initialised from the prompts and regularised towards them. [arXiv:2312.12730]

    CLAP in closed form: minimise the mean over the shots of CE(scale · x W^T) plus the sum over classes of
    l_c |w_c - t_c|^2, where t_c is the class's prompt vector and l_c the mean zero-shot probability of c on
    its own shots. Nothing is tuned, so no validation split is needed. Two departures: the weights are not
    normalised again, so the problem is convex with one solution, and images are not augmented.
    Legend: n items, m shots in total, c classes, d width.
    """

    citation: ClassVar[str] = "arXiv:2312.12730"
    version: ClassVar[int] = 2
    classifies: ClassVar[bool] = True

    # Training images of each class.
    shots: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 4, 8, 16)
    seeds: Annotated[int, Field(ge=1)] = 3  # draws of the training images, of which the mean is reported
    max_items: int = 5000  # training images to draw from

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Macro accuracy, over all numbers of shots and for each; item scores are means over seeds."""
        names = sorted(data.classes)
        if data.card.multi_label or len(names) < 2:
            return not_measured("few_shot", data, self.version, "two classes, of which each item has one")
        rows, truth = single_label_items(data.items, names)
        train = labelled_examples(encoder, data.train, names, self.max_items)
        if train is None or not len(rows) or not len(single_label_rows(train.labels)[0]):
            return not_measured(
                "few_shot", data, self.version, "items with one class in train and measured set"
            )
        train = train.take(single_label_rows(train.labels)[0])
        # An item with exactly one class is negative in all others, including those marked unknown.
        train = replace(train, labels=np.nan_to_num(train.labels))
        text_weights = class_vectors(encoder, [data.classes[name].positive for name in names])
        images = encoder.images(data.items).astype(np.float64)[rows]
        scores, majority = np.zeros((2, len(self.shots), len(rows)))
        for i, shots in enumerate(self.shots):
            for seed in range(self.seeds):
                support = train.take(_draw_shots(train, shots, seed))
                head = _fit_head(support, text_weights, encoder.scale)
                logits = np.round(encoder.scale * images @ head.T, 4)
                scores[i] += top_k_hits(logits, truth) / self.seeds
                majority[i] += majority_class_hits(support.labels.sum(axis=0), truth) / self.seeds
        # Rare classes are left out of the mean, as everywhere.
        judged = has_frequent_class(np.bincount(truth))
        counted = frequent_classes(np.bincount(truth))[truth]
        rows, truth = rows[counted], truth[counted]
        scores, majority = scores[:, counted], majority[:, counted]
        macro = partial(aggregates.macro_mean, classes=truth)
        metrics = [
            metric(
                "macro_accuracy",
                data.items,
                rows,
                scores.mean(0),
                macro,
                aggregates.point_estimate(macro, majority.mean(0)),
                comparable=judged,
            )
        ]
        for shots, score, chance in zip(self.shots, scores, majority, strict=True):
            name = f"macro_accuracy/{shots}-shot"
            metrics.append(
                metric(
                    name,
                    data.items,
                    rows,
                    score,
                    macro,
                    aggregates.point_estimate(macro, chance),
                    comparable=judged,
                )
            )
        available = {name: int(train.labels[:, i].sum()) for i, name in enumerate(names)}
        details = {"shots": list(self.shots), "seeds": self.seeds, "training_items": available, **train.lost}
        return ProbeResult("few_shot", data.name, metrics, "macro_accuracy", self.version, details)


def _draw_shots(train: Examples, shots: int, seed: int) -> np.ndarray:
    """Rows of the shots: per class, items of different groups first; larger draws include smaller ones."""
    classes, indices = train.labels.argmax(axis=1), range(len(train.ids))
    occurrences: dict[tuple[int, str], int] = {}
    keys = []
    for row in sorted(indices, key=lambda row: (stable("shot", seed, train.ids[row]), train.ids[row])):
        class_and_group = (int(classes[row]), train.groups[row])
        occurrence = occurrences[class_and_group] = occurrences.get(class_and_group, 0) + 1
        keys.append(
            (
                class_and_group[0],
                occurrence,
                stable("shots of", seed, class_and_group[1]),
                class_and_group[1],
                row,
            )
        )
    rows: list[int] = []
    for label in range(train.labels.shape[1]):
        rows += [key[-1] for key in sorted(key for key in keys if key[0] == label)[:shots]]
    return np.array(rows)


def _fit_head(support: Examples, text_weights: np.ndarray, scale: float) -> np.ndarray:
    """(c, d) the weights of the head."""
    x, y = support.features, support.labels
    zero_shot = softmax(scale * x @ text_weights.T, axis=1)
    strength = (y * zero_shot).sum(axis=0) / np.maximum(y.sum(axis=0), 1)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        head = flat.reshape(text_weights.shape)
        shift, logits = head - text_weights, scale * x @ head.T
        value = -(y * log_softmax(logits, axis=1)).sum() / len(x) + (strength * (shift**2).sum(axis=1)).sum()
        gradient = scale * (softmax(logits, axis=1) - y).T @ x / len(x) + 2 * strength[:, None] * shift
        return float(value), gradient.ravel()

    solution = minimize(loss, text_weights.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    head: np.ndarray = solution.x.reshape(text_weights.shape)
    return head
