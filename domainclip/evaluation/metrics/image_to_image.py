"""Image-to-image retrieval: average precision of finding the other images of the same label or truth key.

Legend: n items, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from domainclip.evaluation.metrics.ranking import BLOCK, precision_terms
from domainclip.evaluation.metrics.truth import truth_numbers
from domainclip.seeding import sample

if TYPE_CHECKING:
    from datasets import Dataset

MAX_IMAGES = 5000  # each query sorts the whole gallery


@dataclass(frozen=True)
class ImageToImage:
    """Average precision of each query, and its chance level."""

    rows: np.ndarray  # (q,) positions of the queries in the set
    scores: np.ndarray
    at_chance: np.ndarray
    truth: str  # "label" or "truth key"
    gallery: int


def image_to_image(images: np.ndarray, items: Dataset, seed: int, by_truth: bool) -> ImageToImage | None:
    """Average precision of all queries with at least one relevant image; None when there is none.

    Relevant images share a label with the query where the corpus has labels; images of the query's own group
    or truth key (patient, object) are then left out of the gallery, as they are near without sharing the
    label. Without labels, images of the same truth key are relevant, where `by_truth` states that the card
    names one; by default it is the image itself. Images (n, d).
    """
    ids = list(items["id"])
    sampled = np.array(sorted(sample(ids, MAX_IMAGES, "alike", seed)))
    group = np.unique(np.asarray(list(items["group"]), dtype=str), return_inverse=True)[1][sampled]
    truth = truth_numbers(items)[sampled]
    labels = list(items["labels"])
    sampled_labels = [labels[row] for row in sampled]
    classes = {name: i for i, name in enumerate(sorted({name for names in sampled_labels for name in names}))}
    label_rows = np.zeros((len(sampled), len(classes)))
    for row, names in enumerate(sampled_labels):
        label_rows[row, [classes[name] for name in names]] = 1
    vectors = images[sampled].astype(np.float64)
    rows, scores, at_chance = [], [], []
    for start in range(0, len(sampled), BLOCK):
        block = slice(start, start + BLOCK)
        cosines = np.round(vectors[block] @ vectors.T, 6)
        same_truth, share_label = truth[block, None] == truth[None], label_rows[block] @ label_rows.T > 0
        near = (group[block, None] == group[None]) | same_truth
        for i, row in enumerate(range(start, min(start + BLOCK, len(sampled)))):
            others = ~near[i] if classes else np.arange(len(sampled)) != row
            relevant = share_label[i][others] if classes else by_truth & same_truth[i][others]
            if relevant.any():
                rows.append(sampled[row])
                scores.append(_precision(cosines[i][others], relevant))
                single_tie = np.array([0, len(relevant), 0, relevant.sum()])
                at_chance.append(float(precision_terms(*single_tie) / relevant.sum()))
    if not rows:
        return None
    same = "label" if classes else "truth key"
    return ImageToImage(np.array(rows), np.array(scores), np.array(at_chance), same, len(sampled))


def _precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Expected average precision with ties in random order."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    tied = np.diff(np.r_[starts, len(order)])
    relevant_in_tie = np.add.reduceat(relevant[order].astype(np.float64), starts)
    nonzero = relevant_in_tie > 0  # a tie without relevant answers adds 0
    earlier = np.cumsum(relevant_in_tie) - relevant_in_tie
    return float(
        precision_terms(starts[nonzero], tied[nonzero], earlier[nonzero], relevant_in_tie[nonzero]).sum()
        / relevant.sum()
    )
