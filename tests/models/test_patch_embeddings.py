"""Patch embeddings: their definition, and that computing them leaves the model unchanged."""

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


def load(family: Callable[..., Path], folder: Path) -> Any:
    model = load_model(str(family(folder / "base")))
    model.eval()
    return model


def pixels(model: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    return tiny_models.stack([model.image_preprocessor(tiny_models.noise(32, 32, seed))])


def one_layer(model: Any) -> None:
    """With a single layer whose attention is left out, patches do not influence each other."""
    vision = model.hf_base.vision_model
    stack = next(module for module in vision.modules() if isinstance(module, torch.nn.ModuleList))
    del stack[1:]


@pytest.mark.parametrize("family", FAMILIES)
def test_shape_length_and_repeatability(family: Callable[..., Path], tmp_path: Path) -> None:
    model = load(family, tmp_path)
    batch = pixels(model)
    before = model.encode_image(batch)
    patches = encode_patches(model, batch)
    assert patch_grid(model) == (4, 4)
    assert patches.shape == (1, 16, 16 if family is not tiny_models.tiny_siglip else model.width)
    assert torch.allclose(patches.norm(dim=-1), torch.ones(1, 16), atol=1e-5)
    assert torch.equal(model.encode_image(batch), before)  # the hook is gone
    assert torch.equal(encode_patches(model, batch), patches)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_attention_a_patch_depends_on_its_own_pixels_only(
    family: Callable[..., Path], tmp_path: Path
) -> None:
    model = load(family, tmp_path)
    one_layer(model)
    batch = pixels(model)
    changed = {"pixels": batch["pixels"].clone()}
    changed["pixels"][:, 8:16, 24:32] = 255 - changed["pixels"][:, 8:16, 24:32]  # row 1, column 3
    moved = (encode_patches(model, batch) - encode_patches(model, changed)).abs().amax(dim=-1)[0]
    assert moved[1 * 4 + 3] > 1e-4
    moved[7] = 0
    assert moved.max() < 1e-6


def test_with_attention_it_depends_on_all_pixels(tmp_path: Path) -> None:
    """The negative control of the test above: the ordinary last hidden state changes everywhere."""
    model = load(tiny_models.tiny_clip, tmp_path)
    one_layer(model)
    batch = pixels(model)
    changed = {"pixels": batch["pixels"].clone()}
    changed["pixels"][:, 8:16, 24:32] = 255 - changed["pixels"][:, 8:16, 24:32]
    vision = model.hf_base.vision_model
    states = [vision(**model.pixel_inputs(pixels)).last_hidden_state for pixels in (batch, changed)]
    moved = (states[0] - states[1]).abs().amax(dim=-1)[0, 1:]
    assert (moved > 1e-6).all()


def test_clip_by_hand(tmp_path: Path) -> None:
    """Last layer: x + out(v(norm(x))), then its MLP; then the norm and projection of the class token."""
    model = load(tiny_models.tiny_clip, tmp_path)
    vision, batch = model.hf_base.vision_model, pixels(model)
    with torch.inference_mode():
        first, last = vision.encoder.layers
        x = vision.pre_layrnorm(vision.embeddings(model.pixel_inputs(batch)["pixel_values"]))
        x = first(x, attention_mask=None)
        x = x[0] if isinstance(x, tuple) else x
        x = x + last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(x)))
        x = x + last.mlp(last.layer_norm2(x))
        expected = model.hf_base.visual_projection(vision.post_layernorm(x[:, 1:]))
        assert torch.allclose(encode_patches(model, batch), F.normalize(expected, dim=-1), atol=1e-5)


def test_siglip_pools_each_patch_by_itself(tmp_path: Path) -> None:
    model = load(tiny_models.tiny_siglip, tmp_path)
    one_layer(model)
    row = torch.randn(1, 1, 32)
    head = model.hf_base.vision_model.head
    value = head.attention.in_proj_weight[64:] @ row[0, 0] + head.attention.in_proj_bias[64:]
    pooled = head.attention.out_proj(value)
    pooled = pooled + head.mlp(head.layernorm(pooled[None]))[0]
    assert torch.allclose(head(row)[0], pooled, atol=1e-5)


def test_an_adapter_takes_part(tmp_path: Path) -> None:
    model = load(tiny_models.tiny_clip, tmp_path)
    before = encode_patches(model, pixels(model))
    model.hf_model = get_peft_model(model.hf_model, LoraConfig(r=2, target_modules=r"vision_model.*v_proj"))
    model.eval()
    assert torch.allclose(encode_patches(model, pixels(model)), before, atol=1e-6)
    for name, weight in model.hf_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(weight)
    assert not torch.allclose(encode_patches(model, pixels(model)), before, atol=1e-3)


def test_a_tower_for_images_of_any_shape_has_no_grid(tmp_path: Path) -> None:
    model = load(tiny_models.tiny_siglip2_naflex, tmp_path)
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
def test_the_window_of_an_image(size: tuple[int, int], window: tuple[float, ...], tmp_path: Path) -> None:
    model = load(tiny_models.tiny_clip, tmp_path)
    assert model.image_preprocessor.window(size) == pytest.approx(window)
    whole = load(tiny_models.tiny_siglip, tmp_path / "siglip")
    assert whole.image_preprocessor.window(size) == (0, 0, *size)


def test_the_window_holds_the_pixels_that_the_model_sees(tmp_path: Path) -> None:
    """A white spot appears in the preprocessed pixels where the window places it."""
    model = load(tiny_models.tiny_clip, tmp_path)
    from PIL import Image

    image = Image.new("RGB", (200, 100))
    image.paste((255, 255, 255), (120, 40, 126, 46))
    left, top, right, bottom = model.image_preprocessor.window(image.size)
    pixels = model.image_preprocessor(image)["pixels"][..., 0].astype(float)
    y, x = (np.indices(pixels.shape) * pixels).sum(axis=(1, 2)) / pixels.sum() + 0.5
    assert left + x / 32 * (right - left) == pytest.approx(123, abs=1)
    assert top + y / 32 * (bottom - top) == pytest.approx(43, abs=1)
