"""k-nearest-neighbour classification by image embeddings; no parameters are fitted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics.classifier_metrics import (
    classifier_diagnostics,
    classifier_metrics,
    selection_score,
)
from domainclip.evaluation.metrics.labelled_examples import Examples, labelled_examples
from domainclip.evaluation.metrics.labels import class_names, label_matrix, single_label_rows
from domainclip.evaluation.metrics.results import not_measured
from domainclip.evaluation.metrics.text_to_image import rounded_cosines

_BLOCK = 512  # queries per comparison with all neighbours


@dataclass(frozen=True, kw_only=True)
class Knn(Probe):
    """Votes of the k nearest training images, weighted exp(cosine / 0.07). [arXiv:1805.01978]

    The k is selected on the validation split, as the smallest of the best. Neighbours that tie for the last
    of the k places share it. Legend: n items, m neighbours, c classes.
    """

    citation: ClassVar[str] = "arXiv:1805.01978"
    version: ClassVar[int] = 2
    classifies: ClassVar[bool] = True

    # Neighbours that vote; one metric each.
    k: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 5, 20)
    # Divides the cosine of a vote; lower: near neighbours count more.
    temperature: Annotated[float, Field(gt=0)] = 0.07
    max_items: int = 5000  # training images that may be neighbours

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Accuracy, or AUROC of the share of votes when the card says `multi_label`."""
        names = class_names(data)
        train = labelled_examples(encoder, data.train, names, self.max_items)
        if train is None or not np.nansum(train.labels):
            return not_measured("knn", data, self.version, "training items with a class")
        several = data.card.multi_label
        if not several:
            train = train.take(single_label_rows(train.labels)[0])
        k, chosen_on = self._choose(
            train, labelled_examples(encoder, data.validation, names, self.max_items), several
        )
        labels = label_matrix(data.items, names)
        votes = self._votes(encoder.images(data.items).astype(np.float64), train, k)
        # No metrics of single classes: the linear probe has them, and each costs as much as a whole metric.
        metrics = [
            metric
            for metric in classifier_metrics(data, names, votes, labels, train)
            if "/" not in metric.name
        ]
        if not metrics:
            return not_measured("knn", data, self.version, "items with one of the classes")
        details = {"k": k, "chosen_on": chosen_on, "neighbours": len(train.ids), **train.lost}
        return ProbeResult(
            "knn",
            data.name,
            [replace(metric, one_tower=True) for metric in metrics],
            metrics[0].name,
            self.version,
            details,
            diagnostics=classifier_diagnostics(data, names, votes, labels),
        )

    def _choose(self, train: Examples, validation: Examples | None, several: bool) -> tuple[int, str]:
        candidates = sorted(set(self.k))
        if len(candidates) == 1:
            return candidates[0], "given"
        # Without a validation split there is no selection: the middle value is used.
        if validation is None or not np.nansum(validation.labels):
            return candidates[len(candidates) // 2], "not chosen: there is no validation split"

        held_out = validation

        def score(k: int) -> float:
            return float(
                np.nan_to_num(
                    selection_score(self._votes(held_out.features, train, k), held_out.labels, several)
                )
            )

        return max(candidates, key=score), "validation"

    def _votes(self, queries: np.ndarray, train: Examples, k: int) -> np.ndarray:
        """(n, c) shares of the votes; unknown labels do not vote."""
        positive = np.nan_to_num(train.labels)
        known = (~np.isnan(train.labels)).astype(np.float64)
        k, blocks = min(k, len(positive)), []
        for start in range(0, len(queries), _BLOCK):
            cosines = rounded_cosines(queries[start : start + _BLOCK], train.features)
            last = -np.partition(-cosines, k - 1, axis=1)[:, k - 1 : k]
            nearer, tied = cosines > last, cosines == last
            share = (k - nearer.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)
            # Relative to the nearest, so that exp cannot overflow.
            weights = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / self.temperature)
            weights *= nearer + tied * share
            blocks.append((weights @ positive) / np.maximum(weights @ known, 1e-300))
        return np.round(np.concatenate(blocks), 6)
