"""The text tower stays as it is; the image tower learns to look like what the texts say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder


@dataclass(frozen=True, kw_only=True)
class LockedText:
    """The mirror of locked-image tuning: prompts keep their old meaning. [arXiv:2111.07991]

    For pictures unlike any photo, described in ordinary words.
    """

    citation: ClassVar[str] = "arXiv:2111.07991"
    learning_rate: ClassVar[float] = 2e-5
    ceiling: ClassVar[float] = 2e-4

    scale: bool = True  # whether scale and bias learn too

    def apply(self, model: DualEncoder) -> dict[str, float]:
        """The factor on the learning rate by weight name."""
        patterns = [("image/.*", 1.0), ("text/.*", 0.0), ("(scale|bias)/.*", float(self.scale))]
        return model.set_trainable(patterns)
