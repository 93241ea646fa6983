"""Random batches with all that an objective may ask for, and what must hold of every objective on them.

Legend: b pairs, m general sentences, d width, t width of a teacher, c classes, n patches, l words, k texts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.data.batching.matches import Matches
from domainclip.objectives.base import PATCH_NUMBERS, Objective, Sizes, Teacher, Views
from tests.support.matches import related

Loss = Callable[[Views], Tensor]
THIRD, TAGS = 9, 3  # width of the third tower, number of tags
# What learns, or may; the rest is the base's or a teacher's.
LEARN = (
    "image",
    "text",
    "scale",
    "bias",
    "anchor_text",
    "anchor_image",
    "image_2",
    "image_tokens",
    "text_tokens",
    "extra_text",
    "mixed_image",
    "masked_tokens",
)


def filled(
    needs: frozenset[str] = frozenset(),
    *,
    b: int = 8,
    d: int = 6,
    seed: int = 0,
    grouped: bool = True,
    dtype: torch.dtype = torch.float64,
    teachers: int = 1,
) -> Views:
    """Views with what `needs` names; labels that repeat.

    Of five pairs or more, 0 and 1 are of one group, and the text of pair 2 is right for image 3 too.
    """
    draw = torch.Generator().manual_seed(seed)

    def rows(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, generator=draw, dtype=dtype), dim=-1)

    m, n, length, k = 5, 4, 3, 2
    made = {
        "anchor_text": rows(m, d),
        "base_anchor_text": rows(m, d),
        "base_image": rows(b, d),
        "anchor_image": rows(3, d),
        "base_anchor_image": rows(3, d),
        "image_2": rows(b, d),
        "image_tokens": rows(b, n, d),
        "text_tokens": rows(b, length, d),
        "caption_ids": _caption_ids(b, length),
        "labels": torch.rand(b, 2, generator=draw) < 0.5,
        "tags": torch.rand(b, TAGS, generator=torch.Generator().manual_seed(seed + 7)) < 0.3,
        "teachers": tuple(Teacher(rows(b, 9), rows(b, 9), 20.0) for _ in range(teachers)),
        "extra_text": rows(b, k, d),
        "pair_value": torch.rand(b, generator=draw, dtype=torch.float32),
        "third_tower": rows(b, THIRD),
        "momentum_image": rows(b, d),
        "momentum_text": rows(b, d),
        "mixed_image": rows(b, d),
        "masked_tokens": rows(b, n, d),
        "momentum_tokens": rows(b, n, d),
    }
    masks = {
        "mixed_image": {"mixed_share": torch.rand(b, generator=draw, dtype=dtype)},
        "masked_tokens": {"patch_mask": (torch.arange(n) + torch.arange(b)[:, None]) % n < 2},
        "patch_pixels": {
            "patch_pixels": torch.rand(
                b, n, PATCH_NUMBERS, generator=torch.Generator().manual_seed(9), dtype=dtype
            )
        },
        "text_tokens": {"text_mask": torch.arange(length) < 1 + torch.arange(b)[:, None] % length},
        "extra_text": {
            "extra_text_mask": torch.arange(k) < torch.arange(b)[:, None] % (k + 1),
            "extra_caption": 10 + (torch.arange(b)[:, None] + 2 + torch.arange(k)) % b,  # of other pairs
        },
    }
    found = {name: made[name] for name in needs if name in made}
    for name in needs & masks.keys():
        found |= masks[name]
    group, pools = [0, 0, *range(2, b)], [[10 + i] for i in range(b)]
    if b > 4:
        pools[3] += pools[2]
    views = Views(
        rows(b, d), rows(b, d), torch.tensor(6.0, dtype=dtype), torch.tensor(-2.0, dtype=dtype),
        matches=related(group, pools) if grouped else None, **found,  # type: ignore[arg-type]
    )  # fmt: skip
    for one in learning(views):
        one.requires_grad_()
    return views


def filled_for(objective: Objective, *, at_start: bool = False, **options: Any) -> Views:
    """Views with all that an objective reads: its own weights, their averages, and a memory of one earlier batch.

    The weights are near their start, but nowhere symmetric; `at_start`: as a run begins with them.
    """
    needs = objective.needs
    views = filled(needs, **options)
    width, dtype = views.image.shape[-1], views.image.dtype
    sizes = Sizes(
        width, THIRD, 2, TAGS, _some_rows(width), np.array([2, 3, 5, 8]), caption_tokens=3, sources=2
    )
    start = objective.initial_weights(sizes, 0)
    move = _unmoved if at_start else _nudged
    own = {name: move(tensor.to(dtype)) for name, tensor in start.items()}
    earlier = filled(needs, **{**options, "seed": 1})
    if earlier.matches is not None:  # other groups and captions than those of the batch
        earlier = replace(earlier, matches=Matches.within(earlier.matches.images.map(lambda key: key + 1000)))
    averages = {name: tensor.detach().clone() for name, tensor in own.items()}
    earlier = replace(
        earlier, own_weights=own, own_averages=averages, memory=objective.initial_memory(sizes, 0)
    )
    with torch.no_grad():
        memory = objective.update_memory(earlier)
    return replace(views, own_weights=own, own_averages=averages, memory=memory)


def _caption_ids(b: int, length: int) -> Tensor:
    """Captions of 1 to l words, one of them outside of the vocabulary."""
    ids = torch.tensor([2, 3, 5, 8, 4])[(torch.arange(b)[:, None] + torch.arange(length)) % 5]
    return ids.masked_fill(torch.arange(length) > torch.arange(b)[:, None] % length, -1)


def _some_rows(width: int) -> Any:
    draw = torch.Generator().manual_seed(5)
    return F.normalize(torch.randn(12, width, generator=draw), dim=-1).numpy()


def _unmoved(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_()


def _nudged(tensor: Tensor) -> Tensor:
    """Close to its start, but nowhere symmetric."""
    draw = torch.Generator().manual_seed(2)
    moved = tensor + 0.1 * torch.randn(tensor.shape, generator=draw, dtype=tensor.dtype)
    return moved.requires_grad_()


def learning(views: Views) -> list[Tensor]:
    """The tensors of a batch that learn."""
    own = [tensor for _, tensor in sorted(views.own_weights.items())]
    return [*(one for name in LEARN if (one := getattr(views, name)) is not None), *own]


def gradients(loss: Tensor, views: Views) -> list[Tensor]:
    """The loss's gradient at each of them, zero where it does not look."""
    given = learning(views)
    found = torch.autograd.grad(loss, given, allow_unused=True)
    return [torch.zeros_like(one) if grad is None else grad for one, grad in zip(given, found, strict=True)]


