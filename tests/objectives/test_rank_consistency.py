"""Rank consistency by hand, against list-wise likelihoods written out, and on orders that agree or do not."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
from torch import Tensor

from domainclip.objectives.base import Views
from domainclip.objectives.losses import blockwise
from domainclip.objectives.rank_consistency import RankConsistency
from tests.objectives.filled_views import check_equal, check_gradients, check_processes, filled
from tests.support.matches import right_texts


def test_by_hand() -> None:
    # s = [[1, .6], [0, .8]] and its transpose. The first image's list is ordered by the first text's row
    # (1, 0): 1 before .6. The second's by (.6, .8): .8 before 0. Texts: 1 before 0, and .8 before .6.
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    text = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    views = Views(image, text, torch.tensor(1.0, dtype=torch.float64))
    lists = [(1, 0.6), (0.8, 0), (1, 0), (0.8, 0.6)]
    expected = sum(log(exp(a) + exp(b)) - a for a, b in lists) / 4 / 2
    assert RankConsistency(within=0)(views).item() == pytest.approx(expected, abs=1e-12)


def test_no_preference_is_the_likelihood_of_any_order() -> None:
    same = torch.nn.functional.normalize(torch.ones(5, 3, dtype=torch.float64), dim=1)
    views = Views(same, same, torch.tensor(9.0, dtype=torch.float64))
    expected = sum(log(k) for k in range(1, 6)) / 5
    assert RankConsistency(within=0)(views).item() == pytest.approx(expected, abs=1e-12)
    assert RankConsistency(across=0)(views).item() == pytest.approx(expected, abs=1e-12)


def _written_out(scores: Tensor, judged: Tensor, kept: Tensor) -> Tensor:
    """One list, place by place."""
    places = [j for j in judged.argsort(descending=True).tolist() if kept[j]]
    losses = [torch.logsumexp(scores[places[k:]], 0) - scores[place] for k, place in enumerate(places)]
    return torch.stack(losses).mean()


def _plain(seen: Views) -> Tensor:
    x, y = seen.image, seen.text
    eye, right = torch.eye(7, dtype=torch.bool), right_texts(seen.matches, 7)
    across, within = (~right | eye, ~right.T | eye), (~(right | right.T) | eye,) * 2
    values = []
    for weight, one, other, lists in ((0.7, x @ y.T, y @ x.T, across), (0.4, x @ x.T, y @ y.T, within)):
        for scores, judged, kept in ((one, other, lists[0]), (other, one, lists[1])):
            rows = [_written_out(seen.scale * scores[i], judged[i], kept[i]) for i in range(7)]
            values.append(weight / 2 * torch.stack(rows).mean())
    return torch.stack(values).sum()


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("logits", [1, 15, 2**20])
def test_equal_to_lists_written_out(monkeypatch: pytest.MonkeyPatch, logits: int, grouped: bool) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
    check_equal(RankConsistency(across=0.7, within=0.4), _plain, filled(b=7, grouped=grouped))


def test_lists_that_agree_are_better_than_lists_that_do_not() -> None:
    views = filled(b=8, grouped=False)
    agreed = replace(views, text=views.image)
    within, objective = RankConsistency(across=0), RankConsistency()
    assert within(agreed).item() < within(replace(views, text=views.image.roll(3, 0))).item() - 0.3
    assert objective(agreed).item() < objective(views).item() - 0.3


def test_large_scales_stay_finite() -> None:
    views = replace(filled(b=16, dtype=torch.float32), scale=torch.tensor(100.0, requires_grad=True))
    loss = RankConsistency()(views)
    assert bool(loss.isfinite())
    assert all(
        bool(grad.isfinite().all())
        for grad in torch.autograd.grad(loss, [views.image, views.text, views.scale])
    )


def test_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", 20)
    check_gradients(RankConsistency(across=0.3), filled(b=5, d=3))
    check_processes(RankConsistency(across=0.3), filled(b=12))
