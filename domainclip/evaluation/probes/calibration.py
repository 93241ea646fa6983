"""Calibration of zero-shot probabilities: agreement of confidence and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics import decisions, labels, results, zero_shot_scores
from domainclip.evaluation.statistics import aggregates

if TYPE_CHECKING:
    from datasets import Dataset

_DRAWS = 200  # simulations of a perfectly calibrated model, for the calibration error at chance


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


@dataclass(frozen=True, kw_only=True)
class Calibration(Probe):
    """Expected calibration error, Brier score and log loss of zero-shot answers. [arXiv:1706.04599]

    Single-label: softmax over the classes of scale times cosine. Multi-label: for each class, sigmoid of
    scale times the margin between its positive and negative prompts, or of scale times cosine plus bias for
    models trained with the sigmoid loss. The error is the mean of |confidence - accuracy| over bins of equal
    width, or of equal mass (adaptive [arXiv:1904.01685]). All metrics are repeated after scaling by one
    temperature, fitted on validation by the log loss, never on the measured items.
    """

    citation: ClassVar[str] = "arXiv:1706.04599"
    version: ClassVar[int] = 1
    classifies: ClassVar[bool] = True

    bins: int = 15

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError("bins: at least 1")

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Metrics of the model as it is, and after temperature scaling where there is a validation split."""
        multi_label = data.card.multi_label
        classes, excluded = _classes_with_probability(encoder, data) if multi_label else (data.classes, [])
        if len(classes) < (1 if multi_label else 2):
            missing = "classes with negative prompts" if multi_label else "two classes to choose among"
            return results.not_measured("calibration", data, self.version, missing)
        forecasts = _forecasts(encoder, data.items, classes, multi_label)
        if not len(forecasts.rows):
            return results.not_measured(
                "calibration", data, self.version, "items with exactly one of the classes"
            )
        metrics = self._metrics(data.items, forecasts, 1.0, "")
        details: dict[str, Any] = {
            "bins": self.bins,
            "answers": int((~np.isnan(forecasts.log_likelihoods(1.0))).sum()),
            "reliability": self._reliability(forecasts),
            "ece_of_a_calibrated_model": self._ece_at_chance(forecasts),
        }
        if excluded:
            details["classes_without_negative_prompts"] = excluded
        temperature = _fit_temperature(encoder, data, classes, multi_label)
        details["temperature"] = temperature or "not fitted: no validation split with such items"
        if temperature is not None:
            metrics += self._metrics(data.items, forecasts, temperature, "_fitted")
        variant = _variant(encoder) if multi_label else ""
        return ProbeResult("calibration", data.name, metrics, "ece", self.version, details, variant=variant)

    def _metrics(self, items: Dataset, forecasts: Forecasts, temperature: float, suffix: str) -> list[Metric]:
        uniform = Forecasts(forecasts.rows, np.zeros_like(forecasts.logits), forecasts.truth)
        metric = partial(results.metric, items=items, rows=forecasts.rows, higher_is_better=False)
        metrics = []
        for name, edges in (("ece", self._edges()), ("ece_adaptive", self._edges(forecasts, temperature))):
            scores = _by_bin(*forecasts.confidence(temperature), edges)
            # Absolute gaps do not cancel, so the error has a bias that grows with the noise of the answers.
            metrics.append(
                metric(
                    name=name + suffix,
                    scores=scores,
                    aggregate=aggregates.calibration_error,
                    comparable=False,
                )
            )
        for name, values, unit in (
            ("brier", Forecasts.brier_scores, "share"),
            ("nll", Forecasts.log_likelihoods, "nats"),
        ):
            sign = -1 if name == "nll" else 1
            chance = aggregates.point_estimate(
                aggregates.pooled_mean, _sum_and_count(sign * values(uniform, 1.0))
            )
            metrics.append(
                metric(
                    name=name + suffix,
                    scores=_sum_and_count(sign * values(forecasts, temperature)),
                    aggregate=aggregates.pooled_mean,
                    chance=chance,
                    unit=unit,
                )
            )
        return metrics

    def _edges(self, forecasts: Forecasts | None = None, temperature: float = 1.0) -> np.ndarray:
        """Edges of bins of equal width, or of equal mass under these forecasts."""
        if forecasts is None:
            return np.linspace(0, 1, self.bins + 1)
        confidence = forecasts.confidence(temperature)[0]
        edges: np.ndarray = np.quantile(confidence[~np.isnan(confidence)], np.linspace(0, 1, self.bins + 1))
        return edges

    def _reliability(self, forecasts: Forecasts) -> list[dict[str, float]]:
        """The points of a reliability plot: one per non-empty bin of equal width."""
        confidence, correct = (
            value[~np.isnan(forecasts.log_likelihoods(1.0))] for value in forecasts.confidence(1.0)
        )
        bins = _bin_of(confidence, self._edges())
        return [
            {
                "confidence": float(confidence[bins == i].mean()),
                "accuracy": float(correct[bins == i].mean()),
                "n": int((bins == i).sum()),
            }
            for i in np.unique(bins)
        ]

    def _ece_at_chance(self, forecasts: Forecasts) -> float:
        """The expected error of a perfectly calibrated model with these confidences, on as many items."""
        confidence = forecasts.confidence(1.0)[0]
        confidence = np.sort(confidence[~np.isnan(confidence)])
        bins, rng = _bin_of(confidence, self._edges()), np.random.default_rng(0)
        errors = []
        for _ in range(_DRAWS):
            gaps = np.bincount(
                bins, confidence - (rng.random(len(confidence)) < confidence), minlength=self.bins
            )
            errors.append(np.abs(gaps).sum() / len(confidence))
        return float(np.mean(errors))


