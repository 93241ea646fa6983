"""One step: one loss over all pairs of all processes, and its exact gradients, in bounded memory.

`batch_size` says how many pairs see each other, `micro_batch_size` how many are held at once. Gradient
caching connects them [arXiv:2101.06983]: encode everything without a graph, take the loss and its gradient
at the embeddings, then encode again chunk by chunk and hand each its share of that gradient. What has no
weights that learn is encoded once, and so is the first chunk, whose graph is kept.

Legend: b pairs of this process, m general sentences of this process, d width.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from domainclip import chunks, distributed
from domainclip.contracts import Objective, Views
from domainclip.towers import Towers
from domainclip.towers.tokens import Tokens

Terms = dict[str, tuple[float, Objective]]
_SIDES = ("image", "text")


@dataclass(frozen=True)
class StepBatch:
    """What one process brings to a step."""

    image: dict[str, Tensor] | None  # b rows: pixels, or `hidden`; None when the embeddings are kept
    kept_image: Tensor | None  # (b, d), of a locked image tower
    texts: list[str]  # b captions, then m general sentences
    kept_text: Tensor | None  # (b, d), of a locked text tower: then there are no sentences
    group: Tensor  # (b,)
    anchor_prose: Tensor | None  # (m, d)
    captions: chunks.Captions | None = None  # how texts become tokens; None: anew in each step


@dataclass(frozen=True)
class Taken:
    """What a step found: the loss, its terms, and rows of this process whose embedding is not finite."""

    loss: float
    terms: dict[str, float]
    broken: list[int]
    image_cosine: float  # mean between different pairs of the whole batch: 1 when all point one way
    text_cosine: float


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
    split = chunked(towers, batch, micro)
    if len(split.given) == 1:
        _seed(seed, 0)
        with accelerator.autocast():
            image, text, scale, bias = model(**split.given[0])
        loss, found = _loss(image, text, scale, bias, batch, split.place, terms)
        accelerator.backward(loss)
        return found
    return _cached(model, towers, batch, split, terms, seed, accelerator)


def chunked(towers: Towers, batch: StepBatch, micro: int | None) -> chunks.Chunks:
    """What the towers have to encode of a batch, in micro-batches."""
    texts = [] if batch.kept_text is not None else batch.texts
    captions = batch.captions or Tokens(towers)
    return chunks.split(batch.image, texts, captions, len(batch.group), micro, batch.group.device)


def _cached(
    model: Any,
    towers: Towers,
    batch: StepBatch,
    split: chunks.Chunks,
    terms: Terms,
    seed: int,
    accelerator: Accelerator,
) -> Taken:
    learns = [side for side in _SIDES if towers.first_learning(side) is not None]  # type: ignore[arg-type]
    found: list[dict[str, Tensor | None]] = []
    for number in (*range(1, len(split.given)), 0):  # the kept graph last: nothing else is encoded beside it
        _seed(seed, number)
        kept = number == 0
        with torch.set_grad_enabled(kept), accelerator.no_sync(model), accelerator.autocast():
            image, text, scale, bias = (model if kept else towers)(**split.given[number])
        found.append({"image": image, "text": text})
    found.insert(0, found.pop())
    leaves = {side: _leaf([chunk[side] for chunk in found], side in learns) for side in _SIDES}
    scale_leaf = scale.detach().requires_grad_()
    bias_leaf = None if bias is None else bias.detach().requires_grad_()
    loss, taken = _loss(leaves["image"], leaves["text"], scale_leaf, bias_leaf, batch, split.place, terms)
    loss.backward()
    shares = {side: _shares(leaves[side], [chunk[side] for chunk in found]) for side in _SIDES}
    with accelerator.no_sync(model):
        _hand_on(accelerator, [(found[0][side], shares[side][0]) for side in learns])
    for number, chunk in enumerate(split.given[1:], start=1):
        last = number == len(split.given) - 1
        if not last and all(chunk[side] is None for side in learns):
            continue
        _seed(seed, number)
        # Data-parallel gradients are exchanged once, with the last chunk, which is never without texts; scale
        # and bias join it there.
        with nullcontext() if last else accelerator.no_sync(model):
            with accelerator.autocast():
                image, text, scale, bias = model(**{side: chunk[side] for side in learns})
            again = {"image": image, "text": text}
            outputs = [(again[side], shares[side][number]) for side in learns]
            if last:
                outputs += [(scale, scale_leaf.grad), (bias, None if bias_leaf is None else bias_leaf.grad)]
            _hand_on(accelerator, outputs)
    return taken


def _loss(
    image: Tensor | None,
    text: Tensor | None,
    scale: Tensor,
    bias: Tensor | None,
    batch: StepBatch,
    place: Tensor | None,
    terms: Terms,
) -> tuple[Tensor, Taken]:
    """The loss whose mean over the processes is the global one; gathering happens here, once."""
    pairs = len(batch.group)
    image = batch.kept_image if batch.kept_image is not None else image
    own = batch.kept_text
    if text is not None and place is not None:
        own = text[place]
    assert image is not None  # each side is either encoded or kept
    assert own is not None
    prose = own[pairs:] if len(own) > pairs else None
    views = Views(
        image=distributed.gather(image),
        text=distributed.gather(own[:pairs]),
        scale=scale,
        bias=bias,
        group=distributed.gather(batch.group),
        rows=slice(distributed.rank() * pairs, (distributed.rank() + 1) * pairs),
        prose=None if prose is None else distributed.gather(prose),
        anchor_prose=None if batch.anchor_prose is None else distributed.gather(batch.anchor_prose),
    )
    values = {name: weight * objective(views) for name, (weight, objective) in terms.items()}
    # Zero times every output: data-parallel training waits for the gradient of each weight that learns, also
    # of those that no objective looked at, as the bias under a contrastive loss.
    looked_at = [out.sum() * 0 for out in (image, own, scale, bias) if out is not None and out.requires_grad]
    loss = torch.stack([*values.values(), *looked_at]).sum()
    whole, *each = distributed.mean(torch.stack([loss, *values.values()]).detach()).tolist()
    finite = image.detach().isfinite().all(-1) & own[:pairs].detach().isfinite().all(-1)
    broken = [] if isfinite(whole) else (~finite).nonzero().flatten().tolist()
    alike = (_mean_cosine(views.image), _mean_cosine(views.text))
    return loss, Taken(whole, dict(zip(values, each, strict=True)), broken, *alike)


def _mean_cosine(rows: Tensor) -> float:
    """Between different rows (b, d) of unit length: |Σ x|² counts each pair twice and each row once."""
    b = len(rows)
    return float((rows.detach().float().sum(0).square().sum() - b) / max(1, b * (b - 1)))


def _hand_on(accelerator: Accelerator, outputs: list[tuple[Tensor | None, Tensor | None]]) -> None:
    """Backward from the outputs, each with the gradient that the loss has at it."""
    wanted = [(out * grad).sum() for out, grad in outputs if out is not None and grad is not None]
    if wanted:
        accelerator.backward(torch.stack(wanted).sum())


def _seed(seed: int, chunk: int) -> None:
    digest = hashlib.blake2b(f"{seed}/{distributed.rank()}/{chunk}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "big") >> 1)


def _leaf(parts: list[Tensor | None], learns: bool) -> Tensor | None:
    found = [part.detach() for part in parts if part is not None]
    return torch.cat(found).requires_grad_(learns) if found else None


def _shares(leaf: Tensor | None, parts: list[Tensor | None]) -> list[Tensor | None]:
    """The rows of the gradient that belong to each chunk."""
    if leaf is None or leaf.grad is None:
        return [None] * len(parts)
    rows = iter(leaf.grad.split([len(part) for part in parts if part is not None]))
    return [None if part is None else next(rows) for part in parts]
