"""Text-to-image recall at 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csr_matrix

from domainclip.data.interfaces import Encoder
from domainclip.data.text.captions import normalise
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics.decisions import top1_shares
from domainclip.evaluation.metrics.truth import truth_numbers

_DECIMALS = 6  # the accuracy of single-precision embeddings: closer cosines are ties
_BLOCK = 512  # queries per comparison with all images


def rounded_cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(q, m) cosines of unit rows (q, d) and (m, d), rounded so that numerically equal ones tie."""
    rounded: np.ndarray = np.round(a.astype(np.float64) @ b.astype(np.float64).T, _DECIMALS)
    return rounded


def recall_at_1(
    encoder: Encoder,
    data: EvaluationSet,
    rows: Sequence[int],
    texts: Sequence[str],
    encode: Callable[[list[str]], np.ndarray] | None = None,
    also_relevant: Sequence[tuple[int, str]] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """(q,) probability that the top image of a text is relevant, and the same at chance.

    At chance the image is random or, where images of several truth keys share a text, the one that is
    relevant for most queries, whatever the text.

    `texts[i]` is a query for the item `rows[i]`; all images of the set are the gallery. Relevant are the
    images of that item's truth key, and of every item with an equal query text, here or in `also_relevant`.
    """
    truth = truth_numbers(data.items)
    representatives: dict[str, str] = {}
    for text in texts:
        representatives[normalise(text)] = min(text, representatives.get(normalise(text), text))
    query_index = {key: i for i, key in enumerate(sorted(representatives))}
    queries_of = np.array([query_index[normalise(text)] for text in texts])
    relevant_pairs = [*zip(rows, queries_of, strict=True)]
    relevant_pairs += [
        (row, query_index[key]) for row, text in also_relevant if (key := normalise(text)) in query_index
    ]
    item_rows, query_keys = np.array(relevant_pairs).T
    entries = (np.ones(len(relevant_pairs), dtype=bool), (query_keys, truth[item_rows]))
    accepted = csr_matrix(entries, shape=(len(query_index), int(truth.max()) + 1))
    images = encoder.images(data.items)
    query_vectors = (encode or encoder.texts)([representatives[key] for key in query_index])
    commonest = _commonest_images(accepted, truth, np.bincount(queries_of))
    blocks = []
    for start in range(0, len(query_vectors), _BLOCK):
        block = slice(start, start + _BLOCK)
        relevant = accepted[block].toarray()[:, truth]
        shares = top1_shares(rounded_cosines(query_vectors[block], images))
        blocks.append(np.stack([(shares * relevant).sum(1), relevant[:, commonest].mean(1)]))
    hits, chances = np.concatenate(blocks, axis=1)
    return hits[queries_of], chances[queries_of]


def _commonest_images(accepted: csr_matrix, truth: np.ndarray, occurrences: np.ndarray) -> np.ndarray:
    """(m,) bool: the images that are relevant for most queries; all of them where no truth keys share a text.

    `accepted` (k, t) are the truth keys of each text, `occurrences` (k,) how many queries have it.
    """
    if np.diff(accepted.indptr).max() == 1:
        return np.ones(len(truth), dtype=bool)
    frequency = (accepted.astype(float).T @ occurrences)[truth]
    most: np.ndarray = frequency == frequency.max()
    return most
