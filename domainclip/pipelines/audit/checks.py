"""The result of one check of an audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["passed", "failed", "warning", "unknown"]


@dataclass(frozen=True)
class Check:
    """One check: `unknown` means that this folder and this machine cannot show it."""

    area: str
    status: Status
    text: str  # one line; of what failed, with the remedy