def _classes_with_probability(encoder: Encoder, data: EvaluationSet) -> tuple[dict[str, Prompts], list[str]]:
    """The classes whose positive answer has a probability, and the names of the others."""
    if encoder.bias is not None:
        return {name: Prompts(positive=prompts.positive) for name, prompts in data.classes.items()}, []
    opposed = {name: prompts for name, prompts in data.classes.items() if prompts.negative}
    return opposed, [name for name in data.classes if name not in opposed]


def _variant(encoder: Encoder) -> str:
    """Which probability a yes has: other classes have one, and it is another one, with a bias."""
    return "sigmoid of cosine and bias" if encoder.bias is not None else "positive against negative prompts"


def _forecasts(encoder: Encoder, items: Dataset, classes: dict[str, Prompts], multi_label: bool) -> Forecasts:
    names = list(classes)
    if multi_label:
        rows, truth = np.arange(len(items)), labels.label_matrix(items, names)
        bias = encoder.bias or 0.0
        return Forecasts(
            rows, zero_shot_scores.class_margins(encoder, items, classes) * encoder.scale + bias, truth
        )
    rows, truth = labels.single_label_items(items, names)
    positives: Sequence[Sequence[str]] = [prompts.positive for prompts in classes.values()]
    cosines = zero_shot_scores.cosines(encoder, items, zero_shot_scores.class_vectors(encoder, positives))
    return Forecasts(rows, cosines[rows] * encoder.scale, truth)


def _fit_temperature(
    encoder: Encoder, data: EvaluationSet, classes: dict[str, Prompts], multi_label: bool
) -> float | None:
    """The temperature of the lowest log loss on validation; 1 if none is better, None without a split."""
    if data.validation is None or not len(data.validation):
        return None
    forecasts = _forecasts(encoder, data.validation, classes, multi_label)
    if not len(forecasts.rows):
        return None

    def loss(log_temperature: float) -> float:
        return -float(np.nanmean(forecasts.log_likelihoods(float(np.exp(log_temperature)))))

    best = minimize_scalar(
        loss, bounds=(-np.log(1000), np.log(1000)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(best.x)) if best.fun < loss(0.0) - 1e-9 else 1.0


def _bin_of(confidence: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin index of each confidence; equal ones share a bin, and 1 is in the last."""
    index: np.ndarray = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, len(edges) - 2)
    return index


def _by_bin(confidence: np.ndarray, correct: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(n, 1 + b) number of answers of each item, then by bin the sum of confidence minus truth."""
    known = ~np.isnan(confidence)
    scores = np.zeros((len(confidence), len(edges)))
    scores[:, 0] = known.sum(axis=1)
    rows = np.nonzero(known)[0]
    np.add.at(scores, (rows, 1 + _bin_of(confidence[known], edges)), (confidence - correct)[known])
    return scores


def _sum_and_count(values: np.ndarray) -> np.ndarray:
    """(n, k) with NaN -> (n, 2): sum and number of the values of each item."""
    return np.stack([np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1)], axis=1)
