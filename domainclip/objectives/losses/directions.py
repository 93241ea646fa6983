"""Learnable directions, with which embeddings are compared in the place of other embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domainclip.objectives.base import Objective, Sizes
from domainclip.objectives.losses import sinkhorn

if TYPE_CHECKING:
    from torch import Tensor


class ObjectiveWithDirections(Objective):
    """An objective with k learnable directions c_1…c_k as weights of its own, `directions` (k, d)."""

    # Options, which each objective has in its own file, where a recipe is checked against them.
    count: int  # k
    rate: float  # factor on the learning rate of the directions

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of the directions."""
        return self.rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """`directions` (k, d) of unit length, drawn from the seed."""
        return {"directions": sinkhorn.initial_prototypes(self.count, sizes.width, seed)}
