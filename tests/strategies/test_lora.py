"""LoRA: starts as the base, learns only the adapter, and loads in plain peft."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import CLIPModel

from domainclip.config import loading as loading_config
from domainclip.config.recipe import AnchorTexts
from domainclip.data.text.anchor_texts import make_sentences
from domainclip.errors import RecipeError
from domainclip.models import dual_encoder, loading
from domainclip.models.null_space import input_roots
from domainclip.models.residual_subspace import principal_directions
from domainclip.models.saving import save_model
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.training_setup import make_setup
from domainclip.strategies.lora import Lora
from tests.support.tiny_models import tiny_chinese_clip, tiny_dual_encoder, tiny_siglip


@pytest.mark.parametrize("strategy", ["lora", "full", "locked_image", "locked_text", "multi_frame"])
def test_every_strategy_trains_an_adapter_further(
    recipe_file: Path, base: Path, tmp_path: Path, strategy: str
) -> None:
    """Its update is merged into the base, so that what is trained is a plain model."""
    save_model(_trained(loading.load_model(base), Lora(rank=2)), tmp_path / "adapter")
    changes = [f"base={tmp_path / 'adapter'}", f"strategy={strategy}"]
    ready = load_inputs(loading_config.load_recipe(str(recipe_file), changes), "train")
    assert ready.base.hf_model is ready.base.hf_base
    assert max(make_setup(ready).factors.values()) > 0


def _embeddings(loaded: dual_encoder.DualEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = loaded.image_size
    pixels = torch.randint(
        0, 256, (3, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        return loaded.encode_image({"pixels": pixels}), loaded.encode_text(
            loaded.text_tokenizer(["a red circle", "a dog"])
        )


def _trained(loaded: dual_encoder.DualEncoder, strategy: Lora) -> dual_encoder.DualEncoder:
    """With an adapter that says something, and a scale that has moved."""
    strategy.learning_rates(loaded)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in loaded.weights().items():
            if ".lora_B." in name:
                weight.normal_(0, 0.1)
            elif name.startswith("scale"):
                weight.add_(0.5)
            elif ".lora_magnitude_vector." in name:
                weight.mul_(1 + 0.1 * torch.rand(weight.shape))
    return loaded.eval()


VARIANTS: list[dict[str, Any]] = [
    *({}, {"rslora": True}, {"dora": True}, {"dora": True, "rslora": True}, {"init": "gaussian"})
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_starts_as_the_base(base: Path, options: dict[str, Any]) -> None:
    """Fault 16."""
    before = _embeddings(loading.load_model(base).eval())
    loaded = loading.load_model(base).eval()
    Lora(rank=2, **options).learning_rates(loaded)
    for one, other in zip(before, _embeddings(loaded.eval()), strict=True):
        # DoRA divides by a row's length and multiplies with it again.
        assert torch.allclose(one, other, atol=1e-6) if "dora" in options else torch.equal(one, other)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_variants_by_hand(base: Path, options: dict[str, Any]) -> None:
    """What a layer says after training, against the formula on the base's own matrix."""
    loaded = _trained(loading.load_model(base), Lora(rank=4, alpha=16, **options))
    name = "text_model.encoder.layers.1.self_attn.q_proj"
    layer = loaded.hf_base.get_submodule(name)
    weight = loading.load_model(base).hf_base.get_submodule(name).weight
    scaling = 16 / 4**0.5 if "rslora" in options else 16 / 4
    whole = weight + scaling * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    if "dora" in options:
        length = layer.lora_magnitude_vector["default"].weight
        assert length.requires_grad
        assert not torch.allclose(length, whole.norm(dim=1), atol=1e-3)
        whole = length[:, None] * whole / whole.norm(dim=1, keepdim=True)
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(layer(rows), rows @ whole.T + layer.base_layer.bias, atol=1e-5)
    assert not torch.allclose(layer(rows), layer.base_layer(rows), atol=1e-2)


def test_gaussian_draws_a_normal_start(base: Path) -> None:
    found = {}
    for init in ("gaussian", "kaiming"):
        torch.manual_seed(0)
        loaded = loading.load_model(base)
        Lora(rank=8, init=init).learning_rates(loaded)  # type: ignore[arg-type]
        drawn = [w.flatten() for name, w in loaded.weights().items() if ".lora_A." in name]
        found[init] = torch.cat(drawn)
    assert found["gaussian"].std().item() == pytest.approx(1 / 8, rel=0.05)  # 1 / rank, as peft draws it
    assert found["gaussian"].abs().max() > 3 / 8  # a uniform one has no tail
    assert found["kaiming"].abs().max() <= 32**-0.5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2 * 2 * 4 * 2),  # two towers, two layers, q k v o, A and B
        ({"towers": "text"}, 2 * 4 * 2),
        ({"towers": "image", "last_layers": 1}, 4 * 2),
        ({"targets": "attention+mlp"}, 2 * 2 * 6 * 2),
        ({"dora": True, "last_layers": 1}, 2 * 4 * 3),  # and the length of each row
        ({"dora": True, "rslora": True, "towers": "text"}, 2 * 4 * 3),
    ],
)
def test_what_learns(base: Path, options: dict[str, object], expected: int) -> None:
    loaded = loading.load_model(base)
    factors = Lora(rank=2, **options).learning_rates(loaded)  # type: ignore[arg-type]
    learning = {name for name, factor in factors.items() if factor > 0}
    assert len(learning - {"scale/logit_scale"}) == expected
    assert "scale/logit_scale" in learning
    assert learning == {name for name, w in loaded.weights().items() if w.requires_grad}


