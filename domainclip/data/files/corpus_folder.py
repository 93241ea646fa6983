"""Files of a corpus: every path of a table is resolved inside the corpus folder, or refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from domainclip.data.files import locations
from domainclip.errors import DataError


def path_inside(root: Path, name: str, where: str) -> Path:
    """The location in the corpus folder `root` that a table names; its fragment is preserved.

    Raises: DataError, beginning with `where`, if the file lies outside the folder, by `..`, an absolute path
        or a link: a table may come from anyone, and must not reach other files of this machine.
    """
    file, fragment = locations.split_location(str(root / name))  # "link.dcm#frame=1" may be a link as well
    try:
        path = Path(file).resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of links, a NUL byte
        path = Path("/")
    if not path.is_relative_to(root):
        raise DataError(f"{where}: the file lies outside the corpus folder {root}: move or copy it inside")
    return Path(locations.join_location(str(path), fragment))


def read_text(file: Path, encoding: str, place: str) -> str:
    """The content of an image's caption file; "" if there is no such file.

    Raises: DataError, beginning with `place`, if the text has another encoding.
    """
    try:
        return file.read_text(encoding=encoding) if file.is_file() else ""
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise DataError(
            f"{place}: byte {error.start} of its .txt is not {name}: set corpus.options.encoding"
        ) from None
    except LookupError:
        raise DataError(f'corpus.options.encoding: unknown encoding "{encoding}"') from None


def walk_files(root: Path) -> Iterator[Path]:
    """Every file below a folder, in sorted order; hidden files and links to folders are skipped."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files = (Path(folder) / name for name in sorted(names) if not name.startswith("."))
        yield from (file for file in files if file.is_file())  # not a pipe, which would never end
