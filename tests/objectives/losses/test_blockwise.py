"""Row-blocked losses equal the dense ones, whatever the block: values, gradients, and two real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.distributed import collectives
from domainclip.objectives.base import Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.losses import blockwise
from domainclip.objectives.sigmoid import Sigmoid
from tests.support.matches import related, right_texts
from tests.support.processes import started

Loss = Callable[[Views], Tensor]
OBJECTIVES: dict[str, Loss] = {"contrastive": Contrastive(), "sigmoid": Sigmoid()}


def _dense_contrastive(views: Views) -> Tensor:
    logits = views.scale * views.image @ views.text.T
    if views.matches is not None:
        same = right_texts(views.matches, len(logits))
        logits = logits.masked_fill(same & ~torch.eye(len(logits), dtype=torch.bool), -torch.inf)
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def _dense_sigmoid(views: Views) -> Tensor:
    logits = views.scale * views.image @ views.text.T
    if views.bias is not None:
        logits = logits + views.bias
    own = torch.eye(len(logits), dtype=torch.bool)
    terms = -F.logsigmoid(torch.where(own, logits, -logits))
    if views.matches is not None:
        same = right_texts(views.matches, len(logits))
        terms = terms.masked_fill(same & ~own, 0.0)
    return terms.sum() / len(logits)


DENSE: dict[str, Loss] = {"contrastive": _dense_contrastive, "sigmoid": _dense_sigmoid}


def _views(pairs: int, grouped: bool, biased: bool, dtype: torch.dtype = torch.float64) -> Views:
    draw = torch.Generator().manual_seed(pairs)
    image, text = (
        F.normalize(torch.randn(pairs, 6, dtype=dtype, generator=draw), dim=-1).requires_grad_()
        for _ in range(2)
    )
    scale, bias = (torch.tensor(value, dtype=dtype, requires_grad=True) for value in (7.0, -3.0))
    group = [0 if i % 3 == 1 else 100 * i for i in range(pairs)]
    # The text of each pair is right for the image of the next but one, too; those of 0 and 4 are the same.
    pools = [[10 + i % 4, 10 + (i - 2) % 4] for i in range(pairs)]
    return Views(image, text, scale, bias if biased else None, related(group, pools) if grouped else None)


def _gradients(loss: Tensor, views: Views) -> list[Tensor]:
    given = [one for one in (views.image, views.text, views.scale, views.bias) if one is not None]
    found = torch.autograd.grad(loss, given, allow_unused=True)
    return [torch.zeros_like(one) if grad is None else grad for one, grad in zip(given, found, strict=True)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("pairs", [1, 2, 13])
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_equal_to_the_dense_form(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    grouped: bool,
    pairs: int,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    """Fault 13."""
    views = _views(pairs, grouped, biased=name == "sigmoid", dtype=dtype)
    expected = DENSE[name](views)
    wanted = _gradients(expected, views)
    for logits in (1, 3 * pairs, 5 * pairs + 1, 2**20):  # one row at a time; blocks that do not divide; all
        monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
        loss = OBJECTIVES[name](views)
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(expected.item(), abs=tolerance)
        for own, other in zip(_gradients(loss, views), wanted, strict=True):
            assert (own - other).abs().max().item() <= tolerance


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_is_the_mean_of_what_each_process_finds(name: str) -> None:
    """Fault 13."""
    views = _views(12, grouped=True, biased=name == "sigmoid")
    expected = DENSE[name](views)
    wanted = _gradients(expected, views)
    parts = []
    for rows in (slice(0, 4), slice(4, 8), slice(8, 12)):
        own = Views(views.image, views.text, views.scale, views.bias, views.matches, rows)
        parts.append(OBJECTIVES[name](own))
    assert max(part.item() for part in parts) - min(part.item() for part in parts) > 1e-3  # each has its own
    loss = torch.stack(parts).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    for found, other in zip(_gradients(loss, views), wanted, strict=True):
        assert torch.allclose(found, other, atol=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_kept_embeddings_get_no_gradient(name: str) -> None:
    views = _views(7, grouped=True, biased=name == "sigmoid")
    kept = Views(views.image.detach(), views.text, views.scale, views.bias, views.matches)
    (found,) = torch.autograd.grad(OBJECTIVES[name](kept), [views.text])
    (wanted,) = torch.autograd.grad(DENSE[name](kept), [views.text])
    assert torch.allclose(found, wanted, atol=1e-12)


def test_the_logits_never_stand_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", 40)
    seen: list[tuple[int, ...]] = []

    def kernel(logits: Tensor, own: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
        seen.append((*logits.shape, int(own[0])))
        return blockwise.cross_entropy(logits, own, excluded)

    views = _views(10, grouped=False, biased=False)
    blockwise.mean_over_rows(kernel, views.image[3:], views.text, views.scale, first=3)
    assert seen == [(4, 10, 3), (3, 10, 7)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradcheck_in_blocks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", 10)
    views = _views(5, grouped=True, biased=True)

    def loss(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return OBJECTIVES[name](
            Views(F.normalize(image, dim=-1), F.normalize(text, dim=-1), scale, bias, views.matches)
        )

    given = [one for one in (views.image, views.text, views.scale, views.bias) if one is not None]
    if name == "contrastive":  # it does not look at the bias
        bias = views.bias
        given = given[:3]
        assert torch.autograd.gradcheck(lambda *three: loss(*three, bias), given)  # type: ignore[arg-type]
    else:
        assert torch.autograd.gradcheck(loss, given)


def _half() -> dict[str, tuple[Tensor, ...]]:
    """One of two processes: embeddings of its own half, the loss's own rows, gradients by gathering."""
    half = slice(5 * collectives.rank(), 5 * collectives.rank() + 5)
    found = {}
    for name, objective in OBJECTIVES.items():
        whole = _views(10, grouped=True, biased=name == "sigmoid")
        image, text = (one[half].detach().requires_grad_() for one in (whole.image, whole.text))
        views = Views(
            *(collectives.gather(one) for one in (image, text)), whole.scale, whole.bias, whole.matches, half
        )
        loss = objective(views)
        given = [image, text, whole.scale, *([whole.bias] if whole.bias is not None else [])]
        gradients = torch.autograd.grad(loss, given)
        found[name] = (collectives.mean(loss.detach()), *(grad / 2 for grad in gradients))
    return found


