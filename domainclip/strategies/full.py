"""Every weight learns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from domainclip.strategies.base import Strategy, tower_factors

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder

_SIDES: tuple[Literal["image", "text"], ...] = ("image", "text")


@dataclass(frozen=True, kw_only=True)
class Full(Strategy):
    """Both towers learn, each with its own factor on the learning rate. [arXiv:2103.00020]

    Strongest where there is much data; forgets most where there is little. With `last_layers` only the top
    of each tower learns, its projection included: what stands below is run once and not in every epoch.
    `layer_decay` q lets the last layer and what stands above it learn at the full rate, and the layer j
    below the last at q^j of it, what is common to all pictures slowest [arXiv:2106.08254]; 0.65 to 0.9 are
    usual.
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    default_learning_rate: ClassVar[float] = 1e-5
    max_learning_rate: ClassVar[float | None] = 1e-4  # above this a pre-trained tower is usually destroyed

    image_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    text_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    last_layers: Annotated[int, Field(ge=1)] | None = None  # null: all of them
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    train_logit_scale: bool = True  # whether scale and bias learn too

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """The factor on the learning rate by weight name."""
        locked = []
        if self.last_layers is not None:
            below = [name for side in _SIDES for name in model.weights_below(side, self.last_layers)]
            locked = [(_any_of(below), 0.0)]
        slower = [step for side in _SIDES for step in self._decayed(model, side)]
        learns = tower_factors(self.image_lr_factor, self.text_lr_factor, self.train_logit_scale)
        return model.set_trainable([*locked, *slower, *learns])

    def _decayed(self, model: DualEncoder, side: Literal["image", "text"]) -> list[tuple[str, float]]:
        """Patterns for what stands below the last layer, from the bottom up: the first match decides."""
        full = self.image_lr_factor if side == "image" else self.text_lr_factor
        lowest = model.depth(side) if self.last_layers is None else self.last_layers - 1  # that learns
        places = range(lowest, 0, -1) if self.layer_decay < 1 else ()
        return [(_any_of(model.weights_below(side, j)), full * self.layer_decay**j) for j in places]


def _any_of(names: list[str]) -> str:
    return "|".join(map(re.escape, names))
