"""The type of the activations by device, and the loss scale of fp16: an overflow skips a step and no more."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from domainclip.config.training import TrainConfig
from domainclip.errors import RecipeError
from domainclip.training import fsdp, loop_checkpoints
from domainclip.training.checkpointing import checkpoint
from domainclip.training.precision import loss_scale, mixed_precision, overflowed
from domainclip.training.state import TrainingState

ROUNDING = 5e-3  # of fp16; an error of the scale would be a factor of two


@pytest.fixture(autouse=True)
def _restored_matmul_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def _gpu(monkeypatch: pytest.MonkeyPatch, *, bf16: bool) -> None:
    """A GPU that computes in bf16, or one that emulates it, as a T4 does."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation
    )


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_auto_is_what_the_gpu_computes_in(monkeypatch: pytest.MonkeyPatch, bf16: bool, expected: str) -> None:
    _gpu(monkeypatch, bf16=bf16)
    assert mixed_precision(TrainConfig()) == expected
    assert mixed_precision(TrainConfig(precision="fp32")) == "no"
    assert mixed_precision(TrainConfig(precision="bf16")) == "bf16"
    assert mixed_precision(TrainConfig(fsdp=True)) == ("bf16" if bf16 else "no")


def test_without_a_gpu() -> None:
    assert mixed_precision(TrainConfig()) == "no"
    assert mixed_precision(TrainConfig(precision="bf16")) == "bf16"
    with pytest.raises(
        RecipeError, match=r"^train\.precision: fp16 needs a GPU, and there is none: use bf16"
    ):
        mixed_precision(TrainConfig(precision="fp16"))


def test_short_factors_are_used_for_tf32_alone() -> None:
    mixed_precision(TrainConfig(precision="tf32"))
    assert torch.get_float32_matmul_precision() == "high"
    mixed_precision(TrainConfig(precision="fp32"))
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> Accelerator:
    """Accelerate as it is on a GPU in fp16, with a scale at which the first gradients overflow."""
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(accelerator, "native_amp", True)
    monkeypatch.setattr(accelerator.state, "_mixed_precision", "fp16")
    monkeypatch.setattr(accelerator, "scaler", torch.amp.GradScaler("cpu", init_scale=2.0**127))
    return accelerator


def _step(model: Any, optimizer: Any, accelerator: Accelerator, factor: float = 1.0) -> float:
    accelerator.backward((model(torch.ones(2, 3)) * 3 * factor).square().sum())
    norm = fsdp.clip_gradients(model, optimizer, 1.0, accelerator)
    optimizer.step()
    optimizer.zero_grad()
    return float(norm)


def _linear() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


def test_an_overflow_skips_steps_until_the_scale_fits(scaled: Accelerator) -> None:
    plain = _linear()
    expected = _step(plain, torch.optim.SGD(plain.parameters(), 0.1), Accelerator(cpu=True))
    model = _linear()
    _, optimizer = scaled.prepare(model, torch.optim.SGD(model.parameters(), 0.1))
    before, skipped = model.weight.detach().clone(), 0
    while True:
        scale = loss_scale(scaled)
        norm = _step(model, optimizer, scaled)
        if not isfinite(norm):
            assert torch.equal(model.weight, before)
            assert loss_scale(scaled) == scale / 2
            skipped += 1
            continue
        break
    assert skipped >= 1
    assert norm == pytest.approx(expected, rel=ROUNDING)
    torch.testing.assert_close(model.weight, plain.weight, rtol=ROUNDING, atol=ROUNDING)


def test_an_overflow_is_no_divergence_while_the_scale_can_fall(scaled: Accelerator) -> None:
    assert overflowed(float("inf"), scaled)
    assert not overflowed(3.0, scaled)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    assert not overflowed(float("nan"), scaled)  # the gradient itself is not finite
    assert not overflowed(float("inf"), Accelerator(cpu=True))


def test_gradients_are_unscaled_once_whatever_stages_came_before(scaled: Accelerator) -> None:
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    model, plain = _linear(), _linear()
    expected = _step(plain, torch.optim.SGD(plain.parameters(), 0.1), Accelerator(cpu=True))
    _, first = scaled.prepare(model, torch.optim.SGD(model.parameters(), 0.1))
    second = scaled.prepare(torch.optim.SGD(model.parameters(), 0.1))
    assert first is not second
    assert _step(model, second, scaled) == pytest.approx(expected, rel=ROUNDING)


def test_the_scale_is_resumed(tmp_path: Path) -> None:
    weights = {"a": torch.nn.Parameter(torch.zeros(2))}
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    scaler.scale(torch.ones(1))  # a scaler that has scaled nothing has no state yet
    facts = {"step": 3, "loss_scale": scaler.state_dict()}
    saved = checkpoint.save(tmp_path, 3, {"weights": {"a": torch.ones(2)}}, facts, keep=1)
    state = TrainingState(0, weights, torch.optim.SGD(weights.values(), 0.1))
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    loop_checkpoints.restore(state, saved, 0)
    assert (state.step, state.scaler.get_scale()) == (3, 512.0)
