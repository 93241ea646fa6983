"""The contrastive objective against closed forms, a hand-worked case, and open definitions."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from domainclip.objectives.base import Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.losses import blockwise
from tests.objectives.filled_views import check_equal, check_gradients, check_processes, filled
from tests.objectives.references import open_clip_losses
from tests.support.matches import grouped, related, right_texts


def _views(
    image: torch.Tensor, text: torch.Tensor, scale: float = 1.0, group: list[int] | None = None
) -> Views:
    return Views(image, text, torch.tensor(scale, dtype=image.dtype), matches=grouped(group))


@pytest.mark.parametrize(("n", "scale", "value"), [(4, 1.0, 0.7436683806), (8, 14.285714, 4.374116e-6)])
def test_identity_similarity(n: int, scale: float, value: float) -> None:
    """Fault 15."""
    eye = torch.eye(n, dtype=torch.float64)
    loss = Contrastive()(_views(eye, eye, scale)).item()
    assert loss == pytest.approx(log(1 + (n - 1) * exp(-scale)), abs=1e-12)
    assert loss == pytest.approx(value, rel=1e-6)


def test_equal_similarity_is_chance() -> None:
    """Fault 15."""
    same = F.normalize(torch.ones(8, 4, dtype=torch.float64), dim=-1)
    assert Contrastive()(_views(same, same, 50.0)).item() == pytest.approx(log(8), abs=1e-12)


def test_hand_worked_two_by_two() -> None:
    # s = [[1, 0.6], [0, 0.8]], scale 1: rows and columns by hand.
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    text = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    rows = (log(1 + exp(0.6 - 1)) + log(1 + exp(0 - 0.8))) / 2
    columns = (log(1 + exp(0 - 1)) + log(1 + exp(0.6 - 0.8))) / 2
    assert Contrastive()(_views(image, text)).item() == pytest.approx((rows + columns) / 2, abs=1e-12)


def test_a_group_leaves_each_others_denominators() -> None:
    # Three pairs, the first two alike and grouped: each is left with one negative, the third with two.
    eye = torch.eye(3, dtype=torch.float64)
    expected = (2 * log(1 + exp(-1)) + log(1 + 2 * exp(-1))) / 3
    assert Contrastive()(_views(eye, eye, group=[7, 7, 9])).item() == pytest.approx(expected, abs=1e-12)
    assert Contrastive()(_views(eye, eye, group=[7, 8, 9])).item() != pytest.approx(expected, abs=1e-6)


def test_a_caption_that_an_image_may_show_is_no_negative_by_hand() -> None:
    # Images 0 and 1 may show caption 7; image 0 shows it now, image 1 shows 8, image 2 shows 9.
    # Image 1 has one negative, the text of 2; the others have two, and so have all texts but the first.
    eye = torch.eye(3, dtype=torch.float64)
    views = replace(_views(eye, eye), matches=related([0, 1, 2], [[7], [8, 7], [9]]))
    one, two = log(1 + exp(-1)), log(1 + 2 * exp(-1))
    expected = ((two + one + two) / 3 + (one + two + two) / 3) / 2
    assert Contrastive()(views).item() == pytest.approx(expected, abs=1e-12)
    # Negative control: by the captions that are shown alone, nothing is masked.
    shown = replace(views, matches=related([0, 1, 2], [[7], [8], [9]]))
    assert Contrastive()(shown).item() == pytest.approx(two, abs=1e-12)


def test_without_the_mask_a_right_text_is_pushed_away() -> None:
    """The first paper's loss, whatever matches: on the case above each pair has two negatives."""
    eye = torch.eye(3, dtype=torch.float64)
    views = replace(_views(eye, eye), matches=related([0, 1, 2], [[7], [8, 7], [9]]))
    assert Contrastive(targets="identity")(views).item() == pytest.approx(log(1 + 2 * exp(-1)), abs=1e-12)
    many = filled(b=7)
    logits, own = many.scale * many.image @ many.text.T, torch.arange(7)
    plain = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(Contrastive(targets="identity")(many), plain)
    assert Contrastive()(many).item() != pytest.approx(plain.item(), abs=1e-6)


def test_masked_losses_are_the_dense_form(monkeypatch: pytest.MonkeyPatch) -> None:
    views = filled(b=7)
    hidden = right_texts(views.matches, 7) & ~torch.eye(7, dtype=torch.bool)

    def dense(given: Views) -> torch.Tensor:
        logits = given.scale * given.image @ given.text.T
        own = torch.arange(7)
        sides = ((logits, hidden), (logits.T, hidden.T))
        return sum(F.cross_entropy(z.masked_fill(mask, -torch.inf), own) for z, mask in sides) / 2

    for logits in (1, 15, 2**20):
        monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
        check_equal(Contrastive(), dense, views)


def test_all_of_one_group_has_nothing_to_learn() -> None:
    image = F.normalize(torch.randn(4, 3, dtype=torch.float64, generator=torch.manual_seed(0)), dim=-1)
    image.requires_grad_()
    loss = Contrastive()(_views(image, image.detach(), group=[1, 1, 1, 1]))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(image.grad, torch.zeros_like(image))  # finite, not NaN from minus infinity


