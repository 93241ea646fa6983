"""One tower is frozen until the other has adapted to it; then both learn."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from domainclip.errors import RecipeError
from domainclip.strategies.base import Stage, Strategy, max_learning_rates, tower_factors

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder
    from domainclip.models.layers import Modality

_Factor = Annotated[float, Field(ge=0)]
_Rate = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class TwoStage(Strategy):
    """Locked-image tuning for the first share of the steps, then all weights. [arXiv:2211.01335]

    A tower that is far from the corpus sends large gradients, which would damage the other one; so it adapts
    first. While a tower is frozen its side is encoded once, so the first stage costs only the other. Each
    stage has a warm-up and a cosine to zero; weights that learned before keep their moments.
    `image_locked_first` suits new words for known images, `text_locked_first` unknown images in known words;
    with `image_lr_factor: 0.0` the text then adapts to the images alone.
    """

    citation: ClassVar[str] = "arXiv:2211.01335"
    default_learning_rate: ClassVar[float] = 1e-4
    max_learning_rate: ClassVar[float | None] = 1e-3

    first_stage_share: Annotated[float, Field(ge=0, le=1)] = 0.5  # share of the steps
    # Which tower is locked in the first stage.
    order: Literal["image_locked_first", "text_locked_first"] = "image_locked_first"
    stage_lr_factors: tuple[_Rate, _Rate] = (1.0, 0.1)  # factor on the learning rate, of each stage
    image_lr_factor: _Factor = 1.0  # factor of the image tower in the second stage
    text_lr_factor: _Factor = 1.0  # factor of the text tower in the second stage
    last_layers: Annotated[int, Field(ge=1)] | None = None  # that learn in the second stage; null: all
    train_logit_scale: bool = True  # whether scale and bias learn too

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """The factor of what learns in some stage: the larger of two."""
        return max_learning_rates(self.stages(model))

    def stages(self, model: DualEncoder) -> list[Stage]:
        """The two stages; one without steps is left out.

        Raises: RecipeError when nothing learns in one of them.
        """
        shares, patterns_of_stage = (
            (self.first_stage_share, 1 - self.first_stage_share),
            (self._first(), self._second(model)),
        )
        stages = [
            Stage(share, {name: rate * factor for name, factor in model.set_trainable(patterns).items()})
            for share, rate, patterns in zip(shares, self.stage_lr_factors, patterns_of_stage, strict=True)
            if share > 0
        ]
        if not all(any(stage.learning_rates.values()) for stage in stages):
            raise RecipeError("strategy.two_stage: with these options no weight learns in one of its stages")
        learns = max_learning_rates(stages)  # `select` left what learns in the last one
        for name, weight in model.weights().items():
            weight.requires_grad_(learns[name] > 0)
        return stages

    def _first(self) -> list[tuple[str, float]]:
        locked, learns = ("image", "text") if self.order == "image_locked_first" else ("text", "image")
        return [
            (f"{locked}/.*", 0.0),
            (f"{learns}/.*", 1.0),
            ("(scale|bias)/.*", float(self.train_logit_scale)),
        ]

    def _second(self, model: DualEncoder) -> list[tuple[str, float]]:
        learns = tower_factors(self.image_lr_factor, self.text_lr_factor, self.train_logit_scale)
        if self.last_layers is None:
            return learns
        towers: tuple[Modality, ...] = ("image", "text")
        frozen = [name for tower in towers for name in model.weights_below(tower, self.last_layers)]
        return [("|".join(map(re.escape, frozen)), 0.0), *learns]
