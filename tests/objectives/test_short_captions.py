"""Short captions: principal components of the batch against scikit-learn, and who is nobody's negative."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from domainclip.data.text.training_pair import TrainingPair
from domainclip.objectives.base import Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.matryoshka import Matryoshka
from domainclip.objectives.short_captions import ShortCaptions, _project
from tests.support.matches import grouped


def _rows(b: int, d: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(b, d, dtype=torch.float64, generator=draw), dim=-1)


def _views(image: torch.Tensor, said: torch.Tensor, mask: list[bool] | None = None, **more: object) -> Views:
    there = torch.tensor(mask if mask is not None else [True] * len(image))[:, None]
    text = more.pop("text", _rows(*image.shape, seed=9))
    scale = torch.tensor(2.0, dtype=image.dtype)
    return Views(image, text, scale, extra_text=said[:, None], extra_text_mask=there, **more)  # type: ignore[arg-type]


def _pair(text: str) -> TrainingPair:
    return TrainingPair(text, (text,), ("en",), (), {}, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Clear lungs. No effusion.", ["Clear lungs."]),
        ("a red circle", ["a red circle"]),
        ("?!", ["?!"]),
        (" ", []),
        ("肺部清晰。无积液。", ["肺部清晰。"]),
    ],
)
def test_asks_for_the_first_sentence(text: str, expected: list[str]) -> None:
    assert ShortCaptions().extra_texts(_pair(text)) == expected


def test_hand_worked() -> None:
    # Images (1, 0), (0, 1): mean (½, ½), one direction holds all, so x̂ = x; s = I, scale 2.
    eye = torch.eye(2, dtype=torch.float64)
    assert ShortCaptions(components=1)(_views(eye, eye)).item() == pytest.approx(log(1 + exp(-2)), abs=1e-12)
    # (0.8, 0.6) and (0.8, -0.6), and a third between them at (1, 0): variance lies along (0, 1) only.
    image = torch.tensor([[0.8, 0.6], [0.8, -0.6], [1.0, 0.0]], dtype=torch.float64)
    middle = (0.8 + 0.8 + 1.0) / 3
    expected = F.normalize(torch.tensor([[middle, 0.6], [middle, -0.6], [middle, 0.0]]).double(), dim=-1)
    assert torch.allclose(_project(image, 1), expected, atol=1e-12)


@pytest.mark.parametrize(("b", "d", "components"), [(7, 5, 2), (4, 9, 2), (13, 6, 3)])
def test_components_agree_with_scikit_learn(b: int, d: int, components: int) -> None:
    image = _rows(b, d)
    fitted = PCA(components, svd_solver="full").fit(image.numpy())
    expected = fitted.inverse_transform(fitted.transform(image.numpy()))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(_project(image, components).numpy(), expected, atol=1e-12)


def test_with_all_directions_it_is_the_contrastive_objective_of_the_short_captions() -> None:
    image, said = _rows(6, 4), _rows(6, 4, seed=1)
    expected = Contrastive()(Views(image, said, torch.tensor(2.0).double()))
    assert ShortCaptions()(_views(image, said)).item() == pytest.approx(expected.item(), abs=1e-12)
    # Negative control: with one direction it is not.
    assert abs(ShortCaptions(components=1)(_views(image, said)).item() - expected.item()) > 1e-3


def test_the_same_sentence_and_the_same_group_are_no_negatives() -> None:
    image, said = torch.eye(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    said[1] = said[0] + 1e-9  # the same text, encoded by another process
    scores = 2 * image @ said.T
    left = [log(1 + exp(scores[0, 2] - scores[0, 0])), log(1 + exp(scores[1, 2] - scores[1, 1]))]
    left += [scores[2].logsumexp(0).item() - scores[2, 2].item()]
    down = [log(1 + exp(scores[2, 0] - scores[0, 0])), log(1 + exp(scores[2, 1] - scores[1, 1]))]
    down += [scores[:, 2].logsumexp(0).item() - scores[2, 2].item()]
    found = ShortCaptions()(_views(image, said)).item()
    assert found == pytest.approx((sum(left) + sum(down)) / 6, abs=1e-8)
    alone = _views(image, torch.eye(3, dtype=torch.float64), matches=grouped([5, 5, 5]))
    assert ShortCaptions()(alone).item() == 0.0


def test_the_same_sentence_of_a_process_in_bf16_is_no_negative() -> None:
    """Two processes that round alike to 1e-5 of a cosine, as autocast does, still say the same."""
    image, said = _rows(4, 3), _rows(4, 3, seed=1)
    said[1] = said[0]
    again = said.clone()
    away = F.normalize(torch.linalg.cross(said[0], said[2]), dim=0)
    again[1] = F.normalize(said[0] + 4e-3 * away, dim=0)
    assert 5e-6 < 1 - float(said[0] @ again[1]) < 2e-5
    found, expected = ShortCaptions()(_views(image, again)), ShortCaptions()(_views(image, said))
    assert found.item() == pytest.approx(expected.item(), abs=0.02)
    text = said.clone()
    text[1] = F.normalize(said[0] + 0.1 * away, dim=0)  # negative control: another sentence
    assert abs(ShortCaptions()(_views(image, text)).item() - expected.item()) > 0.05


def test_without_a_sentence_the_caption_stands_in() -> None:
    image, said, text = _rows(4, 3), _rows(4, 3, seed=1), _rows(4, 3, seed=2)
    found = ShortCaptions()(_views(image, said, [True, False, True, True], text=text))
    mixed = said.clone()
    mixed[1] = text[1]
    assert torch.equal(found, ShortCaptions()(_views(image, mixed)))


def test_rows_of_two_processes_make_the_whole() -> None:
    image, said = _rows(6, 5).requires_grad_(), _rows(6, 5, seed=1).requires_grad_()
    whole = ShortCaptions(components=2)(_views(image, said))
    halves = [ShortCaptions(components=2)(_views(image, said, local_rows=slice(at, at + 3))) for at in (0, 3)]
    mean = torch.stack(halves).mean()
    assert mean.item() == pytest.approx(whole.item(), abs=1e-12)
    for one, other in zip(
        torch.autograd.grad(whole, (image, said)), torch.autograd.grad(mean, (image, said)), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-12)


def test_gradients() -> None:
    torch.manual_seed(0)
    image, said = (torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def loss(image: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        rows = (F.normalize(image, dim=-1), F.normalize(said, dim=-1))
        return ShortCaptions(components=3)(_views(*rows))  # all directions: nothing is taken as given

    assert torch.autograd.gradcheck(loss, (image, said))


def test_gradients_with_the_directions_held() -> None:
    image = _rows(6, 4).requires_grad_()
    with torch.no_grad():
        _, _, directions = torch.linalg.svd(image - image.mean(0), full_matrices=False)
        held = directions[:2]

    def by_hand(image: torch.Tensor) -> torch.Tensor:
        mean = image.mean(0)
        return F.normalize(mean + (image - mean) @ held.T @ held, dim=-1)

    (found,) = torch.autograd.grad(_project(image, 2)[0, 0], image)
    (expected,) = torch.autograd.grad(by_hand(image)[0, 0], image)
    assert torch.allclose(found, expected, atol=1e-12)
    assert found.abs().sum() > 0


@pytest.mark.parametrize("components", [3, 4, 32])
def test_directions_that_hold_nothing_draw_no_gradient(components: int) -> None:
    """Four pairs have three directions; a decomposition gives a fourth, which rounding chose."""
    image = _rows(4, 9).requires_grad_()
    held = torch.from_numpy(PCA(3, svd_solver="full").fit(image.detach().numpy()).components_)
    mean = image.mean(0)
    by_hand = F.normalize(mean + (image - mean) @ held.T @ held, dim=-1)
    found = _project(image, components)
    assert torch.allclose(found, by_hand, atol=1e-12)
    weights = _rows(4, 9, seed=3)
    (mine,) = torch.autograd.grad((found * weights).sum(), image)
    (expected,) = torch.autograd.grad((by_hand * weights).sum(), image)
    assert torch.allclose(mine, expected, atol=1e-12)


def test_pictures_that_are_all_alike_stay_as_they_are() -> None:
    image = _rows(1, 9).float().repeat(5, 1).requires_grad_()
    found = _project(image, 32)
    assert torch.allclose(found, image, atol=1e-6)
    (slope,) = torch.autograd.grad((found * _rows(5, 9).float()).sum(), image)
    assert torch.allclose(slope, slope[:1].expand_as(slope), atol=1e-6)  # through their mean alone


def test_inside_matryoshka_and_beside_contrastive() -> None:
    term = Matryoshka(widths=[3, 6], objective={"short_captions": {"components": 2}})
    assert term.needs == {"extra_text"}
    assert term.extra_texts(_pair("Clear lungs. No effusion.")) == ["Clear lungs."]
    image, said = _rows(5, 6).requires_grad_(), _rows(5, 6, seed=1).requires_grad_()
    views = _views(image, said)
    by_hand = [ShortCaptions(components=2)(views.truncate(width)) for width in (3, 6)]
    assert term(views).item() == pytest.approx(sum(one.item() for one in by_hand) / 2, abs=1e-12)
    (term(views) + Contrastive()(views)).backward()
    assert said.grad is not None
    assert bool(said.grad.abs().sum() > 0)
