"""Image self-supervision: NT-Xent by hand, and as sentence-transformers has it in two halves."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from domainclip.objectives.base import Objective, Views
from domainclip.objectives.image_self_supervision import ImageSelfSupervision
from tests.support.matches import grouped
from tests.support.text_objectives import assert_gradients, assert_shares_add_up, batch, slopes, unit


def _views(group: list[int] | None = None) -> Views:
    return replace(batch([1] * 6, group), image_2=unit(6, 5, seed=9))


def test_hand_worked() -> None:
    # Two pictures at right angles whose views do not change: each has one right answer and two wrong ones at 0.
    eye = torch.eye(2, dtype=torch.float64)
    views = Views(eye, eye, torch.tensor(9.0), image_2=eye)
    expected = log(1 + 2 * exp(-2))
    assert ImageSelfSupervision(temperature=0.5)(views).item() == pytest.approx(expected, abs=1e-12)
    # Of one group they are no negatives, and nothing is left to learn.
    alone = replace(views, matches=grouped([4, 4]))
    assert ImageSelfSupervision(temperature=0.5)(alone).item() == 0.0


def test_equal_to_sentence_transformers() -> None:
    half = MultipleNegativesRankingLoss(
        torch.nn.Identity(), scale=4.0, directions=("query_to_doc", "query_to_query"), partition_mode="joint"
    )
    views = _views()
    expected = sum(
        half.compute_loss_from_embeddings(list(sides), None)
        for sides in ((views.image, views.image_2), (views.image_2, views.image))
    )
    found = ImageSelfSupervision(temperature=0.25)(views).item()
    assert found == pytest.approx(float(expected) / 2, abs=1e-12)


@pytest.mark.parametrize("world", [2, 3])
def test_exact_over_processes_and_in_its_gradients(world: int) -> None:
    views, loss = _views([0, 1, 2, 2, 3, 4]), ImageSelfSupervision()
    assert isinstance(loss, Objective)
    assert_shares_add_up(loss, views, world)
    assert_gradients(loss, views, ("image", "image_2"))
    _, grads = slopes(loss, views)
    assert grads["image"].any()
    assert grads["image_2"].any()
    assert not grads["text"].any()
    assert not grads["scale"]  # its temperature is its own
