"""Perceptual hashes of thumbnails, and the pairs of images that are candidates for duplicates.

Two hashes of 64 bits an image [phash, dhash: imagehash] are taken in all eight orientations of a square, so
that a turned or mirrored copy is a candidate too.

Legend: n images, k pairs, s the side of a thumbnail.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import imagehash
import numpy as np
from PIL import Image

from domainclip.data.images.hash_neighbours import near_hashes

THUMBNAIL_SIDE = 64  # pixels; smaller images hold too little detail to be told apart
ORIENTATIONS = (
    "as it is",
    "mirrored",
    "upside down and mirrored",
    "turned by 180°",
    "mirrored along its diagonal",
    "turned by 90°",
    "turned by 270°",
    "mirrored along its other diagonal",
)
# Of 128 bits: as much as a cut of 2 % a side, a re-encoding and a mirror change together.
MAX_HASH_DISTANCE = 24
# Candidates of an image that are aligned with it: that work grows with n, not with its square.
MAX_CANDIDATES = 16
EXACT_IMAGES = 131_072  # up to which all pairs are compared
_BLOCK_ROWS, _BLOCK_COLUMNS = 64, 4096  # of a block of hash distances that fits into a processor's cache


def reorient(thumbnails: np.ndarray, orientation: int) -> np.ndarray:
    """(n, s, s) thumbnails in one of the eight ORIENTATIONS."""
    transforms = (
        lambda t: t,
        lambda t: t[:, :, ::-1],
        lambda t: t[:, ::-1],
        lambda t: t[:, ::-1, ::-1],
        lambda t: t.swapaxes(1, 2),
        lambda t: np.rot90(t, 1, (1, 2)),
        lambda t: np.rot90(t, 3, (1, 2)),
        lambda t: t[:, ::-1, ::-1].swapaxes(1, 2),
    )
    return np.ascontiguousarray(transforms[orientation](thumbnails))


def hash_thumbnail(thumbnail: np.ndarray) -> np.ndarray:
    """(8, 2) uint64: phash and dhash of a (s, s) uint8 thumbnail in each orientation."""
    oriented = [Image.fromarray(reorient(thumbnail[None], k)[0]) for k in range(len(ORIENTATIONS))]
    bits = [[_hash_bits(hash(image)) for hash in (imagehash.phash, imagehash.dhash)] for image in oriented]
    return np.array(bits, np.uint64)


def find_candidates(hashes: np.ndarray, workers: int = 0) -> np.ndarray:
    """(k, 3) rows i < j and orientation of pairs within MAX_HASH_DISTANCE: the closest of each image.

    `hashes` are (n, 8, 2). Up to EXACT_IMAGES, all pairs are compared, at some nanoseconds each; above, those
    that are close in one of several sorted orders (docs/guide/scale.md has the recall).
    """
    if len(hashes) > EXACT_IMAGES:
        return near_hashes(hashes, MAX_HASH_DISTANCE, MAX_CANDIDATES)
    candidates = partial(_block_candidates, np.ascontiguousarray(hashes.transpose(1, 2, 0)))
    with ThreadPoolExecutor(max(1, workers)) as pool:  # numpy releases the interpreter's lock
        blocks = pool.map(candidates, range(0, len(hashes), _BLOCK_ROWS))
        return np.concatenate([np.zeros((0, 3), np.int64), *blocks])


def _block_candidates(hashes: np.ndarray, start: int) -> np.ndarray:
    """(k, 3) candidates of _BLOCK_ROWS images from row `start` on; `hashes` are (8, 2, n)."""
    block, n = hashes[0, :, start : start + _BLOCK_ROWS, None], hashes.shape[2]
    candidates = [np.zeros((0, 4), np.int64)]
    for orientation in range(len(ORIENTATIONS)):
        for other in range(start, n, _BLOCK_COLUMNS):
            columns = hashes[orientation, :, None, other : other + _BLOCK_COLUMNS]
            # The second hash is compared only where the first is close enough: for few pairs.
            close = np.bitwise_count(block[0] ^ columns[0]) <= MAX_HASH_DISTANCE
            i, j = np.divmod(np.flatnonzero(close), columns.shape[2])
            i, j = i[later := i + start < j + other], j[later]
            difference = hashes[0, :, start + i] ^ hashes[orientation, :, other + j]
            distance = np.bitwise_count(difference).sum(1, np.int64)
            near = distance <= MAX_HASH_DISTANCE
            i, j, distance = i[near] + start, j[near] + other, distance[near]
            candidates.append(np.stack([i, j, np.full_like(i, orientation), distance], 1))
    return _closest(np.concatenate(candidates))[:, :3]


def _closest(candidates: np.ndarray) -> np.ndarray:
    """The MAX_CANDIDATES closest of each first image; columns are first, second, orientation, distance."""
    order = np.lexsort((candidates[:, 2], candidates[:, 1], candidates[:, 3], candidates[:, 0]))
    candidates = candidates[order]
    rank = np.arange(len(candidates)) - np.searchsorted(candidates[:, 0], candidates[:, 0])
    return candidates[rank < MAX_CANDIDATES]


def _hash_bits(hash: imagehash.ImageHash) -> int:
    return int.from_bytes(np.packbits(hash.hash).tobytes(), "big")
