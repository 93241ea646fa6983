"""What a strategy that freezes one tower must keep: used by the tests of both."""

from __future__ import annotations

from pathlib import Path

from domainclip.config.training import TrainConfig
from domainclip.models import loading
from domainclip.strategies.base import Strategy
from domainclip.training import optimizer as training_optimizer


def check_only_one_tower_learns(strategy: Strategy, base: Path, tower: str, logit_scale: bool) -> None:
    """All weights of the tower learn, and the logit scale if it is trained; no other has optimizer state."""
    model = loading.load_model(base)
    factors = strategy.learning_rates(model)
    learning = {name for name, factor in factors.items() if factor > 0}
    assert {name.split("/")[0] for name in learning} == {tower, *(["scale"] if logit_scale else [])}
    assert {name for name, w in model.weights().items() if w.requires_grad} == learning
    optimizer = training_optimizer.make_optimizer(model, factors, TrainConfig(), 1e-3)
    optimized = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    assert optimized == {id(w) for name, w in model.weights().items() if name in learning}
