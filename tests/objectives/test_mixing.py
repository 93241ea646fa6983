"""Mixed images: the loss by hand, and the share of a box by counting pixels."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from domainclip.objectives.base import Views
from domainclip.objectives.mixing import Mixing
from domainclip.training.further_images import mix_images, partners
from tests.objectives.filled_views import check_gradients, filled_for
from tests.support.matches import grouped


def test_a_value_worked_by_hand() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    share = torch.tensor([0.75, 0.5], dtype=torch.float64)
    views = Views(eye, eye, torch.tensor(2.0, dtype=torch.float64), mixed_image=eye, mixed_share=share)
    right, wrong = -log(1 / (1 + exp(-2))), -log(1 / (1 + exp(2)))  # of the own and of the partner's text
    images = (0.75 * right + 0.25 * wrong + 0.5 * right + 0.5 * wrong) / 2
    # Text 0: 0.75 of m_0 and 1 − 0.5 of m_1, divided by 1.25; text 1: 0.5 of m_1 and 0.25 of m_0 by 0.75.
    texts = ((0.75 * right + 0.5 * wrong) / 1.25 + (0.5 * right + 0.25 * wrong) / 0.75) / 2
    assert Mixing()(views).item() == pytest.approx((images + texts) / 2, abs=1e-12)


def test_parity_with_the_soft_cross_entropy_of_torch() -> None:
    views = replace(filled_for(Mixing()), matches=None)
    share, b = views.mixed_share, 8
    assert share is not None
    other = partners(b)
    target = torch.diag(share) + (1 - share)[:, None] * F.one_hot(other, b)
    columns = target.T / target.T.sum(dim=1, keepdim=True)
    logits = views.scale * views.mixed_image @ views.text.T
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, columns)) / 2
    assert Mixing()(views).item() == pytest.approx(expected.item(), abs=1e-12)


def test_what_is_right_for_either_image_is_no_negative() -> None:
    views = replace(filled_for(Mixing()), matches=grouped([0, 1, 0, 1, 2, 3, 4, 5]))
    loss = Mixing()(views)
    (grad,) = torch.autograd.grad(loss, views.text, retain_graph=True)
    assert grad.abs().max() > 0
    one = [replace(views, local_rows=slice(at, at + 1)) for at in range(8)]
    mixed = one[0].mixed_image
    (first,) = torch.autograd.grad(Mixing()(one[0]), views.text, retain_graph=True)
    assert mixed is not None
    # Row 0 and its partner 1 have the groups of 2 and 3: only texts of other groups push image 0 away.
    direction = mixed[0]
    pushed = first @ direction
    assert first[2].abs().max() < 1e-12
    assert first[3].abs().max() < 1e-12
    assert bool((pushed[4:] > 0).all())


def test_gradients_in_double_precision() -> None:
    check_gradients(Mixing(), filled_for(Mixing(), b=5, d=4))


def test_the_share_is_that_of_the_pixels() -> None:
    greys = torch.arange(1, 8, dtype=torch.uint8)
    pixels = greys[:, None, None, None].expand(7, 20, 30, 3)
    mixed, share = mix_images(pixels, list(range(7)))
    own = (mixed == pixels).all(dim=-1).float().mean(dim=(1, 2))
    assert torch.allclose(own[:6], share[:6], atol=1e-6)
    assert torch.equal(mixed[6], pixels[6])  # an odd last one has no partner
    for row, other in enumerate(partners(7).tolist()):
        assert set(mixed[row].unique().tolist()) <= {row + 1, other + 1}
    assert share[:6].std() > 0.05
    assert torch.equal(mix_images(pixels, list(range(7)))[0], mixed)
    # The same in two processes: pairs keep their partner and their key.
    part, part_share = mix_images(pixels[4:], [4, 5, 6])
    assert torch.equal(part, mixed[4:])
    assert torch.equal(part_share[:2], share[4:6])
