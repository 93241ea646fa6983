"""The last layer at one position: the embeddings and gradients of the whole layer, with less arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from domainclip import components
from domainclip.config.training import TrainConfig
from domainclip.data.batching.matches import MatchKeys
from domainclip.models import last_layer, layers, loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.objectives.contrastive import Contrastive
from domainclip.strategies.full import Full
from domainclip.strategies.lora import Lora
from domainclip.training import layer_execution, step
from domainclip.training.views import StepBatch
from tests.support import tiny_models

FAMILIES: dict[str, Callable[..., Path]] = {
    make.__name__.removeprefix("tiny_"): make for make in tiny_models.FAMILIES
}
# By family, the towers whose embedding is made of one token, in supported layers.
SINGLE_TOKEN = {
    "clip": {"image", "text"},
    "metaclip_2": {"image", "text"},
    "siglip": {"text"},
    "siglip2_naflex": {"text"},
    "chinese_clip": {"image"},
    "altclip": {"image"},
    "dual_encoder": {"image"},
}
STRATEGIES = {
    "full": Full(),
    "full, last layer": Full(last_layers=1),
    "full, both layers": Full(last_layers=2),
    "attention": Lora(rank=2, dropout=0.0),
    "attention+mlp": Lora(rank=2, dropout=0.0, targets="attention+mlp"),
    "attention+mlp, last layer": Lora(rank=2, dropout=0.0, targets="attention+mlp", last_layers=1),
}
TEXTS = [
    "a red circle",
    "two small squares on the left of a green dog",
    "cat",
    "no effusion with pneumonia",
    "",
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    return {name: make(folder / name) for name, make in FAMILIES.items()}


def _ready(base: Path, strategy: Any = None) -> DualEncoder:
    torch.manual_seed(0)
    model = loading.load_model(base)
    (strategy or Full()).learning_rates(model)
    with torch.no_grad():
        for name, weight in model.weights().items():
            if ".lora_B." in name:  # an adapter starts at zero
                weight.normal_(0, 0.05)
            if name.endswith("bias"):  # and so do biases
                weight.add_(torch.randn_like(weight), alpha=0.1)
    model.set_train_mode({"image", "text"})
    return model


def _inputs(model: DualEncoder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    images = [model.image_preprocessor(tiny_models.noise(30 + 9 * i, 40, seed=i)) for i in range(5)]
    return tiny_models.stack(images), model.text_tokenizer(TEXTS)


def _run(model: DualEncoder, image: Any, text: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Both embeddings, and the gradients of a sum that depends on each of their numbers."""
    rows = torch.cat([rows for rows in model(image, text)[:2] if rows is not None])
    (rows * torch.linspace(-1, 1, rows.numel()).reshape(rows.shape)).sum().backward()
    gradients = {name: w.grad.clone() for name, w in model.weights().items() if w.grad is not None}
    model.zero_grad(set_to_none=True)
    return rows.detach(), gradients


