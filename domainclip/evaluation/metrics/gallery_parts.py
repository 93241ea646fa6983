"""Which groups share captions, directly or through others: the units that a gallery is sampled in.

Legend: N items of a set, u units, m captions of a gallery, p parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics.retrieval_gallery import Gallery

_MAX_PARTS = 100  # of units: as many jackknife values as for any other metric


@dataclass(frozen=True)
class GalleryParts:
    """Units of groups and captions, and the part of each: a part is left out as a whole."""

    units: np.ndarray  # (N,) the name of each item's unit: the first of its groups
    of_items: np.ndarray  # (N,) the part
    of_captions: Sequence[np.ndarray]  # by gallery: (m,) the part


def divide(data: EvaluationSet, galleries: Sequence[Gallery]) -> GalleryParts:
    """The units of a set under these galleries, one for each language.

    Two groups belong to one unit when a caption is right for images of both, in any of the languages. With
    more than a hundred units, several form a part, large and small ones mixed.
    """
    names, group = np.unique(np.asarray(list(data.items["group"]), dtype=str), return_inverse=True)
    starts = np.cumsum([len(names), *(sum(gallery.relevant.shape) for gallery in galleries)])
    edges = []
    for start, gallery in zip(starts, galleries, strict=False):
        truths = gallery.relevant.tocoo()
        edges += [
            np.stack([group[gallery.rows], start + gallery.truth]),
            np.stack([start + truths.row, start + gallery.relevant.shape[0] + truths.col]),
        ]
    rows, columns = np.concatenate(edges, axis=1)
    graph = coo_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(starts[-1], starts[-1]))
    node = connected_components(graph, directed=False)[1]
    # Names are sorted, so the first group of a unit gives it its name, and the order of rows has no effect.
    _, first, unit = np.unique(node[: len(names)], return_index=True, return_inverse=True)
    part = _parts(np.bincount(unit[group]), names[first])
    by_component = np.zeros(node.max() + 1, dtype=int)
    by_component[node[: len(names)]] = part[unit]
    captions = [
        by_component[node[end - gallery.relevant.shape[1] : end]]
        for end, gallery in zip(starts[1:], galleries, strict=True)
    ]
    return GalleryParts(names[first][unit][group], part[unit][group], captions)


def _parts(sizes: np.ndarray, names: np.ndarray) -> np.ndarray:
    """(u,) the part of each unit: the units by size, dealt out in turn."""
    order = np.lexsort((names, -sizes))
    part = np.empty(len(sizes), dtype=int)
    part[order] = np.arange(len(sizes)) % min(len(sizes), _MAX_PARTS)
    return part
