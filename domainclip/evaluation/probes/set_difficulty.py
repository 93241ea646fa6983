"""Difficulty of a set for retrieval: similarity of its items, and the ceiling of R@1."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import Encoder
from domainclip.data.text.captions import normalise
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics.captions import caption_vectors, captions
from domainclip.evaluation.metrics.labelled_examples import sample_items
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.evaluation.metrics.text_to_image import rounded_cosines
from domainclip.evaluation.metrics.truth import truth_numbers

_BLOCK = 512  # items per comparison with all others


@dataclass(frozen=True, kw_only=True)
class SetDifficulty(Probe):
    """Cosine with the nearest item of another truth key, for images and for captions, and the ceiling of R@1.

    The similarity is that of the measured model: a model that embeds all items alike cannot distinguish them.
    The ceiling is independent of the model: a caption of m images can retrieve at best one of them, so R@1
    with one relevant image per caption is at most the mean of 1/m. The details give the effective number of
    different images, the Vendi score: exp of the entropy of the eigenvalues of X X^T / n
    [arXiv:2210.02410]. Legend: n items, d width.
    """

    citation: ClassVar[str] = "arXiv:2210.02410"
    version: ClassVar[int] = 2

    max_items: Annotated[int, Field(ge=2)] = 5000  # items; the cost grows with their square

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Metrics without a chance level: they describe the set under the model."""
        truth = truth_numbers(data.items)
        rows = np.array(sample_items(data, range(len(data.items)), self.max_items, "difficulty"), dtype=int)
        if len(set(truth[rows].tolist())) < 2:
            return not_measured("set_difficulty", data, self.version, "two items with different truth keys")
        images = encoder.images(data.items)[rows]
        nearest = _nearest(images, truth[rows])
        make_metric = partial(metric, higher_is_better=False, unit="cosine", comparable=False)
        metrics = [make_metric("nearest_image", data.items, rows, nearest)]
        details = {"items": len(rows), "effective_images": round(vendi(images), 1)}

        first = {caption.row: caption.text for caption in reversed(captions(data))}
        with_caption = np.array([row for row in rows if row in first], dtype=int)
        if len(set(truth[with_caption].tolist())) > 1:
            texts = caption_vectors(encoder, data, [first[int(row)] for row in with_caption])
            nearest_caption = _nearest(texts, truth[with_caption])
            metrics.append(make_metric("nearest_caption", data.items, with_caption, nearest_caption))
            counts = Counter(normalise(first[int(row)]) for row in with_caption)
            shares = np.array([1 / counts[normalise(first[int(row)])] for row in with_caption])
            metrics.append(metric("ceiling_r1", data.items, with_caption, shares, comparable=False))
            details |= {"different_captions": len(counts), "effective_captions": round(vendi(texts), 1)}
        return ProbeResult("set_difficulty", data.name, metrics, "nearest_image", self.version, details)


def vendi(vectors: np.ndarray) -> float:
    """The effective number of different rows of (n, d) unit vectors, between 1 and n. [arXiv:2210.02410]"""
    rows = vectors.astype(np.float64)
    # X X^T and X^T X have the same nonzero eigenvalues; the smaller of the two is decomposed.
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    eigenvalues = np.linalg.eigvalsh(gram / len(rows))
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def _nearest(vectors: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) cosine with the nearest row of another truth key."""
    blocks = []
    for start in range(0, len(vectors), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosines = rounded_cosines(vectors[block], vectors)
        cosines[truth[block, None] == truth] = -np.inf
        blocks.append(cosines.max(axis=1))
    return np.concatenate(blocks)
