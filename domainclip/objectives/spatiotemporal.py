"""Spatiotemporal pairs: two images of one place, patient or object are positives of each other.

Legend: b pairs, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Negatives, Objective, ObjectiveInputs, Taught, Views
from domainclip.objectives.losses.extra_texts import nt_xent


@dataclass(frozen=True, kw_only=True)
class Spatiotemporal(Objective):
    """NT-Xent: 1/b Σ_i ½ [CE(x_i → x'_i) + CE(x'_i → x_i)] among images x and x' of all pairs of the batch.

    x' is another image of the group of x (`columns.group` of the card: place, patient, object), drawn in each
    epoch and augmented: temporal positives of geography-aware learning [arXiv:2011.09980], where the pair is
    two acquisitions of one place in different years. An item alone in its group is paired with an augmented
    view of itself. Differs from the source: its second term, the prediction of the place itself, is left out,
    the space is that of the model, without a head, and any two acquisitions may be paired, whatever lies
    between them. Harmful where a change between two acquisitions is what the captions describe. Images of
    one group are never each other's negatives. Cost: every image is encoded twice.
    """

    citation: ClassVar[str] = "arXiv:2011.09980"
    negatives: ClassVar[Negatives] = "other_groups"
    needs: ClassVar[frozenset[str]] = frozenset({"image_2"})
    teaches: ClassVar[frozenset[Taught]] = frozenset({"image"})

    # The cosines are divided by it; lower: the nearest images count more.
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.1

    @property
    def inputs(self) -> ObjectiveInputs:
        """The second view: another image of the group."""
        return ObjectiveInputs(second_view="same_group")

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.image_2 is not None  # the run fills what `needs` names
        every_pair = torch.ones(len(views.image), dtype=torch.bool, device=views.image.device)
        return nt_xent(views, views.image, views.image_2, every_pair, self.temperature).mean()
