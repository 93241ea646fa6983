"""Cluster labels: both parts of the loss by hand, and the centres of k-means."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from domainclip.errors import RecipeError
from domainclip.objectives.base import Sizes, Views
from domainclip.objectives.cluster_labels import ClusterLabels
from tests.objectives.filled_views import check_gradients, filled_for


def test_a_value_worked_by_hand() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    own, memory = {"directions": 7 * eye}, {"centres": eye.float()}
    tilted = F.normalize(torch.tensor([[1.0, 0.8, 0.1]], dtype=torch.float64), dim=-1)
    views = Views(eye[:1], eye[:1], torch.tensor(1.0), base_image=tilted, own_weights=own, memory=memory)
    # The base is nearest to the first two centres; the model is on the first, and at right angles to the others.
    expected = log(1 + exp(0)) + log(1 + exp(-2) + exp(0))
    objective = ClusterLabels(count=3, per_image=2, scale=2.0)
    assert objective(views).item() == pytest.approx(expected, abs=1e-12)
    one = ClusterLabels(count=3, per_image=1, scale=2.0)
    assert one(views).item() == pytest.approx(log(1 + 2 * exp(0)) + log(1 + exp(-2)), abs=1e-12)


def test_an_image_away_from_its_clusters_costs_more() -> None:
    objective = ClusterLabels(count=3, per_image=1)
    views = filled_for(objective)
    assert views.base_image is not None
    near = objective(
        replace(views, image=views.base_image, own_weights={"directions": views.memory["centres"]})
    )
    away = objective(
        replace(views, image=-views.base_image, own_weights={"directions": views.memory["centres"]})
    )
    assert near.item() < away.item() - 1


def test_the_centres_are_those_of_the_groups_of_images() -> None:
    draw = torch.Generator().manual_seed(0)
    middles = torch.eye(4)[:3]
    rows = F.normalize(middles.repeat_interleave(20, 0) + 0.02 * torch.randn(60, 4, generator=draw), dim=-1)
    objective = ClusterLabels(count=3, per_image=1)
    found = objective.initial_memory(Sizes(4, base_images=rows.numpy()), 0)["centres"]
    order = (found @ middles.T).argmax(dim=0)
    assert torch.allclose(found[order], middles, atol=0.02)
    assert torch.equal(objective.initial_weights(Sizes(4, base_images=rows.numpy()), 0)["directions"], found)
    few = ClusterLabels(count=90, per_image=1).initial_memory(Sizes(4, base_images=rows.numpy()[:5]), 0)
    assert few["centres"].shape == (5, 4)


def test_gradients_in_double_precision() -> None:
    objective = ClusterLabels(count=3, per_image=1)
    check_gradients(objective, filled_for(objective, b=5, d=4))


def test_some_cluster_has_to_be_wrong() -> None:
    with pytest.raises(RecipeError) as caught:
        ClusterLabels(count=4, per_image=4)
    assert str(caught.value) == (
        "objectives.cluster_labels.per_image: 4 of 4 clusters leave no other: lower it, or raise count"
    )
