"""Alignment of two thumbnails by Gauss-Newton steps, and the correlation of their fine structure.

The transform is a scale and a shift along each axis [Lucas and Kanade, IJCAI 1981].

Legend: n images, k pairs, s the side of a thumbnail. A transform (k, 4) is scale and shift along x,
then y, in half sides.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

_MAX_TRANSFORM = np.array([0.08, 0.07, 0.08, 0.07], np.float32)  # allows a cut of 3 % on each side
_START_SCALES = (0.0, 0.04, -0.04)  # neither thumbnail is cut, the second is, the first is


def detail_level(thumbnails: np.ndarray) -> np.ndarray:
    """(n,) standard deviation of the fine structure, in grey levels."""
    return np.asarray(_fine_structure(thumbnails.astype(np.float32)).std((1, 2)))


def align_and_score(first: np.ndarray, second: np.ndarray, min_score: float) -> np.ndarray:
    """(k,) correlations, at most 1, of the fine structure of (k, s, s) float32 pairs after alignment.

    The best start is chosen at half size, where steps are cheap. Pairs that reach half of `min_score`
    there are aligned at full size; the others keep the score of the half size.
    """
    half_first, half_second = _halve(first), _halve(second)
    transform, score = np.zeros((len(first), 4), np.float32), np.full(len(first), -1, np.float32)
    for scale in _START_SCALES:
        start = np.tile(np.array([scale, 0, scale, 0], np.float32), (len(first), 1))
        coarse = _align(half_first, half_second, start, 1.5, 4)
        aligned = _align(half_first, half_second, coarse, 0.7, 4)
        aligned_score = _structure_similarity(half_first, half_second, aligned, blur=0.5)
        transform[aligned_score > score] = aligned[aligned_score > score]
        score = np.maximum(score, aligned_score)
    promising = np.flatnonzero(score >= min_score / 2)
    if len(promising):
        first, second = first[promising], second[promising]
        aligned = _align(first, second, transform[promising], 1.0, 2)
        score[promising] = _structure_similarity(first, second, aligned, blur=1.0)
    return np.minimum(score, 1)


def _align(
    first: np.ndarray, second: np.ndarray, transform: np.ndarray, blur: float, steps: int
) -> np.ndarray:
    """(k, 4) the transform that lays the second thumbnails over the first, from `transform` on."""
    first, second = _blur(first, blur), _blur(second, blur)
    for _ in range(steps):
        step = _gauss_newton_step(first, second, transform)
        transform = np.clip(transform + step, -_MAX_TRANSFORM, _MAX_TRANSFORM)
    return transform


def _gauss_newton_step(first: np.ndarray, second: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """(k, 4) one Gauss-Newton step, with both thumbnails standardised to mean 0 and spread 1."""
    side = first.shape[1]
    x = _pixel_centres(side)
    warped, inside = _warp(second, transform)
    a, b = _standardise(first, inside), _standardise(warped, inside)
    gy, gx = (gradient * inside * (side / 2) for gradient in np.gradient(b, axis=(1, 2)))
    slopes = np.stack([gx * x, gx, gy * x[:, None], gy], -1).reshape(len(a), -1, 4)
    normal = slopes.swapaxes(1, 2) @ slopes
    # Damped: along an edge, or where the image is flat, the step is undetermined.
    damping = 1e-2 * np.einsum("kii->ki", normal) + 1e-3
    normal += damping[:, :, None] * np.eye(4, dtype=np.float32)
    step = np.linalg.solve(normal, slopes.swapaxes(1, 2) @ (a - b).reshape(len(a), -1, 1))[..., 0]
    return np.clip(step, -0.04, 0.04)


def _warp(thumbnails: np.ndarray, transform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The transformed thumbnails, and (k, s, s) float32: 1 where a pixel of the original exists."""
    side = thumbnails.shape[1]
    across, inside_x = _interpolation_weights(side, transform[:, 0], transform[:, 1])
    down, inside_y = _interpolation_weights(side, transform[:, 2], transform[:, 3])
    inside = (inside_y[:, :, None] & inside_x[:, None]).astype(np.float32)
    return down @ thumbnails @ across.swapaxes(1, 2), inside


def _interpolation_weights(side: int, scale: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(k, s, s) weights of linear interpolation along one axis, and (k, s) whether a position is inside."""
    position = ((_pixel_centres(side) * (1 + scale[:, None]) + shift[:, None] + 1) * side - 1) / 2
    inside = (position >= -0.25) & (position <= side - 0.75)
    position = np.clip(position, 0, side - 1.001)
    left = position.astype(int)
    weights = np.zeros((len(scale), side, side), np.float32)
    np.put_along_axis(weights, left[:, :, None], 1 - (position - left)[:, :, None], 2)
    np.put_along_axis(weights, left[:, :, None] + 1, (position - left)[:, :, None], 2)
    return weights, inside


def _structure_similarity(
    first: np.ndarray, second: np.ndarray, transform: np.ndarray, blur: float
) -> np.ndarray:
    """(k,) the lower of two correlations of fine structure: unweighted, and with equal contrast everywhere.

    One bright star decides the first, a region of noise the second; for a copy both are high.
    """
    warped, inside = _warp(_blur(second, blur), transform)
    fine_first, fine_second = _fine_structure(_blur(first, blur)), _fine_structure(warped)
    even_first, even_second = (
        fine / (np.sqrt(_blur(fine**2, 2.0)) + 4) for fine in (fine_first, fine_second)
    )
    unweighted = _correlation(fine_first, fine_second, inside)
    return np.asarray(np.minimum(unweighted, _correlation(even_first, even_second, inside)))


def _correlation(first: np.ndarray, second: np.ndarray, inside: np.ndarray) -> np.ndarray:
    first, second = _standardise(first, inside), _standardise(second, inside)
    return np.asarray((first * second).sum((1, 2)) / inside.sum((1, 2)))


def _standardise(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    count = inside.sum((1, 2))[:, None, None]
    values = (values - (values * inside).sum((1, 2))[:, None, None] / count) * inside
    spread = np.sqrt((values**2).sum((1, 2))[:, None, None] / count + 1e-3)
    return np.asarray(values / spread)


def _fine_structure(values: np.ndarray) -> np.ndarray:
    return np.asarray(values - _blur(values, 2.0))


def _blur(values: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(gaussian_filter(values, (0, sigma, sigma), mode="nearest", truncate=3.0))


def _halve(values: np.ndarray) -> np.ndarray:
    """(k, s/2, s/2) means of 2 x 2 pixels."""
    side = values.shape[1] // 2
    return np.asarray(values.reshape(len(values), side, 2, side, 2).mean((2, 4)))


def _pixel_centres(side: int) -> np.ndarray:
    """(s,) from -1 to 1."""
    return ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)
