"""One embedding of several images: the frames or views of a study.

Shapes: b studies, f frames, d embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODULE_NAME = "image_pooling"  # its name in `DualEncoder.added_modules`; it belongs to the image side
POOLING_KINDS = ("mean", "weighted", "temporal")
MAX_FRAMES = 64
_HEAD_WIDTH = 64  # of an attention head, as in CLIP's towers


@dataclass(frozen=True)
class FramePooling:
    """How the frames of a study become one embedding."""

    frames: int  # at most, evenly spaced
    pool: str  # one of POOLING_KINDS
    layers: int  # of the temporal transformer

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> FramePooling:
        """From a JSON object.

        Raises: ValueError for values that this version does not support; others wrote the file.
        """
        if (
            data["pool"] not in POOLING_KINDS
            or not 1 < data["frames"] <= MAX_FRAMES
            or not 0 < data["layers"] <= 2
        ):
            raise ValueError("pool, frames or layers has a value that this version does not support")
        return cls(int(data["frames"]), str(data["pool"]), int(data["layers"]))

    def make_module(self, width: int) -> nn.Module | None:
        """The pooling module; None for the mean, which has no weights."""
        if self.pool == "weighted":
            return AttentionPooling(width)
        return TemporalPooling(width, self.frames, self.layers) if self.pool == "temporal" else None


class AttentionPooling(nn.Module):
    """Σ_f a_f x_f with a = softmax_f(q · x_f): one learnable direction q weights the frames.

    q starts at 0: the mean.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, frames: Tensor, present: Tensor) -> Tensor:
        """(b, d) of (b, f, d), pooled over the frames that are present (b, f)."""
        share = (frames @ self.query).masked_fill(~present, -torch.inf).softmax(dim=1)
        return (share[..., None] * frames).sum(dim=1)


class TemporalPooling(nn.Module):
    """mean_f of x_f + T(x + p)_f: a small transformer T over the frames, with position embeddings p.

    T's last projection and p start at 0: the mean. [arXiv:2104.08860]
    """

    def __init__(self, width: int, frames: int, layers: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(frames, width))
        heads = max(1, width // _HEAD_WIDTH) if width % _HEAD_WIDTH == 0 else 1
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, frames: Tensor, present: Tensor) -> Tensor:
        """(b, d) of (b, f, d), pooled over the frames that are present (b, f)."""
        context = self.layers(frames + self.place, src_key_padding_mask=~present)
        return masked_mean(F.normalize(frames + self.out(context), dim=-1), present)


def pool_frames(rows: Tensor, present: Tensor, module: nn.Module | None) -> Tensor:
    """(b, d) of unit length: the embeddings (n, d) of the n frames that are present (b, f), pooled."""
    frames = rows.new_zeros(*present.shape, rows.shape[-1]).masked_scatter(present[..., None], rows)
    pooled = masked_mean(frames, present) if module is None else module(frames, present).float()
    return F.normalize(pooled, dim=-1)


def masked_mean(frames: Tensor, present: Tensor) -> Tensor:
    """(b, d): the mean over the frames that are present (b, f)."""
    share = present.to(frames.dtype) / present.sum(dim=1, keepdim=True)
    return (share[..., None] * frames).sum(dim=1)
