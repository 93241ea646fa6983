"""The patches of an image that match each word or sentence of its text: few, weighted by similarity.

Legend: r pairs, n patches, l words or sentences of a pair, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.objectives.losses.extra_texts import EQUAL_TEXT_COSINE


def group_patches(patches: Tensor, words: Tensor) -> Tensor:
    """(r, l, d) of unit length: for each word the weighted mean of the patches most similar to it.

    The cosines of a word are scaled to 0 … 1 over the patches, those below 1/n dropped, the rest are weights
    [arXiv:2401.09865]. Shapes: patches (r, n, d), words (r, l, d).
    """
    cosines = words @ patches.transpose(1, 2)
    low, high = cosines.amin(dim=-1, keepdim=True), cosines.amax(dim=-1, keepdim=True)
    share = (cosines - low) / (high - low).clamp_min(1e-6)
    share = share.masked_fill(share < 1 / patches.shape[1], 0)
    weights = share / share.sum(dim=-1, keepdim=True).clamp_min(1e-6)
    return F.normalize(weights @ patches, dim=-1)


def contrast_within_pair(grouped: Tensor, words: Tensor, exists: Tensor, scale: Tensor) -> Tensor:
    """(r,) nats: within one pair, each word among the grouped patches of all its words, and the reverse.

    Shapes: grouped and words (r, l, d), exists (r, l) bool. The mean over the words that exist; 0 for a pair
    with none or one. Words that the text tower cannot tell apart are not each other's negatives.
    """
    eye = torch.eye(words.shape[1], dtype=torch.bool, device=words.device)
    equal = (words.detach() @ words.detach().transpose(1, 2) > EQUAL_TEXT_COSINE) & ~eye
    excluded = (equal | ~exists[:, None, :]) & ~eye
    logits = scale * words @ grouped.transpose(1, 2)
    nats = [
        (z.masked_fill(excluded, -torch.inf).logsumexp(dim=-1) - z.diagonal(dim1=1, dim2=2)) / 2
        for z in (logits, logits.transpose(1, 2))
    ]
    total = torch.where(exists, nats[0] + nats[1], 0).sum(dim=-1)
    return total / exists.sum(dim=-1).clamp_min(1)
