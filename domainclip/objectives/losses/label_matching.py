"""Which pairs of a batch match each other: by labels, groups or equal texts, never by a model's similarity.

Legend: b pairs, c classes, k rows of a block, m texts, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
    blocks = index.split(max(1, blockwise.MAX_LOGITS // m))
    return torch.cat(
        [torch.where(texts[at] @ texts.T > EQUAL_TEXT_COSINE, index, m).amin(dim=1) for at in blocks]
    )


def matching_pairs(target: Tensor, pairs: int, numbers: Sequence[Tensor | None]) -> Tensor:
    """(k, b) bool: the target of each row, and the pairs with the same number in one of `numbers` (b,)."""
    matches = target[:, None] == torch.arange(pairs, device=target.device)
    for number in numbers:
        if number is not None:
            matches |= number[target][:, None] == number
    return matches


def without_negative(numbers: Sequence[Tensor]) -> Tensor:
    """(b,) bool: the pairs that match every pair of the batch, each by one of one or two `numbers` (b,)."""
    matches = torch.stack([_repeats(number) for number in numbers]).sum(dim=0)
    if len(numbers) == 2:  # pairs that match by both were counted twice
        matches -= _repeats(torch.stack([number.long() for number in numbers], dim=1))
    alone: Tensor = matches == len(numbers[0])
    return alone


def _repeats(rows: Tensor) -> Tensor:
    """(b,) how often the value or row of each pair occurs."""
    _, place, counts = rows.unique(dim=0, return_inverse=True, return_counts=True)
    repeats: Tensor = counts[place]
    return repeats
