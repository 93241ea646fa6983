"""A queue of the pairs of earlier batches: embeddings, and the keys that decide which of them are right.

Legend: q pairs of the queue, b pairs of the batch, d width, p captions of an item at most.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.data.batching.matches import Matches, MatchKeys
from domainclip.objectives.base import Views

_KEYS = ("group", "caption", "pool")


def empty_queue(width: int, *embeddings: str) -> dict[str, Tensor]:
    """A queue without pairs, for embeddings of these names, as an objective's memory."""
    rows = {name: torch.zeros(0, width) for name in embeddings}
    numbers = torch.zeros(0, dtype=torch.int64)
    return rows | {"group": numbers, "caption": numbers, "pool": numbers.reshape(0, 0)}


def push(views: Views, size: int, **embeddings: Tensor) -> dict[str, Tensor]:
    """The queue in `views.memory` after the pairs of the batch have joined it: the newest `size` pairs.

    `embeddings` (b, d) by the names of `empty_queue`.
    """
    queue = views.memory
    keys = MatchKeys.join([_batch_keys(views), queue_keys(queue)])
    rows = {name: torch.cat([new.detach(), queue[name].to(new)])[:size] for name, new in embeddings.items()}
    return rows | {name: getattr(keys, name)[:size] for name in _KEYS}


def queue_keys(queue: Mapping[str, Tensor]) -> MatchKeys:
    """The keys of the pairs in a queue."""
    return MatchKeys(*(queue[name] for name in _KEYS))


def queued(views: Views, name: str) -> Tensor:
    """(q, d) of unit length: embeddings in the queue, in as many dimensions as those of the batch have."""
    rows, width = views.memory[name].to(views.image), views.image.shape[-1]
    return rows if rows.shape[-1] == width else F.normalize(rows[:, :width], dim=-1)


def right_in_queue(views: Views) -> Matches | None:
    """Which texts of the batch, then of the queue, are right for which images of the same pairs."""
    if views.matches is None:
        return None
    return Matches.within(MatchKeys.join([views.matches.texts, queue_keys(views.memory)]))


def _batch_keys(views: Views) -> MatchKeys:
    if views.matches is not None:
        return views.matches.texts
    return MatchKeys.of_groups(torch.full((len(views.image),), -1, device=views.image.device))
