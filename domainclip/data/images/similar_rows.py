"""Pairs of similar embeddings among many, which connect the rows of each set of duplicates.

Up to EXACT_ROWS all pairs are compared. Above, k-means divides the rows into small clusters, each row belongs
to its nearest ones, and only rows of one cluster are compared [SemDeDup, arXiv:2303.09540]. Where one cluster
remains large, because its rows are nearly alike, they are compared with some of them. A pair is always
compared by its own cosine: pairs can be missed, none is invented.

Legend: n rows, d width, k clusters.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from domainclip import disk_cache

EXACT_ROWS = 32_768  # up to which all pairs are compared
_CLUSTER_ROWS = 1024  # mean size of a cluster
_MAX_CLUSTER_ROWS = 16_384  # above which a cluster is divided again
_NEAREST = 3  # clusters of each row
_LEADERS = 1024  # rows of a large cluster that all others are compared with
_TRAINING_ROWS = 64  # of k-means, for each cluster
_ROWS = 1024  # of similarities in memory at once
_VERSION = 1  # raise it when the pairs of many rows change


def pairs_that_connect(embeddings: np.ndarray, min_cosine: float) -> np.ndarray:
    """(m, 2) int64: pairs that connect the rows (n, d) of unit length with at least that cosine.

    Not every such pair: in a uniform corpus, such as X-rays, there are about n² of them. A row of NaN, an
    unreadable image, has none. The pairs of many rows are read from the disk cache.
    """
    if len(embeddings) <= EXACT_ROWS:
        return _as_array(exact_pairs(embeddings, min_cosine))
    name = disk_cache.key("similar", _VERSION, min_cosine, disk_cache.content(embeddings))
    about = {"what": f"pairs of similar embeddings among {len(embeddings)}"}
    return disk_cache.computed("corpora", name, lambda: clustered_pairs(embeddings, min_cosine), about)


def exact_pairs(embeddings: np.ndarray, min_cosine: float) -> Iterator[tuple[int, int]]:
    """Of all rows: block by block, each row with the first row that the block connects it to."""
    n = len(embeddings)
    for start in range(0, n, _ROWS):
        block = np.triu(embeddings[start : start + _ROWS] @ embeddings[start:].T, 1)
        alike = coo_array(block >= min_cosine)
        if not alike.nnz:
            continue
        alike.resize((n - start, n - start))
        _, component = connected_components(alike, directed=False)
        _, first = np.unique(component, return_index=True)
        first = first[component]
        for row in np.flatnonzero(first != np.arange(n - start)):
            yield start + int(first[row]), start + int(row)


def clustered_pairs(embeddings: np.ndarray, min_cosine: float) -> np.ndarray:
    """(m, 2) int64, as `pairs_that_connect`: of the rows of one cluster alone."""
    usable = np.flatnonzero(np.isfinite(embeddings).all(1))
    found = [np.zeros((0, 2), np.int64)]
    for rows in _clusters(embeddings, usable):
        within = embeddings[rows]
        pairs = _leader_pairs if len(rows) > _MAX_CLUSTER_ROWS else exact_pairs
        found.append(np.sort(rows[_as_array(pairs(within, min_cosine))], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _clusters(embeddings: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Overlapping sets of rows; one that k-means does not divide stays as large as it is."""
    nearest = _nearest_clusters(embeddings, rows)
    order = np.argsort(nearest, axis=None, kind="stable")
    bounds = np.flatnonzero(np.diff(nearest.ravel()[order])) + 1
    for places in np.split(order, bounds):
        members = np.sort(rows[places // nearest.shape[1]])
        if _MAX_CLUSTER_ROWS < len(members) < len(rows) / 2:
            yield from _clusters(embeddings, members)
        else:
            yield members


def _nearest_clusters(embeddings: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(len(rows), _NEAREST) int64: the clusters whose means are nearest, of as many as the rows need."""
    from sklearn.cluster import MiniBatchKMeans

    count = max(_NEAREST, len(rows) // _CLUSTER_ROWS)
    draw = np.random.default_rng(0)
    sample = rows[np.sort(draw.permutation(len(rows))[: _TRAINING_ROWS * count])]
    kmeans = MiniBatchKMeans(count, random_state=0, n_init=1, batch_size=4096, max_iter=5, init="random")
    means = kmeans.fit(embeddings[sample]).cluster_centers_
    offset = np.square(means).sum(1) / 2
    nearest = np.empty((len(rows), _NEAREST), np.int64)
    for start in range(0, len(rows), 4 * _ROWS):
        block = rows[start : start + 4 * _ROWS]
        distance = offset - embeddings[block] @ means.T  # half its square, up to a term of the row
        nearest[start : start + len(block)] = np.argpartition(distance, _NEAREST - 1, axis=1)[:, :_NEAREST]
    return nearest


def _leader_pairs(embeddings: np.ndarray, min_cosine: float) -> Iterator[tuple[int, int]]:
    """Each row with the first of some evenly spaced rows that it is similar to, and those with each other."""
    leaders = np.unique(np.linspace(0, len(embeddings) - 1, _LEADERS).astype(np.int64))
    of_leaders = set(leaders.tolist())
    for start in range(0, len(embeddings), 4 * _ROWS):
        alike = embeddings[start : start + 4 * _ROWS] @ embeddings[leaders].T >= min_cosine
        for at in np.flatnonzero(alike.any(1)).tolist():
            row, similar = start + at, leaders[alike[at]].tolist()
            for leader in similar if row in of_leaders else similar[:1]:
                if leader != row:
                    yield min(leader, row), max(leader, row)


def _as_array(pairs: Iterator[tuple[int, int]]) -> np.ndarray:
    return np.array(list(pairs), np.int64).reshape(-1, 2)
