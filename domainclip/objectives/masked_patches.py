"""Masked patches: what is hidden of an image is predicted from the rest, as its moving average encodes it.

Legend: b pairs, n patches, k prototypes, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import ObjectiveInputs, Taught, Views
from domainclip.objectives.losses import sinkhorn
from domainclip.objectives.losses.directions import ObjectiveWithDirections


@dataclass(frozen=True, kw_only=True)
class MaskedPatches(ObjectiveWithDirections):
    """−1/M Σ_i Σ_{t masked} Σ_k q(v̄_it)_k log p(v'_it)_k, p(v') = softmax(v' · c_k / τ), M masked patches.

    Half of the patches of an image have its mean colour; v'_it is the vector of patch t in that image, v̄_it
    in the whole one, by the moving average of the weights (momentum m), without gradient; c_1…c_k are
    learnable directions, q the softmax with their average, sharpened (iBOT [arXiv:2111.07832], which TIPS
    adds to contrastive and self-distilled global vectors [arXiv:2410.16512]). Differs in the mask, which
    covers pixels and learns no token, so that it suits every base with a plain image tower; in the patches,
    which are projected into the space of images and texts, without a head; and in the missing centring of
    the teacher. The same pairs are encoded once more, and once without gradient.
    """

    citation: ClassVar[str] = "arXiv:2410.16512"
    needs: ClassVar[frozenset[str]] = frozenset({"masked_tokens", "momentum_tokens"})
    teaches: ClassVar[frozenset[Taught]] = frozenset({"image"})

    count: Annotated[int, Field(ge=2)] = 256  # k
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99  # m, the share of the average that a step leaves
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.1  # τ
    teacher_temperature: Annotated[float, Field(gt=0, le=10)] = 0.05  # of q
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of the directions

    @property
    def inputs(self) -> ObjectiveInputs:
        """The moving average of the weights."""
        return ObjectiveInputs(momentum=self.momentum)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per masked patch; each image counts alike, since all have as many masked."""
        assert views.masked_tokens is not None  # the run fills what `needs` names
        assert views.momentum_tokens is not None
        assert views.patch_mask is not None
        mask = views.patch_mask[views.local_slice]
        student, teacher = (
            tokens[views.local_slice][mask] for tokens in (views.masked_tokens, views.momentum_tokens)
        )
        known = sinkhorn.prototype_scores(teacher, views.own_averages["directions"])
        scores = sinkhorn.prototype_scores(student, views.own_weights["directions"])
        return sinkhorn.assignment_loss(
            (known / self.teacher_temperature).softmax(dim=-1), scores, self.temperature
        )
