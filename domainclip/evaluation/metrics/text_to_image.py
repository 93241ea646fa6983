"""Text-to-image recall at 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csr_matrix

from domainclip.data.interfaces import Encoder
from domainclip.data.text.captions import normalise
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics.decisions import top1_shares

_DIGITS = 6  # single-precision towers do not mean more: what is closer is a tie


_BLOCK = 512  # queries compared with all images at once


def rounded_cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(q, m) between unit rows (q, d) and (m, d), rounded so that what means the same is a tie."""
    rounded: np.ndarray = np.round(a.astype(np.float64) @ b.astype(np.float64).T, _DIGITS)
    return rounded


def recall_at_1(
    encoder: Encoder,
    data: EvaluationSet,
    rows: Sequence[int],
    texts: Sequence[str],
    encode: Callable[[list[str]], np.ndarray] | None = None,
    also: Sequence[tuple[int, str]] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """(q,) chances that the image found first for a text is right, and the same for a random image.

    `texts[i]` asks for the item `rows[i]`; all images of the set are candidates. Right are the images of
    that item's group, and those of every item that is asked for with the same words, or stands with them
    in `also`.
    """
    owner = np.unique(np.asarray(list(data.items["group"]), dtype=str), return_inverse=True)[1]
    said: dict[str, str] = {}
    for text in texts:
        said[normalise(text)] = min(text, said.get(normalise(text), text))
    place = {key: i for i, key in enumerate(sorted(said))}
    asked = np.array([place[normalise(text)] for text in texts])
    pairs = [*zip(rows, asked, strict=True)]
    pairs += [(row, place[key]) for row, text in also if (key := normalise(text)) in place]
    items, keys = np.array(pairs).T
    marks = (np.ones(len(pairs), dtype=bool), (keys, owner[items]))
    accepted = csr_matrix(marks, shape=(len(place), int(owner.max()) + 1))
    images, queries = encoder.images(data.items), (encode or encoder.texts)([said[key] for key in place])
    found = []
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, start + _BLOCK)
        right = accepted[block].toarray()[:, owner]
        found.append(
            np.stack([(top1_shares(rounded_cosines(queries[block], images)) * right).sum(1), right.mean(1)])
        )
    hits, guesses = np.concatenate(found, axis=1)
    return hits[asked], guesses[asked]
