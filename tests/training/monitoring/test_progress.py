"""The line of a run: the loss of guessing stands beside a loss only where it is known."""

from __future__ import annotations

import re

import pytest

from domainclip.training.monitoring.progress import ProgressDisplay


@pytest.mark.parametrize(
    ("losses", "chance"),
    [
        ({"contrastive": 1.0}, " (chance 2.77)"),
        ({"sigmoid": 1.0}, ""),
        ({"contrastive": 0.5}, ""),
        ({"contrastive": 1.0, "anchor_to_base": 0.1}, ""),
        (None, ""),
    ],
)
def test_chance_is_shown_where_it_is_known(losses: dict[str, float] | None, chance: str) -> None:
    line = ProgressDisplay(8, 0, 16, weights=losses).line(4, {"loss": 2.5, "scale": 14.25})
    assert re.sub(r"[\d.]+ pairs/s  \d+:\d\d", "N pairs/s  M:SS", line) == (
        f"step 4/8  loss 2.500{chance}  scale 14.2  N pairs/s  M:SS left"
    )
