"""Which pairs of a batch belong together: by what the corpus says, never by what the model thinks.

Legend: b pairs, c classes, k rows of a block, m texts, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from domainclip.objectives.losses import blockwise
from domainclip.objectives.losses.extra_texts import ALIKE


def label_sets(labels: Tensor | None) -> Tensor:
    """(b,) a number for each set of labels in (b, c): equal where the sets are equal and not empty."""
    assert labels is not None  # the loop fills what `needs` names
    _, number = labels.unique(dim=0, return_inverse=True)
    alone = -1 - torch.arange(len(labels), device=labels.device)
    return torch.where(labels.any(dim=1), number, alone)


@torch.no_grad()
def numbered(said: Tensor) -> Tensor:
    """(m,) a number for each text of (m, d), the same for equal texts: those that no tower tells apart."""
    m = len(said)
    places = torch.arange(m, device=said.device)
    if not m:
        return places
    parts = places.split(max(1, blockwise.LOGITS // m))
    return torch.cat([torch.where(said[at] @ said.T > ALIKE, places, m).amin(dim=1) for at in parts])


def same(own: Tensor, pairs: int, marks: Sequence[Tensor | None]) -> Tensor:
    """(k, b) bool: whether a pair is the row's own, or carries its number in one of the marks (b,)."""
    found = own[:, None] == torch.arange(pairs, device=own.device)
    for mark in marks:
        if mark is not None:
            found |= mark[own][:, None] == mark
    return found
