"""One finding of `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Check:
    """What was checked, whether it is in order, and what helps if it is not; without paths and names."""

    name: str
    level: Level
    text: str
    remedy: str = ""
