"""The text tower is frozen; the image tower learns to match its embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from domainclip.strategies.base import Strategy, tower_factors

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder
    from domainclip.models.layers import Modality


@dataclass(frozen=True, kw_only=True)
class LockedText(Strategy):
    """The mirror of locked-image tuning: prompts keep their meaning. [arXiv:2111.07991]

    For images unlike any photo, described in ordinary words.
    """

    citation: ClassVar[str] = "arXiv:2111.07991"
    default_learning_rate: ClassVar[float] = 2e-5
    max_learning_rate: ClassVar[float | None] = 2e-4
    frozen_towers: ClassVar[frozenset[Modality]] = frozenset({"text"})

    train_logit_scale: bool = True  # whether scale and bias learn too

    def learning_rates(self, model: DualEncoder) -> dict[str, float]:
        """The factor on the learning rate by weight name."""
        return model.set_trainable(tower_factors(1.0, 0.0, self.train_logit_scale))
