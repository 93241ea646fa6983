"""Another text encoder replaces the text tower, and learns to describe the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from domainclip.strategies.base import Strategy, towers_without

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder
    from domainclip.models.layers import Modality


@dataclass(frozen=True, kw_only=True)
class ReplaceTextTower(Strategy):
    """Replaces the text tower by a pretrained encoder of another language or field. [arXiv:2303.00915]

    The encoder brings its tokenizer and, up to its positions, a longer context: PubMedBERT with 256 tokens in
    BiomedCLIP, a Chinese RoBERTa in Chinese-CLIP [arXiv:2211.01335], any BERT in LiT [arXiv:2111.07991]. The
    embedding of a text is the pooled output of the encoder through a new linear projection. The image tower
    is frozen unless `image_lr_factor` is above 0, so images are encoded once. Before training the new tower
    knows nothing of images: it needs many pairs, or the `anchor` objective, whose teacher is then the
    original text tower. The result is a dual encoder that transformers loads; it is compared with the base as
    published, with the base's original text tower.
    """

    citation: ClassVar[str] = "arXiv:2303.00915"
    models: ClassVar[tuple[str, ...]] = ("encoder",)
    default_learning_rate: ClassVar[float] = 1e-4
    max_learning_rate: ClassVar[float | None] = 1e-3

    encoder: str  # a folder or a Hub id
    max_tokens: Annotated[int, Field(ge=8)] = 256  # tokens of a caption that the new tower reads
    image_lr_factor: Annotated[float, Field(ge=0)] = 0.0  # on the learning rate of the image tower
    # Factor on the learning rate of the new text tower; 0: frozen.
    text_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    # Factor on the learning rate of the new projection, which starts from nothing.
    projection_lr_factor: Annotated[float, Field(ge=0)] = 10.0
    train_logit_scale: bool = True  # whether the scale learns too
    seed: int = 0  # of the new projection

    @property
    def frozen_towers(self) -> frozenset[Modality]:
        """The towers whose factor is 0."""
        return towers_without(self.image_lr_factor, self.text_lr_factor + self.projection_lr_factor)

    def build_model(self, base: DualEncoder) -> DualEncoder:
        """A model with the image tower of the base and the other text encoder.

        Raises: ModelError when the two cannot be joined, or the encoder cannot be read.
        """
        from domainclip.models.text_tower_replacement import replace_text_tower

        return replace_text_tower(base, self.encoder, self.max_tokens, self.seed)

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """The factor on the learning rate by weight name."""
        return model.set_trainable(
            [
                ("image/.*", self.image_lr_factor),
                ("text/text_projection.*", self.projection_lr_factor),
                ("text/.*", self.text_lr_factor),
                ("(scale|bias)/.*", float(self.train_logit_scale)),
            ]
        )
