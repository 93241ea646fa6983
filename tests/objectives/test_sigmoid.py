"""The sigmoid objective against its closed form, a hand-worked case and gradients."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from domainclip.objectives.base import Views
from domainclip.objectives.losses import blockwise
from domainclip.objectives.sigmoid import Sigmoid
from tests.objectives.filled_views import check_equal, check_gradients, check_processes, filled
from tests.objectives.references import open_clip_losses
from tests.support.matches import grouped, related, right_texts


def _views(
    image: torch.Tensor, text: torch.Tensor, scale: float, bias: float, group: list[int] | None = None
) -> Views:
    to = torch.float64
    return Views(image, text, torch.tensor(scale, dtype=to), torch.tensor(bias, dtype=to), grouped(group))


def test_identity_similarity() -> None:
    """Fault 15."""
    eye = torch.eye(8, dtype=torch.float64)
    loss = Sigmoid()(_views(eye, eye, 10.0, -10.0)).item()
    assert loss == pytest.approx(log(1 + exp(0)) + 7 * log(1 + exp(-10)), abs=1e-12)
    assert loss == pytest.approx(0.6934649729 + 0, abs=5e-10)


def test_hand_worked_two_by_two() -> None:
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    text = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    # logits 2 s − 1: [[1, 0.2], [−1, 0.6]]
    expected = (log(1 + exp(-1)) + log(1 + exp(0.2)) + log(1 + exp(-1)) + log(1 + exp(-0.6))) / 2
    assert Sigmoid()(_views(image, text, 2.0, -1.0)).item() == pytest.approx(expected, abs=1e-12)


def test_combinations_within_a_group_are_left_out() -> None:
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    expected = log(1 + exp(-1))  # two positives, no negative left
    assert Sigmoid()(_views(image, image, 2.0, -1.0, [4, 4])).item() == pytest.approx(expected, abs=1e-12)
    assert Sigmoid()(_views(image, image, 2.0, -1.0, [4, 5])).item() > expected + 0.1


def test_gradients() -> None:
    torch.manual_seed(0)
    image, text = (torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    scale, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (3.0, -2.0))
    matches = related([0, 1, 1, 2, 3], [[10], [11], [12], [13], [14, 10]])

    def loss(i: torch.Tensor, t: torch.Tensor, s: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return Sigmoid()(Views(F.normalize(i, dim=-1), F.normalize(t, dim=-1), s, b, matches))

    assert torch.autograd.gradcheck(loss, (image, text, scale, bias))


def test_plain_is_open_clip() -> None:
    theirs = open_clip_losses().SigLipLoss()
    views = filled(b=7, grouped=False)
    check_equal(Sigmoid(), lambda seen: theirs(seen.image, seen.text, seen.scale, seen.bias), views)


def test_labels_by_hand() -> None:
    # logits 2 s − 1 are 1 on the diagonal and −1 beside it; the first two pairs have equal labels.
    eye = torch.eye(3, dtype=torch.float64)
    views = _views(eye, eye, 2.0, -1.0)
    views = Views(eye, eye, views.scale, views.bias, labels=torch.tensor([[True], [True], [False]]))
    yes, no = log(1 + exp(-1)), log(1 + exp(-1))  # −log σ(1), and −log σ(−(−1))
    wrongly_far = log(1 + exp(1))  # −log σ(−1): told to say yes, and says no
    assert Sigmoid(targets="labels")(views).item() == pytest.approx(
        (3 * yes + 2 * wrongly_far + 4 * no) / 3, abs=1e-12
    )


def test_labels_and_groups_are_the_dense_form() -> None:
    views = filled(frozenset({"labels"}), b=7)
    same_labels = (views.labels[:, None] == views.labels).all(-1) & views.labels.any(1)
    together = same_labels | right_texts(views.matches, 7)
    assert together.sum() > 9

    def dense(seen: Views) -> torch.Tensor:
        logits = seen.scale * seen.image @ seen.text.T + seen.bias
        return -F.logsigmoid(torch.where(together, logits, -logits)).sum() / 7

    check_equal(Sigmoid(targets="labels"), dense, views)


@pytest.mark.parametrize("targets", ["mask", "labels"])
def test_exact(monkeypatch: pytest.MonkeyPatch, targets: str) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", 20)
    objective = Sigmoid(targets=targets)  # type: ignore[arg-type]
    assert objective.needs == (frozenset({"labels"}) if targets == "labels" else frozenset())
    check_gradients(objective, filled(frozenset({"labels"}), b=5, d=3))
    check_processes(objective, filled(frozenset({"labels"}), b=12))
