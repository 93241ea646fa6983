"""Self-distillation: a small crop of an image is matched with the whole, as its moving average encodes it.

Legend: b pairs, k prototypes, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import ObjectiveInputs, Taught, Views
from domainclip.objectives.losses import sinkhorn
from domainclip.objectives.losses.directions import ObjectiveWithDirections


@dataclass(frozen=True, kw_only=True)
class SelfDistillation(ObjectiveWithDirections):
    """−1/b Σ_i Σ_k q(x̄_i)_k log p(x'_i)_k, p(x') = softmax(x' · c_k / τ), beside a contrastive objective.

    x̄ is the whole image by the moving average of the weights (momentum m), x' a crop of it by the model,
    c_1…c_k learnable directions; q is balanced over the batch (Sinkhorn) with the average of the directions,
    and has no gradient. Local-to-global self-distillation of SILC [arXiv:2310.13355], after DINO
    [arXiv:2104.14294]. Differs from SILC in the crops, one of each image (`crop: local`, 5 to 40 % of its
    area, or `strong`, the view of `two_views`), shown at the model's resolution; in the head, none but the
    directions; and in the balance, by Sinkhorn instead of a running centre, as DINOv2 has it
    [arXiv:2304.07193]. Captions may name what a small crop does not show: it is never compared with the text.
    Costs a second encoding of every image, and one of all pairs without gradient.
    """

    citation: ClassVar[str] = "arXiv:2310.13355"
    needs: ClassVar[frozenset[str]] = frozenset({"image_2", "momentum_image"})
    teaches: ClassVar[frozenset[Taught]] = frozenset({"image"})

    count: Annotated[int, Field(ge=2)] = 256  # k
    crop: Literal["local", "strong"] = "local"  # a small part of the image, or the view of two_views
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99  # m, the share of the average that a step leaves
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.1  # τ
    assignment_temperature: Annotated[float, Field(gt=0, le=10)] = 0.05  # of q
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of the directions

    @property
    def inputs(self) -> ObjectiveInputs:
        """The moving average of the weights, and the kind of crop."""
        return ObjectiveInputs(momentum=self.momentum, second_view=self.crop)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.image_2 is not None  # the run fills what `needs` names
        assert views.momentum_image is not None
        whole = sinkhorn.prototype_scores(views.momentum_image, views.own_averages["directions"])
        shares = sinkhorn.balanced_assignment(whole, self.assignment_temperature)
        rows = views.local_slice
        crop = sinkhorn.prototype_scores(views.image_2[rows], views.own_weights["directions"])
        return sinkhorn.assignment_loss(shares[rows], crop, self.temperature)
