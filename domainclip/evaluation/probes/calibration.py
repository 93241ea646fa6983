"""Calibration of zero-shot probabilities: agreement of confidence and accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.optimize import minimize_scalar

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics import forecasting, results
from domainclip.evaluation.metrics.forecasting import Forecasts
from domainclip.evaluation.statistics import aggregates

if TYPE_CHECKING:
    from datasets import Dataset


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

    bins: int = 15  # bins of equal width in which confidence and accuracy are compared

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError("bins: at least 1")

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Metrics of the model as it is, and after temperature scaling where there is a validation split."""
        multi_label = data.card.multi_label
        classes, excluded = (
            forecasting.classes_with_probability(encoder, data) if multi_label else (data.classes, [])
        )
        if len(classes) < (1 if multi_label else 2):
            missing = "classes with negative prompts" if multi_label else "two classes to choose among"
            return results.not_measured("calibration", data, self.version, missing)
        forecasts = forecasting.forecasts(encoder, data.items, classes, multi_label)
        if not len(forecasts.rows):
            return results.not_measured(
                "calibration", data, self.version, "items with exactly one of the classes"
            )
        metrics = self._metrics(data.items, forecasts, 1.0, "")
        details: dict[str, Any] = {
            "bins": self.bins,
            "answers": int((~np.isnan(forecasts.log_likelihoods(1.0))).sum()),
            "reliability": self._reliability(forecasts),
            "ece_of_a_calibrated_model": metrics[0].by_luck,
        }
        if excluded:
            details["classes_without_negative_prompts"] = excluded
        temperature = _fit_temperature(encoder, data, classes, multi_label)
        details["temperature"] = temperature or "not fitted: no validation split with such items"
        if temperature is not None:
            metrics += self._metrics(data.items, forecasts, temperature, "_fitted")
        variant = forecasting.kind_of_probability(encoder) if multi_label else ""
        return ProbeResult("calibration", data.name, metrics, "ece", self.version, details, variant=variant)

    def _metrics(self, items: Dataset, forecasts: Forecasts, temperature: float, suffix: str) -> list[Metric]:
        uniform = Forecasts(forecasts.rows, np.zeros_like(forecasts.logits), forecasts.truth)
        metric = partial(results.metric, items=items, rows=forecasts.rows, higher_is_better=False)
        metrics = []
        for name, edges in (("ece", self._edges()), ("ece_adaptive", self._edges(forecasts, temperature))):
            scores = forecasting.by_bin(*forecasts.confidence(temperature), edges)
            # Absolute gaps do not cancel, so the error has a bias that grows with the noise of the answers.
            metrics.append(
                metric(
                    name=name + suffix,
                    scores=scores,
                    aggregate=aggregates.calibration_error,
                    biased=True,
                    by_luck=forecasting.error_of_a_calibrated_model(
                        forecasts.confidence(temperature)[0], edges
                    ),
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
        bins = forecasting.bin_of(confidence, self._edges())
        return [
            {
                "confidence": float(confidence[bins == i].mean()),
                "accuracy": float(correct[bins == i].mean()),
                "n": int((bins == i).sum()),
            }
            for i in np.unique(bins)
        ]


def _fit_temperature(
    encoder: Encoder, data: EvaluationSet, classes: dict[str, Prompts], multi_label: bool
) -> float | None:
    """The temperature of the lowest log loss on validation; 1 if none is better, None without a split."""
    if data.validation is None or not len(data.validation):
        return None
    forecasts = forecasting.forecasts(encoder, data.validation, classes, multi_label)
    if not len(forecasts.rows):
        return None

    def loss(log_temperature: float) -> float:
        return -float(np.nanmean(forecasts.log_likelihoods(float(np.exp(log_temperature)))))

    best = minimize_scalar(
        loss, bounds=(-np.log(1000), np.log(1000)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(best.x)) if best.fun < loss(0.0) - 1e-9 else 1.0


def _sum_and_count(values: np.ndarray) -> np.ndarray:
    """(n, k) with NaN -> (n, 2): sum and number of the values of each item."""
    return np.stack([np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1)], axis=1)
