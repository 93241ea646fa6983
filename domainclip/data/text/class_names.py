"""Names of classes: those that are equal but for their spelling, and those that say nothing in a prompt."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

# Between words; between digits it separates two numbers, as in 1-2.
_JOINTS = re.compile(r"(?<=[^\W_])[\s_\-\u2010-\u2015]+(?=[^\W_])")
_NUMBER = re.compile(r"((class|cls|label|category|index|idx|id)[\s_-]*)?[+-]?\d+([.,]\d+)?", re.IGNORECASE)
_WORDNET = re.compile(r"n\d{8}")
# Folders that lie around the class folders: read as a class, all items have it.
_WRAPPERS = frozenset(
    [
        *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "samples", "files"),
        *("jpg", "jpeg", "jpegs", "jpegimages", "png", "pngs", "data", "dataset", "datasets", "raw", "all"),
        *("train", "training", "test", "testing", "val", "valid", "validation", "split", "splits"),
        *("classes", "labels", "annotations", "masks", "original", "originals", "thumbnails", "unsorted"),
    ]
)

# What tables and data frames write into a cell without a value.
_MISSING = frozenset(["nan", "none", "null", "n/a", "na", "<na>", "nat", "?", "-", "--"])

NameKind = Literal["number", "wordnet", "wrapper", "missing"]


def fold(name: str) -> str:
    """The name in lower case, in one Unicode form, without spaces, hyphens or underscores between words."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip(" _\t\n")

    def joint(match: re.Match[str]) -> str:
        numbers = text[match.start() - 1].isdigit() and text[match.end()].isdigit()
        return " " if numbers else ""

    return _JOINTS.sub(joint, text)


def alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of two or more distinct names that are equal once folded; each is sorted."""
    by_folded: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        by_folded[fold(name)].append(name)
    return [group for group in by_folded.values() if len(group) > 1]


def kind(name: str) -> NameKind | None:
    """The kind of a name that has no meaning in a prompt; None for any other name."""
    text = name.strip()
    if _NUMBER.fullmatch(text):
        return "number"
    if _WORDNET.fullmatch(text):
        return "wordnet"
    if text.casefold() in _MISSING:
        return "missing"
    return "wrapper" if fold(text) in _WRAPPERS else None


def quoted(names: Iterable[str], limit: int = 5) -> str:
    """The first names in quotation marks, and the number of further ones."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(f'"{name}"' for name in listed[:limit]) + more
