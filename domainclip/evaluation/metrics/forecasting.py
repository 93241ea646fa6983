"""Probabilities of zero-shot answers, and how far confidence and accuracy are apart.

Legend: n items, c classes, k answers per item, b bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, log_expit, log_softmax

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics import decisions, labels, zero_shot_scores

if TYPE_CHECKING:
    from datasets import Dataset

_DRAWS = 200  # simulations of a perfectly calibrated model, for its calibration error


@dataclass(frozen=True)
class Forecasts:
    """Predictions with their logits. n items, c classes, k answers per item: 1, or one per class."""

    rows: np.ndarray  # (n,) positions of the items in the set
    logits: np.ndarray  # (n, c)
    truth: np.ndarray  # (n,) the class index, or (n, c) of 1, 0 and NaN

    def log_likelihoods(self, temperature: float) -> np.ndarray:
        """(n, k) log probability of the true answer; NaN where the truth is unknown."""
        logits, logs = self.logits / temperature, np.full(self.truth.shape, np.nan)
        if self.truth.ndim == 1:
            true_class: np.ndarray = log_softmax(logits, axis=1)[np.arange(len(logits)), self.truth]
            return true_class[:, None]
        for label, sign in ((1, 1), (0, -1)):
            with_label = self.truth == label
            logs[with_label] = log_expit(sign * logits[with_label])
        return logs

    def brier_scores(self, temperature: float) -> np.ndarray:
        """(n, k) squared distance of the probabilities from the truth (Brier)."""
        logits = self.logits / temperature
        if self.truth.ndim > 1:
            gaps: np.ndarray = expit(logits) - self.truth
            return gaps**2
        gaps = np.exp(log_softmax(logits, axis=1))
        gaps[np.arange(len(gaps)), self.truth] -= 1
        scores: np.ndarray = (gaps**2).sum(axis=1, keepdims=True)
        return scores

    def confidence(self, temperature: float) -> tuple[np.ndarray, np.ndarray]:
        """(n, k) confidence and correctness of each answer: the top class, or positive in each class."""
        logits = self.logits / temperature
        if self.truth.ndim > 1:
            return np.where(np.isnan(self.truth), np.nan, expit(logits)), self.truth
        confidence = np.exp(log_softmax(logits, axis=1)).max(axis=1)
        return confidence[:, None], decisions.top_k_hits(self.logits, self.truth)[:, None]


def classes_with_probability(encoder: Encoder, data: EvaluationSet) -> tuple[dict[str, Prompts], list[str]]:
    """The classes whose positive answer has a probability, and the names of the others."""
    if encoder.bias is not None:
        return {name: Prompts(positive=prompts.positive) for name, prompts in data.classes.items()}, []
    opposed = {name: prompts for name, prompts in data.classes.items() if prompts.negative}
    return opposed, [name for name in data.classes if name not in opposed]


def kind_of_probability(encoder: Encoder) -> str:
    """Which probability a yes has: other classes have one, and it is another one, with a bias."""
    return "sigmoid of cosine and bias" if encoder.bias is not None else "positive against negative prompts"


def forecasts(encoder: Encoder, items: Dataset, classes: dict[str, Prompts], multi_label: bool) -> Forecasts:
    names = list(classes)
    if multi_label:
        rows, truth = np.arange(len(items)), labels.label_matrix(items, names)
        bias = encoder.bias or 0.0
        return Forecasts(
            rows, zero_shot_scores.class_margins(encoder, items, classes) * encoder.scale + bias, truth
        )
    rows, truth = labels.single_label_items(items, names)
    positives = {name: Prompts(positive=prompts.positive) for name, prompts in classes.items()}
    scores = zero_shot_scores.class_margins(encoder, items, positives)
    return Forecasts(rows, scores[rows] * encoder.scale, truth)


def bin_of(confidence: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin index of each confidence; equal ones share a bin, and 1 is in the last."""
    index: np.ndarray = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, len(edges) - 2)
    return index


def by_bin(confidence: np.ndarray, correct: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(n, 1 + b) number of answers of each item, then by bin the sum of confidence minus truth."""
    known = ~np.isnan(confidence)
    scores = np.zeros((len(confidence), len(edges)))
    scores[:, 0] = known.sum(axis=1)
    rows = np.nonzero(known)[0]
    np.add.at(scores, (rows, 1 + bin_of(confidence[known], edges)), (confidence - correct)[known])
    return scores


def error_of_a_calibrated_model(confidence: np.ndarray, edges: np.ndarray) -> float:
    """The expected calibration error of a perfectly calibrated model with these confidences (n, k)."""
    confidence = np.sort(confidence[~np.isnan(confidence)])
    bins, rng = bin_of(confidence, edges), np.random.default_rng(0)
    errors = []
    for _ in range(_DRAWS):
        gaps = np.bincount(
            bins, confidence - (rng.random(len(confidence)) < confidence), minlength=len(edges) - 1
        )
        errors.append(np.abs(gaps).sum() / len(confidence))
    return float(np.mean(errors))
