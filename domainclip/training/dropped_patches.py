"""Which patches of the images of a step are read, where the strategy leaves out a share of them.

Legend: b pairs of this process, a anchor images of this process, k patches that an image is read by.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from domainclip import seeding
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.patch_dropout import PATCHES_READ


def with_patches_read(
    image: dict[str, Tensor],
    model: DualEncoder,
    seed: int,
    step: int,
    pairs: Sequence[int],
    groups: int = 0,
    anchors: Sequence[int] = (),
) -> dict[str, Tensor]:
    """The images of a step with (…, k) patches that each is read by; unchanged where all are read.

    `image` has a row for each of `pairs`, b more for each of the further `groups`, then one for each of
    `anchors`. The draw of an image is a function of seed, step, item and group: the same in any number of
    processes, in both encodings of gradient caching and after a resume.
    """
    if model.patch_dropout is None:
        return image
    keys = [
        seeding.stable(seed, step, row, "patches read", group) for group in range(1 + groups) for row in pairs
    ]
    keys += [seeding.stable(seed, step, row, "patches read", "anchor") for row in anchors]
    return {**image, PATCHES_READ: model.patch_dropout.draw(keys)}
