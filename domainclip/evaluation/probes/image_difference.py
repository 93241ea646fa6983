"""Image difference: which of two images shows the change that a sentence names.

Legend: n sentences, p pairs, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics.image_changes import ImageChange, read_changes
from domainclip.evaluation.metrics.labelled_examples import sample_items
from domainclip.evaluation.metrics.results import metric, not_measured


@dataclass(frozen=True, kw_only=True)
class ImageDifference(Probe):
    """Whether the sentence of a change is nearer to the changed image than to the image before it.

    Each item with the card's columns `reference` and `change` is one sentence t of a pair: right where
    t·x_item > t·x_reference, a tie counts ½ (`accuracy`). As t·(x_item − x_reference) has the same sign, a
    comparison with the difference of the embeddings decides alike. Where two items are each other's
    reference, with a sentence each way, `both_orders` counts pairs with both sentences right: a model that
    prefers one of the two images, whatever the sentence, is right once in each pair and scores 0. That is the
    image score of Winoground [arXiv:2204.03162] on the data of image difference captioning
    [arXiv:2206.00629], which generates the sentence and is not measured here.
    """

    citation: ClassVar[str] = "arXiv:2206.00629, arXiv:2204.03162"
    version: ClassVar[int] = 1

    max_items: Annotated[int, Field(ge=1)] = 5000  # sentences at most

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Accuracy over sentences, and over pairs with a sentence each way where there are some."""
        found = read_changes(data.items)
        sampled = sample_items(data, [c.row for c in found.changes], self.max_items, "image difference")
        changes = [change for change in found.changes if change.row in set(sampled)]
        if not changes:
            missing = "items with columns.reference and columns.change"
            return not_measured("image_difference", data, self.version, missing, **found.lost)
        images = encoder.images(data.items).astype(np.float64)
        texts = encoder.texts([change.text for change in changes]).astype(np.float64)
        rows = np.array([change.row for change in changes])
        after, before = (
            np.round((texts * images[of]).sum(axis=1), 6) for of in (rows, [c.reference for c in changes])
        )
        right = (after > before) + 0.5 * (after == before)
        metrics = [metric("accuracy", data.items, rows, right, chance=0.5)]
        pairs = _both_ways(changes, list(data.items["id"]))
        if len(pairs):
            # A tie is a coin for each sentence, so a pair of two ties is right in a quarter of the cases.
            both = right[pairs[:, 0]] * right[pairs[:, 1]]
            metrics.append(metric("both_orders", data.items, rows[pairs[:, 0]], both, chance=0.25))
        details = {"sentences": len(changes), "pairs_both_ways": len(pairs)}
        details |= {"sentences_in_the_set": len(found.changes), **found.lost}
        return ProbeResult("image_difference", data.name, metrics, "accuracy", self.version, details)


def _both_ways(changes: list[ImageChange], ids: list[str]) -> np.ndarray:
    """(p, 2) positions of two changes that are each other's reference, that with the smaller id first."""
    position = {change.row: i for i, change in enumerate(changes)}
    pairs = [
        (i, position[change.reference])
        for i, change in enumerate(changes)
        if change.reference in position
        and changes[position[change.reference]].reference == change.row
        and ids[change.row] < ids[change.reference]
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)
