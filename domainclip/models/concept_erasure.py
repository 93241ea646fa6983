"""A linear map of embeddings after which no linear classifier finds a concept: LEACE [arXiv:2306.03819].

Legend: n items, d width, k values of the concept.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from domainclip.errors import ModelError
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.plain_weights import make_plain

_SMALLEST = 1e-6  # singular value of a direction, against the largest: less is rounding


def erasure(
    rows: np.ndarray, concept: np.ndarray, strata: np.ndarray, shrinkage: float
) -> tuple[np.ndarray, int]:
    """(d, d) the map P = I − W⁻¹ U Uᵀ W, and the number of directions that it removes.

    `rows` (n, d) are embeddings, `concept` (n,) the value of each, and all moments are within `strata` (n,),
    about the mean of a stratum: Σ_xz of the rows with the values as 0/1 columns (n, k), Σ_xx of the rows.
    W = ((1 − s) Σ_xx + s tr(Σ_xx) / d I)^(−1/2) with s the `shrinkage`, and U has the left singular vectors
    of W Σ_xz. So P Σ_xz = 0, whatever s is: within a stratum no mean depends on the concept, which no linear
    classifier can then find. s = 0 is LEACE without its constant, the smallest change of the rows; s = 1
    projects orthogonally, which depends less on few items. One value alone removes nothing.
    """
    d = rows.shape[1]
    values = np.eye(concept.max() + 1)[concept]
    rows, values = _within(rows.astype(np.float64), strata), _within(values, strata)
    covariance = rows.T @ rows / len(rows)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / d * np.eye(d)
    scales, axes = np.linalg.eigh(shrunk)
    scales = np.sqrt(np.clip(scales, 1e-12 * max(scales.max(), 1e-300), None))
    whitener, inverse = (axes / scales) @ axes.T, (axes * scales) @ axes.T
    directions, sizes, _ = np.linalg.svd(whitener @ (rows.T @ values / len(rows)), full_matrices=False)
    directions = directions[:, sizes > max(_SMALLEST * sizes.max(initial=0), 1e-9)]
    return np.eye(d) - inverse @ directions @ directions.T @ whitener, directions.shape[1]


def image_projection(model: DualEncoder) -> nn.Linear | None:
    """The linear layer that ends the image tower; None for a family without one, or for several images."""
    layer = dict(model.hf_base.named_children()).get("visual_projection")
    return layer if isinstance(layer, nn.Linear) and model.frames == 1 else None


@torch.no_grad()
def map_image_embeddings(model: DualEncoder, matrix: np.ndarray) -> None:
    """Apply (d, d) to the embeddings of images before they are scaled to unit length, in the weights.

    An adapter is merged into the weights: it could not hold the changed layer. Then every use of the saved
    model has the map, and needs no further file.

    Raises: ModelError for a model without `image_projection`, or whose adapter cannot be merged.
    """
    make_plain(model, "source_removal")
    layer = image_projection(model)
    if layer is None:
        raise ModelError(f"source_removal: family {model.family} has no linear layer behind its image tower")
    factor = torch.from_numpy(matrix).to(layer.weight)
    for weight in filter(lambda parameter: parameter is not None, (layer.weight, layer.bias)):
        weight.copy_(factor @ weight)


def _within(rows: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """The rows less the mean of their stratum."""
    numbers = np.unique(strata, return_inverse=True)[1]
    sums = np.zeros((numbers.max() + 1, rows.shape[1]))
    np.add.at(sums, numbers, rows)
    return rows - (sums / np.bincount(numbers)[:, None])[numbers]
