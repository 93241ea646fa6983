"""Groups that are left out of a split, since nearly the same image is in a split that is measured later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from domainclip.data.images.copies import find_copies
from domainclip.data.images.corpus_images import CorpusImages, positions_of
from domainclip.data.images.inspection import inspect_images
from domainclip.data.schema import SPLITS
from domainclip.distributed.phases import phase

if TYPE_CHECKING:
    from datasets import DatasetDict

COPY = "near-duplicate of an image in a later split"
OF_GROUP = "of a group with a near-duplicate in a later split"


@dataclass(frozen=True)
class LeftOut:
    """What is left out, by split."""

    groups: Mapping[str, frozenset[str]]
    copies: Mapping[str, frozenset[str]]  # ids of the items that hold such an image

    def reason(self, split: str, id: str, group: str) -> str:
        """Why an item is left out; empty for one that stays."""
        if group not in self.groups[split]:
            return ""
        return COPY if id in self.copies[split] else OF_GROUP


@phase("searching for images that are nearly the same in two splits")
def groups_to_leave_out(
    splits: DatasetDict, digests: Mapping[str, Sequence[str]], workers: int = 0
) -> LeftOut:
    """The groups of training and validation with a copy of an image in a later split.

    `digests` are those of the images of each item, by id. Validation gives way to test, then training to
    both: what is measured stays as published. No model decides, so all models see the same items. A group
    is left out whole: with a copy of its image in another split, it is no other group.
    """
    ids = {name: splits[name]["id"][:] for name in SPLITS}
    groups = {name: splits[name]["group"][:] for name in SPLITS}
    positions, of_images = positions_of(ids, digests)
    inspected = inspect_images(CorpusImages(splits, positions), of_images, workers)
    alike = [(pair.first, pair.second) for pair in find_copies(inspected, of_images, workers=workers)]
    left_out: dict[str, set[str]] = {name: set() for name in SPLITS}
    copies: dict[str, set[str]] = {name: set() for name in SPLITS}
    for losing, *later in (SPLITS[1:], SPLITS):
        for same in [*alike, *_equal_files(of_images)]:
            places = [positions[index] for index in same]
            if not any(
                place.split in later and groups[place.split][place.row] not in left_out[place.split]
                for place in places
            ):
                continue
            rows = [place.row for place in places if place.split == losing]
            left_out[losing] |= {groups[losing][row] for row in rows}
            copies[losing] |= {ids[losing][row] for row in rows}
    return LeftOut(
        {name: frozenset(left_out[name]) for name in SPLITS},
        {name: frozenset(copies[name]) for name in SPLITS},
    )


def _equal_files(digests: Sequence[str]) -> list[list[int]]:
    """The images that are equal byte for byte to others, by index."""
    by_digest: dict[str, list[int]] = {}
    for index, digest in enumerate(digests):
        by_digest.setdefault(digest, []).append(index)
    return [indices for indices in by_digest.values() if len(indices) > 1]
