"""The memory that a plan states, against what torch allocates in a step of the same run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from domainclip.config import loading
from domainclip.models.text_tokenizer import TokenCache
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.plan import make_plan, memory
from domainclip.pipelines.training_setup import make_setup
from domainclip.training import optimizer as training_optimizer
from domainclip.training import step, step_memory
from domainclip.training.setup import TrainingSetup
from domainclip.training.stage_run import initial_memory
from domainclip.training.step_memory import StepMemory

PAIRS = 16


def _setup(recipe_file: Path, *changes: str) -> TrainingSetup:
    options = [f"train.batch_size={PAIRS}", *changes]
    return make_setup(load_inputs(loading.load_recipe(str(recipe_file), options), "train"))


def _allocated(setup: TrainingSetup, accelerator: Accelerator, micro: int | None) -> int:
    """Bytes at the peak of a second step, in which the moments are there already."""
    model, remembered = setup.model, initial_memory(setup)
    batch = make_plan._benchmark_batch(setup, 0, PAIRS)
    optimizer = training_optimizer.make_optimizer(model, setup.factors, setup.settings, rate=0.0)

    def train_step() -> None:
        step.compute_gradients(model, model, batch, setup.objectives, micro, 0, accelerator, remembered)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    train_step()
    moments = [value for state in optimizer.state.values() for value in state.values()]
    assert batch.image is not None
    tensors = [*model.weights().values(), *moments, *batch.image.values()]
    return sum(tensor.nbytes for tensor in tensors) + step_memory.peak_bytes(train_step, torch.device("cpu"))


@pytest.mark.parametrize(
    ("changes", "bf16"),
    [
        (["strategy=full"], False),
        (["strategy=full"], True),
        (["strategy={lora: {last_layers: 1}}"], False),
        (["strategy=full", "train.micro_batch_size=4"], False),
    ],
)
def test_the_memory_of_a_plan_is_that_of_a_run(recipe_file: Path, changes: list[str], bf16: bool) -> None:
    setup, accelerator = _setup(recipe_file, *changes), Accelerator(cpu=True)
    with patch.object(accelerator, "autocast", lambda: torch.autocast("cpu", torch.bfloat16, enabled=bf16)):
        found = memory.estimate_memory(setup, accelerator, partial(make_plan._benchmark_batch, setup, 0))
        micro = setup.settings.micro_batch_size
        real = _allocated(setup, accelerator, None if micro == "auto" else micro)
    assert found.held == (PAIRS if micro == "auto" else micro)
    assert found.constant + found.step == pytest.approx(real, rel=0.15)
    assert all(weight.grad is None for weight in setup.model.parameters())


def test_a_machine_with_little_memory_holds_fewer_pairs(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, accelerator = _setup(recipe_file, "strategy=full"), Accelerator(cpu=True)
    make_batch = partial(make_plan._benchmark_batch, setup, 0)
    plenty = memory.estimate_memory(setup, accelerator, make_batch)
    room = 2 * (plenty.constant + plenty.step / 4)
    monkeypatch.setattr(memory.micro_batch_size, "available_memory", lambda device: room)
    scarce = memory.estimate_memory(setup, accelerator, make_batch)
    assert 1 <= scarce.held < PAIRS
    assert scarce.step < 0.9 * plenty.step
    assert scarce.text.endswith(f"for a step, {scarce.held} pairs at once")


def test_each_allocation_is_extended_by_itself() -> None:
    """Gradients of 100 bytes do not grow; at few pairs they are the peak, at many the activations are."""
    at = [np.array([10 * pairs, -10 * pairs, 100, -100]) for pairs in (2, 4)]
    measured = StepMemory((2, 4), (at[0], at[1]))
    assert [measured.peak(pairs) for pairs in (2, 4, 30)] == [100, 100, 300]
    assert measured.each_pair == 10
    uneven = StepMemory((2, 4), (np.array([20, -20]), np.array([20, 20, -40])))
    assert uneven.peak(6) == 60  # the peaks, 20 and 40, on a line


def test_captions_of_one_length_are_one_group(recipe_file: Path) -> None:
    setup = _setup(recipe_file)
    captions = TokenCache(setup.model.text_tokenizer)
    texts = ["a", "a b c d e f g", "a b"]
    lengths = captions.lengths(texts)
    batch = make_plan._benchmark_batch(setup, 0, 4)
    alike = step_memory._EqualLengths(step_memory.replace(batch, captions=captions))
    assert alike.lengths(texts) == [max(lengths)] * 3
    assert alike.batch(texts)["input_ids"].shape == captions.batch(texts)["input_ids"].shape
