"""Captioning: a small decoder predicts the caption of an image, token by token.

Legend: b pairs, l tokens of a caption, n patches, d width, v tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainclip.errors import RecipeError
from domainclip.models import caption_decoder
from domainclip.models.caption_decoder import END, DecoderShape
from domainclip.models.captioner import Captioner
from domainclip.objectives.base import Negatives, Objective, Sizes, Taught, Views

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder


@dataclass(frozen=True, kw_only=True)
class Captioning(Objective):
    """1/b Σ_i 1/l_i Σ_t −log p(y_it | y_i1 … y_i,t−1, image tokens of i), beside a contrastive objective.

    p is a transformer decoder with cross-attention to the patches; y_i is the caption of the epoch, with its
    end [arXiv:2205.01917]; for histology [arXiv:2307.12914]. `parallel` is the share of the captions whose
    tokens are all hidden and predicted at once, from the image alone [arXiv:2306.07915]; `latents` gathers
    the patches in a few learned queries first, as CoCa does. Differs from CoCa in the decoder, whose first
    layers are there the text tower: here it has embeddings of its own, so that any text tower will do; in
    the patches, which are projected into the space of images and texts; and in the vocabulary, which is the
    tokens of the training captions, since a domain uses few of the tokenizer's. Tokens outside of it count
    nothing. The decoder is written beside the model as captioner.safetensors, for the probe
    `written_captions`; it can repeat training captions, so that no push sends it. Does not go with streams.
    """

    citation: ClassVar[str] = "arXiv:2205.01917, arXiv:2306.07915"
    negatives: ClassVar[Negatives] = "none"
    needs: ClassVar[frozenset[str]] = frozenset({"image_tokens", "caption_ids"})
    teaches: ClassVar[frozenset[Taught]] = frozenset({"image", "own"})

    layers: Annotated[int, Field(ge=1)] = 2  # of the decoder
    width: Annotated[int, Field(ge=1)] = 128  # of the decoder
    heads: Annotated[int, Field(ge=1)] = 4  # of each attention; they share `width` equally
    latents: Annotated[int, Field(ge=1)] | None = None  # queries that gather the patches; null: all patches
    parallel: Annotated[float, Field(ge=0, le=1)] = 0.0  # the paper: 0.75
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of the decoder

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise RecipeError(
                f"objectives.captioning.width: {self.width} is no multiple of heads, {self.heads}: "
                f"take {self.heads * (self.width // self.heads + 1)}"
            )

    @property
    def shape(self) -> DecoderShape:
        """The size of the decoder."""
        return DecoderShape(self.layers, self.heads, self.width, self.latents)

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of the decoder."""
        return self.rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """The weights of the decoder, see `caption_decoder.initial_weights`."""
        size = len(_vocabulary(sizes))
        return caption_decoder.initial_weights(self.shape, sizes.width, size, sizes.caption_tokens, seed)

    def initial_memory(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """`vocabulary` (v,), the token ids of the training captions, ascending; `step` (), which counts."""
        return {"vocabulary": _vocabulary(sizes), "step": torch.tensor(0)}

    def update_memory(self, views: Views) -> dict[str, Tensor]:
        """The same with the next step."""
        return {**views.memory, "step": views.memory["step"] + 1}

    def add_to_model(
        self, model: DualEncoder, weights: Mapping[str, Tensor], memory: Mapping[str, Tensor]
    ) -> None:
        """Gives the model the decoder, as its captioner."""
        own = {name: weight.detach().cpu().clone() for name, weight in weights.items()}
        model.captioner = Captioner(self.shape, own, memory["vocabulary"])

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per token, mean over the pairs of this process; 0 for a caption without words."""
        assert views.image_tokens is not None  # the run fills what `needs` names
        assert views.caption_ids is not None
        rows, weights = views.local_slice, views.own_weights
        targets = _outputs(views.caption_ids[rows], views.memory["vocabulary"])
        start = torch.full_like(targets[:, :1], caption_decoder.start_row(weights))
        hidden = caption_decoder.hidden_row(weights)
        inputs = torch.cat([start, targets[:, :-1]], dim=1)
        parallel = self._parallel(views)[rows]
        inputs = inputs.masked_fill(inputs < 0, hidden).masked_fill(parallel[:, None], hidden)
        tokens = views.image_tokens[rows]
        logits = caption_decoder.token_logits(weights, self.shape, tokens, inputs, ~parallel)
        nats = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-1, reduction="none")
        counted = targets >= 0
        per_pair: Tensor = nats.sum(dim=1) / counted.sum(dim=1).clamp_min(1)
        return (per_pair * (views.caption_ids[rows] >= 0).any(dim=1)).mean()

    def _parallel(self, views: Views) -> Tensor:
        """(b,) bool: the pairs whose tokens are all hidden, drawn by the step; equal on every process."""
        draw = torch.Generator().manual_seed(int(views.memory["step"]))
        chosen = torch.rand(len(views.image), generator=draw) < self.parallel
        return chosen.to(views.image.device)


def _vocabulary(sizes: Sizes) -> Tensor:
    assert sizes.vocabulary is not None  # the run brings it to an objective that needs "caption_ids"
    return torch.from_numpy(sizes.vocabulary).long()


def _outputs(ids: Tensor, vocabulary: Tensor) -> Tensor:
    """(b, l + 1) outputs of the decoder for token ids (b, l): END behind the last; -1: none is predicted."""
    at = torch.searchsorted(vocabulary, ids.contiguous()).clamp_max(len(vocabulary) - 1)
    outputs = torch.where((vocabulary[at] == ids) & (ids >= 0), at + 1, -1)
    outputs = torch.cat([outputs, torch.full_like(outputs[:, :1], -1)], dim=1)
    length = (ids >= 0).sum(dim=1, keepdim=True)
    return outputs.scatter(1, length, END)
