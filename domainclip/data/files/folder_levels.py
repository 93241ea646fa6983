"""The folders around a file as columns: `folder_1` is the outermost one inside the corpus folder."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_NAME = re.compile(r"folder_[1-9]")


def is_folder_level(name: str) -> bool:
    """Whether a column is a level of the folders around the image, not one of the source."""
    return _NAME.fullmatch(name) is not None


def folder_levels(name: str, with_split: bool) -> dict[str, str]:
    """The folders of a file by level, from its name relative to the corpus folder.

    `with_split`: the outermost folder names the split, and is no level.
    """
    folders = PurePosixPath(name.replace("\\", "/")).parts[:-1]
    return {f"folder_{level}": folder for level, folder in enumerate(folders[with_split:], start=1)}
