"""One step: one loss over all pairs of all processes, and its exact gradients, in bounded memory.

`batch_size` is how many pairs see each other, `micro_batch_size` how many are held at once. Gradient caching
connects them [arXiv:2101.06983]: encode everything without a graph, take the loss and its gradient at the
embeddings, then encode again, one micro-batch after another, and pass each its share of that gradient. A
tower without weights that learn is encoded once, and so is the first micro-batch, whose graph is kept.

Legend: b pairs of this process, m anchor texts of this process, d width.
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
from domainclip.data.batching.matches import Matches
from domainclip.distributed import collectives
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.layers import Modality
from domainclip.models.text_tokenizer import TokenCache
from domainclip.models.token_embeddings import EncoderOutput
from domainclip.objectives.base import Views
from domainclip.objectives.losses.label_matching import label_sets
from domainclip.training import fsdp, microbatches
from domainclip.training.views import StepBatch, build_views, gather_keys, pad_and_join_tokens

_TOWERS: tuple[Modality, ...] = ("image", "text")
_TOWER_OF_OUTPUT = {"image": "image", "text": "text", "image_tokens": "image", "text_tokens": "text"}
_SAMPLE = 256  # images of a process that are searched for a negative in each step
MicroBatch = dict[str, Any]  # arguments of the model's forward


@dataclass(frozen=True)
class StepOutput:
    """The loss of a step, its terms, and figures of its embeddings."""

    loss: float
    terms: dict[str, float]
    non_finite_rows: list[int]  # rows of this process whose embedding is not finite
    image_cosine: float  # mean between different pairs of the whole batch; 1 when all are equal
    text_cosine: float
    without_negative: float = 0.0  # share of the batch's pairs, under the objective where it is largest


def compute_gradients(
    parallel_model: Any,
    model: DualEncoder,
    batch: StepBatch,
    terms: WeightedObjectives,
    micro_batch_size: int | None,
    seed: int,
    accelerator: Accelerator,
) -> StepOutput:
    """Compute the exact gradients of the global loss; they are left in the weights.

    `parallel_model` is the model as Accelerate wraps it. `seed` fixes the draws of dropout in each
    micro-batch, so that its second encoding equals the first, on any day and after any resume.
    """
    split = split_batch(model, batch, micro_batch_size)
    tokens = {"tokens": True} if terms.needs & {"image_tokens", "text_tokens"} else {}
    inputs = [{**micro_batch, **tokens} for micro_batch in split.inputs]
    if len(inputs) > 1:
        cached = _CachedStep(parallel_model, model, accelerator, seed)
        return cached.compute_gradients(inputs, batch, split.row_of_text, terms)
    _seed(seed, 0)
    with accelerator.autocast():
        output = EncoderOutput(*parallel_model(**microbatches.on_device(inputs[0], accelerator.device)))
    loss, step_output = _loss(output, batch, split.row_of_text, terms)
    accelerator.backward(loss)
    return step_output


def split_batch(
    model: DualEncoder, batch: StepBatch, micro_batch_size: int | None
) -> microbatches.MicroBatches:
    """Split the part of a batch that the towers have to encode into micro-batches."""
    texts = [] if batch.text_embeddings is not None else batch.all_texts()
    captions = batch.captions or TokenCache(model.text_tokenizer)
    device, in_lockstep = batch.keys.group.device, fsdp.is_sharded(model)
    return microbatches.split_rows(
        batch.image, texts, captions, len(batch.keys), micro_batch_size, device, in_lockstep=in_lockstep
    )


@dataclass(frozen=True)
class _CachedStep:
    """A step with gradient caching [arXiv:2101.06983]."""

    parallel_model: Any
    model: DualEncoder
    accelerator: Accelerator
    seed: int

    def compute_gradients(
        self,
        inputs: list[MicroBatch],
        batch: StepBatch,
        row_of_text: Tensor | None,
        terms: WeightedObjectives,
    ) -> StepOutput:
        """Compute the exact gradients of the loss over all micro-batches."""
        trained = {tower for tower in _TOWERS if self.model.first_trainable_layer(tower) is not None}
        names = [name for name, tower in _TOWER_OF_OUTPUT.items() if tower in trained]
        outputs = self._encode(inputs)
        leaves = _leaves(outputs, names)
        loss, step_output = _loss(leaves, batch, row_of_text, terms)
        loss.backward()
        gradients = {
            name: _split_gradient(getattr(leaves, name), [getattr(output, name) for output in outputs])
            for name in names
        }
        with_graph = outputs[0]
        del outputs, loss  # the embeddings of all micro-batches: from here on their gradients are enough
        with self.accelerator.no_sync(self.parallel_model):
            self._backward([(getattr(with_graph, name), gradients[name][0]) for name in names])
        for number in range(1, len(inputs)):
            rows = {name: gradients[name][number] for name in names}
            self._encode_again(inputs[number], number, rows, trained, leaves, last=number == len(inputs) - 1)
        return step_output

    def _encode(self, inputs: list[MicroBatch]) -> list[EncoderOutput]:
        """Encode all micro-batches, only the first with its graph."""
        outputs: list[EncoderOutput] = []
        # The one with the graph is the last, so that nothing else is encoded while it is held.
        for number in (*range(1, len(inputs)), 0):
            _seed(self.seed, number)
            model = self.model if number else self.parallel_model
            with (
                torch.set_grad_enabled(number == 0),
                self.accelerator.no_sync(self.parallel_model),
                self.accelerator.autocast(),
            ):
                outputs.append(EncoderOutput(*model(**self._on_device(inputs[number]))))
        return [outputs[-1], *outputs[:-1]]

    def _encode_again(
        self,
        inputs: MicroBatch,
        number: int,
        gradients: dict[str, Tensor | None],
        trained: set[Modality],
        leaves: EncoderOutput,
        *,
        last: bool,
    ) -> None:
        """Encode a micro-batch with its graph and pass it its rows of the gradient."""
        if not last and all(inputs[tower] is None for tower in trained):
            return
        _seed(self.seed, number)
        # Data-parallel gradients are exchanged once, with the last micro-batch, which always has texts; scale
        # and bias join it there.
        with nullcontext() if last else self.accelerator.no_sync(self.parallel_model):
            inputs = {**inputs, **{tower: None for tower in _TOWERS if tower not in trained}}
            with self.accelerator.autocast():
                output = EncoderOutput(*self.parallel_model(**self._on_device(inputs)))
            pairs = [(getattr(output, name), rows) for name, rows in gradients.items()]
            if last:
                bias = None if leaves.bias is None else leaves.bias.grad
                heads = None if leaves.third_tower_heads is None else leaves.third_tower_heads.grad
                pairs += [
                    (output.scale, leaves.scale.grad),
                    (output.bias, bias),
                    (output.third_tower_heads, heads),
                ]
            self._backward(pairs)

    def _on_device(self, inputs: MicroBatch) -> MicroBatch:
        return microbatches.on_device(inputs, self.accelerator.device)

    def _backward(self, outputs: list[tuple[Tensor | None, Tensor | None]]) -> None:
        """Run backward from outputs, each with the gradient of the loss at it."""
        products = [
            (output * grad).sum() for output, grad in outputs if output is not None and grad is not None
        ]
        if products:
            self.accelerator.backward(torch.stack(products).sum())


def _loss(
    output: EncoderOutput, batch: StepBatch, row_of_text: Tensor | None, terms: WeightedObjectives
) -> tuple[Tensor, StepOutput]:
    """Return the loss whose mean over the processes is the global one; the only place that gathers."""
    ring = collectives.process_count() > 1 and terms.supports_ring
    views, views_of, local = build_views(output, batch, row_of_text, terms.needs, ring)
    values = {name: weight * objective(views_of(name)) for name, (weight, objective) in terms.items()}
    # Zero times every output: data-parallel training waits for the gradient of each weight that learns, also
    # of those that no objective uses, such as the bias under a contrastive loss.
    outputs = (
        *(local.image, local.text, output.image_tokens, output.text_tokens),
        *(output.scale, output.bias, output.third_tower_heads),
    )
    zeros = [tensor.sum() * 0 for tensor in outputs if tensor is not None and tensor.requires_grad]
    loss = torch.stack([*values.values(), *zeros]).sum()
    measured = torch.stack([loss, _share_without_negative(views, terms), *values.values()])
    total, without_negative, *each = collectives.mean(measured.detach()).tolist()
    pairs = len(batch.keys)
    finite = local.image[:pairs].detach().isfinite().all(-1) & local.text[:pairs].detach().isfinite().all(-1)
    return loss, StepOutput(
        loss=total,
        terms=dict(zip(values, each, strict=True)),
        non_finite_rows=[] if isfinite(total) else (~finite).nonzero().flatten().tolist(),
        image_cosine=_mean_cosine(views.image, views.local_only),
        text_cosine=_mean_cosine(views.text, views.local_only),
        without_negative=without_negative,
    )


@torch.no_grad()
def _share_without_negative(views: Views, terms: WeightedObjectives) -> Tensor:
    """Return () the share of a sample of this process's images that have no negative in the batch."""
    none, kinds = views.scale.new_zeros(()), set(terms.negatives.values())
    if views.matches is None or not kinds:
        return none
    images, texts = views.matches.images, views.matches.texts
    matches = Matches(images, gather_keys(texts) if views.local_only else texts)
    start, stop = views.local_slice.start, views.local_slice.stop
    sample = torch.arange(start, min(stop, start + _SAMPLE), device=views.image.device)
    right = matches.right_texts(sample)
    if kinds == {"other_labels"}:
        label = label_sets(views.labels)
        right |= label[sample][:, None] == label
    return none + right.all(dim=1).float().mean()


