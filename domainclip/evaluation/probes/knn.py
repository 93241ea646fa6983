"""What the nearest training images say: labels by likeness alone, nothing fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics.classifier_metrics import classifier_metrics, selection_score
from domainclip.evaluation.metrics.labelled_examples import Examples, labelled_examples
from domainclip.evaluation.metrics.labels import class_names, label_matrix, single_label_rows
from domainclip.evaluation.metrics.results import not_measured
from domainclip.evaluation.metrics.text_to_image import rounded_cosines

_BLOCK = 512  # queries compared with all neighbours at once


@dataclass(frozen=True, kw_only=True)
class Knn(Probe):
    """Votes of the k nearest training images, weighted exp(cosine / 0.07). [arXiv:1805.01978]

    The k is chosen on the validation split among those given, as the smallest of the best. Where several
    tie for the last of the k places, they share it. Legend: n items, m neighbours, c classes.
    """

    citation: ClassVar[str] = "arXiv:1805.01978"
    version: ClassVar[int] = 1

    k: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 5, 20)
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
            train = train.pick(single_label_rows(train.labels)[0])
        k, chosen_on = self._choose(
            train, labelled_examples(encoder, data.validation, names, self.max_items), several
        )
        labels = label_matrix(data.items, names)
        votes = self._votes(encoder.images(data.items).astype(np.float64), train, k)
        # Whole figures only: those of single classes stand beside the linear probe, and cost as much each.
        metrics = [
            one for one in classifier_metrics(data, names, votes, labels, train) if "/" not in one.name
        ]
        if not metrics:
            return not_measured("knn", data, self.version, "items with one of the classes")
        details = {"k": k, "chosen_on": chosen_on, "neighbours": len(train.ids)}
        return ProbeResult("knn", data.name, metrics, metrics[0].name, self.version, details)

    def _choose(self, train: Examples, validation: Examples | None, several: bool) -> tuple[int, str]:
        among = sorted(set(self.k))
        if len(among) == 1:
            return among[0], "given"
        # Without a validation split nothing may choose, so the middle one stands.
        if validation is None or not np.nansum(validation.labels):
            return among[len(among) // 2], "not chosen: there is no validation split"

        held = validation

        def good(k: int) -> float:
            return float(
                np.nan_to_num(selection_score(self._votes(held.features, train, k), held.labels, several))
            )

        return max(among, key=good), "validation"

    def _votes(self, queries: np.ndarray, train: Examples, k: int) -> np.ndarray:
        """(n, c) shares of the votes; unknown labels abstain."""
        held = np.nan_to_num(train.labels)
        known = (~np.isnan(train.labels)).astype(np.float64)
        k, blocks = min(k, len(held)), []
        for start in range(0, len(queries), _BLOCK):
            cosines = rounded_cosines(queries[start : start + _BLOCK], train.features)
            last = -np.partition(-cosines, k - 1, axis=1)[:, k - 1 : k]
            inside, tied = cosines > last, cosines == last
            places = (k - inside.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)
            # Taken from the nearest, so that no power of e overflows.
            weights = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / self.temperature)
            weights *= inside + tied * places
            blocks.append((weights @ held) / np.maximum(weights @ known, 1e-300))
        return np.round(np.concatenate(blocks), 6)
