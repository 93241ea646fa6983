"""Graded relevance: a pair counts as much as someone said that it fits.

Legend: b pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, ObjectiveInputs, Views
from domainclip.objectives.losses.blockwise import softmax, weighted_mean
from domainclip.objectives.losses.symmetric import both_ways


@dataclass(frozen=True, kw_only=True)
class RelevanceWeighted(Objective):
    """1/b Σ_i w_i / w̄ · ½ [CE_i(s/τ) + CE_i(sᵀ/τ)], w_i = max(0, value_i)^power, w̄ their mean in the batch.

    The value is a number of each item, from the key `column` of its meta: a relevance, a rating, how often
    someone chose this picture for these words. One without a value counts as the mean. The paper too weighs
    each pair's cross-entropy by a function of its score; that the function is a power, and that w̄ divides by
    the mean, so that a value's unit does not change the step, are choices made here. [arXiv:2404.08535]
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
        return both_ways(views, weighted_mean(softmax, self._weights(views)), group=views.group)

    def _weights(self, views: Views) -> Tensor:
        """(b,) of mean 1 over the batch of all processes; 1 for all where no pair has a value above 0."""
        assert views.pair_value is not None  # the loop fills what `needs` names
        value = views.pair_value.to(views.image.dtype)
        grades = value.masked_fill(value.isinf(), torch.nan).clamp_min(0).pow(self.power)
        mean = grades.nanmean()
        return torch.where(grades.isnan() | ~(mean > 0), 1.0, grades / mean)
