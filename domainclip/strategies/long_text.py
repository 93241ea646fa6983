"""Long captions: the text tower reads 248 tokens where it read 77."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from domainclip.errors import RecipeError
from domainclip.strategies.base import InputRequirements, Strategy, tower_factors, towers_without

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder
    from domainclip.models.layers import Modality


@dataclass(frozen=True, kw_only=True)
class LongText(Strategy):
    """n positions become kept + factor (n − kept): the first unchanged, the others stretched.

    Long-CLIP [arXiv:2403.15378]. CLIP was trained on short captions: it knows its first twenty positions
    best, so those stay, frozen, and the others, where little is lost, are interpolated: p*_j = (1 − r/f) p_i
    + r/f p_i+1, with i = ⌊j/f⌋ and r the remainder, counted from behind the kept ones. For captions that the
    base truncates, such as whole reports; where few are truncated it brings nothing. Both towers learn, each
    with a factor on the learning rate; with `image_lr_factor: 0` images are encoded once. Attention costs
    more with longer texts, not with short ones. Goes with `contrastive`, and with `short_captions`, which
    preserves the embeddings of short captions.
    """

    citation: ClassVar[str] = "arXiv:2403.15378"
    default_learning_rate: ClassVar[float] = 1e-5
    max_learning_rate: ClassVar[float | None] = 1e-4

    kept_positions: Annotated[int, Field(ge=1)] = 20  # positions that stay unchanged
    stretch_factor: Annotated[int, Field(ge=2)] = 4  # how many positions replace each of the others
    # Factor on the learning rate of the image tower; 0: frozen.
    image_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    text_lr_factor: Annotated[float, Field(gt=0)] = 1.0  # factor on the learning rate of the text tower
    train_logit_scale: bool = True  # whether scale and bias learn too

    @property
    def frozen_towers(self) -> frozenset[Modality]:
        """The towers whose factor is 0."""
        return towers_without(self.image_lr_factor, self.text_lr_factor)

    def requirements(self, base: DualEncoder) -> InputRequirements:
        """Captions as long as the stretched positions."""
        from domainclip.models import position_embeddings

        stretched = self.stretch_factor * (position_embeddings.count_positions(base) - self.kept_positions)
        return InputRequirements(base.frames, self.kept_positions + stretched)

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """Stretches the positions; the factor on the learning rate by weight name.

        Raises: RecipeError for a base whose positions cannot be stretched.
        """
        from domainclip.models import position_embeddings

        self._check(model)
        first = position_embeddings.stretch(model, self.kept_positions, self.stretch_factor)
        learns = tower_factors(self.image_lr_factor, self.text_lr_factor, self.train_logit_scale)
        return model.set_trainable([(re.escape(first), 0.0), *learns])

    def _check(self, model: DualEncoder) -> None:
        from domainclip.models import position_embeddings

        if model.fixed_length:
            raise RecipeError(
                f"strategy.long_text: family {model.family} pads every text to {model.max_tokens} tokens "
                "and reads it at the last of them: its positions cannot be stretched; take a base of another "
                "family"
            )
        there = position_embeddings.count_positions(model)
        if self.kept_positions > there - 2:  # stretching takes a step between two
            raise RecipeError(
                f"strategy.long_text.kept_positions: {self.kept_positions} of {there} positions leaves "
                "none to stretch"
            )
