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
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from domainclip.components import WeightedObjectives
from domainclip.distributed import collectives
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.layers import Modality
from domainclip.models.text_tokenizer import TokenCache
from domainclip.models.token_embeddings import EncoderOutput
from domainclip.objectives.base import Sizes
from domainclip.training import fsdp, microbatches
from domainclip.training.batch_loss import BatchLoss, StepOutput
from domainclip.training.memory import Memory
from domainclip.training.views import MomentumRows, StepBatch, pad_and_join_tokens

_TOWERS: tuple[Modality, ...] = ("image", "text")
_TOWER_OF_OUTPUT = {"image": "image", "text": "text", "image_tokens": "image", "text_tokens": "text"}
_TOKENS = {"image_tokens", "text_tokens", "masked_tokens"}
_MOMENTUM = {"momentum_image", "momentum_text", "momentum_tokens"}
MicroBatch = dict[str, Any]  # arguments of the model's forward


def compute_gradients(
    parallel_model: Any,
    model: DualEncoder,
    batch: StepBatch,
    terms: WeightedObjectives,
    micro_batch_size: int | None,
    seed: int,
    accelerator: Accelerator,
    memory: Memory | None = None,
) -> StepOutput:
    """Compute the exact gradients of the global loss; they are left in the weights.

    `parallel_model` is the model as Accelerate wraps it. `seed` fixes the draws of dropout in each
    micro-batch, so that its second encoding equals the first, on any day and after any resume. `memory`, that
    before the first step by default, is not changed.
    """
    split = split_batch(model, batch, micro_batch_size)
    tokens = {"tokens": True} if terms.needs & _TOKENS else {}
    inputs = [{**micro_batch, **tokens} for micro_batch in split.inputs]
    if memory is None:
        learning = {name: weight for name, weight in model.weights().items() if weight.requires_grad}
        memory = Memory.initial(terms, Sizes(model.width), seed, learning, batch.keys.group.device)
    momentum = _momentum_rows(model, batch, terms, micro_batch_size, accelerator, memory)
    loss_of = BatchLoss(batch, split.row_of_text, terms, memory, momentum)
    if len(inputs) > 1:
        return _CachedStep(parallel_model, model, accelerator, seed).compute_gradients(inputs, loss_of)
    _seed(seed, 0)
    with accelerator.autocast():
        output = EncoderOutput(*parallel_model(**microbatches.on_device(inputs[0], accelerator.device)))
    loss, step_output = loss_of(output)
    accelerator.backward(loss)
    return step_output


@torch.no_grad()
def _momentum_rows(
    model: DualEncoder,
    batch: StepBatch,
    terms: WeightedObjectives,
    micro_batch_size: int | None,
    accelerator: Accelerator,
    memory: Memory,
) -> MomentumRows:
    """Encode images and captions of this process with the moving averages of the weights."""
    if not terms.needs & _MOMENTUM:
        return MomentumRows()
    tokens = {"tokens": True} if "momentum_tokens" in terms.needs else {}
    plain = batch.without_extras()
    split = split_batch(model, plain, micro_batch_size)
    outputs = []
    with memory.averaged(model):
        for micro_batch in split.inputs:
            with accelerator.autocast():
                inputs = microbatches.on_device(micro_batch, accelerator.device)
                outputs.append(EncoderOutput(*model(**inputs, **tokens)))
    images = [output.image for output in outputs if output.image is not None]
    texts = [output.text for output in outputs if output.text is not None]
    patches = [output.image_tokens for output in outputs if output.image_tokens is not None]
    return MomentumRows(
        image=torch.cat(images) if images else batch.image_embeddings,
        text=torch.cat(texts)[split.row_of_text] if texts else batch.text_embeddings,
        image_tokens=torch.cat(patches) if patches else None,
    )


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
        loss_of: BatchLoss,
    ) -> StepOutput:
        """Compute the exact gradients of the loss over all micro-batches."""
        trained = {tower for tower in _TOWERS if self.model.first_trainable_layer(tower) is not None}
        names = [name for name, tower in _TOWER_OF_OUTPUT.items() if tower in trained]
        outputs = self._encode(inputs)
        leaves = _leaves(outputs, names)
        loss, step_output = loss_of(leaves)
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
                own = output.objective_weights
                pairs += [
                    (output.scale, leaves.scale.grad),
                    (output.bias, bias),
                    *((own[name], leaf.grad) for name, leaf in leaves.objective_weights.items()),
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


def _seed(seed: int, micro_batch: int) -> None:
    digest = hashlib.blake2b(f"{seed}/{collectives.rank()}/{micro_batch}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "big") >> 1)


def _leaves(outputs: list[EncoderOutput], names: list[str]) -> EncoderOutput:
    """Join the outputs of all micro-batches into leaves of the graph, at which the loss takes gradients."""
    rows: dict[str, Tensor | None] = {}
    for name in (*_TOWER_OF_OUTPUT, "text_mask"):
        parts = [getattr(output, name).detach() for output in outputs if getattr(output, name) is not None]
        rows[name] = pad_and_join_tokens(parts).requires_grad_(name in names) if parts else None
    scale, bias, own = outputs[0].scale, outputs[0].bias, outputs[0].objective_weights
    return EncoderOutput(
        scale=scale.detach().requires_grad_(),
        bias=None if bias is None else bias.detach().requires_grad_(),
        objective_weights={name: weight.detach().requires_grad_() for name, weight in own.items()},
        **rows,
    )


def _split_gradient(leaf: Tensor | None, parts: list[Tensor | None]) -> list[Tensor | None]:
    """Split the gradient of a leaf by micro-batch, each part as long as the micro-batch's tokens."""
    if leaf is None or leaf.grad is None:
        return [None] * len(parts)
    rows = iter(leaf.grad.split([len(part) for part in parts if part is not None]))
    return [None if part is None else next(rows)[:, : part.shape[1]] for part in parts]
