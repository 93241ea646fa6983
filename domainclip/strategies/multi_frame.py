"""A study with several images: frames of a clip, slices of a series, frontal and lateral views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from domainclip.errors import RecipeError
from domainclip.strategies.base import InputRequirements, Strategy, tower_factors

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder


@dataclass(frozen=True, kw_only=True)
class MultiFrame(Strategy):
    """Each image of a study is encoded; the embedding of the study pools them. [arXiv:2104.08860]

    Of the `image` and `views` of an item, up to `frames` are taken, evenly, in order; an item with one image
    is a study of one. x = pool_f(x_f) at unit length; training and evaluation use the same images, and the
    base is evaluated with the plain mean over them, so that the gain is not that of the further images.
    mean: without weights, the strongest of the published models where there is little data;
    weighted: Σ_f softmax_f(q · x_f) x_f, where the direction q learns which frames are informative;
    temporal: a transformer over the frames in their order, added to them, then the mean.
    The last two start as the mean and are saved with the model (pooling.json, pooling.safetensors); plain
    transformers loads the towers without them. Weights from the similarity of a text with each frame [X-CLIP,
    arXiv:2207.07285] are not offered: a study would have another embedding for every text. Both towers learn,
    each with a factor. Costs up to `frames` images per item, in time and memory.
    """

    citation: ClassVar[str] = "arXiv:2104.08860"
    default_learning_rate: ClassVar[float] = 1e-5
    max_learning_rate: ClassVar[float | None] = 1e-4

    frames: Annotated[int, Field(ge=2, le=64)] = 4  # images that are shown of an item
    pooling: Literal["mean", "weighted", "temporal"] = "mean"  # how the embeddings of the frames become one
    layers: Annotated[int, Field(ge=1, le=2)] = 1  # of the temporal transformer
    pooling_lr_factor: Annotated[float, Field(gt=0)] = 10.0  # of the pooling, which is new
    # Factor on the learning rate of the image tower; 0: frozen.
    image_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    # Factor on the learning rate of the text tower; 0: frozen.
    text_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    train_logit_scale: bool = True  # whether scale and bias learn too

    def requirements(self, base: DualEncoder) -> InputRequirements:
        """Up to `frames` images per item."""
        return InputRequirements(max(base.frames, self.frames), base.max_tokens)

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """Adds the pooling; the factor on the learning rate by weight name.

        Raises: RecipeError for a base that pools its images in another way.
        """
        from domainclip.models.frame_pooling import MODULE_NAME, FramePooling

        pooling = FramePooling(self.frames, self.pooling, self.layers)
        base = model.frame_pooling or pooling
        if base != pooling:
            raise RecipeError(
                "strategy.multi_frame: the base already pools its images: use "
                f"frames {base.frames}, pooling {base.pool}, layers {base.layers}, as the base does"
            )
        if model.frame_pooling is None:
            model.set_frame_pooling(pooling)
        learns = tower_factors(self.image_lr_factor, self.text_lr_factor, self.train_logit_scale)
        added = (
            [(f"image/{MODULE_NAME}\\..*", self.pooling_lr_factor)]
            if MODULE_NAME in model.added_modules
            else []
        )
        return model.set_trainable([*added, *learns])
