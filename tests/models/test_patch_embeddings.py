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
    towers = load_model(str(family(folder / "base")))
    towers.eval()
    return towers


def pixels(towers: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    return tiny_models.stack([towers.preprocess(tiny_models.noise(32, 32, seed))])


def one_layer(towers: Any) -> None:
    """With a single layer whose attention is left out, nothing travels between patches."""
    vision = towers.plain.vision_model
    stack = next(module for module in vision.modules() if isinstance(module, torch.nn.ModuleList))
    del stack[1:]


@pytest.mark.parametrize("family", FAMILIES)
def test_shape_length_and_repeatability(family: Callable[..., Path], tmp_path: Path) -> None:
    towers = loaded(family, tmp_path)
    batch = pixels(towers)
    before = towers.encode_image(batch)
    patches = towers.encode_patches(batch)
    assert towers.grid == (4, 4)
    assert patches.shape == (1, 16, 16 if family is not tiny_models.tiny_siglip else towers.width)
    assert torch.allclose(patches.norm(dim=-1), torch.ones(1, 16), atol=1e-5)
    assert torch.equal(towers.encode_image(batch), before)  # the hook is gone
    assert torch.equal(towers.encode_patches(batch), patches)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_attention_a_patch_says_only_what_is_in_it(
    family: Callable[..., Path], tmp_path: Path
) -> None:
    towers = loaded(family, tmp_path)
    one_layer(towers)
    batch = pixels(towers)
    changed = {"pixels": batch["pixels"].clone()}
    changed["pixels"][:, 8:16, 24:32] = 255 - changed["pixels"][:, 8:16, 24:32]  # row 1, column 3
    moved = (towers.encode_patches(batch) - towers.encode_patches(changed)).abs().amax(dim=-1)[0]
    assert moved[1 * 4 + 3] > 1e-4
    moved[7] = 0
    assert moved.max() < 1e-6


def test_with_attention_it_would_say_more(tmp_path: Path) -> None:
    """The negative control of the test above: the ordinary last hidden state moves everywhere."""
    towers = loaded(tiny_models.tiny_clip, tmp_path)
    one_layer(towers)
    batch = pixels(towers)
    changed = {"pixels": batch["pixels"].clone()}
    changed["pixels"][:, 8:16, 24:32] = 255 - changed["pixels"][:, 8:16, 24:32]
    vision = towers.plain.vision_model
    states = [vision(**towers.pixels(one)).last_hidden_state for one in (batch, changed)]
    moved = (states[0] - states[1]).abs().amax(dim=-1)[0, 1:]
    assert (moved > 1e-6).all()


def test_clip_by_hand(tmp_path: Path) -> None:
    """Last layer: x + out(v(norm(x))), then its MLP; then the norm and projection of the class token."""
    towers = loaded(tiny_models.tiny_clip, tmp_path)
    vision, batch = towers.plain.vision_model, pixels(towers)
    with torch.inference_mode():
        first, last = vision.encoder.layers
        x = vision.pre_layrnorm(vision.embeddings(towers.pixels(batch)["pixel_values"]))
        x = first(x, attention_mask=None)
        x = x[0] if isinstance(x, tuple) else x
        x = x + last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(x)))
        x = x + last.mlp(last.layer_norm2(x))
        wanted = towers.plain.visual_projection(vision.post_layernorm(x[:, 1:]))
        assert torch.allclose(towers.encode_patches(batch), F.normalize(wanted, dim=-1), atol=1e-5)


def test_siglip_pools_each_patch_as_if_it_were_alone(tmp_path: Path) -> None:
    towers = loaded(tiny_models.tiny_siglip, tmp_path)
    one_layer(towers)
    row = torch.randn(1, 1, 32)
    head = towers.plain.vision_model.head
    value = head.attention.in_proj_weight[64:] @ row[0, 0] + head.attention.in_proj_bias[64:]
    pooled = head.attention.out_proj(value)
    pooled = pooled + head.mlp(head.layernorm(pooled[None]))[0]
    assert torch.allclose(head(row)[0], pooled, atol=1e-5)


def test_an_adapter_counts(tmp_path: Path) -> None:
    towers = loaded(tiny_models.tiny_clip, tmp_path)
    before = towers.encode_patches(pixels(towers))
    towers.model = get_peft_model(towers.model, LoraConfig(r=2, target_modules=r"vision_model.*v_proj"))
    towers.eval()
    assert torch.allclose(towers.encode_patches(pixels(towers)), before, atol=1e-6)
    for name, weight in towers.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(weight)
    assert not torch.allclose(towers.encode_patches(pixels(towers)), before, atol=1e-3)


def test_a_tower_of_any_shape_says_that_it_has_no_grid(tmp_path: Path) -> None:
    towers = loaded(tiny_models.tiny_siglip2_naflex, tmp_path)
    with pytest.raises(ModelError) as error:
        towers.encode_patches(tiny_models.stack([towers.preprocess(tiny_models.noise(32, 32))]))
    assert str(error.value) == (
        f'base "{tmp_path / "base"}": its image tower takes any shape of picture; '
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
    towers = loaded(tiny_models.tiny_clip, tmp_path)
    assert towers.preprocess.window(size) == pytest.approx(window)
    whole = loaded(tiny_models.tiny_siglip, tmp_path / "siglip")
    assert whole.preprocess.window(size) == (0, 0, *size)


def test_the_window_holds_the_pixels_that_the_model_sees(tmp_path: Path) -> None:
    """A white spot in the picture appears in the prepared pixels exactly where the window says."""
    towers = loaded(tiny_models.tiny_clip, tmp_path)
    from PIL import Image

    picture = Image.new("RGB", (200, 100))
    picture.paste((255, 255, 255), (120, 40, 126, 46))
    left, top, right, bottom = towers.preprocess.window(picture.size)
    seen = towers.preprocess(picture)["pixels"][..., 0].astype(float)
    y, x = (np.indices(seen.shape) * seen).sum(axis=(1, 2)) / seen.sum() + 0.5
    assert left + x / 32 * (right - left) == pytest.approx(123, abs=1)
    assert top + y / 32 * (bottom - top) == pytest.approx(43, abs=1)
