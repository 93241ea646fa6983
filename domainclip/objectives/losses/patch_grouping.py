"""What of a picture each piece of its text speaks of: few patches, weighed by how alike they are.

Legend: r pairs, n patches, l words or sentences of a pair, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.objectives.losses.extra_texts import ALIKE


def grouped(patches: Tensor, words: Tensor) -> Tensor:
    """(r, l, d) of unit length: for each word the mean of the patches that are most like it.

    Cosines of a word are brought to 0 … 1 over the patches, those below 1/n dropped, the rest are weights
    [arXiv:2401.09865]. Shapes: patches (r, n, d), words (r, l, d).
    """
    alike = words @ patches.transpose(1, 2)
    low, high = alike.amin(dim=-1, keepdim=True), alike.amax(dim=-1, keepdim=True)
    share = (alike - low) / (high - low).clamp_min(1e-6)
    share = share.masked_fill(share < 1 / patches.shape[1], 0)
    weights = share / share.sum(dim=-1, keepdim=True).clamp_min(1e-6)
    return F.normalize(weights @ patches, dim=-1)


def told_apart(seen: Tensor, words: Tensor, there: Tensor, scale: Tensor) -> Tensor:
    """(r,) nats: within one pair, each word finds its own patches among those of all its words, and back.

    Shapes: seen and words (r, l, d), there (r, l) bool. Mean over the words that are there; 0 for a pair that
    has none, or one only. Words that the text tower cannot tell apart are not held against each other.
    """
    eye = torch.eye(words.shape[1], dtype=torch.bool, device=words.device)
    same = (words.detach() @ words.detach().transpose(1, 2) > ALIKE) & ~eye
    out = (same | ~there[:, None, :]) & ~eye
    logits = scale * words @ seen.transpose(1, 2)
    nats = [
        (z.masked_fill(out, -torch.inf).logsumexp(dim=-1) - z.diagonal(dim1=1, dim2=2)) / 2
        for z in (logits, logits.transpose(1, 2))
    ]
    total = torch.where(there, nats[0] + nats[1], 0).sum(dim=-1)
    return total / there.sum(dim=-1).clamp_min(1)
