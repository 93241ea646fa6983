"""Pictures that show the same thing twice, found among many: coarse by hash, then exact by eye.

Two hashes of 64 bits a picture [phash, dhash: imagehash] find candidates: of pictures that are near each
other in 128 bits, whichever way one of them is turned or mirrored. Pictures of one kind, chest films or
stars, are all alike to a hash. So each candidate is laid over the other (moved and scaled until they fit,
by Gauss-Newton steps [Lucas and Kanade, IJCAI 1981]) and their fine structure is compared: a copy repeats
it, another picture of the same kind does not. What lies in between needs a witness: the mean colour, and
embeddings when a model is at hand. docs/data.md has the figures that the thresholds were chosen by.

Legend: n pictures, k pairs, s the side of a thumbnail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import imagehash
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from domainclip.data.process_pool import in_order

SIDE = 64  # of the grey thumbnail; smaller pictures hold too little to be told apart
TURNS = (
    "as it is",
    "mirrored",
    "upside down and mirrored",
    "turned by 180°",
    "mirrored along its diagonal",
    "turned by 90°",
    "turned by 270°",
    "mirrored along its other diagonal",
)
NEAR = 24  # of 128 bits: as much as a cut of 2 % a side, a re-encoding and a mirror change together
NEAREST = 16  # candidates of a picture that are laid over it: that work grows with n, not with its square
SAME = 0.93  # of the fine structure in common: a copy
DOUBTFUL = 0.85  # a copy if a witness agrees: smooth discs and small noisy cut-outs lie in between
COLOUR = 12  # of 255: mean colours of a copy differ by less
COSINE = 0.8  # embeddings of a copy are at least so near
DETAIL = 1.0  # grey levels of fine structure below which there is nothing to compare
SCORED = np.dtype([("first", "i8"), ("second", "i8"), ("turn", "u1"), ("score", "f4")])
_ROWS, _COLUMNS = 64, 4096  # of a block of hash distances, which a processor's cache holds
_LAID = 512  # pairs that are laid over each other at once
_WORTH = 8 * _LAID
_LIMITS = np.array([0.08, 0.07, 0.08, 0.07], np.float32)  # scale and shift: a cut of 3 % on each side
_STARTS = (0.0, 0.04, -0.04)  # scales to begin from: neither is cut, one is, the other is


@dataclass(frozen=True)
class Pair:
    """Two pictures that are one, by their rows."""

    first: int
    second: int
    turn: str  # how the second lies to the first
    score: float  # correlation of the fine structure, at most 1


@dataclass(frozen=True)
class _Laid:
    """Some pairs of thumbnails, for one process."""

    start: int  # the first of them
    first: np.ndarray  # (k, s, s) uint8
    second: np.ndarray
    turn: np.ndarray  # (k,)


def turned(thumbnails: np.ndarray, turn: int) -> np.ndarray:
    """(n, s, s) thumbnails in one of the eight ways that a square can lie."""
    flipped = (
        lambda t: t,
        lambda t: t[:, :, ::-1],
        lambda t: t[:, ::-1],
        lambda t: t[:, ::-1, ::-1],
        lambda t: t.swapaxes(1, 2),
        lambda t: np.rot90(t, 1, (1, 2)),
        lambda t: np.rot90(t, 3, (1, 2)),
        lambda t: t[:, ::-1, ::-1].swapaxes(1, 2),
    )
    return np.ascontiguousarray(flipped[turn](thumbnails))


def hashes(thumbnail: np.ndarray) -> np.ndarray:
    """(8, 2) uint64: phash and dhash of a (s, s) uint8 thumbnail in all its turns."""
    rows = [Image.fromarray(turned(thumbnail[None], turn)[0]) for turn in range(len(TURNS))]
    found = [[_number(hash(row)) for hash in (imagehash.phash, imagehash.dhash)] for row in rows]
    return np.array(found, np.uint64)


def detail(thumbnails: np.ndarray) -> np.ndarray:
    """(n,) grey levels of fine structure: their standard deviation without what is smooth."""
    return np.asarray(_fine(thumbnails.astype(np.float32)).std((1, 2)))


def scored(thumbnails: np.ndarray, hashed: np.ndarray, workers: int = 0) -> np.ndarray:
    """(k,) SCORED: all pairs that may be one picture, in the order of their rows, by their fine structure.

    `thumbnails` (n, s, s) uint8 are grey, `hashed` (n, 8, 2) from `hashes`. A picture without detail is in no
    pair. The work is shared by so many processes.
    """
    rows = np.flatnonzero(detail(thumbnails) >= DETAIL)
    near = _candidates(hashed[rows], workers)
    near[:, :2] = rows[near[:, :2]]

    def laid() -> Iterator[_Laid]:
        for start in range(0, len(near), _LAID):
            first, second, turn = near[start : start + _LAID].T
            yield _Laid(start, thumbnails[first], thumbnails[second], turn)

    found: dict[tuple[int, int], tuple[int, float]] = {}
    # For a few pairs, starting processes costs more than it saves.
    for task, scores in in_order(_scores, laid(), workers if len(near) > _WORTH else 0):
        for k in np.flatnonzero(scores >= DOUBTFUL):
            first, second, turn = near[task.start + k].tolist()
            if found.get((first, second), (0, -1.0))[1] < scores[k]:
                found[first, second] = turn, float(scores[k])
    return np.array([(*pair, *found[pair]) for pair in sorted(found)], SCORED)


def pairs(
    found: np.ndarray, colours: np.ndarray, embed: Callable[[list[int]], np.ndarray] | None = None
) -> list[Pair]:
    """The near-duplicates among scored pairs.

    `colours` (n, c) are means of colour; `embed` gives embeddings (len, d) of unit length of some rows.
    """
    told = [Pair(int(a), int(b), TURNS[turn], float(score)) for a, b, turn, score in found.tolist()]
    sure = [pair for pair in told if pair.score >= SAME]
    sure += _witnessed([pair for pair in told if pair.score < SAME], colours, embed)
    return sorted(sure, key=lambda pair: (pair.first, pair.second))


def _witnessed(
    doubtful: list[Pair], colours: np.ndarray, embed: Callable[[list[int]], np.ndarray] | None
) -> list[Pair]:
    """The doubtful pairs of one colour, whose embeddings are those of one picture when there are any."""
    means = colours.astype(np.int64)
    alike = [pair for pair in doubtful if np.abs(means[pair.first] - means[pair.second]).max() <= COLOUR]
    if embed is None or not alike:
        return alike
    rows = sorted({row for pair in alike for row in (pair.first, pair.second)})
    vectors = dict(zip(rows, embed(rows), strict=True))
    return [pair for pair in alike if float(vectors[pair.first] @ vectors[pair.second]) >= COSINE]


def _candidates(hashed: np.ndarray, workers: int = 0) -> np.ndarray:
    """(k, 3) rows i < j and turn of pairs that are near: the nearest of each picture.

    All pairs are compared, so time grows with the square of n, at some nanoseconds a pair; memory does not.
    """
    near = partial(_near, np.ascontiguousarray(hashed.transpose(1, 2, 0)))
    with ThreadPoolExecutor(
        max(1, workers)
    ) as pool:  # numpy leaves the interpreter to others while it counts
        found = pool.map(near, range(0, len(hashed), _ROWS))
        return np.concatenate([np.zeros((0, 3), np.int64), *found])


def _near(hashed: np.ndarray, start: int) -> np.ndarray:
    """(k, 3) the candidates of _ROWS pictures from `start` on, of hashes (8, 2, n)."""
    block, n = hashed[0, :, start : start + _ROWS, None], hashed.shape[2]
    found = [np.zeros((0, 4), np.int64)]
    for turn in range(len(TURNS)):
        for other in range(start, n, _COLUMNS):
            against = hashed[turn, :, None, other : other + _COLUMNS]
            # The second hash is asked only where the first leaves room: mostly nowhere.
            i, j = np.divmod(
                np.flatnonzero(np.bitwise_count(block[0] ^ against[0]) <= NEAR), against.shape[2]
            )
            i, j = i[later := i + start < j + other], j[later]
            distance = np.bitwise_count(hashed[0, :, start + i] ^ hashed[turn, :, other + j]).sum(1, np.int64)
            near = distance <= NEAR
            i, j, distance = i[near] + start, j[near] + other, distance[near]
            found.append(np.stack([i, j, np.full_like(i, turn), distance], 1))
    return _nearest(np.concatenate(found))[:, :3]


def _nearest(found: np.ndarray) -> np.ndarray:
    """The NEAREST candidates (first, second, turn, distance) of each first picture."""
    found = found[np.lexsort((found[:, 2], found[:, 1], found[:, 3], found[:, 0]))]
    place = np.arange(len(found)) - np.searchsorted(found[:, 0], found[:, 0])
    return found[place < NEAREST]


def _scores(task: _Laid) -> np.ndarray:
    """(k,) correlations of the fine structure of pairs, the second turned and laid over the first."""
    b = np.concatenate([turned(task.second[k : k + 1], turn) for k, turn in enumerate(task.turn)])
    return _score(task.first.astype(np.float32), b.astype(np.float32))


def _score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(k,) of (k, s, s): from the best of the starts, found on half-size pictures, where steps are cheap."""
    half_a, half_b = _pooled(a), _pooled(b)
    fit, score = np.zeros((len(a), 4), np.float32), np.full(len(a), -1, np.float32)
    for scale in _STARTS:
        begun = np.tile(np.array([scale, 0, scale, 0], np.float32), (len(a), 1))
        tried = _fit(half_a, half_b, _fit(half_a, half_b, begun, 1.5, 4), 0.7, 4)
        reached = _alike(half_a, half_b, tried, blur=0.5)
        fit[reached > score] = tried[reached > score]
        score = np.maximum(score, reached)
    hopeful = np.flatnonzero(score >= DOUBTFUL / 2)
    if len(hopeful):
        a, b = a[hopeful], b[hopeful]
        score[hopeful] = _alike(a, b, _fit(a, b, fit[hopeful], 1.0, 2), blur=1.0)
    return np.minimum(score, 1)


