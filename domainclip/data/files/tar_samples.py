"""The samples of a tar file: members that share a key, `KEY.jpg` and `KEY.txt`, also where a key holds dots.

A name is cut before its last known suffix, so that the key of `1.2.840.7.png` is `1.2.840.7`. WebDataset cuts
at the first dot, and writes further members as `KEY.seg.png`. Both are read: a key that extends another,
adjacent key is a sample when it has an image and a text, and else a further member of that other sample.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

IMAGE_SUFFIXES = (
    *("jpg", "jpeg", "png", "webp", "tif", "tiff", "gif", "bmp", "jp2", "avif", "ppm"),
    *("jfif", "dcm", "dicom", "fits", "fit", "fts"),
)
TEXT_SUFFIXES = ("txt", "json", "cls")
# Members that other readers unpickle or import.
CODE_SUFFIXES = ("pkl", "pickle", "pyd", "pth", "pt", "py", "so", "joblib")
# Suffixes that messages may show. After a dot may stand anything, as in a.DOE_JANE: all others are "other".
_OTHER_SUFFIXES = """
    npy npz mat h5 hdf5 parquet csv tsv jsonl yaml yml xml html md pdf doc docx log bin zip gz mp4 avi mov
    webm mkv wav mp3 flac ogg nii nrrd heic svg eps psd raw jfif fit fz dicom
"""
REPORTABLE_SUFFIXES = frozenset((*IMAGE_SUFFIXES, *TEXT_SUFFIXES, *CODE_SUFFIXES, *_OTHER_SUFFIXES.split()))
OTHER_SUFFIX = "other"
# Further images of a sample: our own extension of the layout.
_VIEW_SUFFIX = re.compile(r"view\d+\.(" + "|".join(IMAGE_SUFFIXES) + ")")
_NAME = re.compile(
    rf"(?P<key>.+?)\.(?P<suffix>{_VIEW_SUFFIX.pattern}|{'|'.join((*IMAGE_SUFFIXES, *TEXT_SUFFIXES))})",
    re.IGNORECASE | re.DOTALL,
)
_MAX_OPEN = 8  # samples of a family: of a stream, their images are in memory


@dataclass(frozen=True)
class Sample:
    """Members that share a key, by suffix: each is (offset, size) in the file, or its bytes in a stream."""

    key: str
    number: int  # of its first member, from 1
    members: dict[str, Any]

    @property
    def image_suffix(self) -> str | None:
        """The suffix of its image; None: it has none."""
        return next((suffix for suffix in IMAGE_SUFFIXES if suffix in self.members), None)

    @property
    def is_pair(self) -> bool:
        """Whether it has an image and a text."""
        return self.image_suffix is not None and any(suffix in self.members for suffix in TEXT_SUFFIXES)

    @property
    def view_suffixes(self) -> list[str]:
        """The suffixes of its further images, in the order of their numbers."""
        suffixes = [suffix for suffix in self.members if _VIEW_SUFFIX.fullmatch(suffix)]
        return sorted(suffixes, key=lambda suffix: int(suffix[4:].partition(".")[0]))


@dataclass(frozen=True)
class IgnoredMember:
    """A member that is not read."""

    suffix: str  # one of REPORTABLE_SUFFIXES, or OTHER_SUFFIX; "*.png" of a further image of a sample


def split_name(file: str) -> tuple[str, str]:
    """The key and the suffix of a member's name, cut before the last known suffix; ("", "") for any other."""
    match = None if file.startswith(".") else _NAME.fullmatch(file)
    return (match["key"], match["suffix"].lower()) if match else ("", "")


@dataclass
class SampleFamily:
    """Adjacent samples whose keys extend each other; they are told apart once all their members are known."""

    samples: dict[str, Sample] = field(default_factory=dict)  # by key

    def has_room(self, key: str, suffix: str) -> bool:
        """Whether a member continues an open sample, which has none of this suffix yet."""
        return key in self.samples and suffix not in self.samples[key].members

    def is_related(self, key: str) -> bool:
        """Whether a key belongs to the family: it extends a key, is extended by one, or may be as one is."""
        if key in self.samples:
            return True
        parent = _parent(key)
        return len(self.samples) < _MAX_OPEN and any(
            key.startswith(f"{other}.")
            or other.startswith(f"{key}.")
            or (parent and parent == _parent(other) and not sample.is_pair)
            for other, sample in self.samples.items()
        )

    def open(self, key: str, number: int) -> int:
        """Open the sample of a key, if it is not; its position in the family."""
        self.samples.setdefault(key, Sample(key, number, {}))
        return list(self.samples).index(key)

    def close(self) -> list[Sample | IgnoredMember]:
        """The samples in order, and the members of those that only extend another."""
        entries: list[Sample | IgnoredMember] = []
        for key, sample in self.samples.items():
            base = next((other for name, other in self.samples.items() if key.startswith(f"{name}.")), None)
            if base is None or sample.is_pair:
                entries.append(sample)
                continue
            for suffix, content in sample.members.items():
                # cat.png.txt is the text of cat.png.
                if suffix in TEXT_SUFFIXES and key[len(base.key) + 1 :] in base.members:
                    base.members.setdefault(suffix, content)
                else:
                    entries.append(IgnoredMember(f"*.{suffix.rpartition('.')[2]}"))
        self.samples = {}
        return [entry for entry in entries if not isinstance(entry, Sample) or entry.members]


def _parent(key: str) -> str:
    """The key without its part after the last dot; "" when its file name has no dot."""
    parent, _, part = key.rpartition(".")
    return "" if "/" in part else parent
