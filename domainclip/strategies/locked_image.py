"""The image tower is frozen; the text tower learns to describe its embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from domainclip.strategies.base import Strategy, tower_factors

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder
    from domainclip.models.layers import Modality


@dataclass(frozen=True, kw_only=True)
class LockedImage(Strategy):
    """Locked-image tuning: the knowledge of the image tower is preserved. [arXiv:2111.07991]

    The images of the corpus are encoded once, so an epoch costs only its texts.
    """

    citation: ClassVar[str] = "arXiv:2111.07991"
    default_learning_rate: ClassVar[float] = 1e-4
    max_learning_rate: ClassVar[float | None] = 1e-3
    frozen_towers: ClassVar[frozenset[Modality]] = frozenset({"image"})

    train_logit_scale: bool = True  # whether scale and bias learn too

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """The factor on the learning rate by weight name."""
        return model.set_trainable(tower_factors(0.0, 1.0, self.train_logit_scale))
