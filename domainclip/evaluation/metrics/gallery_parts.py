"""Parts of a set whose answers are left out together, to see what each adds to a search.

Legend: N items of a set, m captions of a gallery, p parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics.retrieval_gallery import Gallery

_MAX_PARTS = 100  # as many jackknife values as for any other metric


@dataclass(frozen=True)
class GalleryParts:
    """The part of each item and of each caption; whole groups, with the captions that they have first."""

    count: int
    of_items: np.ndarray  # (N,)
    of_captions: Sequence[np.ndarray]  # by gallery: (m,)

    def shares(self, truth: csr_matrix, parts: np.ndarray) -> np.ndarray:
        """(q, p) the share of the right answers of each query in each part; truth (q, m), parts (m,)."""
        in_part = csr_matrix((np.ones(len(parts)), (np.arange(len(parts)), parts)), (len(parts), self.count))
        table: np.ndarray = (truth.astype(np.float64) @ in_part).toarray()
        table /= np.diff(truth.indptr)[:, None]
        return table


def divide(data: EvaluationSet, galleries: Sequence[Gallery]) -> GalleryParts:
    """The groups of the searched items by size, dealt out to a hundred parts at most.

    A caption of several groups belongs to the part of the first of them by name, so the order of rows has no
    effect.
    """
    names, group = np.unique(np.asarray(list(data.items["group"]), dtype=str), return_inverse=True)
    searched = np.unique(np.concatenate([gallery.rows for gallery in galleries]))
    sizes = np.bincount(group[searched], minlength=len(names))
    order = np.lexsort((names, -sizes))
    count = min(int((sizes > 0).sum()), _MAX_PARTS)
    part = np.empty(len(names), dtype=int)
    part[order] = np.arange(len(names)) % count
    captions = []
    for gallery in galleries:
        first = np.full(gallery.relevant.shape[0], len(names))  # group of each truth key
        np.minimum.at(first, gallery.truth, group[gallery.rows])
        truths = gallery.relevant.tocoo()
        owner = np.full(gallery.relevant.shape[1], len(names))
        np.minimum.at(owner, truths.col, first[truths.row])
        captions.append(part[owner])
    return GalleryParts(count, part[group], captions)
