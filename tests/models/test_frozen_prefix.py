"""A tower that starts at a layer has the embeddings and gradients of the whole tower, in every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from domainclip.models import frozen_prefix, loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.strategies.full import Full
from domainclip.strategies.lora import Lora
from tests.support import tiny_models

DROPOUT = {"dropout": 0.2}
FAMILIES: dict[str, tuple[Callable[..., Path], dict[str, Any]]] = {
    "clip": (tiny_models.tiny_clip, DROPOUT),
    "siglip": (tiny_models.tiny_siglip, {}),
    "siglip2": (tiny_models.tiny_siglip2_naflex, {}),
    "chinese_clip": (tiny_models.tiny_chinese_clip, DROPOUT),
    "altclip": (tiny_models.tiny_altclip, {}),
    "metaclip_2": (tiny_models.tiny_metaclip_2, {}),
    "dual_encoder": (tiny_models.tiny_dual_encoder, DROPOUT),
}
TEXTS = ["a red circle", "two small squares on the left of a green dog", "cat", "no effusion with pneumonia"]
STRATEGIES = {
    "full": Full(last_layers=1),
    "lora": Lora(rank=2, dropout=0.3, last_layers=1, targets="attention+mlp"),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    return {name: make(folder / name, **options) for name, (make, options) in FAMILIES.items()}


def _ready(base: Path, strategy: Any) -> DualEncoder:
    torch.manual_seed(0)
    model = loading.load_model(base)
    strategy.learning_rates(model)
    with torch.no_grad():  # an adapter starts at zero
        for name, weight in model.weights().items():
            if ".lora_B." in name:
                weight.normal_(0, 0.05)
    return model


def _inputs(model: DualEncoder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    images = [model.image_preprocessor(tiny_models.noise(30 + 9 * i, 40, seed=i)) for i in range(3)]
    return tiny_models.stack(images), model.text_tokenizer(TEXTS)


def _run(model: DualEncoder, image: Any, text: Any, seed: int = 5) -> tuple[Tensor, dict[str, Tensor]]:
    """Both embeddings, and the gradients of a sum that depends on each of their numbers."""
    model.set_train_mode({"image", "text"})
    torch.manual_seed(seed)
    rows = torch.cat([rows for rows in model(image, text)[:2] if rows is not None])
    (rows * torch.linspace(-1, 1, rows.numel()).reshape(rows.shape)).sum().backward()
    gradients = {name: w.grad.clone() for name, w in model.weights().items() if w.grad is not None}
    model.zero_grad(set_to_none=True)
    return rows.detach(), gradients


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_started_at_a_layer_it_equals_the_whole_tower(
    bases: dict[str, Path], family: str, strategy: str
) -> None:
    model = _ready(bases[family], STRATEGIES[strategy])
    image, text = _inputs(model)
    expected, gradients = _run(model, image, text)
    before = [name for name, _ in model.hf_base.named_modules()]
    model.eval()
    from_hidden = (
        {"hidden": model.frozen_hidden_states("image", image)}
        if "image" in model.accepts_hidden_states
        else image
    )
    text_with_hidden = {**text, "hidden": model.frozen_hidden_states("text", text)}
    assert model.first_trainable_layer("image") == model.first_trainable_layer("text") == 1
    rows, actual = _run(model, from_hidden, text_with_hidden)
    assert torch.allclose(rows, expected, atol=1e-6)
    assert actual.keys() == gradients.keys()
    assert len(actual) > 3
    for name, gradient in gradients.items():
        assert torch.allclose(actual[name], gradient, atol=1e-5), name
    assert [name for name, _ in model.hf_base.named_modules()] == before  # all modules are restored
    # Negative control: other hidden states give other embeddings.
    other, _ = _run(model, from_hidden, {**text_with_hidden, "hidden": text_with_hidden["hidden"].flip(-1)})
    assert not torch.allclose(other, expected, atol=1e-3)


@pytest.mark.parametrize("family", ["clip", "chinese_clip", "dual_encoder"])
def test_dropout_acts_only_in_the_trained_layer(bases: dict[str, Path], family: str) -> None:
    model = _ready(bases[family], Full(last_layers=1))
    image, text = _inputs(model)
    first, second = (_run(model, image, text, seed)[0] for seed in (5, 6))
    assert not torch.allclose(first, second, atol=1e-4)  # in the trained layer
    model.set_train_mode({"image", "text"})
    torch.manual_seed(1)
    hidden = model.frozen_hidden_states("text", text)
    torch.manual_seed(2)
    assert torch.equal(model.frozen_hidden_states("text", text), hidden)  # not below it


@pytest.mark.parametrize("family", FAMILIES)
def test_no_weight_below_the_first_trained_layer_is_trained(bases: dict[str, Path], family: str) -> None:
    model = _ready(bases[family], Full(last_layers=1))
    trained = {name for name, weight in model.weights().items() if weight.requires_grad}
    for modality in ("image", "text"):
        below = set(model.weights_below(modality, 1))
        assert any("embeddings" in name for name in below)
        assert not below & trained
        everything = {name for name in model.weights() if name.startswith(modality)}
        assert everything - below <= trained
        assert (
            any("projection" in name or "head" in name for name in everything - below) or modality == "image"
        )


def test_the_first_trainable_layer(bases: dict[str, Path]) -> None:
    model = loading.load_model(bases["clip"])
    assert model.first_trainable_layer("image") == 0
    model.set_trainable([("image/visual_projection.*", 1.0), (".*", 0.0)])
    assert (
        model.first_trainable_layer("image") == 1
    )  # the last layer: only the projection behind it is trained
    assert model.first_trainable_layer("text") is None
    model.set_trainable([("image/.*layernorm.*", 1.0), ("text/.*position.*", 1.0), (".*", 0.0)])
    assert model.first_trainable_layer("text") == 0
    tower = model.hf_base.vision_model
    assert frozen_prefix.parameters_below(tower, 0) == [
        name for name, _ in tower.named_parameters() if name.startswith(("embeddings", "pre_layrnorm"))
    ]
    assert frozen_prefix.frozen_modules(tower, 0) == []


def test_a_tower_that_fails_is_restored(bases: dict[str, Path]) -> None:
    model = _ready(bases["clip"], Full(last_layers=1))
    image, _ = _inputs(model)
    expected = model.encode_image(image)
    with pytest.raises(RuntimeError):
        model.encode_image({"hidden": torch.zeros(2, 17, 5)})
    assert torch.equal(model.encode_image(image), expected)
