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

from domainclip.components import WeightedObjectives
from domainclip.distributed import collectives
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.text_tokenizer import TokenCache
from domainclip.models.token_embeddings import EncoderOutput
from domainclip.training import fsdp, microbatches
from domainclip.training.views import StepBatch, build_views, pad_and_join_tokens

_OUTPUTS = {
    "image": "image",
    "text": "text",
    "image_tokens": "image",
    "text_tokens": "text",
}  # and their side


@dataclass(frozen=True)
class StepOutput:
    """What a step found: the loss, its terms, and rows of this process whose embedding is not finite."""

    loss: float
    terms: dict[str, float]
    non_finite_rows: list[int]
    image_cosine: float  # mean between different pairs of the whole batch: 1 when all point one way
    text_cosine: float


def compute_gradients(
    wrapped: Any,
    model: DualEncoder,
    batch: StepBatch,
    terms: WeightedObjectives,
    micro: int | None,
    seed: int,
    accelerator: Accelerator,
) -> StepOutput:
    """Leaves the exact gradients of the global loss in the weights.

    `wrapped` is the model as Accelerate wrapped it; `seed` fixes what dropout draws, for each chunk anew,
    so that the second encoding sees what the first one saw, on any day and after any resume.
    """
    split = chunked(model, batch, micro)
    wanted = {"tokens": True} if terms.needs & {"image_tokens", "text_tokens"} else {}
    given = [{**chunk, **wanted} for chunk in split.inputs]
    if len(given) == 1:
        _seed(seed, 0)
        with accelerator.autocast():
            out = EncoderOutput(*wrapped(**given[0]))
        loss, found = _loss(out, batch, split.row_of_text, terms)
        accelerator.backward(loss)
        return found
    return _cached(wrapped, model, batch, given, split.row_of_text, terms, seed, accelerator)


def chunked(model: DualEncoder, batch: StepBatch, micro: int | None) -> microbatches.MicroBatches:
    """What the towers have to encode of a batch, in micro-batches."""
    texts = [] if batch.text_embeddings is not None else batch.all_texts()
    captions = batch.captions or TokenCache(model.text_tokenizer)
    device, in_step = batch.group.device, fsdp.is_shared(model)
    return microbatches.split_rows(
        batch.image, texts, captions, len(batch.group), micro, device, in_step=in_step
    )


def _cached(
    wrapped: Any,
    model: DualEncoder,
    batch: StepBatch,
    given: list[dict[str, Any]],
    place: Tensor | None,
    terms: WeightedObjectives,
    seed: int,
    accelerator: Accelerator,
) -> StepOutput:
    learns = {side for side in ("image", "text") if model.first_trainable_layer(side) is not None}
    names = [name for name, side in _OUTPUTS.items() if side in learns]
    found: list[EncoderOutput] = []
    for number in (*range(1, len(given)), 0):  # the kept graph last: nothing else is encoded beside it
        _seed(seed, number)
        kept = number == 0
        with torch.set_grad_enabled(kept), accelerator.no_sync(wrapped), accelerator.autocast():
            found.append(EncoderOutput(*(wrapped if kept else model)(**given[number])))
    found.insert(0, found.pop())
    leaves = _leaves(found, names)
    loss, taken = _loss(leaves, batch, place, terms)
    loss.backward()
    shares = {name: _shares(getattr(leaves, name), [getattr(one, name) for one in found]) for name in names}
    with_graph = found[0]
    del found, loss  # the embeddings of all: from here on their gradients are enough
    with accelerator.no_sync(wrapped):
        _hand_on(accelerator, [(getattr(with_graph, name), shares[name][0]) for name in names])
    for number, chunk in enumerate(given[1:], start=1):
        last = number == len(given) - 1
        if not last and all(chunk[side] is None for side in learns):
            continue
        _seed(seed, number)
        # Data-parallel gradients are exchanged once, with the last chunk, which is never without texts; scale
        # and bias join it there.
        with nullcontext() if last else accelerator.no_sync(wrapped):
            again = {**chunk, **{side: None for side in ("image", "text") if side not in learns}}
            with accelerator.autocast():
                out = EncoderOutput(*wrapped(**again))
            outputs = [(getattr(out, name), shares[name][number]) for name in names]
            if last:
                bias = None if leaves.bias is None else leaves.bias.grad
                heads = None if leaves.third_tower_heads is None else leaves.third_tower_heads.grad
                outputs += [(out.scale, leaves.scale.grad), (out.bias, bias), (out.third_tower_heads, heads)]
            _hand_on(accelerator, outputs)
    return taken


