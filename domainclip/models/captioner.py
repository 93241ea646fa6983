"""A captioner: the decoder that the objective `captioning` has trained, saved beside the model.

Shapes: b images, n image tokens, d their width, l tokens of a caption, v tokens of the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from domainclip.models import caption_decoder
from domainclip.models.caption_decoder import END, DecoderShape

_VOCABULARY = "vocabulary"
_SHAPE = "shape"


@dataclass(frozen=True)
class Captioner:
    """Writes captions for images."""

    shape: DecoderShape
    weights: Mapping[str, Tensor]
    vocabulary: Tensor  # (v,) token ids of the model's tokenizer, those of the training captions

    @torch.no_grad()
    def captions(self, image_tokens: Tensor, hf_tokenizer: Any, beams: int = 1) -> list[str]:
        """One caption for each image (b, n, d): the most probable of those that a beam search tries.

        The score of a caption is its mean log probability per token, so that short ones have no advantage.
        """
        rows = self._search(image_tokens, min(beams, len(self.vocabulary))).cpu()
        ids = [self.vocabulary[row[row != END] - 1].tolist() for row in rows]
        return [hf_tokenizer.decode(one, skip_special_tokens=True).strip() for one in ids]

    def _search(self, image_tokens: Tensor, beams: int) -> Tensor:
        """(b, l) outputs of the best caption of each image, END behind it."""
        b, device = len(image_tokens), image_tokens.device
        weights = {name: weight.to(device) for name, weight in self.weights.items()}
        image = image_tokens.repeat_interleave(beams, dim=0)
        causal = torch.ones(b * beams, dtype=torch.bool, device=device)
        shown = torch.full((b * beams, 1), caption_decoder.start_row(weights), device=device)
        score = torch.full((b, beams), -torch.inf, device=device)
        score[:, 0] = 0  # at first all captions of an image are equal
        for _ in range(len(weights["position"]) - 1):
            logits = caption_decoder.token_logits(weights, self.shape, image, shown, causal)[:, -1]
            step = logits.float().log_softmax(dim=-1)
            ended = shown[:, -1] == END
            step[ended] = -torch.inf
            step[ended, END] = 0  # an ended caption stays as it is
            total = (score[..., None] + step.reshape(b, beams, -1)).flatten(1)
            score, best = total.topk(beams, dim=1)
            row, token = best // step.shape[-1], best % step.shape[-1]
            origin = (torch.arange(b, device=device)[:, None] * beams + row).flatten()
            shown = torch.cat([shown[origin], token.reshape(-1, 1)], dim=1)
            if bool((shown[:, -1] == END).all()):
                break
        captions = shown[:, 1:].reshape(b, beams, -1)
        length = (captions != END).sum(dim=-1) + (captions == END).any(dim=-1)
        return captions[torch.arange(b, device=device), (score / length).argmax(dim=1)]

    def save(self, file: Path) -> None:
        """Write the weights, the vocabulary and the shape into one file."""
        tensors = {name: weight.detach().cpu().contiguous() for name, weight in self.weights.items()}
        save_file(
            tensors | {_VOCABULARY: self.vocabulary.cpu()}, file, {_SHAPE: json.dumps(asdict(self.shape))}
        )

    @classmethod
    def load(cls, file: Path) -> Captioner:
        """The captioner that `save` wrote.

        Raises: an exception of safetensors or json, or KeyError, for any other file.
        """
        with safe_open(file, "pt") as stored:
            shape = DecoderShape(**json.loads(stored.metadata()[_SHAPE]))
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
        return cls(shape, tensors, tensors.pop(_VOCABULARY))
