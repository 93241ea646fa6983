"""Hyperbolic: images and texts are points of a hyperbolic space, in which a text entails its images.

Legend: b pairs, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.models import hyperbolic_space
from domainclip.models.hyperbolic_space import HyperbolicSpace
from domainclip.objectives.base import Objective, Sizes, Taught, Views
from domainclip.objectives.losses.score_blocks import mean_cross_entropy

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder


@dataclass(frozen=True, kw_only=True)
class Hyperbolic(Objective):
    """½ [CE(−s D, I) + CE(−s Dᵀ, I)] + λ/b Σ_i [ext(y_i, x_i) − ω(y_i)]₊, D_ij the geodesic distance.

    x_i and y_i are points of the Lorentz model with a learned curvature −c; ext is the angle at the text
    between the way to its image and the way outwards, and ω the half aperture of the text's cone, wide near
    the origin: a general text lies there, and its images further out [arXiv:2304.09172]. The direction of a
    point is the embedding, its distance from the origin exp(a · x + log ρ) with learned a, zero at the start,
    one for images and one for texts. Differs from MERU there, where the distance is the length of the
    embedding before normalisation, and in the logits of the masked texts, as in `contrastive`. The adapted
    model is measured and used with its own distance (model/hyperbolic.safetensors): its embeddings have three
    dimensions more, and their products rank as the distance does; validation during training compares
    cosines. `export` and `merge` refuse such a model, whose distance other programs do not know; the card of
    a push has the code of domainclip alone.
    """

    citation: ClassVar[str] = "arXiv:2304.09172"
    replaces: ClassVar[str] = "contrastive"
    teaches: ClassVar[frozenset[Taught]] = frozenset({"image", "own", "text"})

    entailment: Annotated[float, Field(ge=0)] = 0.2  # λ
    curvature: Annotated[float, Field(gt=0, le=10)] = 1.0  # c at the start
    aperture: Annotated[float, Field(gt=0, le=1)] = 0.1  # K in ω = arcsin(2 K / sinh r)
    radius: Annotated[float, Field(gt=0, le=2)] = 1.0  # ρ, the distance from the origin at the start
    max_radius: Annotated[float, Field(gt=0, le=4)] = 2.0  # of √c times it; far out fp32 is coarse
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of a, ρ and c

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of the radii and the curvature."""
        return self.rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """Of images and texts `directions` (2, d), zero, and `offsets` (2,), log ρ; `curvature` (), log c."""
        return {
            "directions": torch.zeros(2, sizes.width),
            "offsets": torch.full((2,), log(self.radius)),
            "curvature": torch.tensor(log(self.curvature)),
        }

    def add_to_model(
        self, model: DualEncoder, weights: Mapping[str, Tensor], memory: Mapping[str, Tensor]
    ) -> None:
        """Gives the model the space, whose weights are interpolated with those of the model."""
        model.space = HyperbolicSpace(dict(weights), self.max_radius)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process, and λ radians."""
        own, limit = views.own_weights, self.max_radius
        images = hyperbolic_space.radii(own, 0, views.image, limit)
        texts = hyperbolic_space.radii(own, 1, views.text, limit)

        def to_text(at: Tensor) -> Tensor:
            cosines = views.image[at] @ views.text.T
            return -views.scale * self._distances(cosines, images[at], texts, views)

        def to_image(at: Tensor) -> Tensor:
            cosines = views.text[at] @ views.image.T
            return -views.scale * self._distances(cosines, texts[at], images, views)

        right_texts, right_images = views.masks
        contrast = mean_cross_entropy(views, to_text, right_texts, 4)
        contrast = (contrast + mean_cross_entropy(views, to_image, right_images, 4)) / 2
        rows = views.local_slice
        cosines = (views.image[rows] * views.text[rows]).sum(dim=-1)
        outside = hyperbolic_space.outside_cone(cosines, texts[rows], images[rows], self.aperture)
        return contrast + self.entailment * outside.mean()

    def _distances(self, cosines: Tensor, radius: Tensor, others: Tensor, views: Views) -> Tensor:
        return hyperbolic_space.distances(cosines, radius[:, None], others, views.own_weights)
