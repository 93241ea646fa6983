"""Training on a share of the patches of each image: FLIP [arXiv:2212.00794].

Shapes: b images, n patches, k of them that are read, t tokens (patches, behind a class token if there is
one), w width of a tower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PATCHES_READ = "patches_read"  # name, among the inputs of an image, of the patches that the tower reads


class PatchDropout:
    """A hook behind the embeddings of a tower, which hands the chosen patches to its first layer.

    The choice is an input of the image, as its pixels are: the second encoding of gradient caching reads the
    same patches as the first, and no state of a random generator decides it.
    """

    def __init__(self, first: int, patches: int, share: float) -> None:
        self.first = first  # tokens before the patches
        self.patches = patches  # n
        self.share = share  # of the patches that are left out
        self._read: Tensor | None = None

    @contextmanager
    def reading(self, image: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, the tower reads the patches that the input of the images names; all where it names none."""
        self._read = image.get(PATCHES_READ)
        try:
            yield
        finally:
            self._read = None

    def draw(self, keys: list[int]) -> Tensor:
        """(b, k) int64 ascending: the patches that each image is read by, a function of its key alone.

        At least one of the patches is read.
        """
        count = max(1, round((1 - self.share) * self.patches))
        drawn = [np.random.Generator(np.random.Philox(key=key)).permutation(self.patches) for key in keys]
        chosen = np.array([np.sort(one[:count]) for one in drawn], dtype=np.int64)
        return torch.from_numpy(chosen.reshape(len(keys), count))

    def __call__(self, _: nn.Module, __: Any, tokens: Tensor) -> Tensor:
        """(b, t − n + k, w) of (b, t, w), or all of them outside of `reading`."""
        return tokens if self._read is None else chosen_tokens(tokens, self.first, self._read)


def chosen_tokens(tokens: Tensor, first: int, chosen: Tensor) -> Tensor:
    """(b, first + k, w) of (b, first + n, w): the first tokens, and those of `chosen` (b, k)."""
    patches = tokens[:, first:].gather(1, chosen[..., None].expand(-1, -1, tokens.shape[2]))
    return torch.cat([tokens[:, :first], patches], dim=1)
