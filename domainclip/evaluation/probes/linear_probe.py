"""Linear probe: how well a linear classifier on image embeddings predicts the labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics.classifier_metrics import (
    classifier_diagnostics,
    classifier_metrics,
    selection_score,
)
from domainclip.evaluation.metrics.labelled_examples import Examples, labelled_examples
from domainclip.evaluation.metrics.labels import (
    class_names,
    has_both_classes,
    label_matrix,
    single_label_rows,
)
from domainclip.evaluation.metrics.results import not_measured
from domainclip.seeding import stable

_COARSE = (1e-2, 1.0, 1e2, 1e4)
_FACTORS = (10.0, 10.0**0.5)  # then refined around the best so far
_HELD_BACK = 5  # one group in five selects the penalty where there is no validation split


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Probe):
    """Logistic regression on frozen image embeddings of the training split. [arXiv:2103.00020, A.3]

    As there: L-BFGS, the strength of the L2 penalty selected on the validation split by a coarse-to-fine
    sweep, then one fit on both splits together. Single-label: accuracy. Multi-label (`multi_label`): one
    regression per class, AUROC. Legend: n items, c classes, d width.
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    version: ClassVar[int] = 2
    classifies: ClassVar[bool] = True

    max_items: int = 5000  # training items; bounds the cost
    iterations: int = 300  # of the optimizer at most

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Accuracy, or AUROC for a `multi_label` card; the details give the selected penalty."""
        names = class_names(data)
        train = labelled_examples(encoder, data.train, names, self.max_items)
        if train is None:
            return not_measured("linear_probe", data, self.version, "training items")
        fitted, held_out, chosen_on = _model_selection_split(
            train, labelled_examples(encoder, data.validation, names, self.max_items)
        )
        predict = self._predict_multi_label if data.card.multi_label else self._predict_single_label
        separable = has_both_classes(fitted.labels).any()
        if not separable or (
            not data.card.multi_label and len(np.unique(single_label_rows(fitted.labels)[1])) < 2
        ):
            return not_measured("linear_probe", data, self.version, "two classes with training items")
        multi_label, labels = data.card.multi_label, label_matrix(data.items, names)
        strength, score_by_strength = _sweep(
            lambda c: selection_score(predict(fitted, held_out.features, c), held_out.labels, multi_label)
        )
        all_examples = train if held_out is fitted else fitted.join(held_out)
        scores = predict(all_examples, encoder.images(data.items).astype(np.float64), strength)
        metrics = classifier_metrics(data, names, scores, labels, all_examples)
        if not metrics:
            return not_measured("linear_probe", data, self.version, "items with one of the classes")
        details: dict[str, Any] = {
            "training_items": len(all_examples.ids),
            "inverse_penalty": strength,
            "chosen_on": chosen_on,
            "tried": score_by_strength,
            **train.lost,
        }
        return ProbeResult(
            "linear_probe",
            data.name,
            [replace(metric, one_tower=True) for metric in metrics],
            metrics[0].name,
            self.version,
            details,
            diagnostics=classifier_diagnostics(data, names, scores, labels),
        )

    def _predict_single_label(self, train: Examples, features: np.ndarray, strength: float) -> np.ndarray:
        """(n, c) probabilities; 0 in a class without training items."""
        rows, truth = single_label_rows(train.labels)
        model = self._fit(train.features[rows], truth, strength)
        probabilities = np.zeros((len(features), train.labels.shape[1]))
        probabilities[:, model.classes_] = model.predict_proba(features)
        return np.round(probabilities, 6)

    def _predict_multi_label(self, train: Examples, features: np.ndarray, strength: float) -> np.ndarray:
        """(n, c) log odds; 0 in a class without both positives and negatives."""
        scores = np.zeros((len(features), train.labels.shape[1]))
        for i in np.flatnonzero(has_both_classes(train.labels)):
            known = ~np.isnan(train.labels[:, i])
            model = self._fit(train.features[known], train.labels[known, i].astype(int), strength)
            scores[:, i] = model.decision_function(features)
        return np.round(scores, 6)

    def _fit(self, features: np.ndarray, truth: np.ndarray, strength: float) -> Any:
        from sklearn.linear_model import LogisticRegression

        with warnings.catch_warnings():  # a fit that has not converged is used, as in the paper
            warnings.simplefilter("ignore")
            return LogisticRegression(C=strength, max_iter=self.iterations).fit(features, truth)


def _model_selection_split(train: Examples, validation: Examples | None) -> tuple[Examples, Examples, str]:
    """The examples to fit on, those that select the penalty, and the name of the latter."""
    if validation is not None and np.nansum(validation.labels):
        return train, validation, "validation"
    in_held_out = np.array([stable("held back", group) % _HELD_BACK == 0 for group in train.groups])
    if in_held_out.all() or not in_held_out.any():
        return train, train, "train (too few groups to hold any back)"
    return (
        train.take(np.flatnonzero(~in_held_out)),
        train.take(np.flatnonzero(in_held_out)),
        "a fifth of train, by group",
    )


def _sweep(score: Callable[[float], float]) -> tuple[float, dict[str, float]]:
    """The best inverse penalty and the scores of all; of equals, the strongest penalty."""
    score_by_strength = {strength: score(strength) for strength in _COARSE}

    def best() -> float:
        return max(sorted(score_by_strength), key=score_by_strength.__getitem__)

    for factor in _FACTORS:
        for strength in (best() / factor, best() * factor):
            score_by_strength.setdefault(strength, score(strength))
    return best(), {
        f"{strength:.3g}": round(value, 4) for strength, value in sorted(score_by_strength.items())
    }
