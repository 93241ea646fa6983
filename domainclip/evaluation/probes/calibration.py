"""Whether a model is right as often as it says it is."""

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

_DRAWS = 200  # of a model that is calibrated by construction, to see what chance alone makes of it


@dataclass(frozen=True)
class Forecasts:
    """Answers with what was said to be their probability. n items, k answers an item: 1, or one a class."""

    rows: np.ndarray  # (n,) where the items stand in the set
    logits: np.ndarray  # (n, c)
    truth: np.ndarray  # (n,) the class, or (n, c) of 1, 0 and NaN

    def logarithms(self, temperature: float) -> np.ndarray:
        """(n, k) log probability that was given to what turned out true; NaN where that is unknown."""
        logits, found = self.logits / temperature, np.full(self.truth.shape, np.nan)
        if self.truth.ndim == 1:
            own: np.ndarray = log_softmax(logits, axis=1)[np.arange(len(logits)), self.truth]
            return own[:, None]
        for side, sign in ((1, 1), (0, -1)):
            holds = self.truth == side
            found[holds] = log_expit(sign * logits[holds])
        return found

    def squares(self, temperature: float) -> np.ndarray:
        """(n, k) squared distance of the probabilities from the truth (Brier)."""
        logits = self.logits / temperature
        if self.truth.ndim > 1:
            gaps: np.ndarray = expit(logits) - self.truth
            return gaps**2
        gaps = np.exp(log_softmax(logits, axis=1))
        gaps[np.arange(len(gaps)), self.truth] -= 1
        squares: np.ndarray = (gaps**2).sum(axis=1, keepdims=True)
        return squares

    def confidence(self, temperature: float) -> tuple[np.ndarray, np.ndarray]:
        """(n, k) how sure each answer was, and how right: the top class, or yes in each class."""
        logits = self.logits / temperature
        if self.truth.ndim > 1:
            return np.where(np.isnan(self.truth), np.nan, expit(logits)), self.truth
        sure = np.exp(log_softmax(logits, axis=1)).max(axis=1)
        return sure[:, None], decisions.top_k_hits(self.logits, self.truth)[:, None]


@dataclass(frozen=True, kw_only=True)
class Calibration(Probe):
    """Expected calibration error, Brier score and log loss of zero-shot answers. [arXiv:1706.04599]

    One class an item: softmax over the classes of scale times cosine. Several: for each class, sigmoid of
    scale times the margin between its positive and negative prompts, or of scale times cosine plus bias for
    towers trained with the sigmoid loss. The error is the mean of |confidence - accuracy| over bins of equal
    width, or of equal mass (adaptive [arXiv:1904.01685]). One temperature, fitted on validation by the log
    loss, never on the measured items, gives the same figures again.
    """

    citation: ClassVar[str] = "arXiv:1706.04599"
    version: ClassVar[int] = 1

    bins: int = 15

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError("bins: at least 1")

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Figures as the model is, and after the temperature where there is a validation split."""
        several = data.card.multi_label
        classes, left_out = _answerable(encoder, data) if several else (data.classes, [])
        if len(classes) < (1 if several else 2):
            missing = "classes with negative prompts" if several else "two classes to choose among"
            return results.not_measured("calibration", data, self.version, missing)
        found = _forecasts(encoder, data.items, classes, several)
        if not len(found.rows):
            return results.not_measured(
                "calibration", data, self.version, "items with exactly one of the classes"
            )
        metrics = self._metrics(data.items, found, 1.0, "")
        details: dict[str, Any] = {
            "bins": self.bins,
            "answers": int((~np.isnan(found.logarithms(1.0))).sum()),
            "reliability": self._reliability(found),
            "ece_of_a_calibrated_model": self._by_luck(found),
        }
        if left_out:
            details["classes_without_negative_prompts"] = left_out
        temperature = _fitted(encoder, data, classes, several)
        details["temperature"] = temperature or "not fitted: no validation split with such items"
        if temperature is not None:
            metrics += self._metrics(data.items, found, temperature, "_fitted")
        variant = _variant(encoder) if several else ""
        return ProbeResult("calibration", data.name, metrics, "ece", self.version, details, variant=variant)

    def _metrics(self, items: Dataset, found: Forecasts, temperature: float, suffix: str) -> list[Metric]:
        blind = Forecasts(found.rows, np.zeros_like(found.logits), found.truth)
        metric = partial(results.metric, items=items, rows=found.rows, higher_is_better=False)
        metrics = []
        for name, edges in (("ece", self._edges()), ("ece_adaptive", self._edges(found, temperature))):
            scores = _by_bin(*found.confidence(temperature), edges)
            # Distances add up whatever their sign, so an error has a bias that grows as answers grow unsure.
            metrics.append(
                metric(
                    name=name + suffix,
                    scores=scores,
                    aggregate=aggregates.calibration_error,
                    comparable=False,
                )
            )
        for name, values, unit in (
            ("brier", Forecasts.squares, "share"),
            ("nll", Forecasts.logarithms, "nats"),
        ):
            sign = -1 if name == "nll" else 1
            guess = aggregates.point_estimate(aggregates.pooled_mean, _pooled(sign * values(blind, 1.0)))
            metrics.append(
                metric(
                    name=name + suffix,
                    scores=_pooled(sign * values(found, temperature)),
                    aggregate=aggregates.pooled_mean,
                    chance=guess,
                    unit=unit,
                )
            )
        return metrics

    def _edges(self, found: Forecasts | None = None, temperature: float = 1.0) -> np.ndarray:
        """Of bins of equal width, or of equal mass under these forecasts."""
        if found is None:
            return np.linspace(0, 1, self.bins + 1)
        sure = found.confidence(temperature)[0]
        edges: np.ndarray = np.quantile(sure[~np.isnan(sure)], np.linspace(0, 1, self.bins + 1))
        return edges

    def _reliability(self, found: Forecasts) -> list[dict[str, float]]:
        """What a reliability plot shows: a point a bin of equal width that holds answers."""
        sure, right = (value[~np.isnan(found.logarithms(1.0))] for value in found.confidence(1.0))
        place = _place(sure, self._edges())
        return [
            {
                "confidence": float(sure[place == i].mean()),
                "accuracy": float(right[place == i].mean()),
                "n": int((place == i).sum()),
            }
            for i in np.unique(place)
        ]

    def _by_luck(self, found: Forecasts) -> float:
        """The error that a model with these confidences shows on so few items although it is calibrated."""
        sure = found.confidence(1.0)[0]
        sure = np.sort(sure[~np.isnan(sure)])
        place, rng = _place(sure, self._edges()), np.random.default_rng(0)
        errors = []
        for _ in range(_DRAWS):
            gaps = np.bincount(place, sure - (rng.random(len(sure)) < sure), minlength=self.bins)
            errors.append(np.abs(gaps).sum() / len(sure))
        return float(np.mean(errors))


def _answerable(encoder: Encoder, data: EvaluationSet) -> tuple[dict[str, Prompts], list[str]]:
    """The classes whose yes has a probability, and the others' names."""
    if encoder.bias is not None:
        return {name: Prompts(positive=one.positive) for name, one in data.classes.items()}, []
    kept = {name: one for name, one in data.classes.items() if one.negative}
    return kept, [name for name in data.classes if name not in kept]


