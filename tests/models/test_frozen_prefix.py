"""A tower that begins at a layer says what the whole one says, and learns the same, in every family."""

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

DROPPED = {"dropout": 0.2}
FAMILIES: dict[str, tuple[Callable[..., Path], dict[str, Any]]] = {
    "clip": (tiny_models.tiny_clip, DROPPED),
    "siglip": (tiny_models.tiny_siglip, {}),
    "siglip2": (tiny_models.tiny_siglip2_naflex, {}),
    "chinese_clip": (tiny_models.tiny_chinese_clip, DROPPED),
    "altclip": (tiny_models.tiny_altclip, {}),
    "metaclip_2": (tiny_models.tiny_metaclip_2, {}),
    "dual_encoder": (tiny_models.tiny_dual_encoder, DROPPED),
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
    loaded = loading.load_model(base)
    strategy.learning_rates(loaded)
    with torch.no_grad():  # an adapter starts as nothing: give it something to say
        for name, weight in loaded.weights().items():
            if ".lora_B." in name:
                weight.normal_(0, 0.05)
    return loaded


def _inputs(loaded: DualEncoder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    pictures = [loaded.image_preprocessor(tiny_models.noise(30 + 9 * i, 40, seed=i)) for i in range(3)]
    return tiny_models.stack(pictures), loaded.text_tokenizer(TEXTS)


def _run(loaded: DualEncoder, image: Any, text: Any, seed: int = 5) -> tuple[Tensor, dict[str, Tensor]]:
    """Both embeddings, and the gradients of something that depends on every number of them."""
    loaded.set_train_mode({"image", "text"})
    torch.manual_seed(seed)
    found = torch.cat([rows for rows in loaded(image, text)[:2] if rows is not None])
    (found * torch.linspace(-1, 1, found.numel()).reshape(found.shape)).sum().backward()
    gradients = {name: w.grad.clone() for name, w in loaded.weights().items() if w.grad is not None}
    loaded.zero_grad(set_to_none=True)
    return found.detach(), gradients


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_begun_at_a_layer_gives_the_numbers_of_the_whole(
    bases: dict[str, Path], family: str, strategy: str
) -> None:
    loaded = _ready(bases[family], STRATEGIES[strategy])
    image, text = _inputs(loaded)
    expected, gradients = _run(loaded, image, text)
    before = [name for name, _ in loaded.hf_base.named_modules()]
    loaded.eval()
    kept = (
        {"hidden": loaded.frozen_hidden_states("image", image)}
        if "image" in loaded.accepts_hidden_states
        else image
    )
    midway = {**text, "hidden": loaded.frozen_hidden_states("text", text)}
    assert loaded.first_trainable_layer("image") == loaded.first_trainable_layer("text") == 1
    found, own = _run(loaded, kept, midway)
    assert torch.allclose(found, expected, atol=1e-6)
    assert own.keys() == gradients.keys()
    assert len(own) > 3
    for name, gradient in gradients.items():
        assert torch.allclose(own[name], gradient, atol=1e-5), name
    assert [name for name, _ in loaded.hf_base.named_modules()] == before  # nothing is left behind
    # Negative control: the kept states decide, so others give other numbers.
    other, _ = _run(loaded, kept, {**midway, "hidden": midway["hidden"].flip(-1)})
    assert not torch.allclose(other, expected, atol=1e-3)


@pytest.mark.parametrize("family", ["clip", "chinese_clip", "dual_encoder"])
def test_dropout_draws_in_the_layer_that_learns_only(bases: dict[str, Path], family: str) -> None:
    loaded = _ready(bases[family], Full(last_layers=1))
    image, text = _inputs(loaded)
    one, two = (_run(loaded, image, text, seed)[0] for seed in (5, 6))
    assert not torch.allclose(one, two, atol=1e-4)  # it draws, and
    loaded.set_train_mode({"image", "text"})
    torch.manual_seed(1)
    first = loaded.frozen_hidden_states("text", text)
    torch.manual_seed(2)
    assert torch.equal(loaded.frozen_hidden_states("text", text), first)  # not below


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_below_the_first_learning_layer_learns(bases: dict[str, Path], family: str) -> None:
    loaded = _ready(bases[family], Full(last_layers=1))
    learning = {name for name, weight in loaded.weights().items() if weight.requires_grad}
    for part in ("image", "text"):
        below = set(loaded.weights_below(part, 1))
        assert any("embeddings" in name for name in below)
        assert not below & learning
        everything = {name for name in loaded.weights() if name.startswith(part)}
        assert everything - below <= learning
        assert any("projection" in name or "head" in name for name in everything - below) or part == "image"


def test_where_a_tower_begins_to_learn(bases: dict[str, Path]) -> None:
    loaded = loading.load_model(bases["clip"])
    assert loaded.first_trainable_layer("image") == 0
    loaded.set_trainable([("image/visual_projection.*", 1.0), (".*", 0.0)])
    assert loaded.first_trainable_layer("image") == 1  # the last layer: only the projection behind it learns
    assert loaded.first_trainable_layer("text") is None
    loaded.set_trainable([("image/.*layernorm.*", 1.0), ("text/.*position.*", 1.0), (".*", 0.0)])
    assert loaded.first_trainable_layer("text") == 0
    tower = loaded.hf_base.vision_model
    assert frozen_prefix.parameters_below(tower, 0) == [
        name for name, _ in tower.named_parameters() if name.startswith(("embeddings", "pre_layrnorm"))
    ]
    assert frozen_prefix.frozen_modules(tower, 0) == []


def test_a_tower_that_fails_midway_is_whole_again(bases: dict[str, Path]) -> None:
    loaded = _ready(bases["clip"], Full(last_layers=1))
    image, _ = _inputs(loaded)
    expected = loaded.encode_image(image)
    with pytest.raises(RuntimeError):
        loaded.encode_image({"hidden": torch.zeros(2, 17, 5)})
    assert torch.equal(loaded.encode_image(image), expected)
