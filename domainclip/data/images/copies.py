"""Copies among inspected images: re-encoded, resized, cropped or mirrored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from domainclip import disk_cache
from domainclip.data.images import inspection, near_duplicates
from domainclip.data.images.near_duplicates import DuplicatePair
from domainclip.data.images.perceptual_hashes import THUMBNAIL_SIDE


def find_copies(
    inspections: np.ndarray,
    digests: Sequence[str],
    embed: Callable[[list[int]], np.ndarray] | None = None,
    workers: int = 0,
) -> list[DuplicatePair]:
    """The pairs of nearly the same image among (n,) INSPECTION; files that are equal byte for byte are none.

    `embed` returns unit-length embeddings (k, d) of k images, by index, to decide doubtful pairs.
    """
    usable = (inspections["reason"] == b"") & ~inspections["blank"]
    short = np.minimum(inspections["width"], inspections["height"])
    rows = np.flatnonzero(usable & (short >= THUMBNAIL_SIDE))
    encode = None if embed is None else lambda indices: embed([int(rows[k]) for k in indices])
    scored = _cached_scores(inspections[rows], [digests[row] for row in rows.tolist()], workers)
    pairs = [
        DuplicatePair(int(rows[pair.first]), int(rows[pair.second]), pair.orientation, pair.score)
        for pair in near_duplicates.select_duplicates(scored, inspections["colour"][rows], encode)
    ]
    return [pair for pair in pairs if digests[pair.first] != digests[pair.second]]


def _cached_scores(inspections: np.ndarray, digests: list[str], workers: int) -> np.ndarray:
    """The scored pairs among some images, cached like their inspections."""
    key = disk_cache.key("pairs", inspection.VERSION, digests)
    cached = disk_cache.read("hashes", key)
    if cached is not None and cached.dtype == near_duplicates.SCORED_PAIR:
        return cached[1:]
    scored = near_duplicates.score_pairs(inspections["thumbnail"], inspections["hashes"], workers)
    # With an additional first row: an array without rows cannot be mapped from disk.
    padded = np.concatenate([np.zeros(1, near_duplicates.SCORED_PAIR), scored])
    inspection.store_array(key, padded, {"what": "pairs of similar images", "pairs": len(scored)})
    return scored
