"""Every weight learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

if TYPE_CHECKING:
    from domainclip.towers import Towers


@dataclass(frozen=True, kw_only=True)
class Full:
    """Both towers learn, each with its own factor on the learning rate. [arXiv:2103.00020]

    Strongest where there is much data; forgets most where there is little.
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    learning_rate: ClassVar[float] = 1e-5
    ceiling: ClassVar[float] = 1e-4  # above this a pre-trained tower is usually destroyed

    image: Annotated[float, Field(ge=0)] = 1.0
    text: Annotated[float, Field(ge=0)] = 1.0
    scale: bool = True  # whether scale and bias learn too

    def apply(self, towers: Towers) -> dict[str, float]:
        """The factor on the learning rate by weight name."""
        return towers.select(
            [("image/.*", self.image), ("text/.*", self.text), ("(scale|bias)/.*", float(self.scale))]
        )
