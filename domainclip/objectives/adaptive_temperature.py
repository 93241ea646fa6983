"""Adaptive temperature: the better pairs agree already, the less the hardest negatives are pushed.

Legend: b pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses.blockwise import softmax
from domainclip.objectives.losses.symmetric import both_ways


@dataclass(frozen=True, kw_only=True)
class AdaptiveTemperature(Objective):
    """`contrastive` at the temperature τ (1 + α (A − A₀)), with A = 1/b Σ_i x_i · y_i held constant.

    While pairs agree little, a low temperature tells negatives apart; later a higher one tolerates those that
    mean the same. A₀ is the agreement at which τ is as it is: near 0.3 for CLIP. Differs from the paper in τ:
    there fixed, here the model's own, which may learn; and in the weights: there each row's loss counts
    1 / (1 − P_i), held constant, P_i the share of its own column, so that small batches do not starve it.
    This is left out: rows that are right already would pull as hard as the others. [arXiv:2207.07874]
    """

    citation: ClassVar[str] = "arXiv:2207.07874"
    replaces: ClassVar[str] = "contrastive"

    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.5  # 0: the plain temperature
    agreement: Annotated[float, Field(ge=-1, le=1)] = 0.3  # A₀, a cosine

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        now = (views.image * views.text).sum(-1).mean().detach()
        # Below zero with an α near 1 and pairs that turn away from each other: then the bound holds.
        factor = (1 + self.alpha * (now - self.agreement)).clamp_min(0.1)
        return both_ways(replace(views, scale=views.scale / factor), softmax, group=views.group)
