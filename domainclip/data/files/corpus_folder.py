"""Where the files of a corpus are: inside its folder, or nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from domainclip.data.files import locations
from domainclip.errors import DataError


def path_inside(root: Path, name: str, where: str) -> Path:
    """The file that a name in a table means, with the place inside it where the name says one.

    Raises: DataError when it lies outside the corpus folder, by `..`, an absolute path or a link: a table
    may come from anyone, and must not reach for other files of this machine.
    """
    file, place = locations.split_location(str(root / name))  # "link.dcm#frame=1" is a link as well
    try:
        path = Path(file).resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of links, a NUL byte
        path = Path("/")
    if not path.is_relative_to(root):
        raise DataError(f"{where}: the file lies outside the corpus folder {root}: move or copy it inside")
    return Path(locations.join_location(str(path), place))


def read_text(file: Path, encoding: str, place: str) -> str:
    """What stands in a text file beside an image; nothing when there is none.

    Raises: DataError for text in another encoding.
    """
    try:
        return file.read_text(encoding=encoding) if file.is_file() else ""
    except UnicodeDecodeError as error:
        kind = encoding.removesuffix("-sig").upper()
        raise DataError(
            f"{place}: byte {error.start} of its .txt is not {kind}: set corpus.options.encoding"
        ) from None
    except LookupError:
        raise DataError(f'corpus.options.encoding: unknown encoding "{encoding}"') from None


def walk_files(root: Path) -> Iterator[Path]:
    """Every file below a folder, in sorted order; hidden ones and links to folders are passed over."""
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        found = (Path(folder) / name for name in sorted(files) if not name.startswith("."))
        yield from (file for file in found if file.is_file())  # a pipe would never end
