"""How much of the labels a straight line through the image embeddings can read."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics.classifier_metrics import classifier_metrics, selection_score
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
_FACTORS = (10.0, 10.0**0.5)  # then nearer and nearer to the best so far
_HELD_BACK = 5  # one group in five chooses the penalty where there is no validation split


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Probe):
    """Logistic regression on frozen image embeddings of the training split. [arXiv:2103.00020, A.3]

    As there: L-BFGS, the strength of the L2 penalty chosen on the validation split by a sweep that starts
    coarse and closes in on the best, then one fit on both splits together. One class an item: accuracy.
    Several (`multi_label`): one regression a class, AUROC. Legend: n items, c classes, d width.
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    version: ClassVar[int] = 1

    max_items: int = 5000  # items fitted on; a probe is meant to be cheap
    iterations: int = 300

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Accuracy, or AUROC when the card says `multi_label`; the choice stands in the details."""
        names = class_names(data)
        train = labelled_examples(encoder, data.train, names, self.max_items)
        if train is None:
            return not_measured("linear_probe", data, self.version, "training items")
        fitted, chosen_by, chosen_on = _chooser(
            train, labelled_examples(encoder, data.validation, names, self.max_items)
        )
        predict = self._several if data.card.multi_label else self._single
        separable = has_both_classes(fitted.labels).any()
        if not separable or (
            not data.card.multi_label and len(np.unique(single_label_rows(fitted.labels)[1])) < 2
        ):
            return not_measured("linear_probe", data, self.version, "two classes with training items")
        several, labels = data.card.multi_label, label_matrix(data.items, names)
        strength, tried = _sweep(
            lambda c: selection_score(predict(fitted, chosen_by.features, c), chosen_by.labels, several)
        )
        everything = train if chosen_by is fitted else fitted.join(chosen_by)
        scores = predict(everything, encoder.images(data.items).astype(np.float64), strength)
        metrics = classifier_metrics(data, names, scores, labels, everything)
        if not metrics:
            return not_measured("linear_probe", data, self.version, "items with one of the classes")
        details: dict[str, Any] = {
            "training_items": len(everything.ids),
            "inverse_penalty": strength,
            "chosen_on": chosen_on,
            "tried": tried,
        }
        return ProbeResult("linear_probe", data.name, metrics, metrics[0].name, self.version, details)

    def _single(self, train: Examples, features: np.ndarray, strength: float) -> np.ndarray:
        """(n, c) probabilities; a class without a training item gets 0."""
        rows, truth = single_label_rows(train.labels)
        model = self._fit(train.features[rows], truth, strength)
        probabilities = np.zeros((len(features), train.labels.shape[1]))
        probabilities[:, model.classes_] = model.predict_proba(features)
        return np.round(probabilities, 6)

    def _several(self, train: Examples, features: np.ndarray, strength: float) -> np.ndarray:
        """(n, c) log odds; a class of one side only gets 0, the same for all."""
        scores = np.zeros((len(features), train.labels.shape[1]))
        for i in np.flatnonzero(has_both_classes(train.labels)):
            known = ~np.isnan(train.labels[:, i])
            model = self._fit(train.features[known], train.labels[known, i].astype(int), strength)
            scores[:, i] = model.decision_function(features)
        return np.round(scores, 6)

    def _fit(self, features: np.ndarray, truth: np.ndarray, strength: float) -> Any:
        from sklearn.linear_model import LogisticRegression

        with warnings.catch_warnings():  # a fit cut short is still a fit, as in the paper
            warnings.simplefilter("ignore")
            return LogisticRegression(C=strength, max_iter=self.iterations).fit(features, truth)


def _chooser(train: Examples, validation: Examples | None) -> tuple[Examples, Examples, str]:
    """What is fitted on and what chooses the penalty, and the name of the latter."""
    if validation is not None and np.nansum(validation.labels):
        return train, validation, "validation"
    held = np.array([stable("held back", group) % _HELD_BACK == 0 for group in train.groups])
    if held.all() or not held.any():
        return train, train, "train (too few groups to hold any back)"
    return train.pick(np.flatnonzero(~held)), train.pick(np.flatnonzero(held)), "a fifth of train, by group"


def _sweep(score: Callable[[float], float]) -> tuple[float, dict[str, float]]:
    """The best strength and all that were tried; of equals, the strongest penalty."""
    tried = {strength: score(strength) for strength in _COARSE}

    def best() -> float:
        return max(sorted(tried), key=tried.__getitem__)

    for factor in _FACTORS:
        for strength in (best() / factor, best() * factor):
            tried.setdefault(strength, score(strength))
    return best(), {f"{strength:.3g}": round(value, 4) for strength, value in sorted(tried.items())}
