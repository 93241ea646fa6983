"""Frames of one file: which are shown, and what each says for itself [DICOM PS3.3 C.7.6.6, C.7.6.16]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from domainclip.errors import UnreadableImage

FramePolicy = Literal["first", "middle", "key", "all"]
SIZE_KEYWORDS = ("NumberOfFrames", "Rows", "Columns")
_MIN_FRAGMENT = 10  # bytes of a compressed frame at least: a header of 8, and an even number of its own
_MAX_DEFLATE_RATIO = 1032  # bytes of one, at most
# The groups of an enhanced file that say how a frame's values are to be understood and shown.
_FUNCTIONAL_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def frame_index(value: int | str, count: int, name: str) -> int:
    """The frame that a path asks for, from 0.

    Raises: UnreadableImage for one that the file does not have.
    """
    frame = int(value) if isinstance(value, int) or value.isdecimal() else -1
    if not 0 <= frame < count:
        raise UnreadableImage(name, f"no such frame: it has {count}, from 0")
    return frame


def check_frame_count(attributes: Mapping[str, str], size: int, name: str) -> None:
    """Stops at a header that says more frames than a file of `size` bytes can hold.

    Raises: UnreadableImage; else a few bytes would make a hundred thousand pictures.
    """
    count, rows, columns, bits = (
        int(said) if said.isdecimal() else 1
        for said in (attributes.get(word, "") for word in (*SIZE_KEYWORDS, "BitsAllocated"))
    )
    syntax = UID(attributes.get("TransferSyntaxUID", ""))
    if syntax.is_private or not syntax.is_transfer_syntax or syntax.is_encapsulated:
        least = _MIN_FRAGMENT
    elif syntax == DeflatedExplicitVRLittleEndian:
        least = max(1, rows * columns * bits // 8 // _MAX_DEFLATE_RATIO)
    else:
        least = max(1, rows * columns * bits // 8)
    if count > 1 and count * least > size:
        raise UnreadableImage(name, "more frames (NumberOfFrames) than the file can hold")


def select_frames(policy: FramePolicy, count: int, representative: int | None = None) -> list[int]:
    """The frames that a policy shows, from 0; `representative` is the file's own choice, from 1.

    A file without such a choice shows the middle one, where a run through an organ or a heart beat is.
    """
    if policy == "all":
        return list(range(count))
    if policy == "key" and representative is not None and 1 <= representative <= count:
        return [representative - 1]
    return [0 if policy == "first" else count // 2 if count % 2 else (count - 1) // 2]


def apply_frame_groups(dataset: Dataset, frame: int) -> None:
    """Brings a frame's own rescale and window to the top of the file, where all others have theirs.

    What stands for this frame goes before what all frames share.
    """
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    own = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]
    for groups in (*shared, *own):
        for group in _FUNCTIONAL_GROUPS:
            for item in list(groups.get(group) or [])[:1]:
                dataset.update(item)
