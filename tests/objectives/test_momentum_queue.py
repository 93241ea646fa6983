"""The momentum queue: values by hand, candidates that are right, and the order of the queue."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.components import WeightedObjectives
from domainclip.errors import RecipeError
from domainclip.objectives.base import Objective, Sizes, Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.momentum_queue import MomentumQueue
from domainclip.objectives.self_distillation import SelfDistillation
from tests.objectives.filled_views import check_gradients, filled, filled_for
from tests.support.matches import related


def _row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def _views(group: int, queued_group: int, caption: int = 7, queued_caption: int = 8) -> Views:
    """One pair along the first axis; in the queue a text at a right angle, and the opposite image."""
    x = _row(1, 0)
    memory = {"image": -x, "text": _row(0, 1), "group": torch.tensor([queued_group])}
    memory |= {"caption": torch.tensor([queued_caption]), "pool": torch.tensor([[queued_caption]])}
    scale, matches = torch.tensor(2.0, dtype=torch.float64), related([group], [[caption]])
    return Views(x, x, scale, matches=matches, momentum_image=x, momentum_text=x, memory=memory)


def test_a_value_worked_by_hand() -> None:
    expected = (log(1 + exp(-2)) + log(1 + exp(-4))) / 2
    assert MomentumQueue()(_views(1, 2)).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("group", "caption"), [(1, 8), (2, 7)])
def test_what_is_right_is_no_negative(group: int, caption: int) -> None:
    """A pair of the same group, or with the same caption, an epoch ago."""
    assert MomentumQueue()(_views(1, group, 7, caption)).item() == 0.0


def test_without_a_queue_it_is_contrastive_whose_candidates_do_not_learn() -> None:
    views = filled(MomentumQueue.needs)
    views = replace(views, momentum_image=views.image.detach(), momentum_text=views.text.detach())
    views = replace(views, memory=MomentumQueue().initial_memory(Sizes(6), 0))
    loss = MomentumQueue()(views)
    assert loss.item() == pytest.approx(Contrastive()(views).item(), abs=1e-12)
    (grad,) = torch.autograd.grad(loss, views.image)
    (whole,) = torch.autograd.grad(Contrastive()(views), views.image)
    assert not torch.allclose(grad, whole)


def test_parity_with_the_cross_entropy_of_torch() -> None:
    objective = MomentumQueue()
    views = replace(filled_for(objective), matches=None)
    texts = torch.cat([views.momentum_text, views.memory["text"]])
    images = torch.cat([views.momentum_image, views.memory["image"]])
    own = torch.arange(8)
    sides = ((views.image, texts), (views.text, images))
    expected = torch.stack([F.cross_entropy(views.scale * a @ b.T, own) for a, b in sides]).mean()
    assert objective(views).item() == pytest.approx(expected.item(), abs=1e-12)


def test_gradients_in_double_precision() -> None:
    check_gradients(MomentumQueue(), filled_for(MomentumQueue(), b=5, d=4))


def test_the_newest_pairs_stay_in_the_queue() -> None:
    objective = MomentumQueue(size=11)
    memory = objective.initial_memory(Sizes(6), 0)
    batches = [filled(MomentumQueue.needs, seed=seed) for seed in range(3)]
    for views in batches:
        memory = objective.update_memory(replace(views, memory=memory))
    expected = torch.cat([batches[2].momentum_text, batches[1].momentum_text])[:11]
    assert torch.equal(memory["text"], expected)
    assert memory["group"].tolist() == [*batches[2].matches.texts.group.tolist(), 0, 0, 2]  # type: ignore[union-attr]
    assert memory["pool"].shape[0] == memory["image"].shape[0] == 11
    assert not memory["image"].requires_grad


def test_a_run_has_one_moving_average() -> None:
    objectives: dict[str, tuple[float, Objective]] = {
        "momentum_queue": (1.0, MomentumQueue(momentum=0.9)),
        "self_distillation": (1.0, SelfDistillation()),
    }
    with pytest.raises(RecipeError) as caught:
        WeightedObjectives(objectives).check_together()
    assert str(caught.value) == (
        "objectives.self_distillation.momentum: 0.99, and that of momentum_queue is 0.9: a run has one moving "
        "average of its weights: set both alike"
    )
    objectives["self_distillation"] = (1.0, SelfDistillation(momentum=0.9))
    WeightedObjectives(objectives).check_together()
    with pytest.raises(RecipeError) as caught:
        WeightedObjectives(objectives).check_together(sharded=True)
    assert str(caught.value) == (
        "objectives.momentum_queue: needs a moving average of whole weights, and train.fsdp shards them: leave "
        "one of the two out"
    )
