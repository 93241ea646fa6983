"""Self-distillation: the crop is matched with the whole, by hand; the teacher has no gradient."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch

from domainclip.components import WeightedObjectives
from domainclip.errors import RecipeError
from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses import sinkhorn
from domainclip.objectives.self_distillation import SelfDistillation
from domainclip.objectives.two_views import TwoViews
from tests.objectives.filled_views import check_gradients, filled_for


def test_a_value_worked_by_hand() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    averages = {"directions": 5 * eye}
    views = Views(eye, eye, torch.tensor(1.0), image_2=eye.flip(0), momentum_image=eye)
    views = replace(views, own_weights={"directions": eye}, own_averages=averages)
    # The crop of each image is encoded as the other image is.
    a, p = 1 / (1 + exp(-2)), 1 / (1 + exp(-0.5))
    expected = -(a * log(1 - p) + (1 - a) * log(p))
    objective = SelfDistillation(count=2, temperature=2.0, assignment_temperature=0.5)
    assert objective(views).item() == pytest.approx(expected, abs=1e-12)
    assert objective(replace(views, image_2=eye)).item() < expected - 0.1


def test_directions_of_the_teacher_are_the_averages() -> None:
    objective = SelfDistillation(count=4)
    views = filled_for(objective)
    turned = {"directions": views.own_averages["directions"].flip(0)}
    assert objective(replace(views, own_averages=turned)).item() != objective(views).item()


def test_gradients_in_double_precision() -> None:
    objective = SelfDistillation(count=4)
    check_gradients(objective, filled_for(objective, b=5, d=4))
    views = filled_for(objective)
    objective(views).backward()
    assert views.image.grad is None  # the whole image of the model itself plays no part
    assert views.image_2 is not None
    assert views.image_2.grad is not None


def test_the_shares_are_balanced_over_all_processes() -> None:
    objective = SelfDistillation(count=4)
    views = filled_for(objective)
    whole = sinkhorn.prototype_scores(views.momentum_image, views.own_averages["directions"])
    alone = sinkhorn.balanced_assignment(whole[:4], 0.05)
    assert not torch.allclose(alone, sinkhorn.balanced_assignment(whole, 0.05)[:4])
    parts = [objective(replace(views, local_rows=slice(at, at + 4))) for at in (0, 4)]
    assert torch.stack(parts).mean().item() == pytest.approx(objective(views).item(), abs=1e-12)


def test_two_kinds_of_second_view_are_refused() -> None:
    objectives: dict[str, tuple[float, Objective]] = {
        "two_views": (1.0, TwoViews()),
        "self_distillation": (1.0, SelfDistillation()),
    }
    with pytest.raises(RecipeError) as caught:
        WeightedObjectives(objectives).check_together()
    assert str(caught.value) == (
        "objectives.self_distillation: needs a second view of the kind local, and two_views one of the kind "
        "strong: a run has one kind: leave one of the two out"
    )
    objectives["self_distillation"] = (1.0, SelfDistillation(crop="strong"))
    WeightedObjectives(objectives).check_together()
    assert WeightedObjectives(objectives).second_view == "strong"