def check_equal(one: Loss, other: Loss, views: Views, tolerance: float = 1e-10) -> None:
    """Two forms of a loss agree, in value and in every gradient."""
    first, second = one(views), other(views)
    assert abs(first.item() - second.item()) <= tolerance
    for mine, theirs in zip(gradients(first, views), gradients(second, views), strict=True):
        assert (mine - theirs).abs().max().item() <= tolerance


def check_processes(loss: Loss, views: Views, processes: int = 4) -> None:
    """The mean over processes of what each finds on its own rows is the loss of the whole batch, exactly."""
    size = len(views.image) // processes
    assert size * processes == len(views.image)

    def shared(whole: Views) -> Tensor:
        own = [replace(whole, local_rows=slice(i * size, (i + 1) * size)) for i in range(processes)]
        return torch.stack([loss(one) for one in own]).mean()

    check_equal(shared, loss, views)


def check_gradients(loss: Loss, views: Views) -> None:
    """The gradients are those of finite differences."""
    names = [name for name in LEARN if getattr(views, name) is not None]

    def of(*values: Tensor) -> Tensor:
        own = dict(zip(sorted(views.own_weights), values[len(names) :], strict=True))
        given = dict(zip(names, values, strict=False))
        return loss(replace(views, own_weights=own, **given))  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(of, learning(views))
