"""Full tuning: everything learns, each tower at its own rate."""

from __future__ import annotations

from pathlib import Path

from domainclip import towers
from domainclip.strategies.full import Full


def test_factors_by_tower(base: Path) -> None:
    loaded = towers.load(base)
    factors = Full(image=0.1, text=2.0, scale=False).apply(loaded)
    assert factors.keys() == loaded.weights().keys()
    assert {factors[name] for name in factors if name.startswith("image/")} == {0.1}
    assert {factors[name] for name in factors if name.startswith("text/")} == {2.0}
    assert factors["scale/logit_scale"] == 0.0
    assert {name for name, w in loaded.weights().items() if not w.requires_grad} == {"scale/logit_scale"}
