"""Vectors of patches: what they are made of, and that making them leaves the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model

from domainclip.errors import ModelError
from domainclip.models.loading import load_model
from domainclip.models.patch_embeddings import encode_patches, patch_grid
from tests.support import tiny_models

FAMILIES = [
    tiny_models.tiny_clip,
    tiny_models.tiny_siglip,
    tiny_models.tiny_chinese_clip,
    tiny_models.tiny_altclip,
    tiny_models.tiny_metaclip_2,
    tiny_models.tiny_dual_encoder,
]


def loaded(family: Callable[..., Path], folder: Path) -> Any:
    model = load_model(str(family(folder / "base")))
    model.eval()
    return model


def pixels(model: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    return tiny_models.stack([model.image_preprocessor(tiny_models.noise(32, 32, seed))])


def one_layer(model: Any) -> None:
    """With a single layer whose attention is left out, nothing travels between patches."""
    vision = model.hf_base.vision_model
    stack = next(module for module in vision.modules() if isinstance(module, torch.nn.ModuleList))
    del stack[1:]


@pytest.mark.parametrize("family", FAMILIES)
def test_shape_length_and_repeatability(family: Callable[..., Path], tmp_path: Path) -> None:
    model = loaded(family, tmp_path)
    batch = pixels(model)
    before = model.encode_image(batch)
    patches = encode_patches(model, batch)
    assert patch_grid(model) == (4, 4)
    assert patches.shape == (1, 16, 16 if family is not tiny_models.tiny_siglip else model.width)
    assert torch.allclose(patches.norm(dim=-1), torch.ones(1, 16), atol=1e-5)
    assert torch.equal(model.encode_image(batch), before)  # the hook is gone
    assert torch.equal(encode_patches(model, batch), patches)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_attention_a_patch_says_only_what_is_in_it(
    family: Callable[..., Path], tmp_path: Path
) -> None:
    model = loaded(family, tmp_path)
    one_layer(model)
    batch = pixels(model)
    changed = {"pixels": batch["pixels"].clone()}
    changed["pixels"][:, 8:16, 24:32] = 255 - changed["pixels"][:, 8:16, 24:32]  # row 1, column 3
    moved = (encode_patches(model, batch) - encode_patches(model, changed)).abs().amax(dim=-1)[0]
    assert moved[1 * 4 + 3] > 1e-4
    moved[7] = 0
    assert moved.max() < 1e-6


def test_with_attention_it_would_say_more(tmp_path: Path) -> None:
    """The negative control of the test above: the ordinary last hidden state moves everywhere."""
    model = loaded(tiny_models.tiny_clip, tmp_path)
    one_layer(model)
    batch = pixels(model)
    changed = {"pixels": batch["pixels"].clone()}
    changed["pixels"][:, 8:16, 24:32] = 255 - changed["pixels"][:, 8:16, 24:32]
    vision = model.hf_base.vision_model
    states = [vision(**model.pixel_inputs(one)).last_hidden_state for one in (batch, changed)]
    moved = (states[0] - states[1]).abs().amax(dim=-1)[0, 1:]
    assert (moved > 1e-6).all()


def test_clip_by_hand(tmp_path: Path) -> None:
    """Last layer: x + out(v(norm(x))), then its MLP; then the norm and projection of the class token."""
    model = loaded(tiny_models.tiny_clip, tmp_path)
    vision, batch = model.hf_base.vision_model, pixels(model)
    with torch.inference_mode():
        first, last = vision.encoder.layers
        x = vision.pre_layrnorm(vision.embeddings(model.pixel_inputs(batch)["pixel_values"]))
        x = first(x, attention_mask=None)
        x = x[0] if isinstance(x, tuple) else x
        x = x + last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(x)))
        x = x + last.mlp(last.layer_norm2(x))
        wanted = model.hf_base.visual_projection(vision.post_layernorm(x[:, 1:]))
        assert torch.allclose(encode_patches(model, batch), F.normalize(wanted, dim=-1), atol=1e-5)


def test_siglip_pools_each_patch_as_if_it_were_alone(tmp_path: Path) -> None:
    model = loaded(tiny_models.tiny_siglip, tmp_path)
    one_layer(model)
    row = torch.randn(1, 1, 32)
    head = model.hf_base.vision_model.head
    value = head.attention.in_proj_weight[64:] @ row[0, 0] + head.attention.in_proj_bias[64:]
    pooled = head.attention.out_proj(value)
    pooled = pooled + head.mlp(head.layernorm(pooled[None]))[0]
    assert torch.allclose(head(row)[0], pooled, atol=1e-5)


def test_an_adapter_counts(tmp_path: Path) -> None:
    model = loaded(tiny_models.tiny_clip, tmp_path)
    before = encode_patches(model, pixels(model))
    model.hf_model = get_peft_model(model.hf_model, LoraConfig(r=2, target_modules=r"vision_model.*v_proj"))
    model.eval()
    assert torch.allclose(encode_patches(model, pixels(model)), before, atol=1e-6)
    for name, weight in model.hf_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(weight)
    assert not torch.allclose(encode_patches(model, pixels(model)), before, atol=1e-3)


def test_a_tower_of_any_shape_says_that_it_has_no_grid(tmp_path: Path) -> None:
    model = loaded(tiny_models.tiny_siglip2_naflex, tmp_path)
    with pytest.raises(ModelError) as error:
        encode_patches(model, tiny_models.stack([model.image_preprocessor(tiny_models.noise(32, 32))]))
    assert str(error.value) == (
        f'base "{tmp_path / "base"}": its image tower takes images of any shape; '
        "a map of patches needs a fixed grid"
    )


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((32, 32), (0, 0, 32, 32)),
        ((64, 64), (0, 0, 64, 64)),
        ((100, 50), (25, 0, 75, 50)),
        ((50, 100), (0, 25, 50, 75)),
    ],
)
def test_the_window_of_a_picture(size: tuple[int, int], window: tuple[float, ...], tmp_path: Path) -> None:
    model = loaded(tiny_models.tiny_clip, tmp_path)
    assert model.image_preprocessor.window(size) == pytest.approx(window)
    whole = loaded(tiny_models.tiny_siglip, tmp_path / "siglip")
    assert whole.image_preprocessor.window(size) == (0, 0, *size)


def test_the_window_holds_the_pixels_that_the_model_sees(tmp_path: Path) -> None:
    """A white spot in the picture appears in the prepared pixels exactly where the window says."""
    model = loaded(tiny_models.tiny_clip, tmp_path)
    from PIL import Image

    picture = Image.new("RGB", (200, 100))
    picture.paste((255, 255, 255), (120, 40, 126, 46))
    left, top, right, bottom = model.image_preprocessor.window(picture.size)
    seen = model.image_preprocessor(picture)["pixels"][..., 0].astype(float)
    y, x = (np.indices(seen.shape) * seen).sum(axis=(1, 2)) / seen.sum() + 0.5
    assert left + x / 32 * (right - left) == pytest.approx(123, abs=1)
    assert top + y / 32 * (bottom - top) == pytest.approx(43, abs=1)
