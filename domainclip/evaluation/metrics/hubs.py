"""Hubs of a gallery: answers that come first for many queries [jmlr.org/papers/v11/radovanovic10a]."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from domainclip.evaluation.metrics.ranking import BLOCK
from domainclip.evaluation.metrics.text_to_image import rounded_cosines

_MIN_QUERIES = 10
_SHARE = 0.1  # of the queries, from which on verdicts would often differ for another gallery


def first_answer_counts(queries: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(m,) for how many queries (q, d) each answer (m, d) comes first; of a tie, the first one."""
    counts = np.zeros(len(answers), dtype=int)
    for start in range(0, len(queries), BLOCK):
        nearest = rounded_cosines(queries[start : start + BLOCK], answers).argmax(axis=1)
        counts += np.bincount(nearest, minlength=len(answers))
    return counts


def hub_warning(counts: np.ndarray, relevant: csr_matrix) -> str:
    """A warning about the strongest hub; empty without one.

    `counts` (m,) as above, `relevant` (q, m) the right answers. Queries that share their first answer are
    right or wrong together, which resampling groups of queries does not show.
    """
    total = relevant.shape[0]
    limit = max(_MIN_QUERIES, _SHARE * total)
    shared = int(np.asarray(relevant.sum(axis=0)).max(initial=0))
    texts = []
    if counts.max(initial=0) > limit:
        texts.append(f"one caption is the first answer to {counts.max()} of {total} images")
    if shared > limit:
        texts.append(f"one caption is right for {shared} of {total} images")
    if not texts:
        return ""
    return f"{' and '.join(texts)}: intervals and verdicts hold for these captions, not for others"
