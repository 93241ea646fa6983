"""Whether two wordings of the same thing find the same images."""

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

_BLOCK = 256  # queries compared with all images at once


@dataclass(frozen=True, kw_only=True)
class Paraphrase(Probe):
    """Overlap of the first ten images found by two captions of one item. [arXiv:2402.15120]

    The two are the first captions of an item that read differently and are of one language. The paper's
    two rank similarities: average overlap, the mean over depths d of |A_d & B_d| / d, which looks at the
    very first places most; and Jaccard similarity, |A & B| / |A | B| of the first ten. Where images tie
    across a depth, overlaps are expected ones, each list's ties broken by lot on its own.
    Legend: q queries, n images, k depth.
    """

    citation: ClassVar[str] = "arXiv:2402.15120"
    version: ClassVar[int] = 1

    depth: Annotated[int, Field(ge=1)] = 10
    max_items: Annotated[int, Field(ge=1)] = 1000  # items

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Average overlap and Jaccard similarity."""
        wordings = _wordings(data)
        if not wordings or len(data.items) < 2:
            return not_measured("paraphrase", data, self.version, "items with two captions of one language")
        rows = np.array(sample_items(data, wordings, self.max_items, "paraphrase"))
        depth = min(self.depth, len(data.items) - 1)
        images = encoder.images(data.items)
        one, two = (
            caption_vectors(encoder, data, [wordings[int(row)][side] for row in rows]) for side in (0, 1)
        )
        blocks = [slice(start, start + _BLOCK) for start in range(0, len(rows), _BLOCK)]
        overlaps = np.concatenate(
            [
                _overlaps(rounded_cosines(one[block], images), rounded_cosines(two[block], images), depth)
                for block in blocks
            ]
        )
        depths = np.arange(1, depth + 1)
        last, blind = overlaps[:, -1], depth**2 / len(images)
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
                last / (2 * depth - last),
                chance=blind / (2 * depth - blind),
            ),
        ]
        details = {"items": len(rows), "with_two_wordings": len(wordings), "images": len(images)}
        return ProbeResult("paraphrase", data.name, metrics, metrics[0].name, self.version, details)


def _wordings(data: EvaluationSet) -> dict[int, tuple[str, str]]:
    """By item, its first two captions of one language that read differently."""
    said: dict[tuple[int, str], dict[str, str]] = {}
    for one in captions(data):
        said.setdefault((one.row, one.language), {}).setdefault(normalise(one.text), one.text)
    found: dict[int, tuple[str, str]] = {}
    for (row, _), texts in said.items():
        if len(texts) > 1 and row not in found:
            first, second, *_ = texts.values()
            found[row] = (first, second)
    return found


def _overlaps(a: np.ndarray, b: np.ndarray, depth: int) -> np.ndarray:
    """(q, k) expected number of images that are among the first d of both lists, d from 1 to k."""
    tops = [_standings(scores, depth) for scores in (a, b)]
    overlaps = np.empty((len(a), depth))
    for d in range(1, depth + 1):
        # How surely an image is among the first d: 1 above a tie across d, a share of the places inside it.
        one, two = (np.clip((d - above) / tied, 0, 1) for above, tied in tops)
        overlaps[:, d - 1] = (one * two).sum(axis=1)
    return overlaps


def _standings(scores: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """(q, n) how many images score higher and how many the same; far down the list, only "too many"."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    place = np.arange(scores.shape[1])
    fresh = np.ones(scores.shape, dtype=bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    above = np.maximum.accumulate(np.where(fresh, place, 0), axis=1)
    ends = np.where(np.roll(fresh, -1, axis=1), place + 1, scores.shape[1])
    ends[:, -1] = scores.shape[1]
    below = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    tables = (np.empty(scores.shape), np.empty(scores.shape))
    for table, values in zip(tables, (above, below - above), strict=True):
        np.put_along_axis(table, order, values.astype(float), axis=1)
    return tables
