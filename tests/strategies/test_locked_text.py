"""The text tower is frozen: it gets no gradient and no optimizer state."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainclip.strategies.locked_text import LockedText
from tests.strategies.locked_tower import check_only_one_tower_learns


@pytest.mark.parametrize("train_logit_scale", [True, False])
def test_only_the_other_tower_learns(base: Path, train_logit_scale: bool) -> None:
    strategy = LockedText(train_logit_scale=train_logit_scale)
    check_only_one_tower_learns(strategy, base, "image", train_logit_scale)
