"""Which pairs of a batch match each other: by labels or equal texts, never by a model's similarity.

Legend: b pairs, c classes, k rows of a block, m texts, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from domainclip.data.batching.matches import RowMask
from domainclip.objectives.losses import blockwise
from domainclip.objectives.losses.extra_texts import EQUAL_TEXT_COSINE


def label_sets(labels: Tensor | None) -> Tensor:
    """(b,) a number of each set of labels (b, c): equal where the sets are equal and not empty."""
    assert labels is not None  # the run fills what `needs` names
    _, number = labels.unique(dim=0, return_inverse=True)
    unmatched = -1 - torch.arange(len(labels), device=labels.device)
    return torch.where(labels.any(dim=1), number, unmatched)


@torch.no_grad()
def number_equal_texts(texts: Tensor) -> Tensor:
    """(m,) a number of each text embedding (m, d), the same where the text tower cannot tell two apart."""
    m = len(texts)
    index = torch.arange(m, device=texts.device)
    if not m:
        return index
    blocks = index.split(max(1, blockwise.block_logits(texts.device) // m))
    return torch.cat(
        [torch.where(texts[at] @ texts.T > EQUAL_TEXT_COSINE, index, m).amin(dim=1) for at in blocks]
    )


def matching_pairs(
    target: Tensor, pairs: int, numbers: Sequence[Tensor | None], mask: RowMask | None = None
) -> Tensor:
    """(k, b) bool: the target of each row, masked pairs, and those with its number in `numbers` (b,)."""
    matches = target[:, None] == torch.arange(pairs, device=target.device)
    if mask is not None:
        matches |= mask(target)
    for number in numbers:
        if number is not None:
            matches |= number[target][:, None] == number
    return matches
