"""Geometry of the embedding space: modality gap, alignment and uniformity."""

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

_BLOCK = 512  # rows per comparison with all others
_T = 2.0  # the temperature of the Gaussian potential, as in the paper


@dataclass(frozen=True, kw_only=True)
class ModalityGap(Probe):
    """Modality gap [arXiv:2203.02053], alignment and uniformity [arXiv:2005.10242].

    Gap: the distance of the mean image from the mean caption. Alignment: the mean of |x - y|^2 over pairs.
    Uniformity: log of the mean of exp(-2 |a - b|^2) over pairs of images, and of captions. All three are
    lower for what the papers call better, but a wide gap is not an error, so there is no verdict. Each item
    is paired with its first caption. Legend: n items, d width.
    """

    citation: ClassVar[str] = "arXiv:2203.02053, arXiv:2005.10242"
    version: ClassVar[int] = 1

    max_items: int = 5000  # items; the cost grows with their square

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Four descriptive metrics without a chance level."""
        first = {caption.row: caption.text for caption in reversed(captions(data))}
        if len(first) < 2:
            return not_measured("modality_gap", data, self.version, "two items with captions")
        rows = np.array(sample_items(data, first, self.max_items, "gap"))
        images = encoder.images(data.items)[rows].astype(np.float64)
        texts = caption_vectors(encoder, data, [first[row] for row in rows]).astype(np.float64)
        differences = images - texts
        mean = differences.mean(axis=0)
        # The length of the mean difference, as the mean of the projections on it. Resamples use the direction
        # of the whole set: correct to first order, and (n,) numbers instead of (n, d).
        projections = differences @ mean / max(float(np.linalg.norm(mean)), 1e-12)
        scored = {
            "modality_gap": (projections, aggregates.mean),
            "alignment": ((differences**2).sum(axis=1), aggregates.mean),
            "image_uniformity": (_potentials(images), _log_mean),
            "text_uniformity": (_potentials(texts), _log_mean),
        }
        make_metric = partial(metric, higher_is_better=False, unit="distance", comparable=False)
        metrics = [
            make_metric(name, data.items, rows, np.round(scores, 9), aggregate)
            for name, (scores, aggregate) in scored.items()
        ]
        details = {"items": len(rows), "caption": "the first of each item"}
        return ProbeResult("modality_gap", data.name, metrics, "modality_gap", self.version, details)


def _potentials(rows: np.ndarray) -> np.ndarray:
    """(n,) item scores with the mean and the variance of the mean potential over pairs.

    A mean over pairs has twice the standard error of a mean of item means, as each item is on either side of
    pairs. Hence 2 u - mean(u) (Hoeffding's projection); else intervals would be half as wide as correct.
    """
    row_sums = np.concatenate(
        [
            np.exp(-_T * np.maximum(2 - 2 * rows[start : start + _BLOCK] @ rows.T, 0)).sum(axis=1)
            for start in range(0, len(rows), _BLOCK)
        ]
    )
    mean_potentials: np.ndarray = (row_sums - 1) / (len(rows) - 1)  # without the item itself, at distance 0
    projected: np.ndarray = 2 * mean_potentials - mean_potentials.mean()
    return projected


def _log_mean(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    means = aggregates.mean(scores, weights)
    logs: np.ndarray = np.log(means, out=np.full(means.shape, np.nan), where=means > 0)
    return logs