@pytest.mark.parametrize("make", [tiny_siglip, tiny_chinese_clip, tiny_dual_encoder])
def test_every_family_has_its_layers(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    loaded = loading.load_model(make(tmp_path / "base"))
    factors = Lora(rank=2, targets="attention+mlp").learning_rates(loaded)
    learning = [name for name, factor in factors.items() if factor > 0]
    assert sum(name.startswith("image/") for name in learning) >= 2 * 6 * 2
    assert sum(name.startswith("text/") for name in learning) >= 2 * 6 * 2


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_saved_it_loads_in_plain_peft_and_in_ours(
    base: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Fault 16."""
    loaded = _trained(loading.load_model(base), Lora(rank=2, **options))
    image, text = _embeddings(loaded)
    save_model(loaded, tmp_path / "model")
    again = loading.load_model(tmp_path / "model").eval()
    assert all(torch.equal(a, b) for a, b in zip((image, text), _embeddings(again), strict=True))
    assert torch.equal(again.scale, loaded.scale)  # peft drops it; it stands beside the adapter
    plain = PeftModel.from_pretrained(CLIPModel.from_pretrained(base), tmp_path / "model").eval()
    with torch.no_grad():
        tokens = loaded.text_tokenizer(["a red circle", "a dog"])
        found = torch.nn.functional.normalize(plain.get_text_features(**tokens).pooler_output, dim=-1)
    assert torch.allclose(found, text, atol=1e-6)
    # Negative control: the adapter says something.
    assert not torch.allclose(text, _embeddings(loading.load_model(base).eval())[1], atol=1e-3)


@pytest.mark.parametrize("init", ["residual", "gaussian"])
def test_a_residual_adapter_changes_nothing_along_the_principal_directions(base: Path, init: Any) -> None:
    loaded = loading.load_model(base)
    factors = Lora(rank=2, init=init, protected_energy=0.6).learning_rates(loaded)
    assert any(factor for name, factor in factors.items() if ".lora_A." in name) == (init == "gaussian")
    layers = [module for module in loaded.modules() if hasattr(module, "lora_A")]
    assert layers
    changed = []
    for layer in layers:
        torch.nn.init.normal_(layer.lora_B["default"].weight)
        weight = layer.base_layer.weight.detach()
        principal = principal_directions(weight, 0.6)
        # By hand: they hold 60 % of the squared norm, and one fewer does not.
        held = (weight @ principal.T).square().sum() / weight.square().sum()
        fewer = (weight @ principal[:-1].T).square().sum() / weight.square().sum()
        assert fewer < 0.6 <= held
        changed.append((layer.get_delta_weight("default") @ principal.T).abs().max().item())
        assert layer.get_delta_weight("default").abs().max() > 0.1
    assert (max(changed) < 1e-5) == (init == "residual")


def test_general_texts_keep_their_embeddings_in_the_null_space(base: Path) -> None:
    """No row of A meets a protected direction of a layer's inputs, so B moves general texts little."""
    moved, passed = {}, {}
    for init in ("null_space", "gaussian"):
        loaded = loading.load_model(base)
        general = make_sentences(loaded.text_tokenizer.hf_tokenizer, AnchorTexts(count=512), 0)
        tokens = loaded.text_tokenizer(general[:64])
        with torch.no_grad():
            before = loaded.encode_text(dict(tokens))
        torch.manual_seed(0)
        strategy = Lora(rank=2, init=init, text_energy=0.99, targets="attention+mlp")  # type: ignore[arg-type]
        factors = strategy.learning_rates(loaded)
        learning = {name.split("/")[0] for name, factor in factors.items() if factor and ".lora_A." in name}
        assert learning == ({"image"} if init == "null_space" else {"image", "text"})
        layers = [module for module in loaded.tower("text").modules() if hasattr(module, "lora_A")]
        for layer, root in zip(layers, input_roots(loaded, layers, general), strict=True):
            rows = layer.lora_A["default"].weight.detach()
            # The share of the inputs' energy that an average row of A lets through.
            share = (root @ rows.T).square().sum() / rows.square().sum() / root.square().sum()
            passed[init] = max(passed.get(init, 0.0), share.item())
            torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.05)
            layer.lora_B["default"].weight.data /= rows.norm()  # the two adapters have updates of one size
        with torch.no_grad():
            moved[init] = (loaded.encode_text(dict(tokens)) - before).norm(dim=-1).mean().item()
    assert passed["null_space"] <= 0.01 < passed["gaussian"]
    assert 0 < moved["null_space"] < 0.5 * moved["gaussian"]


def test_a_rank_that_the_free_directions_do_not_have_is_refused(base: Path) -> None:
    with pytest.raises(RecipeError, match=r"strategy\.lora\.rank: 16 is more than the \d+ directions"):
        Lora(rank=16, init="residual", protected_energy=0.95).learning_rates(loading.load_model(base))
    with pytest.raises(RecipeError, match="which towers: image leaves out"):
        Lora(init="null_space", towers="image")
    with pytest.raises(RecipeError, match="dora changes the length"):
        Lora(init="residual", dora=True)
