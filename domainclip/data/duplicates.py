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
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

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
NEAREST = 16  # candidates of a picture that are laid over it: work grows with n, not with its square
SAME = 0.93  # of the fine structure in common: a copy
DOUBTFUL = 0.85  # a copy if a witness agrees: smooth discs and small noisy cut-outs lie in between
COLOUR = 12  # of 255: mean colours of a copy differ by less
COSINE = 0.8  # embeddings of a copy are at least so near
DETAIL = 1.0  # grey levels of fine structure below which there is nothing to compare
SCORED = np.dtype([("first", "i8"), ("second", "i8"), ("turn", "u1"), ("score", "f4")])
_BLOCK = 4096  # rows of a block of hash distances: 16 million at once
_LIMITS = np.array([0.08, 0.07, 0.08, 0.07], np.float32)  # scale and shift: a cut of 3 % on each side
_STARTS = (0.0, 0.04, -0.04)  # scales to begin from: neither is cut, one is, the other is


@dataclass(frozen=True)
class Pair:
    """Two pictures that are one, by their rows."""

    first: int
    second: int
    turn: str  # how the second lies to the first
    score: float  # correlation of the fine structure, at most 1


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
    spread: np.ndarray = _fine(thumbnails.astype(np.float32)).std((1, 2))
    return spread


def scored(thumbnails: np.ndarray, hashed: np.ndarray) -> np.ndarray:
    """(k,) SCORED: all pairs that may be one picture, in the order of their rows, by their fine structure.

    `thumbnails` (n, s, s) uint8 are grey, `hashed` (n, 8, 2) from `hashes`. A picture without detail is in no
    pair.
    """
    rows = np.flatnonzero(detail(thumbnails) >= DETAIL)
    found: dict[tuple[int, int], tuple[int, float]] = {}
    for first, second, turn in _candidates(hashed[rows]):
        first, second = rows[first], rows[second]
        scores = _scores(thumbnails, first, second, turn)
        for k in np.flatnonzero(scores >= DOUBTFUL):
            pair, known = (int(first[k]), int(second[k])), float(scores[k])
            if pair not in found or found[pair][1] < known:
                found[pair] = int(turn[k]), known
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


def _candidates(hashed: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows i < j and turn of pairs that are near, the nearest of each picture, in blocks of pictures."""
    n = len(hashed)
    for start in range(0, n, _BLOCK):
        block = hashed[start : start + _BLOCK, 0]
        near: list[np.ndarray] = []
        for other in range(start, n, _BLOCK):
            for turn in range(len(TURNS)):
                against = hashed[other : other + _BLOCK, turn]
                distance = np.bitwise_count(block[:, None, 0] ^ against[None, :, 0])
                distance += np.bitwise_count(block[:, None, 1] ^ against[None, :, 1])
                i, j = np.nonzero(distance <= NEAR)
                later = i + start < j + other
                i, j = i[later], j[later]
                near.append(np.stack([i + start, j + other, np.full_like(i, turn), distance[i, j]], 1))
        kept = _nearest(np.concatenate(near))
        yield kept[:, 0], kept[:, 1], kept[:, 2]


def _nearest(found: np.ndarray) -> np.ndarray:
    """The NEAREST candidates (first, second, turn, distance) of each first picture."""
    found = found[np.lexsort((found[:, 2], found[:, 1], found[:, 3], found[:, 0]))]
    place = np.arange(len(found)) - np.searchsorted(found[:, 0], found[:, 0])
    return found[place < NEAREST]


def _scores(thumbnails: np.ndarray, first: np.ndarray, second: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """(k,) correlations of the fine structure of pairs, the second turned and laid over the first."""
    scores = np.zeros(len(first), np.float32)
    for start in range(0, len(first), 512):
        part = slice(start, start + 512)
        a = thumbnails[first[part]].astype(np.float32)
        b = thumbnails[second[part]]
        b = np.concatenate([turned(b[k : k + 1], t) for k, t in enumerate(turn[part])]).astype(np.float32)
        scores[part] = _score(a, b)
    return scores


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
    lower: np.ndarray = np.minimum(_correlation(fine_a, fine_b, inside), _correlation(even_a, even_b, inside))
    return lower


def _correlation(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> np.ndarray:
    a, b = _standard(a, inside), _standard(b, inside)
    found: np.ndarray = (a * b).sum((1, 2)) / inside.sum((1, 2))
    return found


def _standard(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    count = inside.sum((1, 2))[:, None, None]
    values = (values - (values * inside).sum((1, 2))[:, None, None] / count) * inside
    spread = np.sqrt((values**2).sum((1, 2))[:, None, None] / count + 1e-3)
    standard: np.ndarray = values / spread
    return standard


def _fine(values: np.ndarray) -> np.ndarray:
    fine: np.ndarray = values - _smooth(values, 2.0)
    return fine


def _smooth(values: np.ndarray, blur: float) -> np.ndarray:
    smooth: np.ndarray = gaussian_filter(values, (0, blur, blur), mode="nearest", truncate=3.0)
    return smooth


def _pooled(values: np.ndarray) -> np.ndarray:
    """Half the side."""
    side = values.shape[1] // 2
    half: np.ndarray = values.reshape(len(values), side, 2, side, 2).mean((2, 4))
    return half


def _places(side: int) -> np.ndarray:
    return ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)


def _number(hash: imagehash.ImageHash) -> int:
    return int(str(hash), 16)
