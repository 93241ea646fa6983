"""How alike the items of the set are: what a retrieval figure on it can be worth."""

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

_BLOCK = 512  # items compared with all others at once


@dataclass(frozen=True, kw_only=True)
class SetDifficulty(Probe):
    """Likeness of the nearest item of another group, for images and for captions, and the ceiling of R@1.

    The likeness is the model's own: a model that sees all items alike cannot tell them apart, whatever it
    is asked. The ceiling asks no model: captions that stand under m images can at best pick one of them, so
    R@1 with one right answer a caption ends at the mean of 1/m. The details give the effective number of
    different images, the Vendi score: exp of the entropy of the eigenvalues of X X^T / n.
    [arXiv:2210.02410]. Legend: n items, d width.
    """

    citation: ClassVar[str] = "arXiv:2210.02410"
    version: ClassVar[int] = 1

    max_items: Annotated[int, Field(ge=2)] = 5000  # items; the cost grows with their square

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Figures without a chance level: they describe the set as a model sees it."""
        owner = np.unique(np.asarray(list(data.items["group"]), dtype=str), return_inverse=True)[1]
        rows = np.array(sample_items(data, range(len(data.items)), self.max_items, "difficulty"), dtype=int)
        if len(set(owner[rows].tolist())) < 2:
            return not_measured("set_difficulty", data, self.version, "two groups of items")
        images = encoder.images(data.items)[rows]
        nearest = _nearest(images, owner[rows])
        described = partial(metric, higher_is_better=False, unit="cosine", comparable=False)
        metrics = [described("nearest_image", data.items, rows, nearest)]
        details = {"items": len(rows), "effective_images": round(vendi(images), 1)}

        first = {one.row: one.text for one in reversed(captions(data))}
        told = np.array([row for row in rows if row in first], dtype=int)
        if len(set(owner[told].tolist())) > 1:
            texts = caption_vectors(encoder, data, [first[int(row)] for row in told])
            same = _nearest(texts, owner[told])
            metrics.append(described("nearest_caption", data.items, told, same))
            counts = Counter(normalise(first[int(row)]) for row in told)
            shares = np.array([1 / counts[normalise(first[int(row)])] for row in told])
            metrics.append(metric("ceiling_r1", data.items, told, shares, comparable=False))
            details |= {"different_captions": len(counts), "effective_captions": round(vendi(texts), 1)}
        return ProbeResult("set_difficulty", data.name, metrics, "nearest_image", self.version, details)


def vendi(vectors: np.ndarray) -> float:
    """The effective number of different rows of (n, d) unit vectors, from 1 to n. [arXiv:2210.02410]"""
    tall = vectors.astype(np.float64)
    # X X^T and X^T X have the same eigenvalues but for zeros; the smaller of the two is decomposed.
    small = tall @ tall.T if len(tall) < tall.shape[1] else tall.T @ tall
    values = np.linalg.eigvalsh(small / len(tall))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def _nearest(vectors: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """(n,) cosine with the nearest row of another owner."""
    found = []
    for start in range(0, len(vectors), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosines = rounded_cosines(vectors[block], vectors)
        cosines[owner[block, None] == owner] = -np.inf
        found.append(cosines.max(axis=1))
    return np.concatenate(found)