def test_gradients() -> None:
    torch.manual_seed(0)
    image, text = (torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    matches = related([0, 1, 1, 2, 3], [[10], [11], [12], [13], [14, 10]])

    def loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        sides = (F.normalize(side, dim=-1) for side in (image, text))
        return Contrastive()(Views(*sides, scale, matches=matches))

    assert torch.autograd.gradcheck(loss, (image, text, scale))


def _dense(views: Views, together: torch.Tensor) -> torch.Tensor:
    """By whole matrices: the target shared among all that belong together, in both directions."""
    logits = views.scale * views.image @ views.text.T
    to_text, to_image = (side.to(logits.dtype) / side.sum(1, keepdim=True) for side in (together, together.T))
    return (F.cross_entropy(logits, to_text) + F.cross_entropy(logits.T, to_image)) / 2


def test_plain_is_open_clip() -> None:
    theirs = open_clip_losses().ClipLoss()
    views = filled(b=7, grouped=False)
    check_equal(Contrastive(), lambda seen: theirs(seen.image, seen.text, seen.scale), views)


def test_soft_by_hand() -> None:
    # Two alike and grouped, one alone: all three stand in every denominator, and the target is halved.
    eye = torch.eye(3, dtype=torch.float64)
    whole = log(exp(1) + 2)
    expected = (2 * (whole - 1 / 2) + (whole - 1)) / 3
    found = Contrastive(targets="soft")(_views(eye, eye, group=[7, 7, 9])).item()
    assert found == pytest.approx(expected, abs=1e-12)


def test_soft_is_the_dense_form(monkeypatch: pytest.MonkeyPatch) -> None:
    views = filled(b=7)
    together = right_texts(views.matches, 7)
    assert not torch.equal(together, together.T)
    for logits in (1, 15, 2**20):
        monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
        check_equal(Contrastive(targets="soft"), lambda seen: _dense(seen, together), views)


def test_soft_without_groups_is_plain() -> None:
    check_equal(Contrastive(targets="soft"), Contrastive(), filled(b=7, grouped=False))


def _labelled(rows: list[list[int]], group: bool = False) -> Views:
    views = filled(b=len(rows), grouped=False)
    return Views(
        views.image,
        views.text,
        views.scale,
        views.bias,
        grouped([0, 0, *range(2, len(rows))] if group else None),
        labels=torch.tensor(rows, dtype=torch.bool),
    )


def test_labels_are_equal_sets_and_none_is_not_a_set() -> None:
    # The first two agree in all classes; the third shares one only; the last two have none.
    views = _labelled([[1, 0, 1], [1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]])
    together = torch.eye(5, dtype=torch.bool)
    together[0, 1] = together[1, 0] = True
    check_equal(Contrastive(targets="labels"), lambda seen: _dense(seen, together), views)


def test_labels_and_groups_both_count() -> None:
    views = _labelled([[1, 0], [0, 1], [0, 1], [0, 0]], group=True)  # 0 and 1 are of one group
    together = torch.eye(4, dtype=torch.bool)
    together[0, 1] = together[1, 0] = together[1, 2] = together[2, 1] = True
    check_equal(Contrastive(targets="labels"), lambda seen: _dense(seen, together), views)


def test_labels_are_supervised_contrast_of_pytorch_metric_learning() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    views = _labelled([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1], [1, 0]])
    classes = torch.tensor([0, 0, 1, 1, 2, 0])

    def theirs(seen: Views) -> torch.Tensor:
        alike = distances.DotProductSimilarity(normalize_embeddings=False)
        loss = losses.SupConLoss(temperature=1 / seen.scale, distance=alike)
        sides = ((seen.image, seen.text), (seen.text, seen.image))
        # The same tensor twice would be taken for one set of embeddings, whose own pairs do not count.
        return torch.stack(
            [loss(one, classes, ref_emb=two, ref_labels=classes.clone()) for one, two in sides]
        ).mean()

    check_equal(Contrastive(targets="labels"), theirs, views)


def test_labels_pull_together_what_plain_contrast_pushes_apart() -> None:
    image = torch.eye(2, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([[True], [True]])
    views = Views(
        image, torch.eye(2, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64), labels=labels
    )
    (apart,) = torch.autograd.grad(Contrastive()(views), image)
    (near,) = torch.autograd.grad(Contrastive(targets="labels")(views), image)
    assert apart[0, 1] > 0  # a step against the gradient leads the first image away from the second's text
    assert near[0, 1] < 0


def test_needs() -> None:
    assert Contrastive().needs == Contrastive(targets="soft").needs == frozenset()
    assert Contrastive(targets="labels").needs == {"labels"}


@pytest.mark.parametrize("targets", ["mask", "soft", "labels"])
def test_exact(monkeypatch: pytest.MonkeyPatch, targets: str) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", 20)
    objective = Contrastive(targets=targets)  # type: ignore[arg-type]
    check_gradients(objective, filled(frozenset({"labels"}), b=5, d=3))
    check_processes(objective, filled(frozenset({"labels"}), b=12))