def test_two_processes_each_with_its_rows(tmp_path: Path) -> None:
    """Fault 11."""
    two = started(2, tmp_path, _half)
    for name, dense in DENSE.items():
        views = _views(10, grouped=True, biased=name == "sigmoid")
        expected = dense(views)
        wanted = _gradients(expected, views)
        for rank, found in enumerate(two):
            loss, image, text, *_ = found[name]
            half = slice(5 * rank, 5 * rank + 5)
            assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
            assert torch.allclose(image, wanted[0][half], atol=1e-12)
            assert torch.allclose(text, wanted[1][half], atol=1e-12)
        for place in range(3, len(two[0][name])):  # scale and bias: data-parallel training takes the mean
            total = two[0][name][place] + two[1][name][place]
            assert total.item() == pytest.approx(wanted[place - 1].item(), abs=1e-12)


def _losses(logits: Tensor, own: Tensor, excluded: Tensor | None) -> Tensor:
    """Plain cross-entropy, without its slopes."""
    if excluded is not None:
        logits = logits.masked_fill(excluded, -torch.inf)
    return F.cross_entropy(logits, own, reduction="none")


def _own_only(own: Tensor, excluded: Tensor | None) -> Tensor:
    return F.one_hot(own, 13).double()


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize(
    "kernel", [blockwise.kernel_from_losses(_losses), blockwise.soft_cross_entropy(_own_only)]
)
def test_kernels_from_losses_or_from_targets_are_the_hand_made_one(
    monkeypatch: pytest.MonkeyPatch, kernel: blockwise.Kernel, grouped: bool
) -> None:
    views = _views(13, grouped, biased=False)
    for logits in (1, 40, 2**20):
        monkeypatch.setattr(blockwise, "MAX_LOGITS", logits)
        found, wanted = (
            blockwise.mean_over_rows(one, views.image, views.text, views.scale, mask=views.masks[0])
            for one in (kernel, blockwise.cross_entropy)
        )
        assert found.item() == pytest.approx(wanted.item(), abs=1e-12)
        for own, other in zip(_gradients(found, views), _gradients(wanted, views), strict=True):
            assert torch.allclose(own, other, atol=1e-12)


def test_each_row_and_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "MAX_LOGITS", 40)
    views = _views(10, grouped=True, biased=False)
    given = (views.image[4:], views.text, views.scale)
    each = blockwise.loss_per_row(blockwise.cross_entropy, *given, mask=views.masks[0], first=4)
    whole = blockwise.mean_over_rows(blockwise.cross_entropy, *given, mask=views.masks[0], first=4)
    assert not each.requires_grad
    assert each.mean().item() == pytest.approx(whole.item(), abs=1e-12)
    weight = torch.rand(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = blockwise.weighted_kernel(blockwise.cross_entropy, weight)
    weighed = blockwise.mean_over_rows(kernel, *given, mask=views.masks[0], first=4)
    assert weighed.item() == pytest.approx((each * weight[4:]).mean().item(), abs=1e-12)


def test_the_gradient_of_a_weighed_row_is_weighed() -> None:
    views = _views(3, grouped=False, biased=False)
    only_second = blockwise.weighted_kernel(
        blockwise.cross_entropy, torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64)
    )
    given = (views.image, views.text, views.scale)
    (found,) = torch.autograd.grad(blockwise.mean_over_rows(only_second, *given), views.image)
    (wanted,) = torch.autograd.grad(blockwise.mean_over_rows(blockwise.cross_entropy, *given), views.image)
    assert torch.allclose(found[1], 2 * wanted[1], atol=1e-12)
    assert float(found[[0, 2]].abs().max()) == 0.0


def test_blocks_are_larger_on_a_gpu_with_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        total_memory = 24 * 2**30

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    assert blockwise.block_logits(torch.device("cpu")) == 2**20
    assert blockwise.block_logits(torch.device("cuda")) == 12 * 2**20  # 48 MiB
    Properties.total_memory = 2**30
    assert blockwise.block_logits(torch.device("cuda")) == 2**20
