"""Every objective on the disk beside `contrastive`, inside `matryoshka`, and over several processes.

The parts are found, and what they need is filled, so that one that is added later is covered without a line here.
"""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from typing import Any, get_type_hints

import pytest
import torch

from domainclip import registry
from domainclip.objectives.base import Objective
from tests.objectives.filled_views import check_processes, filled_for, gradients, learning
from tests.support.matches import grouped

NAMES = registry.names("objectives")
CONTRASTIVE = registry.build("objectives", "contrastive", {}, "objectives.contrastive")


def options(name: str) -> dict[str, Any]:
    """What an objective cannot be built without, made up from the types."""
    part = registry.find("objectives", name)
    kinds = get_type_hints(part)
    must = [
        one.name
        for one in fields(part)
        if one.default is MISSING and one.default_factory is MISSING and one.init
    ]
    examples = {str: "some", list[str]: ["some/one"], list[int]: [2, 6], int: 2, float: 0.5}
    return {one: examples[kinds[one]] for one in must}


def _build(name: str) -> Any:
    return registry.build("objectives", name, options(name), f"objectives.{name}")


ASKING = [name for name in NAMES if "extra_text" in _build(name).needs]


def test_there_are_objectives() -> None:
    assert len(NAMES) > 8
    assert len(ASKING) > 5
    assert {"contrastive", "anchor", "matryoshka"} <= set(NAMES)


@pytest.mark.parametrize("name", ASKING)
def test_what_needs_further_texts_asks_for_them(name: str) -> None:
    assert type(_build(name)).extra_texts is not Objective.extra_texts


@pytest.mark.parametrize("name", NAMES)
def test_beside_contrastive(name: str) -> None:
    objective = _build(name)
    views = filled_for(objective, dtype=torch.float32)
    loss = CONTRASTIVE(views) + 0.5 * objective(views)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    loss.backward()
    for one in learning(views):
        assert one.grad is None or bool(one.grad.isfinite().all())
    alone = gradients(objective(views), views)
    assert any(float(grad.abs().max()) > 0 for grad in alone), "nothing learns from it"


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_its_own_leave_their_start(name: str) -> None:
    """A start where all gradients vanish, such as two equal sides, would never be left."""
    objective = _build(name)
    views = filled_for(objective, at_start=True)
    own = list(views.own_weights.values())
    if not own:
        return
    gradients = torch.autograd.grad(objective(views), own, allow_unused=True)
    assert any(grad is not None and float(grad.abs().max()) > 1e-12 for grad in gradients)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "matryoshka"])
def test_inside_matryoshka(name: str) -> None:
    inner = {name: options(name)}
    nested = registry.build(
        "objectives", "matryoshka", {"widths": [2, 6], "objective": inner}, "objectives.matryoshka"
    )
    plain = _build(name)
    assert nested.needs == plain.needs
    assert (nested.replaces, nested.supports_ring) == (plain.replaces, False)
    assert nested.inputs.teachers == plain.inputs.teachers
    assert nested.inputs.value_column == plain.inputs.value_column
    assert (nested.inputs.third_tower is None) == (plain.inputs.third_tower is None)
    views = filled_for(nested)
    expected = (plain(views.truncate(2)) + plain(views.truncate(6))) / 2
    assert nested(views).item() == pytest.approx(expected.item(), abs=1e-12)
    for found, wanted in zip(gradients(nested(views), views), gradients(expected, views), strict=True):
        assert torch.allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_the_mean_over_processes_is_the_loss_of_the_batch(name: str, grouped: bool) -> None:
    objective = _build(name)
    check_processes(objective, filled_for(objective, grouped=grouped))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_group_is_finite(name: str) -> None:
    """Nothing to contrast with is no reason for NaN."""
    objective = _build(name)
    views = filled_for(objective, b=4)
    views = replace(views, matches=grouped([0] * len(views.image)))
    loss = objective(views)
    assert bool(loss.isfinite())
    assert all(bool(grad.isfinite().all()) for grad in gradients(loss, views))
