"""Text-guided patches: the error by hand, which patches count, their pixels, and that the words are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from domainclip.errors import RecipeError
from domainclip.models import loading
from domainclip.objectives.base import PATCH_NUMBERS, Sizes, Views
from domainclip.objectives.text_guided_patches import TextGuidedPatches
from domainclip.training.further_images import patch_pixels
from tests.objectives.filled_views import check_gradients, filled_for


def _views(pixels: torch.Tensor) -> Views:
    """One image of four patches, of which the first two are masked; its caption is about the first."""
    objective = TextGuidedPatches(layers=1, width=2, heads=1)
    own = {
        name: torch.zeros_like(weight, dtype=torch.float64)
        for name, weight in objective.initial_weights(Sizes(2), 0).items()
    }
    own["patches"] = torch.eye(2, dtype=torch.float64)
    own["pixels"][:, 0] = 0.5
    ahead = torch.tensor([1.0, 0.0], dtype=torch.float64)
    return Views(
        ahead[None],
        ahead[None],
        torch.tensor(1.0),
        masked_tokens=ahead.expand(1, 4, 2),
        image_tokens=torch.stack([ahead, ahead.flip(0), ahead, ahead])[None],
        text_tokens=ahead.expand(1, 1, 2),
        text_mask=torch.tensor([[True]]),
        patch_mask=torch.tensor([[True, True, False, False]]),
        patch_pixels=pixels[None, :, None].expand(1, 4, PATCH_NUMBERS).double(),
        own_weights=own,
    )


def test_a_value_worked_by_hand() -> None:
    """Without attention and MLP the decoder sees (1, −1) behind the norm of (1, 0), and returns 0.5."""
    views = _views(torch.tensor([0.7, 1.5, 9.0, 9.0]))
    objective = TextGuidedPatches(layers=1, width=2, heads=1)
    assert objective(views).item() == pytest.approx(0.2**2, abs=1e-4)
    assert replace(objective, nearest=1.0)(views).item() == pytest.approx((0.2**2 + 1) / 2, abs=1e-4)
    other = replace(views, text=views.text.flip(1))  # a caption about the second patch
    assert objective(other).item() == pytest.approx(1.0, abs=1e-4)


def test_gradients_are_those_of_finite_differences() -> None:
    objective = TextGuidedPatches(layers=1, width=2, heads=1)
    check_gradients(objective, filled_for(objective, b=2, d=2))


def test_patches_that_are_not_masked_do_not_count() -> None:
    views = _views(torch.tensor([0.7, 1.5, 9.0, 9.0]))
    whole = TextGuidedPatches(layers=1, width=2, heads=1, nearest=1.0)
    changed = _views(torch.tensor([0.7, 1.5, -5.0, 4.0]))
    assert whole(views).item() == whole(changed).item()


def test_the_caption_tells_what_the_image_hides() -> None:
    """The masked patches look alike; their colour is in the word. Control: without the words nothing is learned."""
    objective, draw = (
        TextGuidedPatches(layers=1, width=8, heads=2, nearest=1.0),
        torch.Generator().manual_seed(0),
    )
    word = torch.arange(16) % 2
    alike = F.normalize(torch.randn(1, 4, 6, generator=draw), dim=-1).expand(16, 4, 6)
    colour = (2.0 * word - 1)[:, None, None].expand(16, 4, PATCH_NUMBERS)
    image = F.normalize(torch.randn(16, 6, generator=draw), dim=-1)
    views = Views(
        image,
        image,
        torch.tensor(1.0),
        masked_tokens=alike,
        image_tokens=alike,
        text_tokens=torch.eye(6)[word][:, None],
        text_mask=torch.ones(16, 1, dtype=torch.bool),
        patch_mask=torch.tensor([True, True, False, False]).expand(16, 4),
        patch_pixels=colour,
    )
    errors = []
    for given in (views, replace(views, text_mask=torch.zeros(16, 1, dtype=torch.bool))):
        own = {name: w.requires_grad_() for name, w in objective.initial_weights(Sizes(6), 0).items()}
        optimizer = torch.optim.Adam(own.values(), lr=0.03)
        for _ in range(40):
            optimizer.zero_grad()
            loss = objective(replace(given, own_weights=own))
            loss.backward()
            optimizer.step()
        errors.append(loss.item())
    assert errors[0] < 0.1
    assert errors[1] > 0.9


def test_the_pixels_of_a_patch_are_averaged_over_a_grid(base: Path) -> None:
    model = loading.load_model(base)  # 32 by 32 pixels, patches of 8
    pixels = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    pixels[0, 8:16, 24:32] = 255  # the second row of patches, the last column
    pixels[0, :2, 2:4, 1] = 255  # the second cell of the first patch, in green
    found = patch_pixels(pixels, model)
    assert found.shape == (2, 16, PATCH_NUMBERS)
    mean, std = model.mean.repeat_interleave(16), model.std.repeat_interleave(16)
    assert torch.allclose(found[0, 7], (1 - mean) / std, atol=1e-5)
    dark = (-mean / std).expand(16, -1).clone()
    assert torch.allclose(found[1], dark, atol=1e-5)
    dark[0, 16 + 1] = (1 - mean[17]) / std[17]
    assert torch.allclose(found[0, :7], dark[:7], atol=1e-5)


def test_a_width_that_the_heads_cannot_share_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"objectives.text_guided_patches.width: 10 is no multiple of heads, 4"
    ):
        TextGuidedPatches(width=10)
