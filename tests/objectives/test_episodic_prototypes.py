"""Episodic prototypes: the loss by hand, prototypes translated back, and the steps at which they are found."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from domainclip.objectives.base import Sizes, Views
from domainclip.objectives.episodic_prototypes import EpisodicPrototypes

EYE = torch.eye(2, dtype=torch.float64)


def _views(image: torch.Tensor, text: torch.Tensor, **options: object) -> Views:
    return Views(image.requires_grad_(), text, torch.tensor(1.0), **options)  # type: ignore[arg-type]


def test_a_value_worked_by_hand() -> None:
    """Texts on the axes, images exchanged: translated prototypes lie at the images, found ones do not."""
    found, flipped = {"text_clustered": EYE, "image_clustered": EYE}, EYE.flip(0)
    memory = found | {"text_translated": flipped, "image_translated": flipped}
    views = _views(flipped.clone(), EYE, memory=memory)
    q, p = (1 / (1 + exp(-1 / t)) for t in (0.5, 2.0))
    options = {"count": 2, "temperature": 2.0, "target_temperature": 0.5}
    right = -(q * log(p) + (1 - q) * log(1 - p))
    assert EpisodicPrototypes(**options)(views).item() == pytest.approx(right, abs=1e-12)  # type: ignore[arg-type]
    untranslated = EpisodicPrototypes(back_translation=False, **options)  # type: ignore[arg-type]
    wrong = -(q * log(1 - p) + (1 - q) * log(p))
    assert untranslated(views).item() == pytest.approx(wrong, abs=1e-12)


def test_only_the_other_side_learns_from_clusters() -> None:
    memory = {f"{side}_{kind}": EYE for side in ("image", "text") for kind in ("clustered", "translated")}
    rows = F.normalize(torch.tensor([[1.0, 0.3], [0.2, 1.0]], dtype=torch.float64), dim=-1)
    objective = EpisodicPrototypes(count=2)
    image = rows.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(Views(image, EYE, torch.tensor(1.0), memory=memory)), image)
    step = 1e-6 * torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    # Of the images only the shares log p(x) count; their targets q(x) have no gradient.
    target = (EYE / 0.05).softmax(dim=-1)
    log_share = lambda rows: (rows / 0.1).log_softmax(dim=-1)  # noqa: E731
    slope = -(target * (log_share(rows + step) - log_share(rows - step))).sum() / 2e-6 / 2 / 2
    assert gradient[0, 0].item() == pytest.approx(slope.item(), rel=1e-5)


def test_prototypes_are_found_at_the_first_step_and_with_each_episode() -> None:
    draw = torch.Generator().manual_seed(0)
    objective = EpisodicPrototypes(count=3, size=30, episode=2)
    memory, changed = objective.initial_memory(Sizes(3), 0), []
    assert objective(Views(torch.eye(3), torch.eye(3), torch.tensor(1.0), memory=memory)).item() == 0
    for _ in range(5):
        which = torch.randint(0, 3, (12,), generator=draw)
        noise = 0.05 * torch.randn(12, 3, generator=draw)
        text = F.normalize(torch.eye(3)[which] + noise, dim=-1)
        image = F.normalize(torch.eye(3)[(which + 1) % 3] + noise, dim=-1)
        after = objective.update_memory(Views(image, text, torch.tensor(1.0), memory=memory))
        changed.append(not torch.equal(after["text_clustered"], memory["text_clustered"]))
        memory = after
    assert changed == [True, False, True, False, True]
    assert len(memory["text"]) == 30
    # Each text lies on an axis, and its images on the next one: so do the prototypes translated back.
    assert sorted(memory["text_clustered"].argmax(dim=1).tolist()) == [0, 1, 2]
    axis = memory["text_clustered"].argmax(dim=1)
    assert torch.equal(memory["text_translated"].argmax(dim=1), (axis + 1) % 3)
    again = objective.update_memory(
        Views(image, text, torch.tensor(1.0), memory={**memory, "step": torch.tensor(0)})
    )
    once_more = objective.update_memory(
        Views(image, text, torch.tensor(1.0), memory={**memory, "step": torch.tensor(0)})
    )
    assert torch.equal(again["image_clustered"], once_more["image_clustered"])


def test_nothing_is_compared_without_a_queue_of_three() -> None:
    objective = EpisodicPrototypes()
    memory = objective.initial_memory(Sizes(2), 0)
    views = replace(_views(EYE.clone(), EYE), memory=memory)
    assert len(objective.update_memory(views)["image_clustered"]) == 0
