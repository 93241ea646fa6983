"""The image tower stays as it is; the text tower learns to speak about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder


@dataclass(frozen=True, kw_only=True)
class LockedImage:
    """Locked-image tuning: what the image tower knows is kept whole. [arXiv:2111.07991]

    The images of the corpus are encoded once, so an epoch costs only its text.
    """

    citation: ClassVar[str] = "arXiv:2111.07991"
    learning_rate: ClassVar[float] = 1e-4
    ceiling: ClassVar[float] = 1e-3

    scale: bool = True  # whether scale and bias learn too

    def apply(self, model: DualEncoder) -> dict[str, float]:
        """The factor on the learning rate by weight name."""
        patterns = [("image/.*", 0.0), ("text/.*", 1.0), ("(scale|bias)/.*", float(self.scale))]
        return model.set_trainable(patterns)
