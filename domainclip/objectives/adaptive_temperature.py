"""Adaptive temperature: the closer the pairs are already, the less the hardest negatives are pushed away.

Legend: b pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses.blockwise import cross_entropy
from domainclip.objectives.losses.symmetric import symmetric_loss


@dataclass(frozen=True, kw_only=True)
class AdaptiveTemperature(Objective):
    """`contrastive` at the temperature τ (1 + α (A − A₀)), with A = 1/b Σ_i x_i · y_i held constant.

    While pairs are far apart, a low temperature separates negatives; later a higher one tolerates those that
    mean the same. A₀ is the mean cosine of pairs at which τ is unchanged: near 0.3 for CLIP. Differs from the
    paper in τ: there fixed, here that of the model, which may learn; and in the weights: there the loss of
    each row counts 1 / (1 − P_i), held constant, where P_i is the share of its target, so that small batches
    do not starve it. This is left out, because rows that are right already would pull as hard as the others.
    [arXiv:2207.07874]
    """

    citation: ClassVar[str] = "arXiv:2207.07874"
    replaces: ClassVar[str] = "contrastive"

    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.5  # 0: the plain temperature
    agreement: Annotated[float, Field(ge=-1, le=1)] = 0.3  # A₀, a cosine

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        cosine = (views.image * views.text).sum(-1).mean().detach()
        # Below zero with an α near 1 and pairs that turn away from each other: then the bound holds.
        factor = (1 + self.alpha * (cosine - self.agreement)).clamp_min(0.1)
        return symmetric_loss(replace(views, scale=views.scale / factor), cross_entropy, masks=views.masks)
