"""A larger model from a smaller one, for data that keeps coming: at first it is the base."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from domainclip.errors import RecipeError
from domainclip.strategies.base import Strategy

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder


@dataclass(frozen=True, kw_only=True)
class Grow(Strategy):
    """Deeper towers, or wider MLPs, whose new weights inherit old ones with momentum. [arXiv:2308.11331]

    GrowCLIP. Deeper: behind each of the last k layers of a tower stands a copy of it. Wider: the MLP of each
    layer has `mlp_factor` times its neurons. A new weight is ρ θ + (1 − ρ) ε with θ the weight it inherits,
    ρ the `momentum` and ε a random draw with the mean and the standard deviation of θ: without the second
    term a copy would learn what its original does. Outputs of new layers and neurons begin at zero, so that
    the grown model has the embeddings of the base before its first step, as in Net2Net [arXiv:1511.05641].
    All weights learn, or the new ones alone (of a wider MLP, the whole of it), which leaves the old layers as
    they are [arXiv:2401.02415]. The result is a plain model of transformers with a larger config; a run may
    have such a run as its base, and grow it again.

    Differs: the paper searches at each growth for the dimension that gains most, grows an encoder that both
    towers share, and does not begin with the embeddings of the base; here the recipe names what grows. For
    CLIP, MetaCLIP 2 and SigLIP; other families are refused.
    """

    citation: ClassVar[str] = "arXiv:2308.11331"
    default_learning_rate: ClassVar[float] = 1e-5
    max_learning_rate: ClassVar[float | None] = 1e-3

    image_layers: Annotated[int, Field(ge=0)] = (
        2  # of the image tower that are doubled, from the last one down
    )
    text_layers: Annotated[int, Field(ge=0)] = 0  # of the text tower
    mlp_factor: Annotated[int, Field(ge=1, le=8)] = 1  # neurons of an MLP for each that it had; 1: as many
    towers: Literal["both", "image", "text"] = "both"  # whose MLPs become wider
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.9  # ρ, the share of the inherited weight in a new one
    trained: Literal["all", "new"] = "all"  # which weights learn
    train_logit_scale: bool = True  # whether scale and bias learn too

    def __post_init__(self) -> None:
        if not self.image_layers and not self.text_layers and self.mlp_factor == 1:
            raise RecipeError(
                "strategy.grow: with image_layers: 0, text_layers: 0 and mlp_factor: 1 nothing "
                "grows: raise one"
            )

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """Grows the model; the factor on the learning rate by weight name.

        Raises: RecipeError for more layers than a tower has; ModelError for a family that cannot grow.
        """
        from domainclip.models import growth

        new = []
        if self.mlp_factor > 1:
            sides: tuple[Literal["image", "text"], ...] = ("image", "text")
            for side in sides if self.towers == "both" else (self.towers,):
                new += growth.widen(model, side, self.mlp_factor, self.momentum)
        if self.text_layers:
            new += growth.deepen(model, "text", self.text_layers, self.momentum)
        if self.image_layers:
            new += growth.deepen(model, "image", self.image_layers, self.momentum)
        scale = ("(scale|bias)/.*", float(self.train_logit_scale))
        if self.trained == "all":
            return model.set_trainable([scale, (".*", 1.0)])
        identities = {id(weight) for weight in new}
        names = [name for name, weight in model.weights().items() if id(weight) in identities]
        return model.set_trainable([("|".join(map(re.escape, names)), 1.0), scale, (".*", 0.0)])