def _compute_whole_layers(model: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every layer at all positions from here on."""
    monkeypatch.setattr(model, "pooled_position", lambda *_: None)


def _single_token_towers(model: DualEncoder) -> set[str]:
    """The towers whose last layer runs at one position."""
    image, text = _inputs(model)
    batches = {"image": image, "text": text}
    return {
        modality
        for modality, batch in batches.items()
        if not isinstance(
            last_layer.compute_only_at(model.tower(modality), model.pooled_position(modality, batch)),  # type: ignore[arg-type]
            nullcontext,
        )
    }


def _assert_equal(
    model: DualEncoder, monkeypatch: pytest.MonkeyPatch, *inputs: Any, tolerance: float
) -> None:
    rows, actual = _run(model, *inputs)
    _compute_whole_layers(model, monkeypatch)
    expected, gradients = _run(model, *inputs)
    assert (rows - expected).abs().max() < tolerance
    assert actual.keys() == gradients.keys()
    assert len(actual) > 3
    largest = max(gradient.abs().max() for gradient in gradients.values())
    assert largest > 0.1
    for name, gradient in gradients.items():
        assert (actual[name] - gradient).abs().max() < tolerance * max(1, largest), name


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_and_gradients_are_those_of_whole_layers(
    bases: dict[str, Path], family: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _ready(bases[family], STRATEGIES[strategy])
    assert _single_token_towers(model) == SINGLE_TOKEN[family]
    _assert_equal(model, monkeypatch, *_inputs(model), tolerance=1e-5)


@pytest.mark.parametrize("strategy", ["full", "attention+mlp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_double_precision_both_are_equal(bases: dict[str, Path], family: str, strategy: str) -> None:
    """Only the order of sums differs."""
    model = _ready(bases[family], STRATEGIES[strategy]).double()
    image, text = _inputs(model)
    for modality, batch, features in (
        ("image", image, model._image_features),
        ("text", text, model._text_features),
    ):
        if modality not in SINGLE_TOKEN[family]:
            continue
        rows, gradients = [], []
        for position in (model.pooled_position(modality, batch), None):  # type: ignore[arg-type]
            with last_layer.compute_only_at(model.tower(modality), position):  # type: ignore[arg-type]
                rows.append(features(batch).pooler_output)
            assert rows[-1].dtype == torch.float64
            (rows[-1] * torch.linspace(-1, 1, rows[-1].numel()).reshape(rows[-1].shape)).sum().backward()
            gradients.append({n: w.grad.clone() for n, w in model.weights().items() if w.grad is not None})
            model.zero_grad(set_to_none=True)
        assert (rows[0] - rows[1]).abs().max() < 1e-12
        assert gradients[0].keys() == gradients[1].keys()
        for name, gradient in gradients[1].items():
            assert (gradients[0][name] - gradient).abs().max() < 1e-10 * max(1, gradient.abs().max()), name


@pytest.mark.parametrize("family", FAMILIES)
def test_unnormalized_text_embeddings(bases: dict[str, Path], family: str) -> None:
    model = _ready(bases[family]).eval()
    text = model.text_tokenizer([*TEXTS, "a " * 200])
    with torch.no_grad():
        raw, plain = (
            model.encode_text_unnormalized(text),
            model.hf_base.get_text_features(**text).pooler_output,
        )
        assert (raw - plain).abs().max() < 1e-5 * plain.abs().max()
        # Equal to the last bit after normalization.
        assert torch.equal(F.normalize(raw, dim=-1), model.encode_text(text))
        assert (raw.norm(dim=-1) - 1).abs().max() > 0.1


@pytest.mark.parametrize("last_layers", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_from_frozen_hidden_states(
    bases: dict[str, Path], family: str, last_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = Lora(rank=2, dropout=0.0, targets="attention+mlp", last_layers=last_layers)
    model = _ready(bases[family], strategy)
    image, text = _inputs(model)
    assert model.first_trainable_layer("image") == model.first_trainable_layer("text") == 2 - last_layers
    from_hidden = (
        {"hidden": model.frozen_hidden_states("image", image)}
        if "image" in model.accepts_hidden_states
        else image
    )
    text_with_hidden = {**text, "hidden": model.frozen_hidden_states("text", text)}
    before = [name for name, _ in model.named_modules()]
    _assert_equal(model, monkeypatch, from_hidden, text_with_hidden, tolerance=1e-5)
    assert [name for name, _ in model.named_modules()] == before  # all modules are restored


def test_adapters_of_other_kinds(bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = _ready(bases["clip"])
    wrapped = LoraConfig(r=2, use_dora=True, target_modules=["q_proj", "k_proj", "v_proj", "out_proj", "fc1"])
    model.hf_model = get_peft_model(model.hf_model, wrapped)
    assert _single_token_towers(model) == {"image", "text"}
    _assert_equal(model, monkeypatch, *_inputs(model), tolerance=1e-5)


@pytest.mark.parametrize("family", ["clip", "metaclip_2"])
def test_tokens_behind_the_end_do_not_reach_it(bases: dict[str, Path], family: str) -> None:
    model = _ready(bases[family])
    text = model.text_tokenizer(TEXTS)["input_ids"]
    ends = model.pooled_position("text", {"input_ids": text})
    behind = torch.arange(text.shape[1]) > ends[:, None]  # type: ignore[operator]
    other = torch.where(behind, (text + 7) % 20 + 5, text)
    assert behind.any()
    assert not torch.equal(other, text)
    expected = model.encode_text({"input_ids": text})
    assert torch.equal(model.encode_text({"input_ids": other}), expected)
    before = text.clone()
    before[0, 1] += 1  # negative control: a word before the end does
    assert not torch.allclose(model.encode_text({"input_ids": before})[0], expected[0], atol=1e-4)


def test_the_first_converted_checkpoints_are_pooled_at_the_highest_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _ready(tiny_models.tiny_clip(tmp_path / "base", legacy_eos=True))
    assert _single_token_towers(model) == {"image", "text"}
    ids = torch.tensor([[7, 2, 9, 4, 9], [2, 3, 1, 0, 0]])
    assert last_layer.end_of_text(ids, None).tolist() == [2, 1]  # the first of the highest
    assert last_layer.end_of_text(ids, 2).tolist() == [1, 0]
    _assert_equal(model, monkeypatch, *_inputs(model), tolerance=1e-5)


def test_a_mask_of_the_model_is_applied(bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """From a padding mask, transformers makes one of all tokens by all tokens for the layers."""
    model = _ready(bases["clip"])
    image, text = _inputs(model)
    text["attention_mask"] = torch.ones_like(text["input_ids"])
    text["attention_mask"][:, 1] = 0  # in front of the end, so that it matters
    bare = model.encode_text({"input_ids": text["input_ids"]})
    assert not torch.allclose(model.encode_text(text), bare, atol=1e-3)
    _assert_equal(model, monkeypatch, image, text, tolerance=1e-5)


def test_under_autocast_it_differs_by_rounding(
    bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _ready(bases["clip"], STRATEGIES["attention+mlp"])
    inputs = _inputs(model)
    exact, _ = _run(model, *inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rows, actual = _run(model, *inputs)
        _compute_whole_layers(model, monkeypatch)
        expected, gradients = _run(model, *inputs)
    off = (expected - exact).abs().max()  # the effect of rounding on whole layers
    assert 1e-4 < off < 5e-2
    assert (rows - exact).abs().max() < 2 * off
    assert actual.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (actual[name] - gradient).norm() <= 0.1 * max(gradient.norm(), torch.tensor(0.1)), name


@pytest.mark.parametrize("micro", [None, 1, 5])
def test_with_gradient_caching(
    bases: dict[str, Path], micro: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _ready(bases["clip"])
    pixels = torch.randint(
        0, 256, (7, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    texts = [f"a red circle {'and a dog ' * (i % 4)}{i}" for i in range(7)]
    batch = StepBatch({"pixels": pixels}, None, texts, None, MatchKeys.of_groups(torch.arange(7)), None)
    results = []
    for _ in range(2):
        terms = components.WeightedObjectives({"contrastive": (1.0, Contrastive())})
        output = step.compute_gradients(model, model, batch, terms, micro, 0, Accelerator(cpu=True))
        results.append((output.loss, {name: w.grad.clone() for name, w in model.weights().items()}))
        model.zero_grad(set_to_none=True)
        _compute_whole_layers(model, monkeypatch)
    (loss, actual), (expected, gradients) = results
    assert loss == pytest.approx(expected, abs=1e-5)
    for name, gradient in gradients.items():
        assert torch.allclose(actual[name], gradient, atol=1e-5), name


def test_activation_checkpointing_reaches_the_layer(
    bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _ready(bases["clip"])
    inputs = _inputs(model)
    expected, gradients = _run(model, *inputs)
    again: list[str] = []
    last = model.hf_base.vision_model.encoder.layers[-1]
    run = last.layer_norm2.forward
    monkeypatch.setattr(last.layer_norm2, "forward", lambda rows: again.append("") or run(rows))
    with layer_execution.layer_execution(model, TrainConfig(activation_checkpointing=True)):
        rows, actual = _run(model, *inputs)
    assert len(again) == 2  # forward, and once more in the backward pass
    assert torch.allclose(rows, expected, atol=1e-6)
    assert all(torch.allclose(actual[name], gradient, atol=1e-5) for name, gradient in gradients.items())


@pytest.mark.filterwarnings("default")  # torch warns of its actual functions while it compiles
def test_with_compiled_layers(bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = _ready(bases["clip"])
    inputs = _inputs(model)
    for modality in ("image", "text"):
        for layer in layers.layer_stack(model.tower(modality))[1]:  # type: ignore[arg-type]
            layer.compile(backend="eager", dynamic=True)
    assert _single_token_towers(model) == {"image", "text"}
    _assert_equal(model, monkeypatch, *inputs, tolerance=1e-5)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_sixth_of_the_last_layer_remains(bases: dict[str, Path], modality: str) -> None:
    """Counted by hand: of 24 w² operations a token in four projections and the MLP, 4 w² remain."""
    model = _ready(bases["clip"])
    image, text = _inputs(model)
    batch, features, encode = {
        "image": (image, model._image_features, model.encode_image),
        "text": (text, model._text_features, model.encode_text),
    }[modality]
    counts = []
    for work in (features, encode):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            work(batch)
        linear = sum(n for kind, n in counter.get_flop_counts()["Global"].items() if "mm" in str(kind))
        counts.append(linear)
    b, t = (5, 17) if modality == "image" else tuple(text["input_ids"].shape)
    w, inner = 32, 64
    query_out_mlp = 2 * (2 * w * w + 2 * w * inner)  # a token
    assert counts[0] - counts[1] == b * (t - 1) * query_out_mlp


def _dropout(layer: Any) -> None:
    layer.self_attn.dropout = 0.1


def _hook(layer: Any) -> None:
    layer.register_forward_hook(lambda *_: None)


def _attention_hook(layer: Any) -> None:
    layer.self_attn.register_forward_pre_hook(lambda *_: None)


def _eager(layer: Any) -> None:
    layer.self_attn.config._attn_implementation = "eager"


def _subclass(layer: Any) -> None:
    layer.__class__ = type("MyLayer", (type(layer),), {})


@pytest.mark.parametrize("change", [_dropout, _hook, _attention_hook, _eager, _subclass])
def test_whatever_it_would_not_do_alike_runs_whole(
    bases: dict[str, Path], change: Callable[[Any], None]
) -> None:
    model = _ready(bases["clip"])
    assert _single_token_towers(model) == {"image", "text"}
    change(model.hf_base.vision_model.encoder.layers[-1])
    assert _single_token_towers(model) == {"text"}
    model.eval()
    assert _single_token_towers(model) == ({"image", "text"} if change is _dropout else {"text"})


def test_hidden_dropout_of_a_vit_runs_whole(tmp_path: Path) -> None:
    model = _ready(tiny_models.tiny_dual_encoder(tmp_path / "base", dropout=0.1))
    assert _single_token_towers(model) == set()
    model.eval()
    assert _single_token_towers(model) == {"image"}


def test_a_few_rows_run_whole(bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to three, their last digit would depend on the memory layout of the weights."""
    model = _ready(bases["clip"])
    whole: list[str] = []
    attention = model.hf_base.text_model.encoder.layers[-1].self_attn
    run = attention.forward
    monkeypatch.setattr(attention, "forward", lambda *a, **k: whole.append("") or run(*a, **k))
    _, text = _inputs(model)
    for count, runs in ((3, 1), (4, 1), (1, 2)):
        model.encode_text({name: rows[:count] for name, rows in text.items()})
        assert len(whole) == runs


def test_an_error_inside_restores_the_tower(bases: dict[str, Path]) -> None:
    model = _ready(bases["clip"])
    before = [name for name, _ in model.named_modules()]
    with pytest.raises(IndexError):
        model.encode_text({"input_ids": torch.full((1, 3), 10**6)})
    assert [name for name, _ in model.named_modules()] == before
