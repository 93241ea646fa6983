"""Distillation by hand, against open_clip and torch's divergence, with one teacher and with two."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip import registry
from domainclip.errors import RecipeError
from domainclip.objectives.base import Teacher, Views
from domainclip.objectives.distillation import Distillation
from domainclip.objectives.losses import blockwise
from tests.objectives.filled_views import check_equal, check_gradients, check_processes, filled, gradients
from tests.objectives.references import open_clip_losses
from tests.support.matches import right_texts

NEEDS = frozenset({"teachers"})
ONE = Distillation(teachers=["a/teacher"])


def test_by_hand() -> None:
    # The teacher is sure by e : 1 of each of two pairs, the student cannot tell them apart.
    eye, same = torch.eye(2, dtype=torch.float64), torch.tensor([[1.0], [1.0]], dtype=torch.float64)
    views = Views(same, same, torch.tensor(5.0, dtype=torch.float64), teachers=(Teacher(eye, eye, 1.0),))
    sure = exp(1) / (exp(1) + 1)
    expected = sure * log(2 * sure) + (1 - sure) * log(2 * (1 - sure))
    assert ONE(views).item() == pytest.approx(expected, abs=1e-12)


def _divergence(seen: Views, teacher: Teacher, scale: float) -> Tensor:
    masked = right_texts(seen.matches, len(seen.image)) & ~torch.eye(len(seen.image), dtype=torch.bool)
    found = []
    for one, other, x, y, hidden in (
        (seen.image, seen.text, teacher.image, teacher.text, masked),
        (seen.text, seen.image, teacher.text, teacher.image, masked.T),
    ):
        mine = (seen.scale * one @ other.T).masked_fill(hidden, -1e4).log_softmax(1)
        theirs = (scale * x @ y.T).masked_fill(hidden, -1e4).softmax(1)
        found.append(F.kl_div(mine, theirs, reduction="batchmean"))
    return torch.stack(found).mean()


@pytest.mark.parametrize("logits", [1, 15, 2**20])
def test_two_teachers_are_the_dense_divergence(monkeypatch: pytest.MonkeyPatch, logits: int) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
    views = filled(NEEDS, b=7, teachers=2)

    def dense(seen: Views) -> Tensor:
        first, second = seen.teachers
        return 0.25 * _divergence(seen, first, 2.0) + 3 * _divergence(seen, second, 8.0)

    two = Distillation(teachers=["one", "two"], temperatures=[0.5, 0.125], weights=[0.25, 3])
    check_equal(two, dense, views)


def test_equal_shares_and_the_teachers_own_scales() -> None:
    views = filled(NEEDS, b=7, teachers=2)
    views = replace(views, teachers=(views.teachers[0], replace(views.teachers[1], scale=3.0)))

    def dense(seen: Views) -> Tensor:
        return (_divergence(seen, seen.teachers[0], 20.0) + _divergence(seen, seen.teachers[1], 3.0)) / 2

    check_equal(Distillation(teachers=["one", "two"]), dense, views)


def test_gradients_are_those_of_open_clip() -> None:
    theirs = open_clip_losses().DistillClipLoss()
    views = filled(NEEDS, b=7, grouped=False)
    (teacher,) = views.teachers
    _, expected = theirs(views.image, views.text, views.scale, teacher.image, teacher.text, teacher.scale)
    found = ONE(views)
    for mine, other in zip(gradients(found, views), gradients(expected, views), strict=True):
        assert torch.allclose(mine, other, atol=1e-10)
    # Theirs is the cross-entropy: larger by the entropy of the teacher, which nothing learns from.
    rows = [
        teacher.scale * one @ other.T
        for one, other in ((teacher.image, teacher.text), (teacher.text, teacher.image))
    ]
    entropy = sum(torch.distributions.Categorical(logits=row).entropy().mean() for row in rows) / 2
    assert found.item() == pytest.approx((expected - entropy).item(), abs=1e-10)


def test_nothing_is_learned_from_oneself() -> None:
    views = filled(b=6)
    myself = Teacher(views.image.detach(), views.text.detach(), views.scale.item())
    loss = ONE(replace(views, teachers=(myself,)))
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert all(float(grad.abs().max()) < 1e-12 for grad in gradients(loss, views))
    other = replace(myself, image=myself.image.flip(0))
    assert ONE(replace(views, teachers=(other,))).item() > 0.1


def test_a_teacher_in_fp32_teaches_a_student_in_fp64() -> None:
    views = filled(NEEDS, b=4)
    (teacher,) = views.teachers
    single = Teacher(teacher.image.float(), teacher.text.float(), teacher.scale)
    found = ONE(replace(views, teachers=(single,)))
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(ONE(views).item(), abs=1e-5)


@pytest.mark.parametrize("option", ["temperatures", "weights"])
def test_a_list_of_another_length_is_refused(option: str) -> None:
    options = {"teachers": ["one", "two"], option: [1.0]}
    with pytest.raises(RecipeError) as caught:
        registry.build("objectives", "distillation", options, "objectives.distillation")
    assert str(caught.value) == f"objectives.distillation: {option}: 1 for 2 teachers"


def test_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", 20)
    two = Distillation(teachers=["one", "two"], weights=[0.4, 2])
    check_gradients(two, filled(NEEDS, b=5, d=3, teachers=2))
    check_processes(two, filled(NEEDS, b=12, teachers=2))
