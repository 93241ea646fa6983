"""Token alignment: patches are matched with words, not only whole images with whole captions.

Legend: b pairs, r those of this process, n patches, l words, d width, k rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from domainclip.objectives.base import Negatives, Objective, Views
from domainclip.objectives.losses import blockwise
from domainclip.objectives.losses.extra_texts import matching_pair_mask
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

    mode: Literal["filip", "sparc"] = "sparc"  # filip: across pairs; sparc: within a pair

    @property
    def negatives(self) -> Negatives:
        """Other pairs, which `sparc` does not compare."""
        return "other_groups" if self.mode == "filip" else "none"

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process; a pair without words counts 0."""
        assert views.image_tokens is not None  # the run fills what `needs` names
        assert views.text_tokens is not None
        assert views.text_mask is not None
        local, exists = views.local_slice, views.text_mask
        patches, words = views.image_tokens, views.text_tokens
        if self.mode == "sparc":
            grouped = group_patches(patches[local], words[local])
            return contrast_within_pair(grouped, words[local], exists[local], views.scale).mean()
        all_patches = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
        to_text = _late_interaction(views, patches, all_patches, words, exists)
        to_image = _late_interaction(views, words, exists, patches, all_patches)
        return ((to_text + to_image) / 2 * exists[local].any(dim=1)).mean()


def _late_interaction(
    views: Views, queries: Tensor, queries_exist: Tensor, candidates: Tensor, candidates_exist: Tensor
) -> Tensor:
    """(r,) nats of this process's pairs: one side picks its own of the other by what its tokens find best."""
    local = torch.arange(views.local_slice.start, views.local_slice.stop, device=queries.device)
    excluded_by_group = matching_pair_mask(views, local, torch.arange(len(queries), device=queries.device))
    tokens = len(candidates) * queries.shape[1] * candidates.shape[1]
    size = max(1, blockwise.block_logits(queries.device) // tokens)

    def nats(at: Tensor) -> Tensor:
        rows = local[at]
        best = torch.einsum("knd,bld->knbl", queries[rows], candidates)
        # A cosine is never less, so a token that is not there is never the best.
        best = best.masked_fill(~candidates_exist[None, None], -1).amax(dim=-1)  # (k, n, b)
        weight = queries_exist[rows].to(best.dtype)
        scores = (best * weight[..., None]).sum(dim=1) / weight.sum(dim=1).clamp_min(1)[:, None]
        logits = views.scale * scores  # (k, b)
        index = torch.arange(len(at), device=at.device)
        excluded = excluded_by_group(at) | ~candidates_exist.any(dim=1)
        excluded[index, rows] = False
        values: Tensor = logits.masked_fill(excluded, -torch.inf).logsumexp(dim=-1) - logits[index, rows]
        return values

    blocks = torch.arange(len(local), device=queries.device).split(size)
    if len(blocks) == 1:
        return nats(blocks[0])
    return torch.cat([checkpoint(nats, at, use_reentrant=False, preserve_rng_state=False) for at in blocks])
