"""Near-duplicate images: candidates by perceptual hash, decided by the correlation of their fine structure.

Images of one kind, such as chest films or stars, are all close to each other by hash. So the two thumbnails
of each candidate pair are aligned and their fine structure is compared: a copy repeats it, another image of
the same kind does not. A doubtful pair also needs equal mean colours and, when a model is given, close
embeddings. docs/guide/data.md has the measurements that the thresholds were chosen by.

Legend: n images, k pairs, s the side of a thumbnail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from domainclip.data.images.alignment import align_and_score, detail_level
from domainclip.data.images.perceptual_hashes import ORIENTATIONS, find_candidates, reorient
from domainclip.data.process_pool import map_in_order

COPY_SCORE = 0.93  # a pair with at least this correlation is a copy
DOUBTFUL_SCORE = 0.85  # from here on colour and embeddings decide: smooth discs and small noisy cut-outs
MAX_COLOUR_DIFFERENCE = 12  # of 255, between the mean colours of a copy
MIN_COSINE = 0.8  # of the embeddings of a copy
MIN_DETAIL = 1.0  # grey levels; with less fine structure there is nothing to compare
SCORED_PAIR = np.dtype([("first", "i8"), ("second", "i8"), ("orientation", "u1"), ("score", "f4")])
_CHUNK_PAIRS = 512  # pairs that are aligned at once
_MIN_FOR_PROCESSES = 8 * _CHUNK_PAIRS  # with fewer pairs, starting processes costs more than it saves


@dataclass(frozen=True)
class DuplicatePair:
    """Two images that are copies of each other, by their rows."""

    first: int
    second: int
    orientation: str  # of the second relative to the first
    score: float  # correlation of the fine structure, at most 1


@dataclass(frozen=True)
class _PairChunk:
    """Thumbnails of consecutive candidate pairs, for one process."""

    start: int  # index of the first pair
    first: np.ndarray  # (k, s, s) uint8
    second: np.ndarray  # (k, s, s) uint8
    orientation: np.ndarray  # (k,)


def score_pairs(thumbnails: np.ndarray, hashes: np.ndarray, workers: int = 0) -> np.ndarray:
    """(k,) SCORED_PAIR: all pairs with at least DOUBTFUL_SCORE, sorted by their rows.

    `thumbnails` (n, s, s) uint8 are grey, `hashes` (n, 8, 2) are from `hash_thumbnail`. An image without
    detail is in no pair. `workers` processes share the work.
    """
    rows = np.flatnonzero(detail_level(thumbnails) >= MIN_DETAIL)
    candidates = find_candidates(hashes[rows], workers)
    candidates[:, :2] = rows[candidates[:, :2]]

    def chunks() -> Iterator[_PairChunk]:
        for start in range(0, len(candidates), _CHUNK_PAIRS):
            first, second, orientation = candidates[start : start + _CHUNK_PAIRS].T
            yield _PairChunk(start, thumbnails[first], thumbnails[second], orientation)

    best: dict[tuple[int, int], tuple[int, float]] = {}
    processes = workers if len(candidates) > _MIN_FOR_PROCESSES else 0
    for chunk, scores in map_in_order(_score_chunk, chunks(), processes):
        for k in np.flatnonzero(scores >= DOUBTFUL_SCORE):
            first, second, orientation = candidates[chunk.start + k].tolist()
            if best.get((first, second), (0, -1.0))[1] < scores[k]:
                best[first, second] = orientation, float(scores[k])
    return np.array([(*pair, *best[pair]) for pair in sorted(best)], SCORED_PAIR)


def select_duplicates(
    scored: np.ndarray, colours: np.ndarray, embed: Callable[[list[int]], np.ndarray] | None = None
) -> list[DuplicatePair]:
    """The near-duplicates among (k,) SCORED_PAIR.

    `colours` (n, c) are mean colours; `embed` returns unit-length embeddings (len(rows), d) of rows.
    """
    pairs = [
        DuplicatePair(int(first), int(second), ORIENTATIONS[orientation], float(score))
        for first, second, orientation, score in scored.tolist()
    ]
    copies = [pair for pair in pairs if pair.score >= COPY_SCORE]
    copies += _confirm([pair for pair in pairs if pair.score < COPY_SCORE], colours, embed)
    return sorted(copies, key=lambda pair: (pair.first, pair.second))


def _confirm(
    doubtful: list[DuplicatePair], colours: np.ndarray, embed: Callable[[list[int]], np.ndarray] | None
) -> list[DuplicatePair]:
    """The doubtful pairs with close mean colours and, when `embed` is given, close embeddings."""
    means = colours.astype(np.int64)
    same_colour = [
        pair
        for pair in doubtful
        if np.abs(means[pair.first] - means[pair.second]).max() <= MAX_COLOUR_DIFFERENCE
    ]
    if embed is None or not same_colour:
        return same_colour
    rows = sorted({row for pair in same_colour for row in (pair.first, pair.second)})
    vectors = dict(zip(rows, embed(rows), strict=True))
    return [pair for pair in same_colour if float(vectors[pair.first] @ vectors[pair.second]) >= MIN_COSINE]


def _score_chunk(chunk: _PairChunk) -> np.ndarray:
    """(k,) correlations of the fine structure, after the second thumbnails are reoriented and aligned."""
    second = np.concatenate(
        [reorient(chunk.second[k : k + 1], orientation) for k, orientation in enumerate(chunk.orientation)]
    )
    return align_and_score(chunk.first.astype(np.float32), second.astype(np.float32), DOUBTFUL_SCORE)
