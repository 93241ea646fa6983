"""All weights learn, or the last layers of each tower."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from domainclip.strategies.base import Strategy, tower_factors, towers_without

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder
    from domainclip.models.layers import Modality

_TOWERS: tuple[Literal["image", "text"], ...] = ("image", "text")


@dataclass(frozen=True, kw_only=True)
class Full(Strategy):
    """Both towers learn, each with a factor on the learning rate. [arXiv:2103.00020]

    Strongest where there is much data; forgets most where there is little. With `last_layers` only the top of
    each tower learns, its projection included: the frozen layers below run once and not in every epoch.
    `layer_decay` q: the last layer and all above it learn at the full rate, and the layer j below the last at
    q^j of it, the layers that all images share slowest [arXiv:2106.08254]; 0.65 to 0.9 are usual.
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    default_learning_rate: ClassVar[float] = 1e-5
    max_learning_rate: ClassVar[float | None] = 1e-4  # above this a pre-trained tower is usually destroyed

    # Factor on the learning rate of the image tower; 0: frozen.
    image_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    # Factor on the learning rate of the text tower; 0: frozen.
    text_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    last_layers: Annotated[int, Field(ge=1)] | None = None  # null: all of them
    # Factor on the learning rate from each layer to the one below; 1: all learn alike.
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    train_logit_scale: bool = True  # whether scale and bias learn too

    @property
    def frozen_towers(self) -> frozenset[Modality]:
        """The towers whose factor is 0."""
        return towers_without(self.image_lr_factor, self.text_lr_factor)

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """The factor on the learning rate by weight name."""
        frozen_patterns = []
        if self.last_layers is not None:
            frozen = [name for tower in _TOWERS for name in model.weights_below(tower, self.last_layers)]
            frozen_patterns = [(_exactly(frozen), 0.0)]
        decayed = [step for tower in _TOWERS for step in self._decayed(model, tower)]
        by_tower = tower_factors(self.image_lr_factor, self.text_lr_factor, self.train_logit_scale)
        return model.set_trainable([*frozen_patterns, *decayed, *by_tower])

    def _decayed(self, model: DualEncoder, tower: Literal["image", "text"]) -> list[tuple[str, float]]:
        """Patterns for what stands below the last layer, from the bottom up: the first match decides."""
        factor = self.image_lr_factor if tower == "image" else self.text_lr_factor
        deepest = model.depth(tower) if self.last_layers is None else self.last_layers - 1  # that learns
        depths = range(deepest, 0, -1) if self.layer_decay < 1 else ()
        return [(_exactly(model.weights_below(tower, j)), factor * self.layer_decay**j) for j in depths]


def _exactly(names: list[str]) -> str:
    return "|".join(map(re.escape, names))
