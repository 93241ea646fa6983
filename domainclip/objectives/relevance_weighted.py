"""Relevance weighting: a pair counts by a number that the corpus gives it.

Legend: b pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, ObjectiveInputs, Views
from domainclip.objectives.losses.blockwise import cross_entropy, weighted_kernel
from domainclip.objectives.losses.symmetric import symmetric_loss


@dataclass(frozen=True, kw_only=True)
class RelevanceWeighted(Objective):
    """1/b Σ_i w_i / w̄ · ½ [CE_i(s/τ) + CE_i(sᵀ/τ)], w_i = max(0, value_i)^power, w̄ their mean in the batch.

    The value is a number of each item, from the key `column` of its meta: a relevance, a rating, how often
    this image was chosen for this text. A pair without a value counts as the mean. The paper too weights the
    cross-entropy of each pair by a function of its score; that the function is a power, and that w̄ divides
    by the mean, so that the unit of the value does not change the step, are choices made here.
    [arXiv:2404.08535]
    """

    citation: ClassVar[str] = "arXiv:2404.08535"
    replaces: ClassVar[str] = "contrastive"
    needs: ClassVar[frozenset[str]] = frozenset({"pair_value"})

    column: str  # a key of the items' meta
    power: Annotated[float, Field(gt=0)] = 1.0  # above 1, the best count more still

    @property
    def inputs(self) -> ObjectiveInputs:
        """The column of the values."""
        return ObjectiveInputs(value_column=self.column)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        return symmetric_loss(views, weighted_kernel(cross_entropy, self._weights(views)), masks=views.masks)

    def _weights(self, views: Views) -> Tensor:
        """(b,) of mean 1 over the batch of all processes; 1 for all where no pair has a value above 0."""
        assert views.pair_value is not None  # the run fills what `needs` names
        value = views.pair_value.to(views.image.dtype)
        grades = value.masked_fill(value.isinf(), torch.nan).clamp_min(0).pow(self.power)
        mean = grades.nanmean()
        return torch.where(grades.isnan() | ~(mean > 0), 1.0, grades / mean)