def _loss(
    out: EncoderOutput, batch: StepBatch, place: Tensor | None, terms: WeightedObjectives
) -> tuple[Tensor, StepOutput]:
    """The loss whose mean over the processes is the global one; gathering happens here, once."""
    ring = collectives.process_count() > 1 and terms.supports_ring
    views, of, own = build_views(out, batch, place, terms.needs, ring)
    values = {name: weight * objective(of(name)) for name, (weight, objective) in terms.items()}
    # Zero times every output: data-parallel training waits for the gradient of each weight that learns, also
    # of those that no objective looked at, as the bias under a contrastive loss.
    shared = (out.image_tokens, out.text_tokens, out.scale, out.bias, out.third_tower_heads)
    outputs = (own.image, own.text, *shared)
    looked_at = [one.sum() * 0 for one in outputs if one is not None and one.requires_grad]
    loss = torch.stack([*values.values(), *looked_at]).sum()
    whole, *each = collectives.mean(torch.stack([loss, *values.values()]).detach()).tolist()
    pairs = len(batch.group)
    finite = own.image[:pairs].detach().isfinite().all(-1) & own.text[:pairs].detach().isfinite().all(-1)
    broken = [] if isfinite(whole) else (~finite).nonzero().flatten().tolist()
    alike = (_mean_cosine(views.image, views.local_only), _mean_cosine(views.text, views.local_only))
    return loss, StepOutput(whole, dict(zip(values, each, strict=True)), broken, *alike)


def _mean_cosine(rows: Tensor, apart: bool) -> float:
    """Between different rows (b, d) of unit length: |Σ x|² counts each pair twice and each row once."""
    b, total = len(rows), rows.detach().float().sum(0)
    if apart:
        b, total = b * collectives.process_count(), collectives.mean(total) * collectives.process_count()
    return float((total.square().sum() - b) / max(1, b * (b - 1)))


def _hand_on(accelerator: Accelerator, outputs: list[tuple[Tensor | None, Tensor | None]]) -> None:
    """Backward from the outputs, each with the gradient that the loss has at it."""
    wanted = [(out * grad).sum() for out, grad in outputs if out is not None and grad is not None]
    if wanted:
        accelerator.backward(torch.stack(wanted).sum())


def _seed(seed: int, chunk: int) -> None:
    digest = hashlib.blake2b(f"{seed}/{collectives.rank()}/{chunk}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "big") >> 1)


def _leaves(found: list[EncoderOutput], learn: list[str]) -> EncoderOutput:
    """What all chunks gave, as rows of one batch at which the loss takes its gradients."""
    whole: dict[str, Tensor | None] = {}
    for name in (*_OUTPUTS, "text_mask"):
        parts = [getattr(one, name).detach() for one in found if getattr(one, name) is not None]
        whole[name] = pad_and_join_tokens(parts).requires_grad_(name in learn) if parts else None
    scale, bias, heads = found[0].scale, found[0].bias, found[0].third_tower_heads
    return EncoderOutput(
        scale=scale.detach().requires_grad_(),
        bias=None if bias is None else bias.detach().requires_grad_(),
        third_tower_heads=None if heads is None else heads.detach().requires_grad_(),
        **whole,
    )


def _shares(leaf: Tensor | None, parts: list[Tensor | None]) -> list[Tensor | None]:
    """The rows of the gradient that belong to each chunk, as long as the chunk's own tokens."""
    if leaf is None or leaf.grad is None:
        return [None] * len(parts)
    rows = iter(leaf.grad.split([len(part) for part in parts if part is not None]))
    return [None if part is None else next(rows)[:, : part.shape[1]] for part in parts]
