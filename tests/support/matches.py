"""Which texts are right for which images, written out: used by the tests of objectives and batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from domainclip.data.batching.matches import Matches, MatchKeys


def grouped(group: Sequence[int] | None) -> Matches | None:
    """The relation of pairs of which only the groups are known."""
    return None if group is None else Matches.of_groups(torch.tensor(group))


def related(group: Sequence[int], pools: Sequence[Sequence[int]]) -> Matches:
    """The relation of pairs that show the first caption of their pool."""
    arrays = [np.array(pool, np.int64) for pool in pools]
    return Matches.within(MatchKeys.of(group, [0] * len(pools), arrays))


def right_texts(matches: Matches | None, pairs: int) -> Tensor:
    """(b, b) bool, by images and texts: the definition, one combination at a time."""
    if matches is None:
        return torch.eye(pairs, dtype=torch.bool)
    images, texts = matches.images, matches.texts
    return torch.tensor(
        [
            [
                bool(images.group[i] == texts.group[j]) or int(texts.caption[j]) in images.pool[i].tolist()
                for j in range(len(texts))
            ]
            for i in range(len(images))
        ]
    )


def either(matches: Matches | None, pairs: int) -> Tensor:
    """(b, b) bool: right in one direction at least."""
    right = right_texts(matches, pairs)
    return right | right.T
