"""Products by the other library: the numbers of the first one, gradients included, and when they are made."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from domainclip import components
from domainclip.config.training import TrainConfig
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
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """On any processor and at any size; the list fills with the shapes of what the other library makes."""
    made: list[tuple[int, ...]] = []
    product = onednn._product

    def note(*given: Tensor) -> Tensor:
        found = product(*given)
        made.append(tuple(found.shape))
        return found

    monkeypatch.setattr(onednn, "is_faster", lambda: True)
    monkeypatch.setattr(onednn, "_LEAST", 0)
    monkeypatch.setattr(onednn, "_product", note)
    return made


def _gradients(rows: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor | None]:
    given = [one for one in (rows, weight, bias) if one is not None]
    out = F.linear(rows, weight, bias)
    wanted = [one for one in given if one.requires_grad]
    share = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    return [out.detach(), *torch.autograd.grad((out * share).sum(), wanted)]


@pytest.mark.parametrize("learns", [(True, True, True), (True, False, False), (False, True, True)])
@pytest.mark.parametrize("shape", [(7, 12), (3, 5, 12), (2, 3, 5, 12), (1, 1, 12)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_product_and_its_gradients(
    asked: list[Any], shape: tuple[int, ...], learns: tuple[bool, ...], with_bias: bool
) -> None:
    torch.manual_seed(0)
    given = [torch.randn(shape), torch.randn(20, 12), torch.randn(20) if with_bias else None]
    for one, learn in zip(given, learns, strict=True):
        if one is not None:
            one.requires_grad_(learn)
    expected = _gradients(*given)
    assert asked == []
    with onednn.enabled():
        found = _gradients(*given)
    assert len(asked) == 1 + learns[0] + learns[1]  # nothing is made for what does not learn
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert torch.allclose(mine, theirs, atol=1e-4, rtol=1e-5)


def test_rows_that_do_not_lie_in_one_piece(asked: list[Any]) -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(6, 9, 12), torch.randn(20, 12)
    for view in (rows[:, 0, None], rows[:, ::2], rows.transpose(0, 1), rows[:1].expand(4, -1, -1)):
        assert not view.is_contiguous()
        view = view.detach().requires_grad_()
        expected = _gradients(view, weight, None)
        with onednn.enabled():
            found = _gradients(view, weight, None)
        for mine, theirs in zip(found, expected, strict=True):
            assert torch.allclose(mine, theirs, atol=1e-4, rtol=1e-5)
    assert len(asked) == 8


@pytest.mark.parametrize("share", ["sum", "first", "slice"])
def test_gradients_from_above_that_do_not_lie_in_one_piece(asked: list[Any], share: str) -> None:
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(3, 5, 12), torch.randn(20, 12), torch.randn(20)
    found = []
    for way in (nullcontext, onednn.enabled):
        given = [one.clone().requires_grad_() for one in (rows, weight, bias)]
        with way():
            out = F.linear(*given)
        above = {"sum": out, "first": out[:1], "slice": out[..., ::2]}[share]
        found.append(torch.autograd.grad(above.sum(), given))
    assert len(asked) == 3
    for expected, mine in zip(*found, strict=True):
        assert torch.allclose(mine, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("bias", [torch.arange(40.0)[::2], torch.ones(1), torch.ones(1, 20), torch.ones(20)])
def test_a_bias_that_is_read_otherwise_stays_where_it_was(asked: list[Any], bias: Tensor) -> None:
    rows, weight = torch.randn(9, 12), torch.randn(20, 12)
    with onednn.enabled():
        found = F.linear(rows, weight, bias)
    assert torch.allclose(found, rows @ weight.T + bias, atol=1e-5)
    assert len(asked) == (bias.shape == (20,) and bias.is_contiguous())


class _Own(Tensor):
    """What another library has made of a tensor."""


def test_what_stays_where_it_was(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rows, weight = torch.randn(16, 32), torch.randn(64, 32)
    with onednn.enabled():
        F.linear(rows.double(), weight.double())
        F.linear(rows.bfloat16(), weight.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            assert F.linear(rows, weight).dtype == torch.bfloat16
        F.linear(rows, weight.as_subclass(_Own))
        monkeypatch.setattr(onednn, "_LEAST", 16 * 32 * 64 + 1)
        F.linear(rows, weight)
        assert asked == []
        monkeypatch.setattr(onednn, "_LEAST", 16 * 32 * 64)
        F.linear(rows, weight)
    assert asked == [(16, 64)]
    F.linear(rows, weight)  # and outside nothing is left of it
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("maker", "able", "there", "expected"),
    [
        ("AuthenticAMD", "AVX512", True, True),
        ("AuthenticAMD", "AVX2", True, False),
        ("AuthenticAMD", "AVX512", False, False),
        ("GenuineIntel", "AVX512", True, False),
    ],
)
def test_which_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: str, able: str, there: bool, expected: bool
) -> None:
    cpu = tmp_path / "cpuinfo"
    cpu.write_text(f"processor : 0\nvendor_id : {maker}\n")
    monkeypatch.setattr(onednn, "_CPU", cpu)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: able)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: there)
    onednn.is_faster.cache_clear()
    try:
        assert onednn.is_faster() is expected
        assert isinstance(onednn.enabled(), nullcontext) is not expected
    finally:
        onednn.is_faster.cache_clear()


@pytest.mark.parametrize("fault", ["gone", "other arguments", "another answer"])
def test_a_torch_without_this_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def changed(*given: Any) -> Tensor:
        if fault == "another answer":
            return given[0] @ given[1].T
        raise AttributeError("_linear_pointwise") if fault == "gone" else RuntimeError("expected 7 arguments")

    cpu = tmp_path / "cpuinfo"
    cpu.write_text("vendor_id : AuthenticAMD\n")
    monkeypatch.setattr(onednn, "_CPU", cpu)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    onednn.is_faster.cache_clear()
    try:
        assert onednn.is_faster()
        monkeypatch.setattr(onednn, "_product", changed)
        onednn.is_faster.cache_clear()
        assert not onednn.is_faster()
        assert isinstance(onednn.enabled(), nullcontext)
    finally:
        onednn.is_faster.cache_clear()


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


def _taken(loaded: DualEncoder, micro: int | None = None) -> tuple[float, dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (len(TEXTS), 32, 32, 3), dtype=torch.uint8, generator=draw)
    batch = StepBatch({"pixels": pixels}, None, TEXTS, None, torch.arange(len(TEXTS)), None)
    terms = components.WeightedObjectives({"contrastive": (1.0, Contrastive())})
    loss = step.compute_gradients(loaded, loaded, batch, terms, micro, 0, Accelerator(cpu=True)).loss
    found = {name: w.grad.clone() for name, w in loaded.weights().items() if w.grad is not None}
    loaded.zero_grad(set_to_none=True)
    return loss, found


@pytest.mark.parametrize("micro", [None, 2])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(
    "strategy", [Full(), Lora(rank=2, dropout=0.3, targets="attention+mlp"), Full(last_layers=1)]
)
def test_a_step_of_both_towers(
    tmp_path: Path,
    asked: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    strategy: Any,
    checkpointed: bool,
    micro: int,
) -> None:
    loaded = _ready(tmp_path, strategy)
    with layer_execution.layer_execution(loaded, TrainConfig(activation_checkpointing=checkpointed)):
        loss, found = _taken(loaded, micro)
        assert len(asked) > 50
        again = _taken(loaded, micro)
        monkeypatch.setattr(onednn, "is_faster", lambda: False)
        monkeypatch.setattr(onednn, "enabled", nullcontext)
        expected, gradients = _taken(loaded, micro)
    assert loss == pytest.approx(expected, abs=1e-6)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), name
        assert torch.equal(again[1][name], found[name])  # the same bits every time


def test_compiled_layers_are_left_to_the_compiler(tmp_path: Path, asked: list[Any]) -> None:
    loaded = _ready(tmp_path, Full())
    assert not isinstance(loaded._onednn("image"), nullcontext)
    for layer in loaded.hf_base.vision_model.encoder.layers:
        layer.compile(backend="eager")
    assert isinstance(loaded._onednn("image"), nullcontext)
    assert not isinstance(loaded._onednn("text"), nullcontext)


@pytest.mark.filterwarnings("default")  # torch warns of its own parts while it compiles
@pytest.mark.parametrize("here", [True, False])
def test_compiled_layers_can_be_computed_again_in_the_backward_pass(
    tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    monkeypatch.setattr(onednn, "is_faster", lambda: here)
    loaded = _ready(tmp_path, Full())
    expected, gradients = _taken(loaded)
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *a, **k: compiled(*a, **k, backend="aot_eager"))
    with layer_execution.layer_execution(loaded, TrainConfig(activation_checkpointing=True, compile=True)):
        loss, found = _taken(loaded)
    assert loss == pytest.approx(expected, abs=1e-6)
    for name, gradient in gradients.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), name


def test_another_device_is_left_alone(tmp_path: Path, asked: list[Any]) -> None:
    loaded = _ready(tmp_path, Full())
    loaded.to("meta")
    assert isinstance(loaded._onednn("image"), nullcontext)


def test_what_is_kept_is_made_so_too(tmp_path: Path, asked: list[Any]) -> None:
    loaded = _ready(tmp_path, Full(last_layers=1)).eval()
    loaded.frozen_hidden_states("text", loaded.text_tokenizer(TEXTS))
    assert len(asked) == 6  # of one layer


@pytest.mark.parametrize(("told", "kept"), [(None, "32"), ("300", "300")])
def test_few_plans_are_kept_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, told: str | None, kept: str
) -> None:
    monkeypatch.setenv(onednn._PLANS, told or "")
    if told is None:
        monkeypatch.delenv(onednn._PLANS)
    assert onednn._answers()
    assert os.environ[onednn._PLANS] == kept
