"""Frames of one file: their selection, and their individual attributes [DICOM PS3.3 C.7.6.6, C.7.6.16]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from domainclip.errors import UnreadableImage

FramePolicy = Literal["first", "middle", "key", "all"]
SIZE_KEYWORDS = ("NumberOfFrames", "Rows", "Columns")
_MIN_FRAGMENT = 10  # bytes of a compressed frame: a header of 8, and an even number of data
_MAX_DEFLATE_RATIO = 1032  # inflated bytes of each deflated one
# The groups of an enhanced file that hold rescale and window of a frame.
_FUNCTIONAL_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def frame_index(value: int | str, count: int, name: str) -> int:
    """The index of the frame that a location selects, from 0.

    Raises: UnreadableImage if the file has no such frame.
    """
    frame = int(value) if isinstance(value, int) or value.isdecimal() else -1
    if not 0 <= frame < count:
        raise UnreadableImage(name, f"no such frame: it has {count}, from 0")
    return frame


def check_frame_count(attributes: Mapping[str, str], size: int, name: str) -> None:
    """Check that a file of `size` bytes can contain NumberOfFrames: a few bytes could claim 100,000.

    Raises: UnreadableImage if it cannot.
    """
    count, rows, columns, bits = (
        int(text) if text.isdecimal() else 1
        for text in (attributes.get(keyword, "") for keyword in (*SIZE_KEYWORDS, "BitsAllocated"))
    )
    syntax = UID(attributes.get("TransferSyntaxUID", ""))
    if syntax.is_private or not syntax.is_transfer_syntax or syntax.is_encapsulated:
        frame_bytes = _MIN_FRAGMENT
    elif syntax == DeflatedExplicitVRLittleEndian:
        frame_bytes = max(1, rows * columns * bits // 8 // _MAX_DEFLATE_RATIO)
    else:
        frame_bytes = max(1, rows * columns * bits // 8)
    if count > 1 and count * frame_bytes > size:
        raise UnreadableImage(name, "more frames (NumberOfFrames) than the file can hold")


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
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    of_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]
    for groups in (*shared, *of_frame):
        for group in _FUNCTIONAL_GROUPS:
            for item in list(groups.get(group) or [])[:1]:
                dataset.update(item)