def _fit(a: np.ndarray, b: np.ndarray, fit: np.ndarray, blur: float, steps: int) -> np.ndarray:
    """(k, 4) scale and shift along x, then y, that lay b over a."""
    a, b = _smooth(a, blur), _smooth(b, blur)
    for _ in range(steps):
        fit = np.clip(fit + _step(a, b, fit), -_LIMITS, _LIMITS)
    return fit


def _step(a: np.ndarray, b: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """(k, 4) one Gauss-Newton step towards the fit, both sides brought to mean 0 and spread 1."""
    side = a.shape[1]
    x = _places(side)
    moved, inside = _moved(b, fit)
    a, b = _standard(a, inside), _standard(moved, inside)
    gy, gx = (gradient * inside * (side / 2) for gradient in np.gradient(b, axis=(1, 2)))
    slopes = np.stack([gx * x, gx, gy * x[:, None], gy], -1).reshape(len(a), -1, 4)
    normal = slopes.swapaxes(1, 2) @ slopes
    # Damped: along an edge or on a plain there is nothing that says how far to go.
    damping = 1e-2 * np.einsum("kii->ki", normal) + 1e-3
    normal += damping[:, :, None] * np.eye(4, dtype=np.float32)
    step = np.linalg.solve(normal, slopes.swapaxes(1, 2) @ (a - b).reshape(len(a), -1, 1))[..., 0]
    return np.clip(step, -0.04, 0.04)


def _moved(b: np.ndarray, fit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """b moved by the fit, and (k, s, s) where it has something to show."""
    side = b.shape[1]
    across, inside_x = _weights(side, fit[:, 0], fit[:, 1])
    down, inside_y = _weights(side, fit[:, 2], fit[:, 3])
    return down @ b @ across.swapaxes(1, 2), (inside_y[:, :, None] & inside_x[:, None]).astype(np.float32)


def _weights(side: int, scale: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(k, s, s) weights that interpolate between two neighbours, and (k, s) whether there are any."""
    place = ((_places(side) * (1 + scale[:, None]) + shift[:, None] + 1) * side - 1) / 2
    inside = (place >= -0.25) & (place <= side - 0.75)
    place = np.clip(place, 0, side - 1.001)
    left = place.astype(int)
    weights = np.zeros((len(scale), side, side), np.float32)
    np.put_along_axis(weights, left[:, :, None], 1 - (place - left)[:, :, None], 2)
    np.put_along_axis(weights, left[:, :, None] + 1, (place - left)[:, :, None], 2)
    return weights, inside


def _alike(a: np.ndarray, b: np.ndarray, fit: np.ndarray, blur: float) -> np.ndarray:
    """(k,) the lower of two correlations of fine structure: as it is, and with every region weighed alike.

    One bright star decides the first, a region of noise the second; a copy agrees in both.
    """
    moved, inside = _moved(_smooth(b, blur), fit)
    fine_a, fine_b = _fine(_smooth(a, blur)), _fine(moved)
    even_a, even_b = (fine / (np.sqrt(_smooth(fine**2, 2.0)) + 4) for fine in (fine_a, fine_b))
    both = (_correlation(fine_a, fine_b, inside), _correlation(even_a, even_b, inside))
    return np.asarray(np.minimum(*both))


def _correlation(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> np.ndarray:
    a, b = _standard(a, inside), _standard(b, inside)
    return np.asarray((a * b).sum((1, 2)) / inside.sum((1, 2)))


def _standard(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    count = inside.sum((1, 2))[:, None, None]
    values = (values - (values * inside).sum((1, 2))[:, None, None] / count) * inside
    spread = np.sqrt((values**2).sum((1, 2))[:, None, None] / count + 1e-3)
    return np.asarray(values / spread)


def _fine(values: np.ndarray) -> np.ndarray:
    return np.asarray(values - _smooth(values, 2.0))


def _smooth(values: np.ndarray, blur: float) -> np.ndarray:
    return np.asarray(gaussian_filter(values, (0, blur, blur), mode="nearest", truncate=3.0))


def _pooled(values: np.ndarray) -> np.ndarray:
    """Half the side."""
    side = values.shape[1] // 2
    return np.asarray(values.reshape(len(values), side, 2, side, 2).mean((2, 4)))


def _places(side: int) -> np.ndarray:
    return ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)


def _number(hash: imagehash.ImageHash) -> int:
    return int(str(hash), 16)
