"""Learnable directions, with which embeddings are compared in the place of other embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from domainclip.objectives.base import Objective, Sizes
from domainclip.objectives.losses import sinkhorn

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ObjectiveWithDirections(Objective):
    """An objective with k learnable directions c_1…c_k as weights of its own, `directions` (k, d)."""

    count: Annotated[int, Field(ge=2)] = 256  # k
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of the directions

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of the directions."""
        return self.rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """`directions` (k, d) of unit length, drawn from the seed."""
        return {"directions": sinkhorn.initial_prototypes(self.count, sizes.width, seed)}
