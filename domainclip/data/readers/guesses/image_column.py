"""The column that names the images, and the folder that the names start from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from domainclip.data.readers.guesses.profiles import ColumnProfile
from domainclip.data.readers.sources.columns import guess_column
from domainclip.data.readers.sources.image_files import image_suffix

_TRIED = 100  # cells of a column
_MAX_FOLDERS = 200
_MIN_SHARE = 0.5


@dataclass(frozen=True)
class ImageColumn:
    """A column of images: cells that hold them, or names of files."""

    name: str
    folder: str | None  # that the names start from, absolute; None: the cells hold the images
    tried: int
    existing: int
    first: str = ""  # the first file, absolute; empty without one


def find_image_column(profiles: Sequence[ColumnProfile], root: Path, source: str) -> ImageColumn | None:
    """The column whose cells hold images, or name files below or beside `root`; None without any.

    A column with the usual name comes first, then the one with the most names of existing files; a column
    whose cells end as names of images do is taken where no file exists.
    """
    for profile in profiles:
        if profile.images > _MIN_SHARE * max(1, profile.filled):
            return ImageColumn(profile.name, None, profile.filled, profile.images)
    usual = guess_column("image", [profile.name for profile in profiles], source)
    named = sorted(profiles, key=lambda profile: profile.name != usual)
    texts = [p for p in named if p.counts and not p.is_numeric and not p.is_address]
    found = [column for profile in texts if (column := _in_folders(profile, root)) is not None]
    if found:
        best = max(found, key=lambda column: column.existing / column.tried)
        return found[0] if found[0].existing / found[0].tried > 0.9 else best
    for profile in texts:
        cells = list(islice(profile.counts, _TRIED))
        if sum(bool(image_suffix(Path(cell))) for cell in cells) > 0.8 * len(cells):
            return ImageColumn(profile.name, str(root), len(cells), 0)
    return None


def _in_folders(profile: ColumnProfile, root: Path) -> ImageColumn | None:
    cells = [cell.replace("\\", "/") for cell in islice(profile.counts, _TRIED)]
    if sum(len(cell) > 255 for cell in cells) > 0.1 * len(cells):
        return None
    if all(map(os.path.isabs, cells)):
        folders: Iterator[Path] = iter([_common(profile)])
    else:
        folders = _folders(root)
    for folder in folders:
        # Most folders hold none: the first cells show it.
        if not any(_is_file(folder, cell) for cell in cells[:5]):
            continue
        existing = [cell for cell in cells if _is_file(folder, cell)]
        if len(existing) >= _MIN_SHARE * len(cells):
            first = str(folder / existing[0])
            return ImageColumn(profile.name, str(folder), len(cells), len(existing), first)
    return None


def _common(profile: ColumnProfile) -> Path:
    """The folder that holds all files of a column of absolute paths."""
    return Path(os.path.commonpath([os.path.dirname(cell.replace("\\", "/")) for cell in profile.counts]))


def _folders(root: Path) -> Iterator[Path]:
    """The folder of the table, the folders in it, and those beside it."""
    yield root
    below = sorted(islice(_subfolders(root), _MAX_FOLDERS))
    yield from below
    for folder in below[:20]:
        yield from sorted(islice(_subfolders(folder), _MAX_FOLDERS))
    if root.parent != root:
        yield root.parent
        yield from sorted(islice(_subfolders(root.parent), _MAX_FOLDERS))


def _subfolders(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    yield Path(entry.path)
    except OSError:
        return


def _is_file(folder: Path, name: str) -> bool:
    try:
        return (folder / name.partition("#")[0]).is_file() or (folder / name).is_file()
    except (OSError, ValueError):  # no name of a file
        return False
