"""Selective projection decay, by hand; without a turn it is plain AdamW."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from domainclip.config.training import TrainConfig
from domainclip.models import loading
from domainclip.training import optimizer as training_optimizer
from domainclip.training.projection_decay import ProjectionDecayAdamW


def _step(at: list[float], gradient: list[float], factor: float = 1.0) -> tuple[list[float], list[float]]:
    """A weight that started at 0, after one step of rate 1: drawn back, and as plain AdamW leaves it."""
    results = []
    for decays in (True, False):
        weight = torch.nn.Parameter(torch.tensor(at, dtype=torch.float64))
        groups = [{"params": [weight], "lr": 1.0, "weight_decay": 0.0}]
        start = {weight: torch.zeros_like(weight)}
        optimizer = (
            ProjectionDecayAdamW(groups, start, factor, (0.9, 0.98)) if decays else torch.optim.AdamW(groups)
        )
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        results.append(weight.tolist())
    return results[0], results[1]


def test_by_hand() -> None:
    # The first step of Adam is the sign of the gradient: from (3, 0) by (1, 1) · −1 to (2, −1), at distance
    # √5 < 3 although the gradient points back: it has come nearer, so nothing is drawn.
    assert _step([3.0, 0.0], [1.0, 1.0])[0] == pytest.approx([2.0, -1.0])
    # From (0.1, 1) with gradient (1, 0.001): g · θ = 0.101 > 0, and the step leads to (−0.9, 0), at 0.9 < 1.005.
    assert _step([0.1, 1.0], [1.0, 0.001])[0] == pytest.approx([-0.9, 0.0], abs=1e-4)
    # From (0.1, 0) with gradient (1, −0.001): g · θ > 0, and the step leads to (−0.9, 1), at √1.81. That is
    # projected onto the sphere of radius 0.1.
    drawn, free = _step([0.1, 0.0], [1.0, -0.001])
    assert free == pytest.approx([-0.9, 1.0], abs=1e-4)
    assert drawn == pytest.approx([-0.09 / 1.81**0.5, 0.1 / 1.81**0.5], abs=1e-4)
    # Half of the way with λ = 0.5.
    half, _ = _step([0.1, 0.0], [1.0, -0.001], factor=0.5)
    assert half == pytest.approx([(a + b) / 2 for a, b in zip(drawn, free, strict=True)])


@pytest.mark.parametrize("at", [[0.1, 0.0], [0.0, 0.0]])
def test_a_tensor_that_goes_on_is_left_alone(at: list[float]) -> None:
    """Negative control: g · (θ − θ₀) ≤ 0, though the distance grows as much as above."""
    drawn, free = _step(at, [-1.0, -0.001])
    assert drawn == pytest.approx(free, abs=1e-9)


def test_it_takes_the_place_of_weight_decay_and_starts_where_the_run_did(base: Path) -> None:
    model = loading.load_model(base)
    weights = model.weights()
    factors = {name: float(name.startswith("text/")) for name in weights}
    start = {name: torch.zeros_like(weight) for name, weight in weights.items() if factors[name]}
    made = training_optimizer.make_optimizer(model, factors, TrainConfig(projection_decay=2.0), 0.1, start)
    assert isinstance(made, ProjectionDecayAdamW)
    assert made.factor == 2.0
    assert all(group["weight_decay"] == 0 for group in made.param_groups)
    assert len(made.start) == sum(len(group["params"]) for group in made.param_groups) == len(start)
    assert all(not value.any() for value in made.start.values())
    own = training_optimizer.make_optimizer(model, factors, TrainConfig(projection_decay=2.0), 0.1)
    assert isinstance(own, ProjectionDecayAdamW)
    assert all(torch.equal(value, weight) for weight, value in own.start.items())
    plain = training_optimizer.make_optimizer(model, factors, TrainConfig(), 0.1)
    assert not isinstance(plain, ProjectionDecayAdamW)


def test_what_it_does_not_work_with_is_refused() -> None:
    with pytest.raises(ValueError, match="projection_decay: is a form of adamw, and optimizer is adamw8bit"):
        TrainConfig(projection_decay=1.0, optimizer="adamw8bit")
    with pytest.raises(ValueError, match="which projection_decay does not support"):
        TrainConfig(projection_decay=1.0, fsdp=True)
