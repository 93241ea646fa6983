"""Every weight learns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

if TYPE_CHECKING:
    from domainclip.towers import Towers


@dataclass(frozen=True, kw_only=True)
class Full:
    """Both towers learn, each with its own factor on the learning rate. [arXiv:2103.00020]

    Strongest where there is much data; forgets most where there is little. With `last_layers` only the top
    of each tower learns, its projection included: what stands below is run once and not in every epoch.
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    learning_rate: ClassVar[float] = 1e-5
    ceiling: ClassVar[float] = 1e-4  # above this a pre-trained tower is usually destroyed

    image: Annotated[float, Field(ge=0)] = 1.0
    text: Annotated[float, Field(ge=0)] = 1.0
    last_layers: Annotated[int, Field(ge=1)] | None = None  # null: all of them
    scale: bool = True  # whether scale and bias learn too

    def apply(self, towers: Towers) -> dict[str, float]:
        """The factor on the learning rate by weight name."""
        locked = []
        if self.last_layers is not None:
            sides: tuple[Literal["image", "text"], ...] = ("image", "text")
            below = [name for side in sides for name in towers.weights_below(side, self.last_layers)]
            locked = [("|".join(map(re.escape, below)), 0.0)]
        learns = [("image/.*", self.image), ("text/.*", self.text), ("(scale|bias)/.*", float(self.scale))]
        return towers.select([*locked, *learns])
