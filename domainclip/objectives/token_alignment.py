"""Token alignment: patches are matched with words, not only whole images with whole captions.

Legend: b pairs, r those of this process, n patches, l words, d width, k rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses import blockwise
from domainclip.objectives.losses.extra_texts import same_pair_or_group
from domainclip.objectives.losses.patch_grouping import contrast_within_pair, group_patches


@dataclass(frozen=True, kw_only=True)
class TokenAlignment(Objective):
    """Late interaction of all patches with all words (`filip`), or the patches of each word (`sparc`).

    `filip`: ½ [CE(s_ij) + CE(t_ij)], s_ij = 1/n Σ_p max_w x_ip·y_jw from image i to text j, and t_ij = 1/l
    Σ_w max_p y_iw·x_jp from text i to image j, times the scale [arXiv:2111.07783]. Cost: b² n l cosines, one
    block of rows at a time; a text without words is no candidate.
    `sparc`: within one pair, each word is matched with the mean of its patches (cosines scaled to 0 … 1,
    those below 1/n dropped) among those of the other words of the caption, and the reverse. Cost: b n l
    cosines. Other pairs play no part, so use it beside `contrastive`. [arXiv:2401.09865]
    """

    citation: ClassVar[str] = "arXiv:2111.07783, arXiv:2401.09865"
    needs: ClassVar[frozenset[str]] = frozenset({"image_tokens", "text_tokens"})

    mode: Literal["filip", "sparc"] = "sparc"

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process; a pair without words counts 0."""
        assert views.image_tokens is not None  # the run fills what `needs` names
        assert views.text_tokens is not None
        assert views.text_mask is not None
        own, patches, words, there = views.local_slice, views.image_tokens, views.text_tokens, views.text_mask
        if self.mode == "sparc":
            seen = group_patches(patches[own], words[own])
            return contrast_within_pair(seen, words[own], there[own], views.scale).mean()
        everywhere = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
        to_text = _late(views, patches, everywhere, words, there)
        to_image = _late(views, words, there, patches, everywhere)
        return ((to_text + to_image) / 2 * there[own].any(dim=1)).mean()


def _late(views: Views, one: Tensor, one_there: Tensor, other: Tensor, other_there: Tensor) -> Tensor:
    """(r,) nats of this process's pairs: one side picks its own of the other by what its tokens find best."""
    own = torch.arange(views.local_slice.start, views.local_slice.stop, device=one.device)
    out = same_pair_or_group(views, own, torch.arange(len(one), device=one.device))
    size = max(1, blockwise.MAX_LOGITS // (len(other) * one.shape[1] * other.shape[1]))

    def nats(at: Tensor) -> Tensor:
        rows = own[at]
        best = torch.einsum("knd,bld->knbl", one[rows], other)
        # A cosine is never less, so a token that is not there is never the best.
        best = best.masked_fill(~other_there[None, None], -1).amax(dim=-1)  # (k, n, b)
        weight = one_there[rows].to(best.dtype)
        scores = (best * weight[..., None]).sum(dim=1) / weight.sum(dim=1).clamp_min(1)[:, None]
        logits = views.scale * scores  # (k, b)
        here = torch.arange(len(at), device=at.device)
        excluded = out(at) | ~other_there.any(dim=1)
        excluded[here, rows] = False
        found: Tensor = logits.masked_fill(excluded, -torch.inf).logsumexp(dim=-1) - logits[here, rows]
        return found

    parts = torch.arange(len(own), device=one.device).split(size)
    if len(parts) == 1:
        return nats(parts[0])
    return torch.cat([checkpoint(nats, at, use_reentrant=False, preserve_rng_state=False) for at in parts])
