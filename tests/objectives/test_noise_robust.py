"""Noise-robust contrast: the mixture against scikit-learn, targets by hand, and a planted mismatch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.mixture import GaussianMixture
from torch import Tensor

from domainclip.objectives import noise_robust
from domainclip.objectives.base import Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.losses import blockwise
from domainclip.objectives.losses.gaussian_mixture import clean_probability
from domainclip.objectives.noise_robust import NoiseRobust
from tests.objectives.filled_views import check_equal, check_gradients, check_processes, filled


def test_mixture_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    losses = np.concatenate([draw.normal(1.0, 0.3, 70), draw.normal(3.5, 0.8, 30)])
    x = (losses - losses.min()) / (losses.max() - losses.min())
    theirs = GaussianMixture(
        2, means_init=[[0.0], [1.0]], weights_init=[0.5, 0.5], precisions_init=[[[1 / x.var()]]] * 2,
        reg_covar=5e-4, max_iter=1000, tol=1e-12, random_state=0,
    ).fit(x[:, None])  # fmt: skip
    expected = theirs.predict_proba(x[:, None])[:, theirs.means_.argmin()]
    found = clean_probability(torch.from_numpy(losses)).numpy()
    assert np.abs(found - expected).max() < 1e-3
    assert ((found > 0.5) == (np.arange(100) < 70)).mean() > 0.95


def test_losses_that_are_alike_are_all_clean() -> None:
    assert clean_probability(torch.full((5,), 2.0)).tolist() == [1.0] * 5
    assert clean_probability(torch.tensor([3.0])).tolist() == [1.0]


def test_the_mixture_does_not_depend_on_the_order() -> None:
    losses = torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(clean_probability(losses)[order], clean_probability(losses[order]), atol=1e-12)


def _believed(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    found = torch.tensor(values, dtype=torch.float64)
    monkeypatch.setattr(noise_robust, "clean_probability", lambda _: found)


def _three() -> Views:
    eye = torch.eye(3, dtype=torch.float64)
    return Views(eye, eye, torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("how", ["smooth", "weigh"])
def test_by_hand(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    # The second pair is surely noise, the third clean by three quarters; ω = ½ (1 − clean).
    _believed(monkeypatch, [1.0, 0.0, 0.75])
    whole = log(exp(1) + 2)
    doubts = [0.0, 0.5, 0.125]
    smooth = sum(whole - (1 - doubt) for doubt in doubts) / 3  # the others' similarity is 0
    weighed = sum((whole - 1) * (1 - doubt) for doubt in doubts) / 3
    found = NoiseRobust(mode=how)(_three()).item()  # type: ignore[arg-type]
    assert found == pytest.approx(smooth if how == "smooth" else weighed, abs=1e-12)


@pytest.mark.parametrize("logits", [1, 15, 2**20])
def test_smooth_is_label_smoothing(monkeypatch: pytest.MonkeyPatch, logits: int) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
    _believed(monkeypatch, [0.0] * 7)  # all alike: then torch's own label smoothing says the same

    def dense(seen: Views) -> Tensor:
        whole, own = seen.scale * seen.image @ seen.text.T, torch.arange(7)
        # Theirs gives a share to the right one too: 0.3 · 7/6 of it leaves 0.3 for the six others.
        return sum(F.cross_entropy(side, own, label_smoothing=0.35) for side in (whole, whole.T)) / 2

    check_equal(NoiseRobust(strength=0.3), dense, filled(b=7, grouped=False))


def test_without_strength_it_is_plain_contrast() -> None:
    for how in ("smooth", "weigh"):
        check_equal(NoiseRobust(strength=0, mode=how), Contrastive(), filled(b=7))  # type: ignore[arg-type]


def _mismatched() -> Views:
    """Pairs that agree but for the last four, whose texts are each other's."""
    draw = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(24, 16, generator=draw, dtype=torch.float64), dim=-1)
    text = F.normalize(image + 0.15 * torch.randn(24, 16, generator=draw, dtype=torch.float64), dim=-1)
    text[20:] = text[20:].roll(1, 0)
    return Views(image.requires_grad_(), text, torch.tensor(10.0, dtype=torch.float64))


@pytest.mark.parametrize("how", ["smooth", "weigh"])
def test_planted_mismatches_are_found_and_teach_less(how: str) -> None:
    views = _mismatched()
    believed = clean_probability(noise_robust._losses(views))
    assert believed[:20].min() > 0.95
    assert believed[20:].max() < 0.05

    def pull(loss: Callable[[Views], Tensor]) -> float:
        """How strongly the mismatched images are drawn to their wrong texts."""
        (found,) = torch.autograd.grad(loss(views), views.image)
        return -float((found * views.text)[20:].sum())

    assert pull(NoiseRobust(strength=1.0, mode=how)) < 0.05 * pull(Contrastive())  # type: ignore[arg-type]


def test_the_mixture_is_fitted_on_all_pairs_by_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", 20)
    views = _mismatched()
    seen: list[Tensor] = []

    def watched(losses: Tensor) -> Tensor:
        seen.append(losses)
        return clean_probability(losses)

    monkeypatch.setattr(noise_robust, "clean_probability", watched)
    for rows in (slice(0, 12), slice(12, 24)):
        NoiseRobust()(replace(views, local_rows=rows))
    assert len(seen[0]) == 24
    assert torch.equal(seen[0], seen[1])
    assert not seen[0].requires_grad


@pytest.mark.parametrize("how", ["smooth", "weigh"])
def test_exact(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", 20)
    objective = NoiseRobust(strength=0.8, mode=how)  # type: ignore[arg-type]
    check_processes(objective, filled(b=12))
    _believed(monkeypatch, [0.9, 0.1, 0.5, 0.0, 1.0])  # what is believed is a constant for the gradient
    check_gradients(objective, filled(b=5, d=3))


def test_the_mixture_does_not_depend_on_the_level_of_the_losses() -> None:
    losses = torch.tensor([1.0, 1.1, 1.2, 3.0, 3.4], dtype=torch.float64)
    found = clean_probability(losses)
    assert ((found > 0.5).tolist(), len(found)) == ([True, True, True, False, False], 5)
    for moved in (losses + 100, losses * 50):
        torch.testing.assert_close(clean_probability(moved), found, rtol=0, atol=1e-9)


def test_of_two_losses_the_smaller_is_clean() -> None:
    assert clean_probability(torch.tensor([4.0, 3.0])).round().tolist() == [0.0, 1.0]
