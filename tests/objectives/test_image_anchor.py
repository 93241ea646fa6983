"""The image anchor against hand-worked values."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from domainclip.objectives.base import Views
from domainclip.objectives.image_anchor import ImageAnchor
from tests.objectives.filled_views import check_gradients, check_processes, filled

ALL = ImageAnchor.needs


def test_hand_worked() -> None:
    # Two images and two texts at scale ln 3. By the base, each image has its text at cosine 1 and the other at
    # 0: 3 to 1. Now both texts are in the place of the first: an image tells them apart no more, 1 to 1.
    eye = torch.eye(2, dtype=torch.float64)
    now = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    views = Views(
        eye, eye, torch.tensor(9.0),
        anchor_image=eye, base_anchor_image=eye, anchor_text=now, base_anchor_text=eye, base_scale=math.log(3),
    )  # fmt: skip
    of_images = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    # Both texts have the images 3 to 1: right for the first, and the wrong way round for the second.
    of_texts = (0.0 + (0.25 * math.log(0.25 / 0.75) + 0.75 * math.log(0.75 / 0.25))) / 2
    assert ImageAnchor()(views).item() == pytest.approx((of_images + of_texts) / 2, abs=1e-12)
    # The temperature of the recipe replaces that of the base.
    assert ImageAnchor(temperature=1 / math.log(3))(replace(views, base_scale=50.0)).item() == pytest.approx(
        (of_images + of_texts) / 2, abs=1e-12
    )


def test_exact_and_zero_where_nothing_has_moved() -> None:
    objective, views = ImageAnchor(temperature=0.2), filled(ALL, b=8)
    check_gradients(objective, filled(ALL, b=4, d=3))
    check_processes(objective, views)
    assert objective(views).item() > 1e-3
    still = replace(views, anchor_text=views.base_anchor_text, anchor_image=views.base_anchor_image)
    assert objective(still).item() == pytest.approx(0.0, abs=1e-12)


def test_both_towers_may_turn_together_and_one_alone_may_not() -> None:
    """What is held is the alignment, unlike the anchor of texts, which holds their place."""
    views = filled(ALL, b=8, d=6)
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.manual_seed(0)))[0]
    assert views.base_anchor_text is not None
    assert views.base_anchor_image is not None
    texts, images = views.base_anchor_text @ turn, views.base_anchor_image @ turn
    together = replace(views, anchor_text=texts, anchor_image=images)
    assert ImageAnchor()(together).item() == pytest.approx(0.0, abs=1e-12)
    assert ImageAnchor()(replace(together, anchor_image=views.base_anchor_image)).item() > 0.1


def test_gradient_descent_restores_the_base() -> None:
    draw = torch.Generator().manual_seed(1)
    base_image, base_text = (F.normalize(torch.randn(4, 3, generator=draw), dim=1) for _ in range(2))
    moved = base_image + 0.5 * torch.randn(4, 3, generator=draw)
    moved.requires_grad_()
    losses = []
    for _ in range(60):
        views = Views(
            base_image, base_text, torch.tensor(1.0),
            anchor_image=F.normalize(moved, dim=1), base_anchor_image=base_image,
            anchor_text=base_text, base_anchor_text=base_text, base_scale=10.0,
        )  # fmt: skip
        loss = ImageAnchor()(views)
        losses.append(loss.item())
        (slope,) = torch.autograd.grad(loss, moved)
        with torch.no_grad():
            moved -= 0.1 * slope
    assert losses[-1] < losses[0] / 50
