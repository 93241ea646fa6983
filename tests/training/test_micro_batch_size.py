"""What the machine decides changes no result: micro-batch, checkpointed and compiled layers, 8-bit moments."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from domainclip import components
from domainclip.config.training import TrainConfig
from domainclip.data.batching.matches import MatchKeys
from domainclip.distributed import collectives
from domainclip.errors import RecipeError
from domainclip.models import loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.objectives.contrastive import Contrastive
from domainclip.strategies.full import Full
from domainclip.strategies.lora import Lora
from domainclip.training import layer_execution, micro_batch_size, step
from domainclip.training import optimizer as training_optimizer
from domainclip.training.views import StepBatch
from tests.support import tiny_models

PAIRS = 20
TERMS = components.WeightedObjectives({"contrastive": (1.0, Contrastive())})


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def _model(base: Path, strategy: Any = None) -> DualEncoder:
    torch.manual_seed(0)
    loaded = loading.load_model(base)
    (strategy or Full()).learning_rates(loaded)
    loaded.set_train_mode({"image", "text"})
    return loaded


def _batch(loaded: DualEncoder, pairs: int = PAIRS) -> StepBatch:
    prepared = [loaded.image_preprocessor(tiny_models.noise(33 + i, 40, seed=i)) for i in range(pairs)]
    texts = [f"a {'red circle ' * (i % 4)}{i}" for i in range(pairs)]
    return StepBatch(
        tiny_models.stack(prepared), None, texts, None, MatchKeys.of_groups(torch.arange(pairs)), None
    )


def _step(
    loaded: DualEncoder, batch: StepBatch, accelerator: Accelerator, micro: int | None = None
) -> tuple[float, dict[str, Tensor]]:
    taken = step.compute_gradients(loaded, loaded, batch, TERMS, micro, 3, accelerator)
    found = {name: w.grad.clone() for name, w in loaded.weights().items() if w.grad is not None}
    loaded.zero_grad(set_to_none=True)
    return taken.loss, found


# --- how many pairs are held at once -------------------------------------------------------------------


def test_all_at_once_where_there_is_room(base: Path, accelerator: Accelerator) -> None:
    loaded = _model(base)
    assert micro_batch_size.find_micro_batch_size(loaded, _batch(loaded), TERMS, accelerator) is None


@pytest.mark.parametrize(("pairs_that_fit", "expected"), [(0.5, 1), (5.5, 5), (19.9, 8)])
def test_no_more_than_fits(
    base: Path,
    accelerator: Accelerator,
    monkeypatch: pytest.MonkeyPatch,
    pairs_that_fit: float,
    expected: int,
) -> None:
    loaded = _model(base)
    batch = _batch(loaded)
    before = {name: weight.detach().clone() for name, weight in loaded.weights().items()}
    eight = batch.first(8)
    learning = sum(weight.numel() for weight in loaded.parameters())
    room = pairs_that_fit * micro_batch_size.activation_bytes(loaded, eight, accelerator) / 8 + 12 * learning
    monkeypatch.setattr(micro_batch_size, "available_memory", lambda device: 2 * room + 16)
    monkeypatch.setattr(
        micro_batch_size, "_seconds", lambda model, batch, *_: float(len(batch.keys))
    )  # no gain
    assert micro_batch_size.find_micro_batch_size(loaded, batch, TERMS, accelerator) == expected
    assert all(torch.equal(before[name], weight) for name, weight in loaded.weights().items())


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (lambda n: 1.0, 16),  # a pass costs the same, however many it holds: as many as fit
        (lambda n: float(n), 4),  # no gain
        (lambda n: 10.0 if n < 8 else n * 1.24, 8),  # a gain up to 8, none after
    ],
)
def test_twice_as_many_only_for_a_gain(
    base: Path,
    accelerator: Accelerator,
    monkeypatch: pytest.MonkeyPatch,
    seconds: Callable[[int], float],
    expected: int,
) -> None:
    loaded = _model(base)
    monkeypatch.setattr(micro_batch_size, "_MIN_PAIRS", 4)
    monkeypatch.setattr(micro_batch_size, "activation_bytes", lambda model, batch, _: 1000 * len(batch.keys))
    learning = sum(weight.numel() for weight in loaded.parameters())
    monkeypatch.setattr(micro_batch_size, "available_memory", lambda device: 2 * (12 * learning + 18_000))
    monkeypatch.setattr(micro_batch_size, "_seconds", lambda model, batch, *_: seconds(len(batch.keys)))
    assert micro_batch_size.find_micro_batch_size(loaded, _batch(loaded), TERMS, accelerator) == expected


def test_measuring_takes_real_passes_and_leaves_no_gradient(base: Path, accelerator: Accelerator) -> None:
    loaded = _model(base)
    assert micro_batch_size._seconds(loaded, _batch(loaded).first(4), TERMS, accelerator) > 0
    assert all(weight.grad is None for weight in loaded.parameters())
    small, large = (
        micro_batch_size.activation_bytes(loaded, _batch(loaded, pairs), accelerator) for pairs in (4, 16)
    )
    assert 3.5 < large / small < 4.5


def test_the_memory_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = micro_batch_size.available_memory(torch.device("cpu"))
    assert 2**20 < alone < 2**45
    monkeypatch.setattr(collectives, "process_count", lambda: 4)
    assert micro_batch_size.available_memory(torch.device("cpu")) < alone / 2


# --- how the layers run --------------------------------------------------------------------------------

FAMILIES: dict[str, tuple[Callable[..., Path], dict[str, Any]]] = {
    "clip": (tiny_models.tiny_clip, {"dropout": 0.2}),
    "siglip": (tiny_models.tiny_siglip, {}),
    "chinese_clip": (tiny_models.tiny_chinese_clip, {"dropout": 0.2}),
    "altclip": (tiny_models.tiny_altclip, {}),
    "metaclip_2": (tiny_models.tiny_metaclip_2, {}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_activation_checkpointing_gives_the_same_gradients(
    tmp_path: Path, accelerator: Accelerator, family: str
) -> None:
    make, options = FAMILIES[family]
    loaded = _model(make(tmp_path / "base", **options))
    batch = _batch(loaded)
    loss, expected = _step(loaded, batch, accelerator)
    plain = micro_batch_size.activation_bytes(loaded, batch, accelerator)
    with layer_execution.layer_execution(loaded, TrainConfig(activation_checkpointing=True)):
        assert micro_batch_size.activation_bytes(loaded, batch, accelerator) < 0.6 * plain
        for micro in (None, 7):
            other, found = _step(loaded, batch, accelerator, micro)
            if micro is None:  # dropout is drawn by micro-batch
                assert other == loss
                assert all(torch.equal(found[name], grad) for name, grad in expected.items())
    again, _ = _step(loaded, batch, accelerator)
    assert again == loss
    assert micro_batch_size.activation_bytes(loaded, batch, accelerator) == plain  # undone afterwards


def test_activation_checkpointing_with_an_adapter(base: Path, accelerator: Accelerator) -> None:
    loaded = _model(base, Lora(rank=2, dropout=0.3, last_layers=1))
    batch = _batch(loaded)
    loss, expected = _step(loaded, batch, accelerator, 7)
    with layer_execution.layer_execution(loaded, TrainConfig(activation_checkpointing=True)):
        other, found = _step(loaded, batch, accelerator, 7)
    assert other == loss
    assert len(expected) > 3
    assert all(torch.equal(found[name], grad) for name, grad in expected.items())


def test_a_family_that_cannot_be_checkpointed(
    base: Path, accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = _model(base)
    monkeypatch.setattr(type(loaded.hf_base), "supports_gradient_checkpointing", False)
    with (
        pytest.raises(RecipeError) as caught,
        layer_execution.layer_execution(loaded, TrainConfig(activation_checkpointing=True)),
    ):
        pass
    assert str(caught.value) == (
        "train.activation_checkpointing: family clip does not support it; leave it out and lower train.micro_batch_size"
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch warns of its own parts while it compiles
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_compiled_layers_give_the_same_gradients(base: Path, accelerator: Accelerator) -> None:
    """Fault 20."""
    loaded = _model(base)
    batch = _batch(loaded, 6)
    loss, expected = _step(loaded, batch, accelerator)
    names = list(loaded.weights())
    with layer_execution.layer_execution(loaded, TrainConfig(compile=True)):
        layers = loaded.hf_base.vision_model.encoder.layers
        assert layers[0]._compiled_call_impl is not None
        other, found = _step(loaded, batch, accelerator)
        assert list(loaded.weights()) == names  # no prefix in a checkpoint
    assert layers[0]._compiled_call_impl is None
    assert other == pytest.approx(loss, abs=1e-5)
    for name, grad in expected.items():
        assert torch.allclose(found[name], grad, atol=1e-5), name


# --- the optimizer -------------------------------------------------------------------------------------


def test_a_library_that_is_not_there_is_said_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(RecipeError) as caught:
        training_optimizer.require_optimizer(TrainConfig(optimizer="adamw8bit"))
    assert str(caught.value) == (
        "train.optimizer: adamw8bit needs bitsandbytes: pip install 'domainclip[eight_bit]', or use adamw"
    )
    training_optimizer.require_optimizer(TrainConfig())


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_eight_bit_moments_go_on_as_if_never_stopped(base: Path, accelerator: Accelerator) -> None:
    from domainclip.training.state import TrainingState

    settings = TrainConfig(optimizer="adamw8bit")

    def begin() -> tuple[DualEncoder, Any, TrainingState]:
        loaded = _model(base)
        factors = dict.fromkeys(loaded.weights(), 1.0)
        optimizer = training_optimizer.make_optimizer(loaded, factors, settings, 1e-3)
        return loaded, optimizer, TrainingState(0, loaded.weights(), optimizer)

    def go(loaded: DualEncoder, optimizer: Any, steps: int) -> None:
        for _ in range(steps):
            step.compute_gradients(loaded, loaded, _batch(loaded), TERMS, None, 0, accelerator)
            optimizer.step()
            optimizer.zero_grad()

    whole, optimizer, state = begin()
    go(whole, optimizer, 2)
    saved = {kind: {name: one.clone() for name, one in some.items()} for kind, some in state.groups().items()}
    assert any(one.dtype == torch.uint8 for one in saved["optimizer"].values())
    go(whole, optimizer, 2)
    resumed, optimizer, state = begin()
    state.restore(saved, 2)
    go(resumed, optimizer, 2)
    for name, weight in whole.weights().items():
        assert torch.equal(weight, resumed.weights()[name]), name


def test_every_family_uses_scaled_dot_product_attention(tmp_path: Path) -> None:
    for make in (
        tiny_models.tiny_clip,
        tiny_models.tiny_siglip,
        tiny_models.tiny_siglip2_naflex,
        tiny_models.tiny_dual_encoder,
    ):
        plain = loading.load_model(make(tmp_path / make.__name__)).hf_base
        assert plain.config.vision_config._attn_implementation == "sdpa"
        assert plain.config.text_config._attn_implementation == "sdpa"
