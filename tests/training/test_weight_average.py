"""The average of the weights, by hand and against torch's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from domainclip.config.training import TrainConfig, WeightAverageConfig
from domainclip.training import loop_checkpoints
from domainclip.training.checkpointing import checkpoint
from domainclip.training.state import TrainingState
from domainclip.training.validation_policy import ValidationPolicy
from domainclip.training.weight_average import WeightAverage


def _course(values: list[float], total: int = 100, **settings: Any) -> list[float]:
    """The average after each of some values of a single weight that starts at 0."""
    weight = torch.zeros(1, dtype=torch.float64)
    average = WeightAverage({"a": weight}, WeightAverageConfig(**settings), total)
    course = []
    for step, value in enumerate(values, 1):
        weight.fill_(value)
        average.update(step)
        course.append(average.average["a"].item())
    return course


def test_by_hand() -> None:
    # The plain mean for two steps, then half of the average and half of the weight.
    assert _course([2, 4, 8, 4], decay=0.5) == [2, 3, 5.5, 4.75]
    assert _course([2, 4, 9, 5], decay=1) == [2, 3, 5, 5]
    # A quarter of eight steps is left out: there the average is the weight.
    assert _course([7, 9, 2, 4, 9], total=8, decay=1, start=0.25) == [7, 9, 2, 3, 5]


def test_the_exponential_mean_is_that_of_torch() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    peer = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    weights = dict(model.named_parameters())
    own = WeightAverage(weights, WeightAverageConfig(decay=0.5), 9)
    for step in range(1, 8):
        with torch.no_grad():
            for weight in weights.values():
                weight.add_(torch.randn_like(weight))
        own.update(step)
        peer.update_parameters(model)
        for name, weight in peer.module.named_parameters():
            assert torch.allclose(own.average[name], weight, atol=1e-6)


def test_the_weights_come_back_after_a_measurement() -> None:
    weight = torch.tensor([3.0])
    average = WeightAverage({"a": weight}, WeightAverageConfig(decay=1), 9)
    average.update(1)
    weight.fill_(5.0)
    average.update(2)
    with average.applied():
        assert weight.item() == 4.0
    assert weight.item() == 5.0
    average.apply()
    assert weight.item() == 4.0


def _state(value: float = 0.0, averaged: bool = True) -> TrainingState:
    weight = torch.nn.Parameter(torch.full((2,), value))
    state = TrainingState(0, {"a": weight}, torch.optim.AdamW([weight]))
    if averaged:
        state.average = WeightAverage(state.weights, WeightAverageConfig(decay=1), 9)
    return state


def test_a_checkpoint_holds_weights_and_average(tmp_path: Path) -> None:
    state = _state()
    for step, value in enumerate((2.0, 6.0), 1):
        with torch.no_grad():
            state.weights["a"].fill_(value)
        state.average.update(step)  # type: ignore[union-attr]
    path = checkpoint.save(tmp_path, 2, state.groups(), {}, keep=1)
    groups, _ = checkpoint.load(path)
    resumed = _state(9.0)
    resumed.restore(groups, 2)
    assert resumed.average is not None
    assert (resumed.weights["a"][0].item(), resumed.average.average["a"][0].item()) == (6.0, 4.0)
    with torch.no_grad():
        resumed.weights["a"].fill_(7.0)
    resumed.average.update(3)
    assert resumed.average.average["a"].tolist() == [5.0, 5.0]
    assert "average" not in _state(averaged=False).groups()


@pytest.mark.parametrize("best", [None, 1])
def test_the_run_ends_with_the_average_of_its_last_or_best_step(tmp_path: Path, best: int | None) -> None:
    state, folder = _state(), tmp_path / "checkpoints"
    for step, value in enumerate((2.0, 6.0), 1):
        with torch.no_grad():
            state.weights["a"].fill_(value)
        state.step = step
        state.average.update(step)  # type: ignore[union-attr]
        checkpoint.save(folder, step, state.groups(), {}, keep=9)
    settings = TrainConfig(validate_every=1, final_weights="best" if best else "last")
    policy = ValidationPolicy(None, settings, {"best": [best, 0.0]} if best else None)
    # Another stage goes on from the weights themselves.
    assert loop_checkpoints.restore_best(state, policy, 3, tmp_path) == 2
    assert state.weights["a"][0].item() == 6.0
    assert loop_checkpoints.restore_best(state, policy, 2, tmp_path) == (best or 2)
    assert state.weights["a"][0].item() == (2.0 if best else 4.0)


def test_what_shards_the_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="fsdp: true shards every tensor, which weight_average does not"):
        TrainConfig(fsdp=True, weight_average=WeightAverageConfig())
    assert TrainConfig().weight_average is None
