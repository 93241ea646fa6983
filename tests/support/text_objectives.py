"""Batches with further texts, and what every objective on them must keep: used by the tests of objectives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.data.text.training_pair import TrainingPair
from domainclip.objectives.base import Views
from tests.support.matches import grouped

Loss = Callable[[Views], Tensor]
FIELDS = ("image", "text", "scale", "extra_text", "image_tokens", "text_tokens", "image_2")


def unit(*shape: int, seed: int = 0) -> Tensor:
    """Random rows of unit length, in fp64."""
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=draw), dim=-1)


def batch(counts: Sequence[int], group: Sequence[int] | None = None, d: int = 5, seed: int = 0) -> Views:
    """As many pairs as counts, each with so many further texts; what is missing is zero, as in training."""
    b, k = len(counts), max(1, *counts)
    mask = torch.arange(k) < torch.tensor(counts)[:, None]
    said = unit(b, k, d, seed=seed + 3) * mask[..., None]
    return Views(
        unit(b, d, seed=seed + 1),
        unit(b, d, seed=seed + 2),
        torch.tensor(4.0, dtype=torch.float64),
        matches=grouped(group),
        extra_text=said,
        extra_text_mask=mask,
        image_tokens=unit(b, 4, d, seed=seed + 4),
    )


def slopes(loss: Loss, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
    """The value, and the gradient at every embedding and at the scale; zero where nothing flows."""
    leaves = {n: getattr(views, n).detach().clone().requires_grad_() for n in FIELDS if _has(views, n)}
    value = loss(_with(views, leaves))
    grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    found = {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), grads, strict=True)
    }
    return value.detach(), found


def assert_shares_add_up(loss: Loss, views: Views, world: int) -> None:
    """The mean over processes of what each finds on its own rows is the value on all; gradients alike."""
    value, wanted = slopes(loss, views)
    each = len(views.image) // world
    parts = [slopes(loss, replace(views, local_rows=slice(r * each, (r + 1) * each))) for r in range(world)]
    torch.testing.assert_close(sum(part for part, _ in parts) / world, value, rtol=1e-12, atol=1e-12)
    for name, grad in wanted.items():
        torch.testing.assert_close(sum(g[name] for _, g in parts) / world, grad, rtol=1e-10, atol=1e-12)


def assert_gradients(
    loss: Loss, views: Views, names: Sequence[str] = ("image", "text", "extra_text", "scale")
) -> None:
    """torch.autograd.gradcheck, in fp64."""
    leaves = [getattr(views, name).detach().clone().requires_grad_() for name in names]

    def value(*given: Tensor) -> Tensor:
        return loss(_with(views, dict(zip(names, given, strict=True))))

    assert torch.autograd.gradcheck(value, leaves)


def assert_silent_without_texts(loss: Loss, views: Views) -> None:
    """Nothing said: a finite loss, and no gradient at what stands in the empty places."""
    assert views.extra_text_mask is not None
    value, grads = slopes(loss, replace(views, extra_text_mask=torch.zeros_like(views.extra_text_mask)))
    assert value.isfinite()
    assert not grads["extra_text"].any()
    assert all(grad.isfinite().all() for grad in grads.values())


def shown(
    text: str,
    *others: str,
    languages: Sequence[str] = (),
    labels: Sequence[str] = (),
    seed: int = 0,
    **meta: Any,
) -> TrainingPair:
    """A pair that shows the first of its captions."""
    texts = (text, *others)
    return TrainingPair(text, texts, tuple(languages) or ("",) * len(texts), tuple(labels), meta, seed)


def _with(views: Views, given: dict[str, Any]) -> Views:
    return replace(views, **given)


def _has(views: Views, name: str) -> bool:
    return getattr(views, name) is not None
