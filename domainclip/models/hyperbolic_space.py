"""Embeddings as points of a hyperbolic space: a unit direction, and a learned distance from its origin.

In the Lorentz model of curvature −c a point at the distance r/√c from the origin, in the direction u, is
(cosh r, sinh r · u)/√c. Two points are arccosh(A)/√c apart, A = cosh r cosh r' − sinh r sinh r' u · u'.
Legend: b rows, m columns, d width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import cosh, sqrt
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from domainclip.models.layers import MODALITIES, Modality
from domainclip.models.parameters import hash_tensors

_SMALLEST = 1 + 1e-6  # of A: at 1, equal points, the distance has no derivative
_MAX_RADIUS = "max_radius"
Weights = Mapping[
    str, Tensor
]  # `directions` (2, d), `offsets` (2,) of images and texts; `curvature` (), a log


@dataclass(frozen=True)
class HyperbolicSpace:
    """The space that the objective `hyperbolic` has learned around the embeddings of a model."""

    weights: Weights
    max_radius: float  # R, the largest r

    def embed(self, rows: Tensor, modality: Modality) -> Tensor:
        """(b, d + 3) of unit length for (b, d): products of an image and a text are −A / cosh(2 R).

        So a larger product is a smaller distance: whatever ranks by products ranks by the space's distance.
        """
        at = MODALITIES.index(modality)
        radius = radii(self.weights, at, rows, self.max_radius)[:, None]
        square = cosh(2 * self.max_radius)
        rest = (square - torch.cosh(2 * radius)).clamp_min(0).sqrt()
        none, time = torch.zeros_like(rest), torch.cosh(radius) * (-1 if modality == "image" else 1)
        padding = (rest, none) if modality == "image" else (none, rest)
        return torch.cat([torch.sinh(radius) * rows, time, *padding], dim=-1) / sqrt(square)

    def fingerprint(self) -> str:
        """A hash of the weights: equal spaces give equal embeddings."""
        digest = hashlib.sha256(str(self.max_radius).encode())
        hash_tensors(digest, self.weights)
        return digest.hexdigest()

    def save(self, file: Path) -> None:
        """Write the weights and R into one file."""
        tensors = {name: weight.detach().cpu().contiguous() for name, weight in self.weights.items()}
        save_file(tensors, file, {_MAX_RADIUS: json.dumps(self.max_radius)})

    @classmethod
    def load(cls, file: Path) -> HyperbolicSpace:
        """The space that `save` wrote.

        Raises: an exception of safetensors or json, or KeyError, for any other file.
        """
        with safe_open(file, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
            return cls(tensors, float(json.loads(stored.metadata()[_MAX_RADIUS])))


def radii(weights: Weights, side: int, rows: Tensor, max_radius: float) -> Tensor:
    """(b,) r = √c exp(a · u + log ρ) of rows u (b, d) of images (`side` 0) or texts (1), at most R."""
    direction = weights["directions"][side, : rows.shape[-1]].to(rows)
    offset = weights["offsets"][side].to(rows) + weights["curvature"].to(rows) / 2
    return (rows @ direction + offset).exp().clamp_max(max_radius)


def inner(cosines: Tensor, radius: Tensor, other: Tensor) -> Tensor:
    """(b, m) A of rows and columns with these cosines (b, m), radii (b, 1) and (m,)."""
    value: Tensor = torch.cosh(radius) * torch.cosh(other) - torch.sinh(radius) * torch.sinh(other) * cosines
    return value.clamp_min(_SMALLEST)


def distances(cosines: Tensor, radius: Tensor, other: Tensor, weights: Weights) -> Tensor:
    """(b, m) geodesic distances of rows and columns, as in `inner`."""
    result: Tensor = (
        torch.acosh(inner(cosines, radius, other)) * (-weights["curvature"].to(cosines) / 2).exp()
    )
    return result


def outside_cone(cosines: Tensor, apex: Tensor, radius: Tensor, aperture: float) -> Tensor:
    """(b,) radians by which points at `radius` (b,) lie outside of the cones of apexes at `apex` (b,).

    [ext − ω]₊ with ω = arcsin(2 K / sinh r_apex), K = `aperture`, and ext the angle at the apex between the
    way to the point and the way outwards: cos ext = (cosh r − A cosh r_apex) / (sinh r_apex √(A² − 1)).
    """
    a = inner(cosines, apex, radius)
    cosine = (torch.cosh(radius) - a * torch.cosh(apex)) / (torch.sinh(apex) * (a.square() - 1).sqrt())
    width = torch.asin((2 * aperture / torch.sinh(apex)).clamp_max(1 - 1e-6))
    result: Tensor = (torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6)) - width).clamp_min(0)
    return result
