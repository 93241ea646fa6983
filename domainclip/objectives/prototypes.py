"""Prototypes: the cluster of an image is predicted from its text, and the reverse.

Legend: b pairs, k prototypes, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Views
from domainclip.objectives.losses import sinkhorn
from domainclip.objectives.losses.directions import ObjectiveWithDirections


@dataclass(frozen=True, kw_only=True)
class Prototypes(ObjectiveWithDirections):
    """−½ · 1/b Σ_i Σ_k [q(y_i)_k log p(x_i)_k + q(x_i)_k log p(y_i)_k], p(x) = softmax(x · c_k / τ).

    Swapped assignment: c_1…c_k are learnable directions; q is the share of each in a row, balanced over the
    batch so that all are used equally (Sinkhorn, without gradient). [arXiv:2006.09882] Between an image and
    its text it contrasts clusters rather than single pairs, as ProtoCLIP does [arXiv:2206.10996]. Differs
    from it in the clustering: there k-means on the whole corpus between episodes, here online in each batch,
    and there prototypes are translated between modalities, here both share them. `between: views` compares
    the image with a strongly augmented view instead, as SwAV does (with two strong views, and a head), and
    encodes every image twice. Pairs of one group may have different clusters. A batch much smaller than
    `count` makes the assignment close to arbitrary.
    """

    citation: ClassVar[str] = "arXiv:2006.09882"

    count: Annotated[int, Field(ge=2)] = 64  # k
    # An image and its text, or an image and a strongly augmented view.
    between: Literal["modalities", "views"] = "modalities"
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.1  # τ
    assignment_temperature: Annotated[float, Field(gt=0, le=10)] = 0.05  # of q; near 0: one cluster
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of the directions

    @property
    def needs(self) -> frozenset[str]:
        """The second view, where views are compared."""
        return frozenset({"image_2"} if self.between == "views" else ())

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        other = views.image_2 if self.between == "views" else views.text
        assert other is not None  # the run fills what `needs` names
        rows, directions = views.local_slice, views.own_weights["directions"]
        scores = [sinkhorn.prototype_scores(side, directions) for side in (views.image, other)]
        shares = [sinkhorn.balanced_assignment(one, self.assignment_temperature) for one in scores]
        swapped = zip(reversed(shares), scores, strict=True)
        losses = [sinkhorn.assignment_loss(q[rows], s[rows], self.temperature) for q, s in swapped]
        return (losses[0] + losses[1]) / 2
