"""The host reads a step once, one step late, and a step that is not finite changes no weight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from domainclip.components import WeightedObjectives
from domainclip.data.batching.matches import MatchKeys
from domainclip.errors import DivergedError
from domainclip.models import loading
from domainclip.objectives.contrastive import Contrastive
from domainclip.strategies.full import Full
from domainclip.training import fsdp, step
from domainclip.training.step_records import PendingStep, UpdateGuard
from domainclip.training.views import StepBatch
from tests.support.tiny_models import tiny_clip

PAIRS = 6
TERMS = WeightedObjectives({"contrastive": (1.0, Contrastive())})
# Operations whose result has a size or a value that the host waits for.
READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "_unique2", "unique_dim", "masked_select")


class _Reads(TorchDispatchMode):
    """Counts the reads of values by operation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split("::")[1].split(".")[0]
        if name in READS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def _counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The operations that read a value of a tensor; `tolist` is not dispatched, so it is counted apart."""
    with _Reads() as reads, monkeypatch.context() as patch:
        plain = Tensor.tolist
        patch.setattr(Tensor, "tolist", lambda tensor: (reads.names.append("tolist"), plain(tensor))[1])
        yield reads.names


class _Training:
    """A model and an optimizer, and steps as the loop takes them."""

    def __init__(self, base: Path) -> None:
        self.model = loading.load_model(base)
        Full().learning_rates(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.guard = UpdateGuard(self.optimizer)
        self.accelerator = Accelerator(cpu=True)
        draw = torch.Generator().manual_seed(0)
        shape = (PAIRS, *self.model.image_size, 3)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
        keys = MatchKeys.of_groups(torch.arange(PAIRS))
        self.batch = StepBatch(
            {"pixels": pixels}, None, [f"a square {i}" for i in range(PAIRS)], None, keys, None
        )

    def step(self, number: int, micro: int | None = None, *, broken: bool = False) -> PendingStep:
        output = step.compute_gradients(
            self.model, self.model, self.batch, TERMS, micro, number, self.accelerator
        )
        if broken:
            self.model.hf_base.visual_projection.weight.grad[0, 0] = nan
        norm = fsdp.clip_gradients(self.model, self.optimizer, 1.0, self.accelerator)
        self.guard.watch(output.values[0], norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.clamp_scale()
        ids = [f"image {row}" for row in range(PAIRS)]
        return PendingStep.of(output, norm, self.model.scale, ids, {"step": number})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("base") / "clip")


@pytest.mark.parametrize("micro", [None, 2])
def test_a_step_is_read_once(base: Path, monkeypatch: pytest.MonkeyPatch, micro: int | None) -> None:
    training = _Training(base)
    first = training.step(1, micro)  # the optimizer makes its moments
    with _counted(monkeypatch) as reads:
        second = training.step(2, micro)
        assert reads == []  # nothing waits for the step that was started
        record = first.record()
        assert reads == ["tolist"]
    assert record.keys() >= {"loss", "terms", "scale", "grad_norm", "image_cosine", "text_cosine"}
    assert second.record()["loss"] < record["loss"] == pytest.approx(record["terms"]["contrastive"])
    assert record["scale"] == pytest.approx(training.model.scale.item(), rel=0.01)


def test_a_step_that_is_not_finite_and_those_after_it_change_no_weight(base: Path) -> None:
    training = _Training(base)
    training.step(1).record()
    before = {name: weight.detach().clone() for name, weight in training.model.weights().items()}
    failed = training.step(2, broken=True)
    training.step(3)  # has been started before the figures of step 2 are read
    with pytest.raises(
        DivergedError, match=r"step 2: loss [\d.]+, gradient norm nan: .*unchanged; items: image 0, "
    ):
        failed.record()
    for name, weight in training.model.weights().items():
        assert torch.equal(weight, before[name]), name
    # Negative control: without the switch, the update spreads.
    training.guard.diverged = None
    training.step(4)
    assert any(not torch.equal(weight, before[name]) for name, weight in training.model.weights().items())
