"""Consistency of retrieval under paraphrase: overlap of the images of two captions of one item."""

from __future__ import annotations

from dataclasses import dataclass
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

_BLOCK = 256  # queries per comparison with all images


@dataclass(frozen=True, kw_only=True)
class Paraphrase(Probe):
    """Overlap of the first ten images of two captions of one item. [arXiv:2402.15120]

    The two are the first captions of an item in one language whose normalised texts differ. The paper's two
    rank similarities: average overlap, the mean over depths d of |A_d & B_d| / d, which weights the first
    ranks most; and Jaccard similarity, |A & B| / |A | B| of the first ten. Where images tie across a depth,
    overlaps are expected values, with the ties of each list in independent random order.
    Legend: q queries, n images, k depth.
    """

    citation: ClassVar[str] = "arXiv:2402.15120"
    version: ClassVar[int] = 2

    depth: Annotated[int, Field(ge=1)] = 10  # first answers that are compared
    max_items: Annotated[int, Field(ge=1)] = 1000  # items

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Average overlap and Jaccard similarity."""
        caption_pairs = _caption_pairs(data)
        if not caption_pairs or len(data.items) < 2:
            return not_measured("paraphrase", data, self.version, "items with two captions of one language")
        rows = np.array(sample_items(data, caption_pairs, self.max_items, "paraphrase"))
        depth = max(1, min(self.depth, (len(data.items) - 1) // 2))  # of half the images, chance is high
        images = encoder.images(data.items)
        first_vectors, second_vectors = (
            caption_vectors(encoder, data, [caption_pairs[int(row)][side] for row in rows]) for side in (0, 1)
        )
        blocks = [slice(start, start + _BLOCK) for start in range(0, len(rows), _BLOCK)]
        overlaps = np.concatenate(
            [
                _overlaps(
                    rounded_cosines(first_vectors[block], images),
                    rounded_cosines(second_vectors[block], images),
                    depth,
                )
                for block in blocks
            ]
        )
        depths = np.arange(1, depth + 1)
        final, chance = overlaps[:, -1], depth**2 / len(images)
        metrics = [
            metric(
                f"average_overlap_{depth}",
                data.items,
                rows,
                (overlaps / depths).mean(axis=1),
                chance=float((depths / len(images)).mean()),
            ),
            metric(
                f"jaccard_{depth}",
                data.items,
                rows,
                final / (2 * depth - final),
                chance=chance / (2 * depth - chance),
            ),
        ]
        details = {"items": len(rows), "with_two_wordings": len(caption_pairs), "images": len(images)}
        return ProbeResult("paraphrase", data.name, metrics, metrics[0].name, self.version, details)


def _caption_pairs(data: EvaluationSet) -> dict[int, tuple[str, str]]:
    """The first two captions of one language with different normalised texts, by item."""
    texts_of: dict[tuple[int, str], dict[str, str]] = {}
    for caption in captions(data):
        texts_of.setdefault((caption.row, caption.language), {}).setdefault(
            normalise(caption.text), caption.text
        )
    pairs: dict[int, tuple[str, str]] = {}
    for (row, _), texts in texts_of.items():
        if len(texts) > 1 and row not in pairs:
            first, second, *_ = texts.values()
            pairs[row] = (first, second)
    return pairs


def _overlaps(a: np.ndarray, b: np.ndarray, depth: int) -> np.ndarray:
    """(q, k) expected number of images that are among the first d of both lists, d from 1 to k."""
    ranks = [_ranks_with_ties(scores) for scores in (a, b)]
    overlaps = np.empty((len(a), depth))
    for d in range(1, depth + 1):
        # Probability that an image is among the first d: 1 above a tie across d, a share within it.
        in_a, in_b = (np.clip((d - above) / tied, 0, 1) for above, tied in ranks)
        overlaps[:, d - 1] = (in_a * in_b).sum(axis=1)
    return overlaps


def _ranks_with_ties(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(q, n) number of images with a higher score, and with an equal score."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    positions = np.arange(scores.shape[1])
    starts_tie = np.ones(scores.shape, dtype=bool)
    starts_tie[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    above = np.maximum.accumulate(np.where(starts_tie, positions, 0), axis=1)
    ends = np.where(np.roll(starts_tie, -1, axis=1), positions + 1, scores.shape[1])
    ends[:, -1] = scores.shape[1]
    below = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    tables = (np.empty(scores.shape), np.empty(scores.shape))
    for table, values in zip(tables, (above, below - above), strict=True):
        np.put_along_axis(table, order, values.astype(float), axis=1)
    return tables
