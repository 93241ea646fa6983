"""Frames of one file: their selection, and their individual attributes [DICOM PS3.3 C.7.6.6, C.7.6.16]."""

from __future__ import annotations

from typing import Literal

from pydicom.dataset import Dataset

from domainclip.data.dicom import attributes
from domainclip.errors import UnreadableImage

FramePolicy = Literal["first", "middle", "key", "all"]
GROUP_KEYWORDS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
# The groups of an enhanced file that hold rescale and window of a frame.
_FUNCTIONAL_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def frame_index(value: int | str, count: int, name: str) -> int:
    """The index of the frame that a location selects, from 0.

    Raises: UnreadableImage if the file has no such frame.
    """
    frame = int(value) if isinstance(value, int) or value.isdecimal() else -1
    if not 0 <= frame < count:
        raise UnreadableImage(name, "no such frame (counted from 0)")
    return frame


def select_frames(policy: FramePolicy, count: int, representative: int | None = None) -> list[int]:
    """The indices of the frames that a policy selects, from 0; `representative` is the file's, from 1.

    The policy "key" takes the middle frame of a file without a representative one: the middle of a pass
    through an organ, or of a heart beat.
    """
    if policy == "all":
        return list(range(count))
    if policy == "key" and representative is not None and 1 <= representative <= count:
        return [representative - 1]
    return [0 if policy == "first" else count // 2 if count % 2 else (count - 1) // 2]


def apply_frame_groups(dataset: Dataset, frame: int) -> None:
    """Set a frame's rescale and window at the top level of the dataset, where other files have them.

    Values of the frame override values that all frames share.
    """
    of_all, of_each = (attributes.items(dataset, keyword) for keyword in GROUP_KEYWORDS)
    shared, of_frame = of_all[:1], of_each[frame : frame + 1]
    for groups in (*shared, *of_frame):
        for group in _FUNCTIONAL_GROUPS:
            for item in attributes.items(groups, group)[:1]:
                dataset.update(item)
