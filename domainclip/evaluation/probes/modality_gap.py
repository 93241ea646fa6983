"""The shape of the shared space: how far images and captions lie apart, and how evenly each is spread."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics.captions import caption_vectors, captions
from domainclip.evaluation.metrics.labelled_examples import sample_items
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.evaluation.statistics import aggregates

_BLOCK = 512  # rows compared with all others at once
_T = 2.0  # the temperature of the Gaussian potential, as in the paper


@dataclass(frozen=True, kw_only=True)
class ModalityGap(Probe):
    """Modality gap [arXiv:2203.02053], alignment and uniformity [arXiv:2005.10242].

    Gap: the distance of the mean image from the mean caption. Alignment: the mean of |x - y|^2 over pairs.
    Uniformity: log of the mean of exp(-2 |a - b|^2) over pairs of images, and of captions. All three are
    lower for what the papers call better, but a wide gap is not an error, so no verdict is given. Each
    item stands with its first caption. Legend: n items, d width.
    """

    citation: ClassVar[str] = "arXiv:2203.02053, arXiv:2005.10242"
    version: ClassVar[int] = 1

    max_items: int = 5000  # items; the cost grows with their square

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Four figures without a chance level: they describe, they do not score."""
        first = {one.row: one.text for one in reversed(captions(data))}
        if len(first) < 2:
            return not_measured("modality_gap", data, self.version, "two items with captions")
        rows = np.array(sample_items(data, first, self.max_items, "gap"))
        images = encoder.images(data.items)[rows].astype(np.float64)
        texts = caption_vectors(encoder, data, [first[row] for row in rows]).astype(np.float64)
        apart = images - texts
        mean = apart.mean(axis=0)
        # The length of the mean, as the mean of the steps along it. In a resample the direction stays that of
        # the whole set: right to first order, and (n,) numbers instead of (n, d).
        steps = apart @ mean / max(float(np.linalg.norm(mean)), 1e-12)
        figures = {
            "modality_gap": (steps, aggregates.mean),
            "alignment": ((apart**2).sum(axis=1), aggregates.mean),
            "image_uniformity": (_potentials(images), _log_mean),
            "text_uniformity": (_potentials(texts), _log_mean),
        }
        described = partial(metric, higher_is_better=False, unit="distance", comparable=False)
        metrics = [
            described(name, data.items, rows, np.round(scores, 9), aggregate)
            for name, (scores, aggregate) in figures.items()
        ]
        details = {"items": len(rows), "caption": "the first of each item"}
        return ProbeResult("modality_gap", data.name, metrics, "modality_gap", self.version, details)


def _potentials(rows: np.ndarray) -> np.ndarray:
    """(n,) whose mean is the mean potential over pairs, and whose spread is that of the mean over pairs.

    A mean over pairs varies twice as much as a mean of the items' own means: each item stands in a pair on
    either side. Hence 2 u - mean(u) (Hoeffding's projection), or intervals would be half as wide as true.
    """
    own = np.concatenate(
        [
            np.exp(-_T * np.maximum(2 - 2 * rows[start : start + _BLOCK] @ rows.T, 0)).sum(axis=1)
            for start in range(0, len(rows), _BLOCK)
        ]
    )
    with_others: np.ndarray = (own - 1) / (len(rows) - 1)  # an item is at no distance from itself
    projected: np.ndarray = 2 * with_others - with_others.mean()
    return projected


def _log_mean(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    means = aggregates.mean(scores, weights)
    logs: np.ndarray = np.log(means, out=np.full(means.shape, np.nan), where=means > 0)
    return logs
