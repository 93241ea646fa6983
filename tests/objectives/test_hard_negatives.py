"""Hard negatives by hand, against whole matrices, and with every part switched off."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from domainclip import registry
from domainclip.errors import RecipeError
from domainclip.objectives.base import Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.hard_negatives import HardNegatives
from domainclip.objectives.losses import blockwise
from tests.objectives.filled_views import check_equal, check_gradients, check_processes, filled, gradients
from tests.support.matches import grouped, right_texts

# s = [[1, .6, 0], [.6, 1, .8], [0, .8, 1]] on both sides, scale 1.
THREE = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)


def _three(**more: torch.Tensor) -> Views:
    return Views(THREE, THREE, torch.tensor(1.0, dtype=torch.float64), **more)  # type: ignore[arg-type]


def _row(negatives: list[float], alpha: float, beta: float) -> float:
    """−log p of one row whose own similarity is 1."""
    whole = sum(exp(beta * s) for s in negatives)
    hard = sum(len(negatives) * exp(beta * s) / whole * exp(s) for s in negatives)
    return log(alpha * exp(1) + hard) - 1


def test_importance_weights_by_hand() -> None:
    expected = sum(_row(row, 0.9, 2.0) for row in ([0.6, 0.0], [0.6, 0.8], [0.0, 0.8])) / 3
    assert HardNegatives(alpha=0.9, beta=2.0)(_three()).item() == pytest.approx(expected, abs=1e-12)


def test_focal_by_hand() -> None:
    plain = [_row(row, 1.0, 0.0) for row in ([0.6, 0.0], [0.6, 0.8], [0.0, 0.8])]
    expected = sum((1 - exp(-one)) ** 2 * one for one in plain) / 3
    assert HardNegatives(beta=0, focal=2.0)(_three()).item() == pytest.approx(expected, abs=1e-12)


def test_false_negatives_by_hand() -> None:
    # The second and third texts are 0.8 alike: each counts half as the other's negative.
    def row(negatives: list[tuple[float, float]]) -> float:
        return log(exp(1) + sum(weight * exp(s) for s, weight in negatives)) - 1

    rows = ([(0.6, 1), (0.0, 1)], [(0.6, 1), (0.8, 0.5)], [(0.0, 1), (0.8, 0.5)])
    expected = sum(row(one) for one in rows) / 3
    found = HardNegatives(beta=0, false_above=0.7, false_weight=0.5)(_three())
    assert found.item() == pytest.approx(expected, abs=1e-12)


def _whole(views: Views, alpha: float, beta: float, focal: float, above: float, left: float) -> torch.Tensor:
    """The same by whole matrices, as HN-NCE is usually written, with DCLR's weights and a focal factor."""
    own = torch.eye(len(views.image), dtype=torch.bool)
    right = right_texts(views.matches, len(views.image))
    valued = torch.ones_like(views.text @ views.text.T)
    alike = valued.masked_fill(views.text @ views.text.T >= above, left)
    found = []
    logits_of_images = views.scale * views.image @ views.text.T
    for logits, masked in ((logits_of_images, right), (logits_of_images.T, right.T)):
        valued = alike.masked_fill(masked, 0.0)
        hard = (beta * logits).exp()
        weight = valued.sum(1, keepdim=True) * hard / (valued * hard).sum(1, keepdim=True)
        below = alpha * logits[own].exp() + (weight * valued * logits.exp()).sum(1)
        losses = below.log() - logits[own]
        found.append(((1 - (-losses).exp()).clamp_min(1e-12) ** focal * losses).mean())
    return torch.stack(found).mean()


@pytest.mark.parametrize("logits", [1, 15, 2**20])
def test_all_options_together_are_the_dense_form(monkeypatch: pytest.MonkeyPatch, logits: int) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
    options = {"alpha": 0.95, "beta": 0.7, "focal": 1.5}
    objective = HardNegatives(**options, false_above=0.3, false_weight=0.2)  # type: ignore[arg-type]
    views = filled(b=7)
    assert bool(((views.text @ views.text.T).fill_diagonal_(0) >= 0.3).any())
    check_equal(objective, lambda seen: _whole(seen, **options, above=0.3, left=0.2), views)


@pytest.mark.parametrize("grouped", [True, False])
def test_beta_zero_is_contrastive(grouped: bool) -> None:
    check_equal(HardNegatives(beta=0), Contrastive(), filled(b=7, grouped=grouped), tolerance=1e-12)


def test_judged_by_images() -> None:
    views = filled(b=6, grouped=False)
    turned = replace(views, image=views.text, text=views.image)
    by_texts = HardNegatives(false_above=0.2)(turned)
    by_images = HardNegatives(false_above=0.2, judged_by="images")(views)
    assert by_images.item() == pytest.approx(by_texts.item(), abs=1e-12)
    assert HardNegatives(false_above=0.2)(views).item() != pytest.approx(by_images.item(), abs=1e-6)


def test_a_hard_negative_is_pushed_harder_and_an_easy_one_less() -> None:
    # Only the hard negative has a second coordinate, and only the easy one a third.
    text = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    image = text.clone().requires_grad_()

    def pushed(beta: float) -> tuple[float, float]:
        views = Views(image, text, torch.tensor(5.0, dtype=torch.float64))
        (found,) = torch.autograd.grad(HardNegatives(beta=beta)(views), image)
        return float(found[0, 1]), float(found[0, 2])

    (hard, easy), (plain_hard, plain_easy) = pushed(0.5), pushed(0.0)
    assert hard > 1.2 * plain_hard > 0
    assert easy < plain_easy


def test_a_pair_without_negatives_is_finite() -> None:
    views = filled(b=5)
    for objective in (HardNegatives(), HardNegatives(focal=0.5), HardNegatives(false_above=-0.99, focal=0.5)):
        alone = replace(views, matches=grouped([0] * 5))
        assert objective(alone).item() == pytest.approx(0.0, abs=1e-9)
        assert all(bool(grad.isfinite().all()) for grad in gradients(objective(alone), alone))


def test_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", 20)
    objective = HardNegatives(alpha=0.9, beta=0.5, focal=0.7, false_above=0.35, false_weight=0.3)
    check_gradients(objective, filled(b=5, d=3))
    check_processes(objective, filled(b=12))


def test_half_precision_sized_scales_stay_finite() -> None:
    views = filled(b=16, dtype=torch.float32)
    views = replace(
        views, scale=torch.tensor(100.0, requires_grad=True), image=F.normalize(views.text + 1e-3)
    )
    loss = HardNegatives(beta=1.0, focal=2.0)(views)
    assert bool(loss.isfinite())


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        registry.build("objectives", "hard_negatives", {"alpha": 0}, "objectives.hard_negatives")
    assert str(caught.value) == "objectives.hard_negatives.alpha: input should be greater than 0, got 0"
