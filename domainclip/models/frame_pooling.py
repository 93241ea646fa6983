"""One embedding of several pictures: the frames or views of a study.

Legend: b studies, f frames, d embedding width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from domainclip.models.checkpoint_files import POOLING, POOLING_WEIGHTS

MODULE_NAME = "image_pooling"  # where it stands in `Towers.extra`; it belongs to the image side
POOLING_KINDS = ("mean", "weighted", "temporal")
MAX_FRAMES = 64  # frames
_HEAD = 64  # dimensions of an attention head, as in CLIP's own towers


class AttentionPooling(nn.Module):
    """Σ_f a_f x_f with a = softmax_f(q · x_f): one learnable direction q says which frames tell most.

    q = 0 at the start: the mean.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, frames: Tensor, shown: Tensor) -> Tensor:
        """(b, d) of (b, f, d), where (b, f) are shown."""
        share = (frames @ self.query).masked_fill(~shown, -torch.inf).softmax(dim=1)
        return (share[..., None] * frames).sum(dim=1)


class TemporalPooling(nn.Module):
    """mean_f of x_f + T(x + p)_f: a small transformer T over the frames, each with its place p.

    T's last projections and p are 0 at the start: the mean. [arXiv:2104.08860]
    """

    def __init__(self, width: int, frames: int, layers: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(frames, width))
        heads = max(1, width // _HEAD) if width % _HEAD == 0 else 1
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, frames: Tensor, shown: Tensor) -> Tensor:
        """(b, d) of (b, f, d), where (b, f) are shown."""
        told = self.layers(frames + self.place, src_key_padding_mask=~shown)
        return masked_mean(F.normalize(frames + self.out(told), dim=-1), shown)


def make_pooling(kind: str, width: int, frames: int, layers: int) -> nn.Module | None:
    """The module that pools; None for the mean, which has no weights."""
    if kind == "weighted":
        return AttentionPooling(width)
    return TemporalPooling(width, frames, layers) if kind == "temporal" else None


def attach(model: Any, kind: str, frames: int, layers: int) -> None:
    """Makes the towers show studies as that many frames, pooled so."""
    model.frames, model.pooled_by = frames, {"frames": frames, "pool": kind, "layers": layers}
    module = make_pooling(kind, model.width, frames, layers)
    if module is not None:
        model.added_modules[MODULE_NAME] = module.to(next(model.parameters()).device)


def save_pooling(model: Any, folder: Path) -> None:
    """How studies become one embedding, beside the model; nothing for towers that see single pictures."""
    if not model.pooled_by:
        return
    (folder / POOLING).write_text(json.dumps(model.pooled_by, indent=2, sort_keys=True), encoding="utf-8")
    if MODULE_NAME in model.added_modules:
        state = model.added_modules[MODULE_NAME].state_dict()
        state = {name: value.contiguous() for name, value in state.items()}
        save_file(state, folder / POOLING_WEIGHTS, {"format": "pt"})


def load_pooling(model: Any, folder: Path) -> None:
    """The inverse of `write`, for a folder that has it.

    Raises: ValueError for what this version does not know; others wrote the file.
    """
    said = json.loads((folder / POOLING).read_text(encoding="utf-8"))
    if (
        said["pool"] not in POOLING_KINDS
        or not 1 < said["frames"] <= MAX_FRAMES
        or not 0 < said["layers"] <= 2
    ):
        raise ValueError(f"{POOLING} asks for {said}, which is not known here")
    with torch.random.fork_rng(devices=[]):  # what is made here is overwritten below
        attach(model, str(said["pool"]), int(said["frames"]), int(said["layers"]))
    if MODULE_NAME in model.added_modules:
        model.added_modules[MODULE_NAME].load_state_dict(load_file(folder / POOLING_WEIGHTS))


def masked_mean(frames: Tensor, shown: Tensor) -> Tensor:
    share = shown.to(frames.dtype) / shown.sum(dim=1, keepdim=True)
    return (share[..., None] * frames).sum(dim=1)