def _mean_cosine(rows: Tensor, local_only: bool) -> float:
    """Mean between different rows (b, d) of unit length: |Σ x|² counts each pair twice and each row once."""
    b, total = len(rows), rows.detach().float().sum(0)
    if local_only:
        b, total = b * collectives.process_count(), collectives.mean(total) * collectives.process_count()
    return float((total.square().sum() - b) / max(1, b * (b - 1)))


def _seed(seed: int, micro_batch: int) -> None:
    digest = hashlib.blake2b(f"{seed}/{collectives.rank()}/{micro_batch}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "big") >> 1)


def _leaves(outputs: list[EncoderOutput], names: list[str]) -> EncoderOutput:
    """Join the outputs of all micro-batches into leaves of the graph, at which the loss takes gradients."""
    rows: dict[str, Tensor | None] = {}
    for name in (*_TOWER_OF_OUTPUT, "text_mask"):
        parts = [getattr(output, name).detach() for output in outputs if getattr(output, name) is not None]
        rows[name] = pad_and_join_tokens(parts).requires_grad_(name in names) if parts else None
    scale, bias, heads = outputs[0].scale, outputs[0].bias, outputs[0].third_tower_heads
    return EncoderOutput(
        scale=scale.detach().requires_grad_(),
        bias=None if bias is None else bias.detach().requires_grad_(),
        third_tower_heads=None if heads is None else heads.detach().requires_grad_(),
        **rows,
    )


def _split_gradient(leaf: Tensor | None, parts: list[Tensor | None]) -> list[Tensor | None]:
    """Split the gradient of a leaf by micro-batch, each part as long as the micro-batch's tokens."""
    if leaf is None or leaf.grad is None:
        return [None] * len(parts)
    rows = iter(leaf.grad.split([len(part) for part in parts if part is not None]))
    return [None if part is None else next(rows)[:, : part.shape[1]] for part in parts]
