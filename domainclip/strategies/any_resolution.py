"""Another image size than the base was trained at, and fewer patches of each image while training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from domainclip.errors import RecipeError
from domainclip.strategies.base import Strategy, tower_factors, towers_without

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder
    from domainclip.models.layers import Modality


@dataclass(frozen=True, kw_only=True)
class AnyResolution(Strategy):
    """Position embeddings interpolated to `image_size`; patches dropped in training. [arXiv:2010.11929]

    The table of positions of the image tower is interpolated (bicubic, without that of the class token), as
    the Vision Transformer is fine-tuned at a higher resolution. Images are resized and cropped to the new
    size, and the saved model is a plain one of that size. Attention costs (m/n)² for m patches in place of n.
    With `patch_dropout` p, an image is read in training by a random share 1 − p of its patches: FLIP
    [arXiv:2212.00794], as in EVA-CLIP [arXiv:2303.15389]; evaluation reads all of them. Which patches
    a step reads is a function of seed, step and item: the same in any number of processes and after a resume.
    The base is measured at its own size. Both towers learn, each with a factor on the learning rate.

    Differs: FLIP ends with a short training on whole images; here a second run without `patch_dropout`, whose
    base is the first, does that. Several images in one sequence [NaViT, arXiv:2307.06304] are not offered:
    images at their own aspect ratio need a base that was trained on them, such as SigLIP 2 NaFlex, which
    every other strategy supports. It scales each image to fill its sequence, so that packing would save
    almost nothing.
    """

    citation: ClassVar[str] = "arXiv:2010.11929"
    default_learning_rate: ClassVar[float] = 1e-5
    max_learning_rate: ClassVar[float | None] = 1e-4

    image_size: Annotated[int, Field(ge=16)] | None = None  # side in pixels; null: that of the base
    # Share of the patches of an image that are left out in training.
    patch_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # Factor on the learning rate of the image tower; 0: frozen.
    image_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    # Factor on the learning rate of the text tower; 0: frozen.
    text_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    train_logit_scale: bool = True  # whether scale and bias learn too

    def __post_init__(self) -> None:
        if self.image_size is None and not self.patch_dropout:
            raise RecipeError(
                "strategy.any_resolution: without image_size and patch_dropout it is full: set one, or "
                "choose full"
            )
        if self.patch_dropout and not self.image_lr_factor:
            raise RecipeError(
                "strategy.any_resolution.patch_dropout: a frozen image tower is not trained: set "
                "image_lr_factor, or leave patch_dropout out"
            )

    @property
    def frozen_towers(self) -> frozenset[Modality]:
        """The towers whose factor is 0."""
        return towers_without(self.image_lr_factor, self.text_lr_factor)

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """Interpolates the positions; the factor on the learning rate by weight name.

        Raises: ModelError for a base whose image size cannot be changed.
        """
        from domainclip.models import image_resolution

        if self.image_size is not None:
            image_resolution.set_image_size(model, self.image_size)
        if self.patch_dropout:
            image_resolution.drop_patches(model, self.patch_dropout)
        return model.set_trainable(
            tower_factors(self.image_lr_factor, self.text_lr_factor, self.train_logit_scale)
        )