def _variant(encoder: Encoder) -> str:
    """Which probability a yes has: other classes have one, and it is another one, with a bias."""
    return "sigmoid of cosine and bias" if encoder.bias is not None else "positive against negative prompts"


def _forecasts(encoder: Encoder, items: Dataset, classes: dict[str, Prompts], several: bool) -> Forecasts:
    names = list(classes)
    if several:
        rows, truth = np.arange(len(items)), labels.label_matrix(items, names)
        bias = encoder.bias or 0.0
        return Forecasts(
            rows, zero_shot_scores.class_margins(encoder, items, classes) * encoder.scale + bias, truth
        )
    rows, truth = labels.single_label_items(items, names)
    positives: Sequence[Sequence[str]] = [one.positive for one in classes.values()]
    cosines = zero_shot_scores.cosines(encoder, items, zero_shot_scores.class_vectors(encoder, positives))
    return Forecasts(rows, cosines[rows] * encoder.scale, truth)


def _fitted(
    encoder: Encoder, data: EvaluationSet, classes: dict[str, Prompts], several: bool
) -> float | None:
    """The temperature with the least log loss on validation; 1 where none is better."""
    if data.validation is None or not len(data.validation):
        return None
    found = _forecasts(encoder, data.validation, classes, several)
    if not len(found.rows):
        return None

    def loss(logarithm: float) -> float:
        return -float(np.nanmean(found.logarithms(float(np.exp(logarithm)))))

    best = minimize_scalar(
        loss, bounds=(-np.log(1000), np.log(1000)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(best.x)) if best.fun < loss(0.0) - 1e-9 else 1.0


def _place(sure: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin of each confidence; equal ones share a bin, and 1 is in the last."""
    place: np.ndarray = np.clip(np.searchsorted(edges, sure, side="right") - 1, 0, len(edges) - 2)
    return place


def _by_bin(sure: np.ndarray, right: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(n, 1 + b) answers of each item, and by bin the sum of their confidence less truth."""
    known = ~np.isnan(sure)
    scores = np.zeros((len(sure), len(edges)))
    scores[:, 0] = known.sum(axis=1)
    rows = np.nonzero(known)[0]
    np.add.at(scores, (rows, 1 + _place(sure[known], edges)), (sure - right)[known])
    return scores


def _pooled(values: np.ndarray) -> np.ndarray:
    """(n, k) with NaN -> (n, 2): sum and number of what each item brings."""
    return np.stack([np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1)], axis=1)
