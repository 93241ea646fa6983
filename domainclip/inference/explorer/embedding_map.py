"""The map of the embeddings: two coordinates for each item, by PCA or UMAP.

Legend: n items, d embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
from scipy.linalg import orthogonal_procrustes

from domainclip.errors import RecipeError

Method = Literal["pca", "umap"]
_FEW = 15  # items, below which UMAP has no neighbourhoods


@dataclass(frozen=True)
class EmbeddingMap:
    """The map of one model."""

    points: np.ndarray  # (n, 2) from 0 to 1, equal scales in both directions
    variance: float | None  # the share of the variance that two components of a PCA hold


def check_method(method: Method) -> None:
    """Refuse a map whose library is not installed.

    Raises: RecipeError with the remedy.
    """
    if method == "umap" and find_spec("umap") is None:
        raise RecipeError('--map umap: needs umap-learn: pip install "domainclip[umap]", or use --map pca')


def embedding_maps(vectors: Sequence[np.ndarray], method: Method = "pca") -> list[EmbeddingMap]:
    """The map of each model, from embeddings (n, d) of the same items.

    Each model has its own projection. Maps have no orientation: each is turned or mirrored so that the items
    lie as near as possible to their places on the first map.
    """
    projected = [_projected(one.astype(np.float64), method) for one in vectors]
    first = _centred(projected[0][0])
    turned = [first]
    for points, _ in projected[1:]:
        centred = _centred(points)
        rotation, _ = orthogonal_procrustes(centred, first)
        turned.append(centred @ rotation)
    return [
        EmbeddingMap(_in_unit_square(points), variance)
        for points, (_, variance) in zip(turned, projected, strict=True)
    ]


def _projected(vectors: np.ndarray, method: Method) -> tuple[np.ndarray, float | None]:
    n = len(vectors)
    if n < 3 or not np.ptp(vectors, axis=0).any():
        return np.zeros((n, 2)), None
    if method == "umap" and n >= _FEW:
        import umap

        return np.asarray(umap.UMAP(random_state=0, metric="cosine", n_jobs=1).fit_transform(vectors)), None
    from sklearn.decomposition import PCA

    model = PCA(n_components=2, svd_solver="full")
    points = model.fit_transform(vectors)
    return points, float(model.explained_variance_ratio_.sum())


def _centred(points: np.ndarray) -> np.ndarray:
    centred: np.ndarray = points - points.mean(axis=0)
    return centred


def _in_unit_square(points: np.ndarray) -> np.ndarray:
    """The points, scaled equally in both directions and in the middle of the square."""
    low, high = points.min(axis=0), points.max(axis=0)
    scaled: np.ndarray = (points - (low + high) / 2) / max(float((high - low).max()), 1e-12) + 0.5
    return scaled
