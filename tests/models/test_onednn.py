"""Products by oneDNN: the numbers and gradients of torch's default, and the conditions of its use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from domainclip import components
from domainclip.config.training import TrainConfig
from domainclip.data.batching.matches import MatchKeys
from domainclip.models import loading, onednn
from domainclip.models.dual_encoder import DualEncoder
from domainclip.objectives.contrastive import Contrastive
from domainclip.strategies.full import Full
from domainclip.strategies.lora import Lora
from domainclip.training import layer_execution, step
from domainclip.training.views import StepBatch
from tests.support import tiny_models

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this torch has no oneDNN",
)
TEXTS = ["a red circle", "two small squares on the left of a green dog", "cat", "no effusion", "a galaxy"]


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """oneDNN on any processor and for any size; the shapes of its products."""
    shapes: list[tuple[int, ...]] = []
    product = onednn._product

    def record(*operands: Tensor) -> Tensor:
        result = product(*operands)
        shapes.append(tuple(result.shape))
        return result

    monkeypatch.setattr(onednn, "is_faster", lambda: True)
    monkeypatch.setattr(onednn, "_MIN_MULTIPLICATIONS", 0)
    monkeypatch.setattr(onednn, "_product", record)
    return shapes


def _gradients(rows: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor | None]:
    out = F.linear(rows, weight, bias)
    trained = [tensor for tensor in (rows, weight, bias) if tensor is not None and tensor.requires_grad]
    share = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    return [out.detach(), *torch.autograd.grad((out * share).sum(), trained)]


@pytest.mark.parametrize("trained", [(True, True, True), (True, False, False), (False, True, True)])
@pytest.mark.parametrize("shape", [(7, 12), (3, 5, 12), (2, 3, 5, 12), (1, 1, 12)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_product_and_its_gradients(
    products: list[Any], shape: tuple[int, ...], trained: tuple[bool, ...], with_bias: bool
) -> None:
    torch.manual_seed(0)
    operands = [torch.randn(shape), torch.randn(20, 12), torch.randn(20) if with_bias else None]
    for tensor, needs_grad in zip(operands, trained, strict=True):
        if tensor is not None:
            tensor.requires_grad_(needs_grad)
    expected = _gradients(*operands)
    assert products == []
    with onednn.enabled():
        actual = _gradients(*operands)
    assert len(products) == 1 + trained[0] + trained[1]  # none for a tensor without gradient
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.shape == theirs.shape
        assert torch.allclose(mine, theirs, atol=1e-4, rtol=1e-5)


def test_rows_that_are_not_contiguous(products: list[Any]) -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(6, 9, 12), torch.randn(20, 12)
    for view in (rows[:, 0, None], rows[:, ::2], rows.transpose(0, 1), rows[:1].expand(4, -1, -1)):
        assert not view.is_contiguous()
        view = view.detach().requires_grad_()
        expected = _gradients(view, weight, None)
        with onednn.enabled():
            actual = _gradients(view, weight, None)
        for mine, theirs in zip(actual, expected, strict=True):
            assert torch.allclose(mine, theirs, atol=1e-4, rtol=1e-5)
    assert len(products) == 8


@pytest.mark.parametrize("share", ["sum", "first", "slice"])
def test_output_gradients_that_are_not_contiguous(products: list[Any], share: str) -> None:
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(3, 5, 12), torch.randn(20, 12), torch.randn(20)
    gradients = []
    for context in (nullcontext, onednn.enabled):
        operands = [tensor.clone().requires_grad_() for tensor in (rows, weight, bias)]
        with context():
            out = F.linear(*operands)
        used = {"sum": out, "first": out[:1], "slice": out[..., ::2]}[share]
        gradients.append(torch.autograd.grad(used.sum(), operands))
    assert len(products) == 3
    for expected, mine in zip(*gradients, strict=True):
        assert torch.allclose(mine, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("bias", [torch.arange(40.0)[::2], torch.ones(1), torch.ones(1, 20), torch.ones(20)])
def test_a_bias_of_another_layout_is_left_to_torch(products: list[Any], bias: Tensor) -> None:
    rows, weight = torch.randn(9, 12), torch.randn(20, 12)
    with onednn.enabled():
        out = F.linear(rows, weight, bias)
    assert torch.allclose(out, rows @ weight.T + bias, atol=1e-5)
    assert len(products) == (bias.shape == (20,) and bias.is_contiguous())


class _Subclass(Tensor):
    """A tensor of another library."""


def test_products_that_are_left_to_torch(products: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rows, weight = torch.randn(16, 32), torch.randn(64, 32)
    with onednn.enabled():
        F.linear(rows.double(), weight.double())
        F.linear(rows.bfloat16(), weight.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            assert F.linear(rows, weight).dtype == torch.bfloat16
        F.linear(rows, weight.as_subclass(_Subclass))
        monkeypatch.setattr(onednn, "_MIN_MULTIPLICATIONS", 16 * 32 * 64 + 1)
        F.linear(rows, weight)
        assert products == []
        monkeypatch.setattr(onednn, "_MIN_MULTIPLICATIONS", 16 * 32 * 64)
        F.linear(rows, weight)
    assert products == [(16, 64)]
    F.linear(rows, weight)  # outside, torch again
    assert len(products) == 1


@pytest.mark.parametrize(
    ("maker", "capability", "available", "expected"),
    [
        ("AuthenticAMD", "AVX512", True, True),
        ("AuthenticAMD", "AVX2", True, False),
        ("AuthenticAMD", "AVX512", False, False),
        ("GenuineIntel", "AVX512", True, False),
    ],
)
def test_which_processors(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    maker: str,
    capability: str,
    available: bool,
    expected: bool,
) -> None:
    cpu = tmp_path / "cpuinfo"
    cpu.write_text(f"processor : 0\nvendor_id : {maker}\n")
    monkeypatch.setattr(onednn, "_CPU_INFO", cpu)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: available)
    onednn.is_faster.cache_clear()
    try:
        assert onednn.is_faster() is expected
        assert isinstance(onednn.enabled(), nullcontext) is not expected
    finally:
        onednn.is_faster.cache_clear()


@pytest.fixture
def amd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor on which oneDNN is faster."""
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("vendor_id : AuthenticAMD\n")
    monkeypatch.setattr(onednn, "_CPU_INFO", cpu)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.delenv(onednn.SWITCH, raising=False)
    onednn.is_faster.cache_clear()
    yield
    onednn.is_faster.cache_clear()


