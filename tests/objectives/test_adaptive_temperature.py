"""Adaptive temperature by hand, and against the plain loss at the temperature that it works out."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
from torch import Tensor

from domainclip.objectives.adaptive_temperature import AdaptiveTemperature
from domainclip.objectives.base import Views
from domainclip.objectives.contrastive import Contrastive
from tests.objectives.filled_views import check_equal, check_processes, filled


def test_by_hand() -> None:
    # Agreement 1, so that τ grows from 1 to 1 + 0.5 (1 − 0.2) = 1.4.
    eye = torch.eye(3, dtype=torch.float64)
    views = Views(eye, eye, torch.tensor(1.0, dtype=torch.float64))
    found = AdaptiveTemperature(alpha=0.5, agreement=0.2)(views).item()
    assert found == pytest.approx(log(1 + 2 * exp(-1 / 1.4)), abs=1e-12)


@pytest.mark.parametrize("turned", [False, True])
def test_is_the_plain_loss_at_another_temperature(turned: bool) -> None:
    views = filled(b=7)
    views = replace(views, text=-views.image) if turned else views
    factor = 1 + 0.9 * ((views.image * views.text).sum(1).mean().item() - 0.25)
    assert (factor < 0.1) == turned

    def plain(seen: Views) -> Tensor:
        return Contrastive()(
            replace(seen, scale=seen.scale / max(factor, 0.1))
        )  # a constant, for the slopes too

    check_equal(AdaptiveTemperature(alpha=0.9, agreement=0.25), plain, views)


def test_without_alpha_it_is_contrastive() -> None:
    check_equal(AdaptiveTemperature(alpha=0), Contrastive(), filled(b=7))


def test_exact_over_processes() -> None:
    """The agreement is that of the whole batch, whoever asks."""
    check_processes(AdaptiveTemperature(alpha=0.8), filled(b=12))
