"""One step: one loss over all pairs of all processes, and its exact gradients, in bounded memory.

`batch_size` says how many pairs see each other, `micro_batch_size` how many are held at once. Gradient
caching connects them [arXiv:2101.06983]: encode everything without a graph, take the loss and its gradient
at the embeddings, then encode again chunk by chunk and hand each its share of that gradient.

Legend: b pairs of this process, m general sentences of this process, d width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from domainclip import distributed
from domainclip.contracts import Objective, Views
from domainclip.towers import Towers

Terms = dict[str, tuple[float, Objective]]


@dataclass(frozen=True)
class StepBatch:
    """What one process brings to a step."""

    image: dict[str, Tensor] | None  # uint8 pixels, b rows; None when the embeddings are kept
    kept_image: Tensor | None  # (b, d), of a locked image tower
    texts: list[str]  # b captions, then m general sentences
    kept_text: Tensor | None  # (b, d), of a locked text tower: then there are no sentences
    group: Tensor  # (b,)
    anchor_prose: Tensor | None  # (m, d)


@dataclass(frozen=True)
class Taken:
    """What a step found: the loss, its terms, and rows of this process whose embedding is not finite."""

    loss: float
    terms: dict[str, float]
    broken: list[int]


def take(
    model: Any,
    towers: Towers,
    batch: StepBatch,
    terms: Terms,
    micro: int | None,
    seed: int,
    accelerator: Accelerator,
) -> Taken:
    """Leaves the exact gradients of the global loss in the weights.

    `model` is the towers as Accelerate wrapped them; `seed` fixes what dropout draws, for each chunk anew,
    so that the second encoding sees what the first one saw, on any day and after any resume.
    """
    chunks = list(_chunks(towers, batch, micro))
    if len(chunks) == 1:
        _seed(seed, 0)
        with accelerator.autocast():
            image, text, scale, bias = model(**chunks[0])
        loss, found = _loss(image, text, scale, bias, batch, terms)
        accelerator.backward(loss)
        return found
    return _cached(model, towers, batch, chunks, terms, seed, accelerator)


def _cached(
    model: Any,
    towers: Towers,
    batch: StepBatch,
    chunks: list[dict[str, Any]],
    terms: Terms,
    seed: int,
    accelerator: Accelerator,
) -> Taken:
    images, texts = [], []
    with torch.no_grad():
        for number, chunk in enumerate(chunks):
            _seed(seed, number)
            with accelerator.autocast():
                image, text, scale, bias = towers(**chunk)
            images.append(image)
            texts.append(text)
    image_leaf, text_leaf, scale_leaf = _leaf(images), _leaf(texts), scale.detach().requires_grad_()
    bias_leaf = None if bias is None else bias.detach().requires_grad_()
    loss, found = _loss(image_leaf, text_leaf, scale_leaf, bias_leaf, batch, terms)
    loss.backward()
    for number, chunk in enumerate(chunks):
        last = number == len(chunks) - 1
        _seed(seed, number)
        # Data-parallel gradients are exchanged once, with the last chunk; scale and bias join it there.
        with nullcontext() if last else accelerator.no_sync(model):
            with accelerator.autocast():
                image, text, scale, bias = model(**chunk)
            outputs = [(image, _share(image_leaf, images, number)), (text, _share(text_leaf, texts, number))]
            if last:
                outputs += [(scale, scale_leaf.grad), (bias, None if bias_leaf is None else bias_leaf.grad)]
            wanted = [(out * grad).sum() for out, grad in outputs if out is not None and grad is not None]
            accelerator.backward(torch.stack(wanted).sum())
    return found


def _loss(
    image: Tensor | None,
    text: Tensor | None,
    scale: Tensor,
    bias: Tensor | None,
    batch: StepBatch,
    terms: Terms,
) -> tuple[Tensor, Taken]:
    """The global loss: gathering happens here, once, before any objective runs."""
    pairs = len(batch.group)
    image = batch.kept_image if batch.kept_image is not None else image
    own = batch.kept_text if batch.kept_text is not None else text
    assert image is not None  # each side is either encoded or kept
    assert own is not None
    prose = own[pairs:] if len(own) > pairs else None
    views = Views(
        image=distributed.gather(image),
        text=distributed.gather(own[:pairs]),
        scale=scale,
        bias=bias,
        group=distributed.gather(batch.group),
        prose=None if prose is None else distributed.gather(prose),
        anchor_prose=None if batch.anchor_prose is None else distributed.gather(batch.anchor_prose),
    )
    values = {name: weight * objective(views) for name, (weight, objective) in terms.items()}
    # Zero times every output: data-parallel training waits for the gradient of each weight that learns, also
    # of those that no objective looked at, as the bias under a contrastive loss.
    looked_at = [out.sum() * 0 for out in (image, own, scale, bias) if out is not None and out.requires_grad]
    loss = torch.stack([*values.values(), *looked_at]).sum()
    finite = image.detach().isfinite().all(-1) & own[:pairs].detach().isfinite().all(-1)
    broken = [] if bool(loss.isfinite()) else (~finite).nonzero().flatten().tolist()
    return loss, Taken(loss.item(), {name: value.item() for name, value in values.items()}, broken)


def _chunks(towers: Towers, batch: StepBatch, micro: int | None) -> Iterator[dict[str, Any]]:
    """Even shares of images and texts: every chunk holds both sides, so no weight is missed by any.

    Each chunk is tokenised by itself, so it is padded to its own longest text.
    """
    pairs = len(batch.group)
    texts = [] if batch.kept_text is not None else batch.texts
    count = 1 if micro is None else ceil(pairs / micro)
    for number in range(count):
        image_rows, text_rows = _span(pairs, number, count), _span(len(texts), number, count)
        tokens = towers.tokenise(texts[text_rows]) if texts else None
        yield {
            "image": None if batch.image is None else {k: v[image_rows] for k, v in batch.image.items()},
            "text": None if tokens is None else {k: v.to(batch.group.device) for k, v in tokens.items()},
        }


def _span(rows: int, number: int, count: int) -> slice:
    return slice(rows * number // count, rows * (number + 1) // count)


def _seed(seed: int, chunk: int) -> None:
    digest = hashlib.blake2b(f"{seed}/{distributed.rank()}/{chunk}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "big") >> 1)


def _leaf(parts: list[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found).detach().requires_grad_() if found else None


def _share(leaf: Tensor | None, parts: list[Tensor | None], number: int) -> Tensor | None:
    """The rows of the gradient that belong to a chunk."""
    if leaf is None or leaf.grad is None or parts[number] is None:
        return None
    start = sum(len(part) for part in parts[:number] if part is not None)
    return leaf.grad[start : start + len(parts[number])]  # type: ignore[arg-type]
