"""Graded relevance by hand, and against weighted cross-entropy."""

from __future__ import annotations

import math
from dataclasses import replace
from math import exp, log, nan

import pytest
import torch
import torch.nn.functional as F

from domainclip.objectives.base import Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.losses import blockwise
from domainclip.objectives.relevance_weighted import RelevanceWeighted
from tests.objectives.filled_views import check_equal, check_gradients, check_processes, filled

NEEDS = frozenset({"pair_value"})


def _valued(values: list[float], **options: object) -> Views:
    views = filled(b=len(values), **options)  # type: ignore[arg-type]
    return replace(views, pair_value=torch.tensor(values))


def test_by_hand() -> None:
    # s = [[1, .6], [0, .8]]: the first pair is worth three times the second, so they count 1.5 and 0.5.
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    text = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    views = Views(image, text, torch.tensor(1.0, dtype=torch.float64), pair_value=torch.tensor([0.75, 0.25]))
    first = (log(1 + exp(0.6 - 1)) + log(1 + exp(0 - 1))) / 2
    second = (log(1 + exp(0 - 0.8)) + log(1 + exp(0.6 - 0.8))) / 2
    expected = (1.5 * first + 0.5 * second) / 2
    assert RelevanceWeighted(column="relevance")(views).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("logits", [1, 15, 2**20])
def test_is_weighted_cross_entropy(monkeypatch: pytest.MonkeyPatch, logits: int) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
    values = [1.0, 5.0, 0.0, 2.0, 3.0, 3.0, 100.0]
    weight = torch.tensor(values, dtype=torch.float64).sqrt()

    def dense(seen: Views) -> torch.Tensor:
        whole, own = seen.scale * seen.image @ seen.text.T, torch.arange(7)
        # With class weights, torch divides by their sum: each pair is a class of its own here.
        return (F.cross_entropy(whole, own, weight) + F.cross_entropy(whole.T, own, weight)) / 2

    check_equal(RelevanceWeighted(column="x", power=0.5), dense, _valued(values, grouped=False))


def test_equal_values_are_plain_contrast_whatever_their_size() -> None:
    check_equal(RelevanceWeighted(column="x"), Contrastive(), _valued([40.0] * 6))


def test_a_pair_without_a_value_counts_as_the_mean() -> None:
    some = RelevanceWeighted(column="x")._weights(_valued([1.0, nan, 3.0, 0.0]))
    assert some.tolist() == pytest.approx([3 / 4, 1, 9 / 4, 0])


def test_infinity_is_no_value() -> None:
    some = RelevanceWeighted(column="x")._weights(_valued([1.0, math.inf, 3.0, -math.inf]))
    assert some.tolist() == pytest.approx([1 / 2, 1, 3 / 2, 1])


@pytest.mark.parametrize("values", [[nan] * 4, [0.0] * 4, [-3.0, -1.0, nan, 0.0]])
def test_without_anything_to_grade_all_count_alike(values: list[float]) -> None:
    check_equal(RelevanceWeighted(column="x"), Contrastive(), _valued(values))


def test_what_is_worth_nothing_teaches_nothing() -> None:
    views = _valued([1.0, 1.0, 1.0, 0.0], grouped=False)
    alone = replace(views, local_rows=slice(3, 4))
    assert RelevanceWeighted(column="x")(alone).item() == 0.0
    assert Contrastive()(alone).item() > 0.01


def test_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", 20)
    check_gradients(RelevanceWeighted(column="x", power=2), filled(NEEDS, b=5, d=3))
    check_processes(RelevanceWeighted(column="x", power=2), filled(NEEDS, b=12))
