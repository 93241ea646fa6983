"""Masked patches: the loss by hand, only where the image is masked, and the mask itself."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch

from domainclip.objectives.base import Views
from domainclip.objectives.masked_patches import MaskedPatches
from domainclip.training.further_images import mask_patches
from tests.objectives.filled_views import check_gradients, filled_for


def test_a_value_worked_by_hand() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    whole, masked = eye[None], eye.flip(0)[None]  # one image of two patches, which the mask exchanges
    views = Views(eye[:1], eye[:1], torch.tensor(1.0), masked_tokens=masked, momentum_tokens=whole)
    views = replace(views, patch_mask=torch.tensor([[True, False]]))
    views = replace(views, own_weights={"directions": eye}, own_averages={"directions": 2 * eye})
    objective = MaskedPatches(count=2, temperature=2.0, teacher_temperature=0.5)
    q, p = 1 / (1 + exp(-2)), 1 / (1 + exp(-0.5))
    assert objective(views).item() == pytest.approx(-(q * log(1 - p) + (1 - q) * log(p)), abs=1e-12)
    seen = replace(views, masked_tokens=whole)
    assert objective(seen).item() == pytest.approx(-(q * log(p) + (1 - q) * log(1 - p)), abs=1e-12)


def test_only_masked_patches_count_and_only_the_student_learns() -> None:
    objective = MaskedPatches(count=4)
    views = filled_for(objective)
    assert views.masked_tokens is not None
    assert views.patch_mask is not None
    (grad,) = torch.autograd.grad(objective(views), views.masked_tokens)
    assert not grad[~views.patch_mask].any()
    assert bool(grad[views.patch_mask].any(dim=-1).all())
    check_gradients(objective, filled_for(objective, b=5, d=4))


def test_half_of_the_patches_have_the_given_color() -> None:
    pixels = torch.randint(0, 100, (3, 12, 10, 3), dtype=torch.uint8)
    masked, mask = mask_patches(pixels, [1, 2, 3], (3, 2), [200, 201, 202])  # patches of 4 by 5
    assert mask.sum(dim=1).tolist() == [3, 3, 3]
    assert not torch.equal(mask[0], mask[1])
    grid = mask.reshape(3, 3, 2)
    for image in range(3):
        for row in range(3):
            for column in range(2):
                here = (image, slice(4 * row, 4 * row + 4), slice(5 * column, 5 * column + 5))
                expected = torch.tensor([200, 201, 202], dtype=torch.uint8).expand(4, 5, 3)
                assert torch.equal(masked[here], expected if grid[image, row, column] else pixels[here])
    again, _ = mask_patches(pixels[1:], [2, 3], (3, 2), [200, 201, 202])
    assert torch.equal(again, masked[1:])