@pytest.mark.parametrize("fault", ["missing", "other arguments", "another result"])
def test_a_torch_without_this_product(amd: None, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def changed(*operands: Any) -> Tensor:
        if fault == "another result":
            return operands[0] @ operands[1].T
        raise (
            AttributeError("_linear_pointwise")
            if fault == "missing"
            else RuntimeError("expected 7 arguments")
        )

    assert onednn.is_faster()
    monkeypatch.setattr(onednn, "_product", changed)
    onednn.is_faster.cache_clear()
    assert not onednn.is_faster()
    assert isinstance(onednn.enabled(), nullcontext)


@pytest.mark.filterwarnings("error")
def test_without_the_private_operator_torch_computes_and_nothing_is_printed(
    amd: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    rows, weight = torch.randn(128, 256), torch.randn(512, 256)
    with onednn.enabled():
        assert torch.equal(F.linear(rows, weight), rows @ weight.T)
    assert onednn.device_key("cpu") == "cpu"
    assert capfd.readouterr() == ("", "")


def test_the_switch_turns_it_off_and_the_numbers_stay(
    amd: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "_MIN_MULTIPLICATIONS", 0)
    used = []
    product = onednn._product
    monkeypatch.setattr(onednn, "_product", lambda *operands: used.append(0) or product(*operands))
    loaded = _ready(tmp_path, Full())
    loss, gradients = _compute(loaded)
    assert onednn.device_key("cpu") == "cpu, oneDNN"
    assert len(used) > 50
    monkeypatch.setenv(onednn.SWITCH, "0")
    onednn.is_faster.cache_clear()
    used.clear()
    expected, expected_gradients = _compute(loaded)
    assert used == []
    assert onednn.device_key("cpu") == "cpu"
    assert loss == pytest.approx(expected, abs=1e-6)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        assert torch.allclose(gradients[name], gradient, atol=1e-5), name


def _ready(folder: Path, strategy: Any) -> DualEncoder:
    torch.manual_seed(0)
    loaded = loading.load_model(tiny_models.tiny_clip(folder / "base"))
    strategy.learning_rates(loaded)
    with torch.no_grad():
        for name, weight in loaded.weights().items():
            if ".lora_B." in name:
                weight.normal_(0, 0.05)
    loaded.set_train_mode({"image", "text"})
    return loaded


def _compute(loaded: DualEncoder, micro: int | None = None) -> tuple[float, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    shape = (len(TEXTS), 32, 32, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    batch = StepBatch(
        {"pixels": pixels}, None, TEXTS, None, MatchKeys.of_groups(torch.arange(len(TEXTS))), None
    )
    terms = components.WeightedObjectives({"contrastive": (1.0, Contrastive())})
    loss = step.compute_gradients(loaded, loaded, batch, terms, micro, 0, Accelerator(cpu=True)).loss
    gradients = {name: w.grad.clone() for name, w in loaded.weights().items() if w.grad is not None}
    loaded.zero_grad(set_to_none=True)
    return loss, gradients


@pytest.mark.parametrize("micro", [None, 2])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(
    "strategy", [Full(), Lora(rank=2, dropout=0.3, targets="attention+mlp"), Full(last_layers=1)]
)
def test_a_step_of_both_towers(
    tmp_path: Path,
    products: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    strategy: Any,
    checkpointed: bool,
    micro: int,
) -> None:
    loaded = _ready(tmp_path, strategy)
    with layer_execution.layer_execution(loaded, TrainConfig(activation_checkpointing=checkpointed)):
        loss, gradients = _compute(loaded, micro)
        assert len(products) > 50
        again = _compute(loaded, micro)
        monkeypatch.setattr(onednn, "is_faster", lambda: False)
        monkeypatch.setattr(onednn, "enabled", nullcontext)
        expected, expected_gradients = _compute(loaded, micro)
    assert loss == pytest.approx(expected, abs=1e-6)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        assert torch.allclose(gradients[name], gradient, atol=1e-5), name
        assert torch.equal(again[1][name], gradients[name])  # the same bits every time


def test_compiled_layers_are_left_to_the_compiler(tmp_path: Path, products: list[Any]) -> None:
    loaded = _ready(tmp_path, Full())
    assert not isinstance(loaded._onednn("image"), nullcontext)
    for layer in loaded.hf_base.vision_model.encoder.layers:
        layer.compile(backend="eager")
    assert isinstance(loaded._onednn("image"), nullcontext)
    assert not isinstance(loaded._onednn("text"), nullcontext)


@pytest.mark.filterwarnings("default")  # torch warns of its own functions while it compiles
@pytest.mark.parametrize("faster", [True, False])
def test_compiled_layers_can_be_computed_again_in_the_backward_pass(
    tmp_path: Path, products: list[Any], monkeypatch: pytest.MonkeyPatch, faster: bool
) -> None:
    monkeypatch.setattr(onednn, "is_faster", lambda: faster)
    loaded = _ready(tmp_path, Full())
    expected, expected_gradients = _compute(loaded)
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *a, **k: compiled(*a, **k, backend="aot_eager"))
    with layer_execution.layer_execution(loaded, TrainConfig(activation_checkpointing=True, compile=True)):
        loss, gradients = _compute(loaded)
    assert loss == pytest.approx(expected, abs=1e-6)
    for name, gradient in expected_gradients.items():
        assert torch.allclose(gradients[name], gradient, atol=1e-5), name


def test_another_device_is_left_to_torch(tmp_path: Path, products: list[Any]) -> None:
    loaded = _ready(tmp_path, Full())
    loaded.to("meta")
    assert isinstance(loaded._onednn("image"), nullcontext)


def test_frozen_hidden_states_use_it_too(tmp_path: Path, products: list[Any]) -> None:
    loaded = _ready(tmp_path, Full(last_layers=1)).eval()
    loaded.frozen_hidden_states("text", loaded.text_tokenizer(TEXTS))
    assert len(products) == 6  # of one layer


@pytest.mark.parametrize(("given", "expected"), [(None, "32"), ("300", "300")])
def test_the_capacity_of_the_cache_is_small_unless_it_is_given(
    monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    monkeypatch.setenv(onednn._CACHE_CAPACITY, given or "")
    if given is None:
        monkeypatch.delenv(onednn._CACHE_CAPACITY)
    assert onednn._works()
    assert os.environ[onednn._CACHE_CAPACITY] == expected
