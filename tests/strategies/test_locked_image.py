"""The image tower is locked: it gets no gradient and no optimizer state."""

from __future__ import annotations

from pathlib import Path

from domainclip.config.training import TrainConfig
from domainclip.models import loading
from domainclip.strategies.locked_image import LockedImage
from domainclip.training import optimizer as training_optimizer


def test_only_the_other_tower_learns(base: Path) -> None:
    loaded = loading.load_model(base)
    factors = LockedImage().learning_rates(loaded)
    learning = {name for name, factor in factors.items() if factor > 0}
    assert {name.split("/")[0] for name in learning} == {"text", "scale"}
    assert {name for name, w in loaded.weights().items() if w.requires_grad} == learning
    optimizer = training_optimizer.make_optimizer(loaded, factors, TrainConfig(), 1e-3)
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    assert held == {id(w) for name, w in loaded.weights().items() if name in learning}


def test_scale_may_be_locked_too(base: Path) -> None:
    assert (
        LockedImage(train_logit_scale=False).learning_rates(loading.load_model(base))["scale/logit_scale"]
        == 0.0
    )
